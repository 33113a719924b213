"""One-shots: a task for each deadline that is near, so that the file goes within a second.

They are a convenience: the deadline is in the record store already, and if a one-shot cannot be
sent, or is lost, the next sweep deletes the file.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from time import monotonic
from typing import Any

from celery import bootsteps, current_app
from celery.signals import celeryd_init, task_received

from djpyfs import conf
from djpyfs.conf import SECOND
from djpyfs.errors import InvalidName, RecordStoreError
from djpyfs.names import Entry
from djpyfs.places import Place, places_here
from djpyfs.signals import deadline_set

from .tasks import MOST_PATHS, delete_expired, send_one_shot

log = logging.getLogger("djpyfs.tasks")

SILENCE = 30.0  # s without another try after the broker was found to be away

_silent_until = 0.0


def listen() -> None:
    """Send one-shots for the deadlines that are set in this process, and look after them here."""
    deadline_set.connect(send_one_shots, dispatch_uid="djpyfs_tasks.one_shots")
    task_received.connect(acknowledge, dispatch_uid="djpyfs_tasks.one_shots")
    celeryd_init.connect(look_after, dispatch_uid="djpyfs_tasks.one_shots")


def send_one_shots(*, namespace: str, paths: list[str], ttl: float, **_: Any) -> None:
    """Send the tasks that delete files ``ttl`` seconds from now, if that is near enough.

    They wait in the memory of a worker, so files due after ``one_shot_horizon`` are left to the
    sweep.
    """
    global _silent_until
    if ttl > conf.current().one_shot_horizon or monotonic() < _silent_until:
        return
    _use_own_app_where_there_is_none()
    try:
        for first in range(0, len(paths), MOST_PATHS):
            send_one_shot(namespace, paths[first : first + MOST_PATHS], ttl)
    except Exception as error:  # whatever the transport raises: expire() must not fail for it
        _silent_until = monotonic() + SILENCE
        log.warning("one-shots are off for %g s, sweeps go on: %s", SILENCE, error)


def _use_own_app_where_there_is_none() -> None:
    if current_app.main == "default":  # the stand-in that Celery makes up
        from .celery import app

        app.set_current()


def acknowledge(request: Any, **_: Any) -> None:
    """Acknowledge a one-shot before it waits in the worker for its time.

    Celery 5.7.0 ends if the broker goes away while an unacknowledged task waits. Earlier
    versions get such a task back after the visibility timeout, which is too late as well.
    """
    if request.name == delete_expired.name and request.eta:
        request.acknowledge()


def look_after(*, instance: Any, **_: Any) -> None:
    """Have a worker send lost one-shots again, each time it has connected to the broker."""
    instance.app.steps["consumer"].add(SendAgain)


class SendAgain(bootsteps.StartStopStep):
    """Sends the one-shots that were lost with a worker, or with its connection to the broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        send_again()


def send_again() -> None:
    """Send one-shots for what is due next."""
    settings = conf.current()
    if not settings.one_shot:
        return
    try:
        for place in places_here(settings):
            for (namespace, seconds), paths in _near(place).items():
                send_one_shots(namespace=namespace, paths=paths, ttl=seconds)
    except RecordStoreError as error:
        log.warning("lost one-shots are left to the sweep: %s", error)


def _near(place: Place) -> dict[tuple[str, int], list[str]]:
    """Return the first files that are due, by namespace and by the whole seconds until then."""
    members = [record.member for record in place.records.earliest(MOST_PATHS)]
    now, deadlines = place.records.deadlines(members)
    near: dict[tuple[str, int], list[str]] = {}
    for member, deadline in zip(members, deadlines, strict=True):
        seconds = max(0, -(-(deadline - now) // SECOND))
        with suppress(InvalidName):  # no file has it
            namespace, path = Entry.of_member(member)
            near.setdefault((namespace, seconds), []).append(path)
    return near
