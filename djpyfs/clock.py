"""The clock of records and files in memory, which a test may move."""

from __future__ import annotations

from time import CLOCK_MONOTONIC, clock_gettime_ns, time_ns

_ahead = 0  # µs


def now() -> int:
    """Return the time in µs since the epoch: the system's, plus what a test has added.

    What replaces `time.time`, as freezegun and time-machine do, decides here too.
    """
    return time_ns() // 1_000 + _ahead


def uptime() -> int:
    """Return the µs on a clock for leases, which runs on whatever a test does to the time.

    Whether a lease's holder is alive has nothing to do with the date that a test pretends.
    """
    return clock_gettime_ns(CLOCK_MONOTONIC) // 1_000


def ahead() -> int:
    """Return how far a test has moved the time, in µs."""
    return _ahead


def put_ahead(microseconds: int) -> None:
    """Set how far the time is ahead of the system's."""
    global _ahead
    _ahead = microseconds
