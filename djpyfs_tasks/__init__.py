"""Celery for djpyfs: the periodic sweep, the one-shot deletion, and an app that is ready to run.

``celery -A djpyfs_tasks worker|beat|flower`` runs the bundled app. A project that has its own puts
``djpyfs`` and ``djpyfs_tasks`` into ``INSTALLED_APPS`` and adds `beat_schedule` to its schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from djpyfs.intact import check_intact

check_intact()  # before imports that would fail with a worse error

from .schedule import beat_schedule  # noqa: E402

if TYPE_CHECKING:
    from .celery import app

__all__ = ["app", "beat_schedule"]


def __getattr__(name: str) -> object:
    # Made on demand: a second app would stand in the way of the one that a project has.
    if name == "app":
        from .celery import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
