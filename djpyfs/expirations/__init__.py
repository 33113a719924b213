"""The records of what expires when: one protocol, in Redis or in this process."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from heapq import nsmallest
from operator import attrgetter
from random import randrange
from threading import Lock
from time import monotonic, sleep
from typing import NamedTuple, TypeVar

from django.utils.module_loading import import_string

from ..conf import SECOND, Settings
from ..errors import ConfigurationError, FileBusy

T = TypeVar("T")

FIRST_PAUSE = 0.002  # s
LONGEST_PAUSE = 0.1  # s
SWEEPS_KEPT = 1_000
CALLS = 1 << 16
NOTHING: Mapping[str, float] = {}
NOBODY: Mapping[int, Sequence[bytes]] = {}


class Claim(NamedTuple):
    """The sole right to delete ``members`` until the lease ends, which is its token as well."""

    token: int  # µs since the epoch
    members: Sequence[bytes]
    late: Sequence[float]  # µs since each member's deadline
    overdue: int  # how many more records are overdue


class ClaimOne(NamedTuple):
    """The answer to the claim on one member; each time in µs, 0 where there is none."""

    busy: int = 0  # left of somebody else's claim
    token: int = 0
    wait: int = 0  # until it is due
    deadline: int = 0


class Touch(NamedTuple):
    """The deadlines of a member that is about to be written, in µs; 0 where there is none."""

    deadline: int = 0
    before: int = 0
    by_default: bool = False  # the default ttl gave it
    unfinished: bool = False  # it is only that of the write; the member's own has passed


class Carried(NamedTuple):
    """The deadlines of two members, of which one was given that of the other, in µs or 0."""

    deadline: int = 0  # of both
    had: int = 0  # by the source
    replaced: int = 0  # of the destination


class Counts(NamedTuple):
    """How many records there are of which kind."""

    now: int  # µs since the epoch, by the store's clock
    tracked: int  # that wait for their deadline, or for a sweep
    overdue: int  # of these: the deadline, or the lease of a sweep that died, has passed
    claimed: int  # of these: a sweep is at them
    set_aside: int  # beside these: given up
    oldest: int  # µs since the oldest deadline that has passed, at the least


class State(StrEnum):
    """Where a record is."""

    DUE = "due"
    CLAIMED = "claimed"
    SET_ASIDE = "set aside"


class Record(NamedTuple):
    """One record, as it was when it was read."""

    member: bytes
    deadline: int  # µs since the epoch; 0: it has passed, and nobody noted when it was
    state: State = State.DUE


class Found(NamedTuple):
    """Records that were looked for; there are perhaps more where that is not ``complete``."""

    records: Sequence[Record]
    complete: bool


class GivenUp(NamedTuple):
    """A record that was set aside, and why."""

    member: bytes
    reason: str
    attempts: int
    at: int  # s since the epoch


class Page(NamedTuple):
    """Some of the records that were set aside; ``cursor`` leads to more, or is empty."""

    records: Sequence[GivenUp]
    cursor: str


class Settled(NamedTuple):
    """What `ExpirationStore.settle` did, and the claim that followed."""

    retried: int
    set_aside: int
    claim: Claim | None


class Backoff(NamedTuple):
    """When a deletion that failed is tried again, and how often."""

    max_attempts: int
    shortest: int = 5 * SECOND
    longest: int = 3_600 * SECOND


class ExpirationStore(ABC):
    """Records of expirations. A member is ``namespace NUL path``; times are in µs.

    Where a sweep holds a live claim on a member, the verbs of the writers wait until it has
    finished. Every verb raises `RecordStoreUnavailable` where the store is away.
    """

    #: Sweeps go through each of these on its own.
    shards: range = range(1)

    def schedule(self, members: Sequence[bytes], ttl: int) -> int:
        """Set the deadline of ``members`` to now + ``ttl``; return it."""
        left, deadline, busy = self._schedule(members, ttl)
        return self._schedule_busy(busy, ttl) if left else deadline

    def _schedule_busy(self, members: Sequence[bytes], ttl: int) -> int:
        pending = members

        def attempt() -> tuple[int, int]:
            nonlocal pending
            left, deadline, pending = self._schedule(pending, ttl)
            return left, deadline

        return _when_free(attempt)

    def cancel(self, member: bytes, expected: int = 0) -> None:
        """Forget ``member``; where ``expected`` is given, only if that is still its deadline."""
        _when_free(lambda: (self._cancel(member, expected), None))

    def place(
        self, member: bytes, deadline: int, token: int = 0, expected: int | None = None
    ) -> None:
        """Give ``member`` this ``deadline``.

        With a ``token``, only if it is claimed under it; where ``expected`` is given, only if
        that is its deadline (0 for none).
        """
        only_if = -1 if expected is None else expected
        _when_free(lambda: (self._place(member, deadline, token, only_if), None))

    def touch(
        self,
        member: bytes,
        grace: int,
        default_ttl: int | None = None,
        registered: int = 0,
        unfinished: int = 0,
    ) -> Touch:
        """Tell that ``member`` is about to be written, or has been.

        An overdue member is forgotten; where the write is ``unfinished``, it stays overdue, and
        is put off for that long. One that is due later is so in ``grace`` at the earliest. Where
        ``default_ttl`` is given, a member without a deadline is due after it. The deadline
        ``registered`` by the same write is renewed.
        """
        ttl = default_ttl or 0
        return _when_free(lambda: self._touch(member, grace, ttl, registered, unfinished))

    def carry(self, source: bytes, destination: bytes, grace: int = 0) -> Carried:
        """Give ``destination`` the deadline of ``source``, which keeps it as well.

        Both are due in ``grace`` at the earliest. Nothing changes where ``source`` has none.
        """
        return _when_free(lambda: self._carry(source, destination, grace))

    def reserve(self, member: bytes, lease: int) -> ClaimOne:
        """Claim ``member`` before its time, to remove it; without a token: it has no record."""

        call = randrange(1, CALLS)

        def attempt() -> tuple[int, ClaimOne]:
            claim = self.claim_one(member, lease, early=call)
            return claim.busy, claim

        return _when_free(attempt)

    def acknowledge(self, member: bytes, token: int) -> None:
        """Forget ``member``, if it is still claimed under ``token``."""
        self.settle(self.shard_of(member), token, [member])

    def shard_of(self, member: bytes) -> int:
        """Return the shard that holds a member's record."""
        return 0

    def deadline(self, member: bytes) -> tuple[int, int]:
        """Return the time now, and the member's deadline or 0."""
        now, (deadline,) = self.deadlines([member])
        return now, deadline

    @abstractmethod
    def deadlines(self, members: Sequence[bytes]) -> tuple[int, list[int]]:
        """Return the time now, and the deadline of each member or 0, in one round trip.

        That of a deletion that is under way, has failed or was given up has passed.
        """

    @abstractmethod
    def renew(self, member: bytes, ttl: int, latest: int = 0) -> int:
        """Move a deadline that has not passed to now + ``ttl``, at the most to ``latest``.

        It never comes nearer. Returns it, or 0 where there is none that could be moved.
        """

    @abstractmethod
    def issue_ticket(self, member: bytes, ticket: str, uses: int, end: int) -> None:
        """Make a ticket to ``member`` that `use_ticket` takes ``uses`` times, until ``end``."""

    @abstractmethod
    def use_ticket(self, member: bytes, ticket: str, uses: int = 1) -> bool:
        """Take one use of a ticket and return True, or return False where none was left.

        With 0 ``uses``, only tell. However many ask at a time, no use is taken twice.
        """

    @abstractmethod
    def claim(self, shard: int, limit: int, lease: int) -> Claim:
        """Claim up to ``limit`` overdue members of a shard, for ``lease``."""

    @abstractmethod
    def claim_one(self, member: bytes, lease: int, early: int = 0) -> ClaimOne:
        """Claim ``member`` if it is due, or ``early``: whenever there is a record of it.

        ``early`` is a number below `CALLS` that tells this call from others, should it be sent
        again because its reply was lost.
        """

    @abstractmethod
    def settle(
        self,
        shard: int,
        token: int,
        done: Sequence[bytes] | None,
        failures: Sequence[tuple[bytes, str]] = (),
        backoff: Backoff | None = None,
        broken: Sequence[tuple[bytes, str]] = (),
        put_off: Mapping[int, Sequence[bytes]] = NOBODY,
        then: tuple[int, int] | None = None,
        tally: Mapping[str, float] = NOTHING,
    ) -> Settled:
        """Tell what became of a claim, and claim anew, all in one round trip.

        Forgets what is ``done`` (None: all that is claimed under ``token``), counts an attempt
        for each of the ``failures``, sets aside what is ``broken``, has what is ``put_off`` due
        again after so many µs without counting an attempt, adds ``tally`` and what became of
        the failures to the totals, and claims with ``then`` (limit, lease).
        """

    @abstractmethod
    def keeps_records_on_disk(self) -> bool:
        """Tell whether records survive a restart of the server."""

    def find(self, prefix: bytes, limit: int, looks: int, text: bytes = b"") -> Found:
        """Return up to ``limit`` records that `scan` finds, soonest first.

        Ends after about ``looks`` records of any name: nothing finds a name in the store but to
        look at all. What changes its state meanwhile may be missing.
        """
        found: dict[bytes, Record] = {}
        for looked, records in self.scan(prefix, text):
            if looks <= 0 or len(found) > limit:
                return Found(_soonest(found.values(), limit), False)
            looks -= looked
            found.update((record.member, record) for record in records)
        return Found(_soonest(found.values(), limit), len(found) <= limit)

    @abstractmethod
    def adopt(self, deadlines: Mapping[bytes, int]) -> Sequence[bytes]:
        """Give members the ``deadlines`` that are known already; return those that had no record.

        The others keep what they have.
        """

    @abstractmethod
    def counts(self) -> Counts:
        """Count the records of all shards."""

    @abstractmethod
    def earliest(self, limit: int) -> Sequence[Record]:
        """Return the records that wait and are due first, overdue ones included."""

    @abstractmethod
    def due_between(self, edges: Sequence[int]) -> Sequence[int]:
        """Count, for each edge but the last, the deadlines from it to before the next one."""

    @abstractmethod
    def record(self, member: bytes) -> Record | None:
        """Return the record of one member, or None where it has none."""

    @abstractmethod
    def set_aside(self, prefix: bytes = b"", cursor: str = "", limit: int = 1_000) -> Page:
        """Return records set aside whose members begin with ``prefix``.

        They come in no order, and perhaps some more of them than ``limit``.
        """

    @abstractmethod
    def retry(self, members: Sequence[bytes]) -> Sequence[bytes]:
        """Have members that were set aside due now; return those that were set aside."""

    @abstractmethod
    def forget(self, members: Sequence[bytes]) -> Sequence[bytes]:
        """Forget members that were set aside; return those that were set aside."""

    @abstractmethod
    def record_sweep(
        self, report: Mapping[str, float], tally: Mapping[str, float] = NOTHING
    ) -> None:
        """Note what a sweep did, for `sweeps`, and add ``tally`` to the totals."""

    @abstractmethod
    def sweeps(self, limit: int) -> list[dict[str, float]]:
        """Return the last reports, newest first, each with the time it was noted at."""

    @abstractmethod
    def totals(self) -> dict[str, float]:
        """Return what sweeps and one-shots have done so far; the names are those of a tally."""

    @abstractmethod
    def close(self) -> None:
        """Give up the connections."""

    @abstractmethod
    def scan(self, prefix: bytes, text: bytes = b"") -> Iterator[tuple[int, Iterable[Record]]]:
        """Yield how many records were looked at, and those of them that match.

        Their members begin with ``prefix``, and their paths contain ``text``.
        """

    @abstractmethod
    def _schedule(self, members: Sequence[bytes], ttl: int) -> tuple[int, int, Sequence[bytes]]: ...

    @abstractmethod
    def _cancel(self, member: bytes, expected: int) -> int: ...

    @abstractmethod
    def _place(self, member: bytes, deadline: int, token: int, expected: int) -> int: ...

    @abstractmethod
    def _touch(
        self, member: bytes, grace: int, default_ttl: int, registered: int, unfinished: int
    ) -> tuple[int, Touch]: ...

    @abstractmethod
    def _carry(self, source: bytes, destination: bytes, grace: int) -> tuple[int, Carried]: ...


