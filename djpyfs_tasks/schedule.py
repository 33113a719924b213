"""When beat sends which task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic, time
from typing import Any

from celery.schedules import BaseSchedule, schedstate, schedule

from djpyfs import conf

# The sender of a sweep says when it expires, and the worker's clock says whether it has: this is
# far more than the clocks of two machines differ, or no sweep might ever run.
LONGEST_WAIT = 86_400  # s

_START = time() - monotonic()


def steady_now() -> datetime:
    """Return the time at which this process began, plus what has passed since."""
    return datetime.fromtimestamp(_START + monotonic(), UTC)


class SweepInterval(schedule):
    """At the start of beat, and then every ``DJFS["sweep_interval"]`` seconds.

    The setting is read when beat asks, so this can be made before there is a ``DJFS``. The notes of
    an earlier beat do not count: its clock may have been wrong.
    """

    relative = False
    _begun: datetime | None = None  # when beat has first asked

    def __init__(self) -> None:
        BaseSchedule.__init__(self, nowfun=steady_now)

    def __reduce__(self) -> tuple[type[SweepInterval], tuple[()]]:
        return type(self), ()

    @property
    def run_every(self) -> timedelta:
        return timedelta(seconds=conf.current().sweep_interval)

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:  # type: ignore[override]
        """Return whether to send a sweep now, and after how many seconds to ask again."""
        now = self.now()
        self._begun = self._begun or now
        if not self._begun < self.maybe_make_aware(last_run_at) <= now:
            return schedstate(True, self.run_every.total_seconds())
        return super().is_due(last_run_at)


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return the entries for ``beat_schedule``: a sweep at the start, and at each interval::

        app.conf.beat_schedule = {**beat_schedule()}

    The interval is ``DJFS["sweep_interval"]``, which may be set after this is called. A tick that
    no worker has received for a day expires, so that ticks do not pile up forever while the
    workers are away. A tick without work costs a round trip. Ticks keep no result, because a
    result backend that is away would stop them; Flower shows it all the same.
    """
    return {
        "djpyfs-sweep": {
            "task": "djpyfs_tasks.expire_objects",
            "schedule": SweepInterval(),
            "options": {"expires": LONGEST_WAIT, "ignore_result": True},
        }
    }
