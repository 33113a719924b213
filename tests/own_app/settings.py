"""The project's settings; the environment says which servers a test has started."""

from __future__ import annotations

import os

SECRET_KEY = "for tests only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
USE_TZ = True

CELERY_BROKER_URL = os.environ["BROKER_URL"]
if "RESULTS_URL" in os.environ:
    CELERY_RESULT_BACKEND = os.environ["RESULTS_URL"]

INSTALLED_APPS += ["djpyfs", "djpyfs_tasks"]
DJFS = {
    "type": "osfs",
    "directory_root": os.environ["FILES"],
    "redis_url": os.environ["RECORDS_URL"],
    "sweep_interval": 1,
    "punctual": os.environ.get("PUNCTUAL") == "1",
    "one_shot": os.environ.get("ONE_SHOT") == "1",
    "batch_size": int(os.environ.get("BATCH_SIZE", "1000")),
}
