"""A system check of what one-shots need of the broker."""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, Warning, register

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
