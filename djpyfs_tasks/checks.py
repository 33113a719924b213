"""System checks of the broker: whether there is one, and what one-shots need of it."""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register

from djpyfs import conf
from djpyfs.errors import ConfigurationError

VISIBILITY_TIMEOUT = 3_600  # s, kombu's default for Redis


@register("djpyfs")
def check_horizon(**_: Any) -> list[CheckMessage]:
    """Tell where the broker would deliver one-shots again and again before their time."""
    try:
        settings = conf.current()
    except ConfigurationError:  # which djpyfs' own check tells
        return []
    options = current_app.conf.broker_transport_options or {}
    timeout = options.get("visibility_timeout", VISIBILITY_TIMEOUT)
    if not settings.one_shot or settings.one_shot_horizon < timeout:
        return []
    return [
        Warning(
            f"DJFS['one_shot_horizon'] is {settings.one_shot_horizon:g} s, and the broker delivers "
            f"a task again after {timeout:g} s",
            hint="Make the horizon shorter than the broker's visibility_timeout.",
            obj="settings.DJFS",
            id="djpyfs.W006",
        )
    ]


@register("djpyfs")
def check_broker(**_: Any) -> list[CheckMessage]:
    """Tell where our own app would look for its queues in a Redis Cluster."""
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
            hint="Set CELERY_BROKER_URL to another broker, or bring a Celery app of your own.",
            obj="settings.DJFS",
            id="djpyfs.E005",
        )
    ]