def _soonest(records: Iterable[Record], limit: int) -> list[Record]:
    return nsmallest(limit, records, key=attrgetter("deadline", "member"))


def _when_free(attempt: Callable[[], tuple[int, T]]) -> T:
    """Repeat ``attempt`` until it tells of no live claim that forbids it."""
    left, value = attempt()
    if not left:
        return value
    # One lease may lapse and another sweep take the member up: two of them is the most.
    give_up, pause = monotonic() + 2 * left / SECOND + 5, FIRST_PAUSE
    while left:
        if monotonic() > give_up:
            raise FileBusy("a sweep has held the file for longer than two leases: try again")
        sleep(min(pause, left / SECOND))
        pause = min(2 * pause, LONGEST_PAUSE)
        left, value = attempt()
    return value


_OF_REDIS = """redis rediss unix sentinel redis+sentinel rediss+sentinel
    redis+cluster rediss+cluster""".split()
_BY_SCHEME = {"memory": "djpyfs.expirations.memory_store.MemoryStore"} | dict.fromkeys(
    _OF_REDIS, "djpyfs.expirations.redis_store.RedisStore"
)
_Named = tuple[str, str, int, int]
_stores: dict[_Named, ExpirationStore] = {}
_lock = Lock()


def store_for(settings: Settings) -> ExpirationStore:
    """Return the record store that ``settings`` name, the same one for the same address."""
    named = settings.redis_url, settings.key_prefix, settings.shards, settings.wait_replicas
    return _stores.get(named) or _made(named)


def _made(named: _Named) -> ExpirationStore:
    scheme = named[0].partition("://")[0]
    if scheme not in _BY_SCHEME:  # nor is it shown: without "://" it may be the password
        known = ", ".join(f"{known}://" for known in _BY_SCHEME)
        raise ConfigurationError(f"DJFS['redis_url'] has an unknown scheme: use one of {known}")
    with _lock:
        if named not in _stores:
            _stores[named] = import_string(_BY_SCHEME[scheme])(*named)
        return _stores[named]


def close_all() -> None:
    """Close every store; the next call of `store_for` makes it anew."""
    while _stores:
        _stores.popitem()[1].close()


def _forget_all() -> None:
    # A child of fork() must not use, nor close, the connections of its parent.
    global _lock
    _lock = Lock()
    _stores.clear()


os.register_at_fork(after_in_child=_forget_all)
