"""The project's Celery app: what Celery's documentation shows, and one line for the sweep."""

from __future__ import annotations

import os

from celery import Celery

from djpyfs_tasks import beat_schedule

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.own_app.settings")

app = Celery("own_app")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {**beat_schedule()}
