"""The timekeeper: sends a sweep when something is due, so that files go within about a second.

One worker keeps the time of all files of a place, by a lease in the record store. Once a second,
and when the next deadline has come, it asks what is due next: no file costs a message of its own,
and nobody has to announce a deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from threading import Event, Thread
from time import monotonic
from typing import Any
from uuid import uuid4

from celery import bootsteps
from celery.signals import celeryd_init

from djpyfs import conf
from djpyfs.conf import SECOND
from djpyfs.expirations import NextDue, store_for
from djpyfs.places import places_here

from .schedule import beat_schedule

LOOK = 1.0  # s between two looks at the record store if nothing is due earlier
LEASE = 5_000  # ms for which nobody else keeps the time: some looks may be late
# Between two sweeps: what has become due meanwhile goes with the second one.
GAP = 0.125  # s
SLACK = 0.002  # s after a deadline, because waiting is not exact
# A sweep that has not begun after this time may be lost. Another one is sent then, and the next
# after twice the time, up to the interval of beat: they must not pile up while no worker is free.
PATIENCE = 1.0  # s
ENDING = 2.0  # s for giving up the lease when the worker ends

log = logging.getLogger("djpyfs.tasks")


class Timekeeper:
    """Calls ``send_sweep`` when something is due in a place whose lease it has, by its ``name``."""

    def __init__(self, name: str, send_sweep: Callable[[], object]) -> None:
        self._name = name
        self._send_sweep = send_sweep
        self._kept: Set[str] = frozenset()
        # When the last sweep was sent, by the clock of each shard's server. Should that be set
        # back, the next one is sent when this one counts as lost.
        self._sent: dict[tuple[str, int], int] = {}
        self._patience = PATIENCE
        self._lost_at = 0.0

    def look(self) -> float:
        """Send a sweep if there is work for it; return for how many seconds to wait.

        Raises `RecordStoreError` if the record store is away, and whatever sending raises.
        """
        settings = conf.current()
        if not settings.punctual:
            return LOOK
        here = [place.records for place in places_here(settings, logging.DEBUG)]
        kept = [records for records in here if records.place in self._kept]
        time_kept = store_for(settings).keep_time(self._name, LEASE, here, kept)
        is_first_look = bool(time_kept.places - self._kept)
        self._kept = time_kept.places
        if time_kept.problems and not time_kept.places:
            raise time_kept.problems[0]
        if is_first_look:
            return 0.0
        return self._judge(time_kept.next_due, settings.sweep_interval)

    def resign(self) -> None:
        """Let another one keep the time."""
        settings = conf.current()
        here = [place.records for place in places_here(settings, logging.DEBUG)]
        store_for(settings).keep_time(self._name, 0, here)

    def _judge(self, shards: Sequence[NextDue], longest_patience: float) -> float:
        due = [it for it in shards if it.is_due]
        if any(map(self._is_news, due)):
            self._patience = PATIENCE
        elif due and monotonic() >= self._lost_at:
            self._patience = min(2 * self._patience, longest_patience)
        else:
            waits = [it.wait / SECOND + SLACK for it in shards if it.wait]
            return min(LOOK, *waits) if waits else LOOK
        self._send_sweep()
        self._sent = {(it.records.place, it.shard): it.now for it in shards}
        self._lost_at = monotonic() + self._patience
        return GAP

    def _is_news(self, it: NextDue) -> bool:
        """Return whether this has become due since the last sweep was sent."""
        sent = self._sent.get((it.records.place, it.shard), 0)
        return it.due is not None and it.due > sent


class KeepTime(bootsteps.StartStopStep):
    """Keeps time beside the work of a Celery worker."""

    requires = ("celery.worker.components:Pool",)  # which forks: there must be no thread yet

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._is_over = Event()
        self._thread = Thread(target=self._run, args=[parent], name="timekeeper", daemon=True)

    def start(self, parent: Any) -> None:
        self._thread.start()

    def stop(self, parent: Any) -> None:
        self._is_over.set()
        self._thread.join(ENDING)

    terminate = stop

    def _run(self, worker: Any) -> None:
        [tick] = beat_schedule().values()

        def send_sweep() -> None:
            worker.app.send_task(tick["task"], **tick["options"])

        timekeeper = Timekeeper(f"{worker.hostname} {uuid4().hex[:8]}", send_sweep)
        trouble, pause = "", 0.0
        while not self._is_over.wait(pause):
            try:
                pause, now = timekeeper.look(), ""
            except Exception as error:  # whatever it is: the next look may succeed
                pause, now = LOOK, str(error) or type(error).__name__
            if now and not trouble:
                log.warning("this worker keeps no time, so files wait for beat's sweeps: %s", now)
            elif trouble and not now:
                log.info("this worker keeps time again")
            trouble = now
        try:
            timekeeper.resign()
        except Exception as error:  # it lapses soon
            log.info("the timekeeper's lease was not given up: %s", error)


def listen() -> None:
    """Have each worker that starts in this process keep time."""
    celeryd_init.connect(keep_time, dispatch_uid="djpyfs_tasks.timekeeper")


def keep_time(*, instance: Any, **_: Any) -> None:
    """Give a worker the step that keeps time."""
    instance.app.steps["worker"].add(KeepTime)
