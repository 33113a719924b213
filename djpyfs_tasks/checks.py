"""System check of the broker: whether there is one."""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register

from djpyfs import conf
from djpyfs.errors import ConfigurationError


@register("djpyfs")
def check_broker(**_: Any) -> list[CheckMessage]:
    """Report that the bundled app would look for its queues in a Redis Cluster."""
    try:
        scheme = conf.current().redis_url.partition("://")[0]
    except ConfigurationError:
        return []
    ours = current_app.main in ("default", "djpyfs")  # the first: what Celery makes up
    if not ours or not scheme.endswith("+cluster") or hasattr(django_settings, "CELERY_BROKER_URL"):
        return []
    return [
        Error(
            "DJFS['redis_url'] is a Redis Cluster, which cannot hold Celery's queues",
            hint="Set CELERY_BROKER_URL to another broker, or use a Celery app of your own.",
            obj="settings.DJFS",
            id="djpyfs.E005",
        )
    ]
