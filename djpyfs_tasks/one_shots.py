"""One-shots: a task for each deadline that is near, so that the file goes within a second.

They are a convenience: the record is in the record store already, and where a one-shot cannot be
sent, or is lost, the next sweep deletes the file.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from celery import current_app

from djpyfs import conf
from djpyfs.signals import deadline_set

from .tasks import MOST_PATHS, delete_expired

log = logging.getLogger("djpyfs.tasks")

SILENCE = 30.0  # s without a further try after the broker was found away

_silent_until = 0.0


def listen() -> None:
    """Send one-shots for the deadlines that are set in this process."""
    deadline_set.connect(send_one_shots, dispatch_uid="djpyfs_tasks.one_shots")


def send_one_shots(*, namespace: str, paths: list[str], ttl: float, **_: Any) -> None:
    """Send the tasks that delete files ``ttl`` seconds from now, if that is near enough.

    A task that waits for longer than the broker's visibility time-out would be delivered again
    and again: what is due after ``one_shot_horizon`` is left to the sweep.
    """
    global _silent_until
    if ttl > conf.current().one_shot_horizon or monotonic() < _silent_until:
        return
    _use_own_app_where_there_is_none()
    try:
        for first in range(0, len(paths), MOST_PATHS):
            some = paths[first : first + MOST_PATHS]
            delete_expired.apply_async((namespace, some), countdown=ttl, retry=False)
    except Exception as error:  # whatever the transport raises: expire() must not fail for it
        _silent_until = monotonic() + SILENCE
        log.warning("one-shots are off for %g s, sweeps go on: %s", SILENCE, error)


def _use_own_app_where_there_is_none() -> None:
    if current_app.main == "default":  # the stand-in that Celery makes up
        from .celery import app

        app.set_current()
