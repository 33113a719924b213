"""Django settings of the processes that tests start: ``SETTINGS`` brings some of them, as JSON."""

from __future__ import annotations

import json
import os

SECRET_KEY = "for tests only"
INSTALLED_APPS = ["djpyfs", "djpyfs_tasks"]
USE_TZ = True

if "RESULTS_URL" in os.environ:
    CELERY_RESULT_BACKEND = os.environ["RESULTS_URL"]

globals().update(json.loads(os.environ["SETTINGS"]))
