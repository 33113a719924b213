"""Finds out whether openedx-django-pyfs, which owns the same directory, has replaced files.

Neither pip nor uv keeps two distributions from owning one file: the one installed last overwrites
it, and uninstalling either removes it; uv installs both at once, and then each file may be of
another. Whatever calls this must be a file that openedx-django-pyfs does not have, and that runs
when a site or a worker starts.
"""

from __future__ import annotations

from importlib import import_module

from django.core.exceptions import ImproperlyConfigured

import djpyfs


def check_intact() -> None:
    """Raise `ImproperlyConfigured` if files of djpyfs have been replaced or removed."""
    try:
        is_whole = import_module("djpyfs.djpyfs").get_filesystem is djpyfs.get_filesystem
    except Exception:  # that of the other distribution wants its table
        is_whole = False
    if not is_whole:
        raise _replaced()


def check_models(models: object) -> None:
    """Raise `ImproperlyConfigured` if the ``models`` of djpyfs, now loaded, are another's."""
    if not hasattr(models, "ExpiringFile"):
        raise _replaced()


def _replaced() -> ImproperlyConfigured:
    return ImproperlyConfigured(
        "openedx-django-pyfs, which owns the same directory, has replaced files of djpyfs or "
        "taken them away: no file would ever be deleted. Install djpyfs once more, after it: "
        "pip install --force-reinstall --no-deps djpyfs"
    )
