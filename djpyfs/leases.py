"""Keeps leases alive while their holders work.

One thread per process has them extended in time, so that a lease can be short: if the process
dies, others wait no longer than that. It starts with the first lease.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from threading import Condition, Thread

from .conf import SECOND
from .errors import ConfigurationError, RecordStoreError
from .expirations import Expirations, claim_lease, write_lease

log = logging.getLogger("djpyfs")

# A machine that sleeps stops CLOCK_MONOTONIC, but not the lease.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
EXTENSIONS = 4  # per lease: some may come late, or not at all
EARLY = 0.1  # s: what is due so soon is extended along with the others


class HeldLease:
    """A lease of this process, by a clock of its own.

    It counts from before the lease was asked for, so it ends here before it ends in the store.
    """

    def __init__(
        self,
        records: Expirations,
        shard: int,
        name: bytes,
        length: int,
        asked_at: float,
        until: float = float("inf"),
        sure: float | None = None,
        is_new: bool = False,
    ) -> None:
        self.records = records
        self.shard = shard
        self.name = name
        self.length = length  # µs
        self._sure = length / SECOND if sure is None else sure  # s of it in which to act
        self._until = until
        self.extended(asked_at)
        self.is_new = is_new  # in the store it begins with its first extension

    def extended(self, asked_at: float) -> None:
        """Note that the store was asked for the lease, and gave it."""
        self._end = min(asked_at + self._sure, self._until)
        self.next = asked_at + self._sure / EXTENSIONS
        self.is_new = False

    def lost(self) -> None:
        """Note that the store does not know the lease any more."""
        self._end = self._until = 0

    @property
    def is_over(self) -> bool:
        """Whether nobody needs the lease to be extended."""
        return now() >= self._until

    def remaining(self) -> float:
        """Return the seconds left; from 0 on nothing may be deleted any more."""
        return self._end - time.clock_gettime(CLOCK)  # not by now(): each deletion asks


def now() -> float:
    """Return the seconds on the clock of leases."""
    return time.clock_gettime(CLOCK)


class _Keeper:
    """The thread, and what it keeps alive."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._held: set[HeldLease] = set()
        self._thread: Thread | None = None
        self._wakes_at = float("inf")

    def add(self, lease: HeldLease) -> None:
        with self._changed:
            self._held.add(lease)
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._run, name="djpyfs-leases", daemon=True)
                self._thread.start()
            elif lease.next < self._wakes_at:
                self._changed.notify()

    def drop(self, lease: HeldLease) -> None:
        with self._changed:
            self._held.discard(lease)

    def _run(self) -> None:
        while True:
            together: dict[tuple[Expirations, int], list[HeldLease]] = {}
            for lease in self._due():
                together.setdefault((lease.records, lease.shard), []).append(lease)
            for (records, shard), leases in together.items():  # one that hangs holds up no other
                asking = (records, shard, leases)
                thread = Thread(target=self._extend, args=asking, name="djpyfs-lease", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # there are too many threads
                    self._extend(*asking)

    def _due(self) -> list[HeldLease]:
        with self._changed:
            self._held = {lease for lease in self._held if not lease.is_over}
            self._wakes_at = min((lease.next for lease in self._held), default=float("inf"))
            wait = self._wakes_at - now()
            if wait > 0:
                self._changed.wait(None if wait == float("inf") else wait)
            due = [lease for lease in self._held if lease.next <= now() + EARLY]
            for lease in due:
                lease.next = float("inf")  # until the store has answered
            return due

    def _extend(self, records: Expirations, shard: int, leases: Sequence[HeldLease]) -> None:
        try:
            self._ask(records, shard, leases)
        finally:
            with self._changed:
                self._changed.notify()

    def _ask(self, records: Expirations, shard: int, leases: Sequence[HeldLease]) -> None:
        asked_at = now()
        try:
            lengths = {lease.name: lease.length for lease in leases}
            gone = records.extend(shard, lengths, {it.name for it in leases if it.is_new})
        except Exception as error:  # or one lease could end the thread that keeps all
            if not isinstance(error, RecordStoreError | ConfigurationError):
                log.exception("leases were not extended, and are tried again")
            for lease in leases:  # as long as they last the store may come back
                lease.next = now() + lease.length / SECOND / EXTENSIONS / EXTENSIONS
            return
        for lease in leases:
            lease.lost() if lease.name in gone else lease.extended(asked_at)


_keeper = _Keeper()


def _forget_all() -> None:
    # A child of fork() has neither the thread nor the leases of its parent.
    global _keeper
    _keeper = _Keeper()


os.register_at_fork(after_in_child=_forget_all)


def keep(lease: HeldLease) -> None:
    """Keep a lease alive until it is dropped."""
    _keeper.add(lease)


def drop(lease: HeldLease) -> None:
    """Stop extending a lease."""
    _keeper.drop(lease)


def of_claim(
    records: Expirations,
    shard: int,
    token: int,
    asked_at: float,
    late: float = 0,
    longest: float = float("inf"),
) -> HeldLease:
    """Return the lease of a claim, which is kept for ``longest`` seconds in all.

    Of each extension the last ``late`` seconds are for requests that are not answered.
    """
    sure = records.lease / SECOND - late
    sure -= min(0.2, sure / 10)
    name = claim_lease(token)
    return HeldLease(records, shard, name, records.lease, asked_at, asked_at + longest, sure)


def of_write(
    records: Expirations,
    member: bytes,
    token: str,
    length: int,
    asked_at: float,
    is_new: bool = False,
) -> HeldLease:
    """Return the lease of a write of ``length`` µs; of one that ``is_new`` nobody else knows."""
    shard, name = records.shard_of(member), write_lease(token, member)
    return HeldLease(records, shard, name, length, asked_at, is_new=is_new)
