"""The tasks. None decides what to delete: each asks the record store what is due."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, ClassVar

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import Task, current_app, shared_task
from celery.exceptions import Ignore
from django.db import connections

from djpyfs import conf
from djpyfs.conf import SECOND
from djpyfs.errors import RecordStoreError
from djpyfs.expirations import store_for
from djpyfs.sweeper import Sweep, SweepReport, delete_if_due

from .schedule import LONGEST_WAIT

# A sweep that has used this part of its interval, or had a turn of so many seconds, goes to the
# end of the queue, so that a long one keeps nothing else from the worker's slots.
PART_OF_INTERVAL = 0.9
TURN = 2.0  # s
# A call for help is good for longer, so that no helper whose turn ends before the leader's is idle.
CALL = 2 * TURN
# For so long after the longest batch nobody else leads a backlog's sweep: it may wait in the queue.
LEAD = 10.0  # s
# For so long a sweep waits until the result backend has taken its report.
ANSWER = 5.0  # s
SEAT = "sweep"
LONGEST_ID = 256
# One-shots that come early by no more than this (clocks differ) wait; others do nothing.
EARLY = 5.0  # s
MOST_PATHS = 1_000

log = logging.getLogger("djpyfs.tasks")


# Its start is not stored: a result backend that is away would keep it from its work.
@shared_task(bind=True, name="djpyfs_tasks.expire_objects", track_started=False)
def expire_objects(self: Task[..., Any], limit: int | None = None) -> Mapping[str, float]:
    """Sweep until nothing is due; return the `SweepReport` as a dict.

    A worker does so in turns: after each, the task goes to the end of the queue, under its own
    id. If much is due, other workers are called to help in each turn, and their work is in its
    report. While it runs, Flower and anyone who reads the result see the report so far, in the
    state PROGRESS.
    """
    is_sent = bool(self.request.id) and not self.request.is_eager
    continues = self.request.replaced_task_nesting > 0
    lead = _Lead(str(self.request.id), continues) if is_sent and limit is None else None
    tell = _Progress(self) if is_sent else None
    turn = _turn() if is_sent else None  # nobody waits behind what is called as a function
    with ExitStack() as at_end:
        with _soft_time_limit() as is_over, tell or nullcontext():
            on_backlog = lead.on_backlog if lead else None
            sweep = at_end.enter_context(Sweep(limit, turn, tell, is_over, on_backlog))
            sweep.goes_on = continues
            report = sweep.run()
        # Another sweep may lead while receivers of signals run, which may take long.
        goes_on = lead and lead.goes_on(report.remaining > 0 and sweep.was_of_use)
    if goes_on:
        _go_on(self)
    if tell and not tell.is_answered:
        self.request.ignore_result = True  # to store it might take as long as that worker lives
    return sweep.whole or report.as_dict()


def _go_on(task: Task[..., Any]) -> None:
    """Send a task to the end of the queue, under its own id."""
    again: Any = task.si()
    # Nothing here waits for the result, so a result backend that is away holds up nothing.
    again.set(ignore_result=True, headers={"ignore_result": bool(task.request.ignore_result)})
    try:
        task.replace(again.set(expires=LONGEST_WAIT, retry=False))
    except Ignore:
        raise
    except Exception as error:  # whatever the transport raises: a tick will do as well
        log.warning("the rest is left to the next sweep: %s", error)


# Flower shows one sweep, and not all that help with it.
@shared_task(name="djpyfs_tasks.help_sweep", ignore_result=True, send_events=False)
def help_sweep(sweep: Any, called_at: Any) -> None:
    """Take part in a ``sweep`` for a turn, unless it called for help too long ago.

    Raises `ValueError` for arguments that no sweep sends.
    """
    if not isinstance(sweep, str) or len(sweep) > LONGEST_ID or not isinstance(called_at, int):
        raise ValueError("a sweep has an id, and calls for help at a time in µs")
    if store_for(conf.current()).now() - called_at > CALL * SECOND:
        return
    with (
        _soft_time_limit() as is_over,
        Sweep(None, _turn(), is_over=is_over, is_helper=True) as part,
    ):
        part.name = sweep
        part.run()


def _turn() -> float:
    return min(conf.current().sweep_interval * PART_OF_INTERVAL, TURN)


class _Lead:
    """Lets one sweep at a time call for help, and go on after its turn."""

    def __init__(self, name: str, leads: bool) -> None:
        self._name = name
        self._leads = leads
        settings = conf.current()
        self._store = store_for(settings)
        self._lease = round((settings.lease / SECOND + LEAD) * 1_000)

    def on_backlog(self, useful: int) -> str:
        """Have others help, if so many sweepers are ``useful``; return which sweep leads."""
        if useful < 2:
            return self._name
        try:
            leader = self._take()
            called_at = self._store.now()
            if self._leads:
                # Not as a group, which would ask the result backend.
                with current_app.producer_or_acquire() as producer:
                    for _ in range(useful - 1):
                        help_sweep.apply_async(
                            (leader, called_at), producer=producer, add_to_parent=False, retry=False
                        )
        except Exception as error:  # whatever the transport raises
            log.warning("no help could be called for a sweep: %s", error)
            return self._name
        return leader

    def goes_on(self, wants_to: bool) -> bool:
        """Return whether this sweep is to go on; if not, let another one lead."""
        try:
            if wants_to:
                self._take()
            elif self._leads:
                self._store.take_seat(SEAT, self._name, 0)
        except RecordStoreError as error:
            log.warning("it is not known which sweep leads: %s", error)
            return wants_to
        return wants_to and self._leads

    def _take(self) -> str:
        [leader] = self._store.take_seat(SEAT, self._name, self._lease)
        self._leads = leader == self._name
        return leader


class _Progress:
    """Reports the progress of a sweep in several ways, in each until it fails.

    That is done in a thread, for which the end of the block waits no longer than `ANSWER`: a result
    backend that hangs holds up no sweep. While it does, no further thread is started for it, and
    other sweeps of the process are not reported.
    """

    _hanging: ClassVar[Thread | None] = None

    def __init__(self, task: Task[..., Any]) -> None:
        self._task = task
        self._request = task.request_stack.top
        self._is_wanted = not task.request.ignore_result
        self._ways = [self._send_event, *([self._store_state] if self._is_wanted else [])]
        self._reports: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._newest = SweepReport().as_dict()
        self._thread = Thread(target=self._tell_all, daemon=True)
        #: Whether the result can be stored, as far as one is wanted.
        self.is_answered = not self._is_wanted

    def __call__(self, report: SweepReport) -> None:
        self._newest = report.as_dict()
        if self._is_told():
            self._reports.put(self._newest)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        # A sweep that has done nothing is not worth an event.
        if (self._is_wanted and self._is_told()) or self._thread.ident:
            self._reports.put(None)
            self._thread.join(ANSWER)
            if self._thread.is_alive():
                _Progress._hanging = self._thread

    def _is_told(self) -> bool:
        hanging = self._hanging
        if not self._thread.ident and not (hanging and hanging.is_alive()):
            self._thread.start()
        return bool(self._thread.ident)

    def _tell_all(self) -> None:
        try:
            self._task.request_stack.push(self._request)
            for report in iter(self._reports.get, None):
                self._ways = [way for way in self._ways if self._tells(way, report)]
            # Once more, because it may have come back meanwhile.
            if self._is_wanted:
                self.is_answered = self._tells(self._store_state, self._newest)
        finally:
            connections.close_all()  # of this thread; the results may be in a database

    def _tells(self, way: Callable[[dict[str, Any]], object], report: dict[str, Any]) -> bool:
        try:
            way(report)
        except Exception as error:  # whatever the transport raises: the sweep goes on
            log.warning("the progress of a sweep is no longer reported: %s", error)
            return False
        return True

    def _send_event(self, report: dict[str, Any]) -> None:
        # Flower follows events, not the result store.
        self._task.send_event("task-progress", retry=False, **report)

    def _store_state(self, report: dict[str, Any]) -> None:
        self._task.update_state(state="PROGRESS", meta=report)


@contextmanager
def _soft_time_limit() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether a soft time limit has passed.

    Celery would raise an error in the middle of the sweep: the backend would be blamed, and
    nobody would know which files have gone.
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
    waits = delete_if_due(namespace, paths, bounded=True)
    early = [path for path, wait in waits.items() if wait < EARLY]
    if early:
        send_one_shot(namespace, early, max(waits[path] for path in early))


def send_one_shot(namespace: str, paths: list[str], seconds: float) -> None:
    """Send the task that deletes files in so many seconds.

    If tasks run at once instead of being sent, the files are left to the sweep.
    """
    if not current_app.conf.task_always_eager:
        delete_expired.apply_async((namespace, paths), countdown=seconds, retry=False)
