"""The tasks. None carries a right to delete: each asks the record store what is due."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import Task, current_app, shared_task

from djpyfs import conf
from djpyfs.sweeper import Sweep, SweepReport, delete_if_due

from .schedule import LONGEST_WAIT

# A sweep that has used this part of its interval, or had a turn of so many seconds, hands over to
# a follow-up task, so that a long one neither keeps one-shots from the worker's slots nor its
# progress to itself.
PART_OF_INTERVAL = 0.9
TURN = 2.0  # s
# One-shots that come early by no more than this (clocks differ) wait; others leave it be.
EARLY = 5.0  # s
MOST_PATHS = 1_000

log = logging.getLogger("djpyfs.tasks")


# Its start is not stored: a result back-end that is away would keep it from its work.
@shared_task(bind=True, name="djpyfs_tasks.expire_objects", track_started=False)
def expire_objects(self: Task[..., Any], limit: int | None = None) -> dict[str, float]:
    """Sweep until nothing is due; return the `SweepReport` as a dict.

    While it runs Flower sees the report so far, and so does who wants the result, as the state
    PROGRESS. What it has no time for, also because of a soft time limit, is left to a follow-up
    task.
    """
    turn = min(conf.current().sweep_interval * PART_OF_INTERVAL, TURN)
    is_task = bool(self.request.id)  # and was not called as a function
    tell = _Progress(self) if is_task and not self.request.is_eager else None
    with _soft_time_limit() as is_over:
        sweep = Sweep(limit, turn, tell, is_over)
        report = sweep.run()
    if report.remaining and limit is None and is_task:
        try:
            self.apply_async(expires=LONGEST_WAIT, ignore_result=True)
        except Exception as error:  # whatever the transport raises: a tick will do as well
            log.warning("what is left is left to the next sweep: %s", error)
    sweep.tell()  # last, for it may take long
    return report.as_dict()


class _Progress:
    """Tells how far a sweep is, in ways that are given up where they fail."""

    def __init__(self, task: Task[..., Any]) -> None:
        self._task = task
        self._ways: list[Callable[[dict[str, Any]], object]] = [self._send_event]
        if not task.request.ignore_result:
            self._ways.append(self._store_state)

    def __call__(self, report: SweepReport) -> None:
        for way in list(self._ways):
            try:
                way(report.as_dict())
            except Exception as error:  # whatever the transport raises: the sweep goes on
                self._ways.remove(way)
                log.warning("the progress of a sweep is not told any more: %s", error)

    def _send_event(self, report: dict[str, Any]) -> None:
        # Flower follows events, not the result store.
        self._task.send_event("task-progress", retry=False, **report)

    def _store_state(self, report: dict[str, Any]) -> None:
        self._task.update_state(state="PROGRESS", meta=report)


@contextmanager
def _soft_time_limit() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether a soft time limit has passed.

    Celery would raise an error, wherever the sweep is just then: the back-end would be taken for
    the culprit, and nobody would know which files have gone.
    """
    over = Event()
    is_limited = signal.getsignal(SIG_SOFT_TIMEOUT) is soft_timeout_sighandler
    if is_limited:
        signal.signal(SIG_SOFT_TIMEOUT, lambda *_: over.set())
    try:
        yield over.is_set
    finally:
        if is_limited:
            signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)


@shared_task(name="djpyfs_tasks.delete_expired", ignore_result=True)
def delete_expired(namespace: str, paths: Any) -> None:
    """Delete those files of a namespace that the record store says are due: the one-shot.

    Raises `ValueError`, and `InvalidName` which is one, for arguments that djpyfs never
    sends; nothing is deleted then.
    """
    if not isinstance(paths, list) or len(paths) > MOST_PATHS:
        raise ValueError(f"paths must be a list of no more than {MOST_PATHS} names")
    waits = delete_if_due(namespace, paths)
    early = [path for path, wait in waits.items() if wait < EARLY]
    if early:
        send_one_shot(namespace, early, max(waits[path] for path in early))


def send_one_shot(namespace: str, paths: list[str], seconds: float) -> None:
    """Send the task that deletes files in so many seconds.

    Where tasks are carried out at once instead of being sent, the files are left to the sweep.
    """
    if not current_app.conf.task_always_eager:
        delete_expired.apply_async((namespace, paths), countdown=seconds, retry=False)
