"""Our own Celery app, for services that have none; Django's ``CELERY_*`` settings override it."""

from __future__ import annotations

from typing import Any

from celery import Celery
from django.conf import settings

from djpyfs import conf

from .schedule import beat_schedule

SWEEPS = "djpyfs.sweep"
ONE_SHOTS = "djpyfs.one_shot"
# A broker that is away must not hold up the web request that offers a one-shot to it.
BROKER_TIMEOUT = 2  # s


def make_app() -> Celery:
    """Return an app whose broker and result store are ``DJFS["redis_url"]``."""
    made = Celery("djpyfs", include=["djpyfs_tasks.tasks"])
    made.config_from_object("django.conf:settings", namespace="CELERY")
    # Celery ranks what an app brings along above the settings that it reads.
    left_to_us = {
        key: value
        for key, value in _configuration().items()
        if not hasattr(settings, f"CELERY_{key.upper()}")
    }
    made.add_defaults(lambda: left_to_us)
    return made


def _configuration() -> dict[str, Any]:
    redis_url = conf.current().redis_url
    return {
        "broker_url": redis_url,
        "result_backend": redis_url,
        # One-shots wait in worker memory for their time; sweeps must not wait behind them.
        "task_routes": {
            "djpyfs_tasks.expire_objects": {"queue": SWEEPS},
            "djpyfs_tasks.delete_expired": {"queue": ONE_SHOTS},
        },
        "task_default_queue": SWEEPS,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_expires": 86_400,
        "result_extended": True,  # Flower shows arguments and worker of past sweeps
        "task_track_started": True,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": BROKER_TIMEOUT,
        "broker_transport_options": {"socket_timeout": BROKER_TIMEOUT},
        "timezone": "UTC",
        "beat_schedule": beat_schedule(),
    }


app = make_app()
