"""Django's system checks: a configuration that cannot work is told at start."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning

from . import conf
from .backends import backend_at
from .errors import ConfigurationError
from .expirations import store_for


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return an error where ``DJFS`` cannot be used. Nothing is connected to."""
    try:
        settings = conf.current()
        store_for(settings)
        for policy in settings.policy, *settings.namespaces.values():
            backend_at(settings, policy.placement)
    except ConfigurationError as error:
        return [Error(str(error), obj="settings.DJFS", id="djpyfs.E001")]
    if settings.one_shot and not apps.is_installed("djpyfs_tasks"):
        return [
            Warning(
                "DJFS['one_shot'] is on, but nothing sends one-shots",
                hint="Add 'djpyfs_tasks' to INSTALLED_APPS, or leave the files to the sweep.",
                obj="settings.DJFS",
                id="djpyfs.W001",
            )
        ]
    return []
