"""The records of what expires when: one protocol, in Redis or in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from heapq import nsmallest
from math import ceil
from operator import attrgetter
from random import getrandbits
from secrets import token_urlsafe
from time import monotonic, sleep
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from django.utils.module_loading import import_string

from ..conf import SECOND, Settings
from ..errors import ConfigurationError, FileBusy
from ..registry import Registry

if TYPE_CHECKING:
    from .pace import Pace  # few processes need what it imports

T = TypeVar("T")

FIRST_PAUSE = 0.002  # s
LONGEST_PAUSE = 0.1  # s
PATIENCE = 35.0  # s for which a writer waits for a sweeper: more than the default lease
# For how long a holder that is alive may be late with renewing its lease; a dead one keeps a
# writer waiting for as long.
LIVE = 1_900_000  # µs
SCANNED = 2_000  # records that are looked at in one step of a scan
SWEEPS_KEPT = 1_000
# How many of the last reports are searched for that of the sweep that a part belongs to.
SWEEPS_AT_ONCE = 100
NOTHING: Mapping[str, float] = {}


class State(StrEnum):
    """Where a record is."""

    DUE = "due"
    CLAIMED = "claimed"
    RETRIED = "retried"
    HELD = "held"
    POSTPONED = "postponed"
    SET_ASIDE = "set aside"


class Record(NamedTuple):
    """One record, as it was when it was read."""

    member: bytes
    deadline: int  # µs since the epoch
    state: State = State.DUE


class Claim(NamedTuple):
    """The sole right to delete ``members`` of a shard while its lease lasts."""

    shard: int
    token: int
    members: Sequence[bytes] = ()
    lags: Sequence[float] = ()  # µs since each member was due
    overdue: int = 0  # how many more records could be claimed
    awaiting: Collection[bytes] = ()  # those of the members that go only if no row owns them


class Reserved(NamedTuple):
    """The claim of a writer on one member, whatever its deadline."""

    token: int
    deadline: int  # µs since the epoch; 0: it has none
    permanent: bool  # somebody has said so, or its row has been committed
    owned: bool = False  # rows decide its deadline, or that it is permanent
    awaits_owner: bool = False  # it is deleted only if no row owns it


class ClaimOne(NamedTuple):
    """The answer to the claim on one member that is due; each in µs, 0 if there is none."""

    token: int = 0
    lag: int = 0
    wait: int = 0  # until it is due
    awaiting: bool = False  # an owner


class Begun(NamedTuple):
    """A write that has begun: until it is finished or abandoned nobody deletes the file."""

    token: str
    before: int = 0  # the deadline, in µs since the epoch; 0: there was none
    overdue: bool = False  # that deadline has passed: the write starts a new life
    permanent: bool = False  # somebody has said so, or its row has been committed


class Finished(NamedTuple):
    """What a write has left behind."""

    deadline: int  # µs since the epoch; 0: none
    by_default: bool  # the default life gave it
    unbroken: bool  # nobody could have deleted the file since the write began


class Linked(NamedTuple):
    """What the links to a file depend on."""

    #: µs since the epoch; 0: none. Of a file that a row has let go of: what it has if another row
    #: owns it, because that is not known before a sweep asks.
    deadline: int
    revocation: str = ""  # the last one: links that were signed before it are dead


class Counts(NamedTuple):
    """How many records there are of which kind."""

    now: int = 0  # µs since the epoch, by the store's clock
    tracked: int = 0  # that wait for their deadline, or for a sweep
    overdue: int = 0  # of these: the deadline has passed, and no sweep has claimed them
    claimed: int = 0  # of these: a sweep has claimed them
    set_aside: int = 0  # beside these: given up
    oldest: int = 0  # µs since the oldest deadline that has passed
    # Of those tracked, also while a sweep has claimed them again:
    retried: int = 0  # a deletion has failed, and is tried again
    held: int = 0  # their namespace is on hold
    postponed: int = 0  # their backend is away, or who owns them is not known


class Found(NamedTuple):
    """Records that a search found; if it is not ``complete``, there may be more."""

    records: Sequence[Record]
    complete: bool


class GivenUp(NamedTuple):
    """A record that was set aside, and why."""

    member: bytes
    reason: str
    attempts: int
    at: int  # s since the epoch
    deadline: int  # µs since the epoch


class Page(NamedTuple):
    """Some of the records that were set aside; ``cursor`` leads to more, or is empty."""

    records: Sequence[GivenUp]
    cursor: str


class Backoff(NamedTuple):
    """When a deletion that failed is tried again, and how often."""

    max_attempts: int = 10
    shortest: int = 5 * SECOND
    longest: int = 3_600 * SECOND


BACKOFF = Backoff()


@dataclass
class Verdict:
    """What happened to the members of a claim. Those in no list stay claimed until it lapses."""

    done: list[bytes] = field(default_factory=list)
    #: Whether all that was claimed is done, so that no names need be sent.
    all_done: bool = False
    #: Tried and failed, each with the reason.
    failures: list[tuple[bytes, str]] = field(default_factory=list)
    #: Records that no file can have, each with the reason.
    broken: list[tuple[bytes, str]] = field(default_factory=list)
    #: Not tried: due again after this many µs, in this state.
    put_off: dict[tuple[int, State], list[bytes]] = field(default_factory=dict)
    #: Asked for and not answered, while the backend as a whole does not answer.
    excused: list[bytes] = field(default_factory=list)
    #: What the totals grow by, beside the results of the failures.
    tally: Mapping[str, float] = field(default_factory=dict)


class Settled(NamedTuple):
    """What `Expirations.settle` did, and the claim that followed."""

    retried: int
    set_aside: int
    claim: Claim | None


class Busy(NamedTuple):
    """A live claim that keeps a writer waiting."""

    left: int = 0  # µs; 0: there is none
    ends: int = 0  # µs since the epoch


class Attempt(NamedTuple, Generic[T]):
    """What came of one attempt at a verb of a writer."""

    busy: Busy  # forbids the verb while there is time left
    lapsed: Sequence[bytes]  # members whose claims had lapsed
    value: T  # what the verb returns once nothing forbids it


class NextDue(NamedTuple):
    """When there is something to claim in a shard, by the clock of its server."""

    records: Expirations
    shard: int
    now: int  # µs since the epoch
    due: int | None  # µs since the epoch
    overdue: int = 0  # how many records can be claimed now

    @property
    def is_due(self) -> bool:
        """Whether there is something to claim now."""
        return self.due is not None and self.due <= self.now

    @property
    def wait(self) -> int:
        """For how many µs there is nothing to claim yet; 0 if nothing waits."""
        return max(0, self.due - self.now) if self.due else 0


class TimeKept(NamedTuple):
    """The places whose time the caller keeps, and what is due there next."""

    places: Set[str]
    next_due: Sequence[NextDue]
    problems: Sequence[Exception]  # of the shards that cannot be asked


class Spread(NamedTuple):
    """Over how many shards records are spread or, while they move, will be."""

    shards: int
    soon: int

    @property
    def moving(self) -> bool:
        """Whether records are on their way from the one number to the other."""
        return self.shards != self.soon


class Move(NamedTuple):
    """One step of `ExpirationStore.reshard`."""

    looked: int = 0  # entries that were looked at
    moved: int = 0  # files whose records are in another shard now
    waiting: int = 0  # files whose records wait for the end of a claim
    total: int = 0  # entries to look at, in the first step


#: Called with a member whose claim has lapsed: keeps the holder from deleting it after all.
Fence = Callable[[bytes], object]


def no_fence(member: bytes) -> None:
    """Trust that the holder is dead."""


class Expirations(ABC):
    """The records of one place. A member is ``namespace/path``; times are in µs.

    If a sweep holds a live claim on a member, the verbs of the writers wait until it has
    finished. If its claim has lapsed, they call ``fence`` with the member before they return,
    because its holder may be frozen and not dead. Every verb raises `RecordStoreUnavailable` if
    the store is away.

    A claim lasts for ``lease``, and each `extend` of it for as long again. Members not settled by
    then count as failed attempts, and are claimed one by one from then on: one of them may have
    killed the sweeper. What has failed is tried again by ``backoff``.
    """

    #: Sweeps go through each of these on its own; onlookers see these alone.
    shards: Sequence[int] = range(1)

    def __init__(self, place: str, lease: int, fence: Fence, backoff: Backoff) -> None:
        self.place = place
        self.lease = lease
        self.backoff = backoff
        self._fence = fence

    # -- the verbs of writers

    def schedule(self, members: Sequence[bytes], ttl: int) -> int:
        """Set the deadline of ``members`` to now + ``ttl``; return it.

        Raises `FileBusy` for those whose sweeper has died while its request may still act.
        """
        pending = members

        def attempt(over: int) -> Attempt[int]:
            nonlocal pending
            busy, lapsed, (deadline, pending) = self._schedule(over, pending, ttl)
            return Attempt(busy, lapsed, deadline)

        return self._when_free(attempt, waits_for_the_dead=False)

    def keep(self, member: bytes) -> None:
        """Make ``member`` permanent, and remember that somebody asked for it.

        Raises what `schedule` does.
        """
        self._when_free(lambda over: self._keep(over, member), waits_for_the_dead=False)

    def await_owner(self, member: bytes, ttl: int, life: int | None = None) -> None:
        """Let ``member``, if it has a deadline, be deleted only if no row owns it.

        It is due in ``ttl`` at the earliest. Once a row owns it, its deadline is now + ``life``, or
        none for 0. With None for ``life``, a member that waits already keeps the deadline that it
        would get, and any other keeps its own and counts as owned.
        """
        known = -1 if life is None else life
        self._when_free(lambda over: self._await_owner(over, member, ttl, known))

    def let_go(self, member: bytes, ttl: int) -> None:
        """Make ``member`` due in ``ttl`` at the latest, and deleted only if no row owns it.

        If one does, it gets its old deadline back, or none. A member that waits for its first owner
        is left alone, and so is one for which `schedule` or `keep` was called since a row owned it:
        that call has the last word.
        """
        self._when_free(lambda over: self._let_go(over, member, ttl))

    def take_up(self, member: bytes, unawaited: bool = False) -> None:
        """Note that a row owns ``member``, which then no longer waits for an owner.

        With ``unawaited``, rows may also let go of a member that has not waited, whatever
        deadline it has; but not of one that `keep` was called for.
        """
        self._when_free(lambda over: self._take_up(over, member, unawaited))

    def begin(self, member: bytes, lease: int, default_ttl: int = 0) -> Begun:
        """Note that ``member`` is being written; its deadline waits for that.

        Nobody claims it until the write is finished or abandoned, or its ``lease`` was not
        extended in time. If ``default_ttl`` is given, a member without a deadline gets one, so
        that no crash leaves a file without one.
        """
        token = _new_write()
        return self._when_free(lambda over: self._begin(over, member, token, lease, default_ttl))

    def begin_new(self, member: bytes, life: int) -> Begun:
        """Note that ``member`` is being written, whose name nobody else can know.

        It has only a deadline, which alone keeps sweeps off until an `extend` of the write's lease
        makes it like any other. `finish` starts its life, and need not be called for a write that
        was over at once.
        """
        return Begun(_new_write(), self.schedule([member], life), overdue=True)

    def finish(self, member: bytes, write: Begun, grace: int, default_ttl: int = 0) -> Finished:
        """Note that a write is done: the file is there as a whole.

        What was overdue when the write began starts a new life, of the default length or without a
        deadline. Everything else keeps its deadline, and is due in ``grace`` at the earliest. If
        the lease has lapsed meanwhile, or the store has lost it, a deadline that has vanished is
        put back, and what was permanent gets none.
        """
        return self._when_free(lambda over: self._finish(over, member, write, grace, default_ttl))

    @abstractmethod
    def abandon(self, member: bytes, token: str) -> None:
        """Note that a write has failed: its file is what it was before.

        A record that the write itself has made is forgotten, unless another write has finished
        or goes on.
        """

    def reserve(self, member: bytes) -> Reserved:
        """Claim ``member``, whatever its deadline, to remove or to replace its file.

        If the caller dies, its old deadline counts again.
        """
        token = new_token()
        return self._when_free(lambda over: self._reserve(over, member, token))

    @abstractmethod
    def pledge(self, member: bytes, token: int, deadline: int) -> bool:
        """Give a reserved member ``deadline``, or none, in case its claim lapses.

        Returns False, and changes nothing, if that has happened already.
        """

    @abstractmethod
    def release(self, member: bytes, token: int, deadline: int | None = None) -> None:
        """End the claim on a reserved member, which has ``deadline`` from now on.

        None stands for the one that it had or that was pledged; with 0 its record is forgotten, and
        it is no longer permanent.
        """

    @abstractmethod
    def reserve_free(self, members: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        """Claim ``members``, to remove their files together, and wait for nobody.

        Returns the token of the claim, in each shard, and the members that it leaves alone, because
        others have, or had, a claim on them.
        """

    @abstractmethod
    def release_all(self, shards: Iterable[int], token: int, gone: bool) -> None:
        """End the claim of `reserve_free`; what is ``gone`` is forgotten, with its record."""

    @abstractmethod
    def extend(
        self, shard: int, leases: Mapping[bytes, int], new: Collection[bytes] = ()
    ) -> Sequence[bytes]:
        """Make leases, by name, last for so many µs from now; return those that are over.

        The ``new`` ones, of writes, begin with this call, unless somebody has claimed the member.
        """

    @abstractmethod
    def renew(self, member: bytes, ttl: int, written: int = 0, longest: int = 0) -> int:
        """Move a deadline that has not passed to now + ``ttl``.

        It never comes nearer. With ``longest`` it stays within that time after the file was
        ``written``, in µs since the epoch; if that is in the future, it does not move. Returns it,
        or 0 if there is none to move.
        """

    def place_at(
        self,
        member: bytes,
        deadline: int,
        expected: int | None = None,
        waits_for_the_dead: bool = True,
    ) -> None:
        """Give ``member`` this ``deadline``, or none for 0.

        If ``expected`` is given, only if that is its deadline now (0 for none). Unless it
        ``waits_for_the_dead``, raises what `schedule` does.
        """
        only_if = -1 if expected is None else expected
        self._when_free(
            lambda over: self._place_at(over, member, deadline, only_if),
            waits_for_the_dead=waits_for_the_dead,
        )

    @abstractmethod
    def adopt(self, deadlines: Mapping[bytes, int]) -> Sequence[bytes]:
        """Give members known ``deadlines``, or for 0 make them permanent; return those changed.

        Those that have a deadline keep it. Those that somebody has made permanent, or is about to
        remove, stay as they are.
        """

    @abstractmethod
    def permanent(self, members: Sequence[bytes]) -> Sequence[bytes]:
        """Return those of ``members`` that somebody, or a row, has made permanent.

        That is one round trip.
        """

    def deadline(self, member: bytes) -> tuple[int, int]:
        """Return the time now, and the member's deadline or 0."""
        now, (deadline,) = self.deadlines([member])
        return now, deadline

    @abstractmethod
    def deadlines(self, members: Sequence[bytes]) -> tuple[int, list[int]]:
        """Return the time now, and the deadline of each member or 0, in one round trip."""

    @abstractmethod
    def linked(self, members: Sequence[bytes]) -> tuple[int, list[Linked]]:
        """Return the time now, and what links to each member depend on, in one round trip."""

    def revoke(self, member: bytes) -> None:
        """Revoke the links to ``member`` that were signed so far, for good."""
        self._revoke(member, token_urlsafe(6))

    @abstractmethod
    def issue_ticket(self, ticket: str, uses: int, end: int) -> None:
        """Make a ticket that `use_ticket` takes ``uses`` times, until ``end``."""

    @abstractmethod
    def use_ticket(self, ticket: str, take: bool = True, hold: int = 0) -> bool | None:
        """Take one use of a ticket and return True, or return False if none was left.

        Returns None if there is no such ticket, or not any more. Without ``take``, only look.
        However many ask at a time, no use is taken twice. ``hold`` keeps the ticket for at least so
        many µs from now, so that the use can be taken later.
        """

    # -- the verbs of sweeps

    def shard_of(self, member: bytes) -> int:
        """Return the shard that holds a member's record."""
        return 0

    @abstractmethod
    def claim(self, shard: int, limit: int, alone: bool = True) -> Claim:
        """Claim up to ``limit`` members of a shard that are due, or to be tried again.

        First ends the claims that have lapsed, which count as failed attempts. What may kill its
        sweeper is claimed only by one that is ``alone``: deletes nothing else meanwhile.
        """

    @abstractmethod
    def claim_these(self, shard: int, members: Sequence[bytes]) -> Sequence[ClaimOne]:
        """Claim those ``members`` of a shard that are due, all under one token.

        A claim that has lapsed is left to `claim`.
        """

    def claim_one(self, member: bytes) -> ClaimOne:
        """Do what `claim_these` does for one member."""
        return self.claim_these(self.shard_of(member), [member])[0]

    @abstractmethod
    def settle(
        self, claim: Claim, verdict: Verdict, limit: int | None = None, alone: bool = True
    ) -> Settled:
        """Report the outcome of a claim and, with a ``limit``, `claim` again, in one round trip.

        Forgets what is done, counts an attempt for each of the failures, sets aside what is
        broken, and postpones the rest.
        """

    # -- the verbs of onlookers

    def within(self, shards: Sequence[int]) -> Expirations:
        """Return these records for an onlooker, of some ``shards`` alone."""
        seen = copy(self)
        seen.shards = shards
        return seen

    @abstractmethod
    def counts(self) -> Counts:
        """Count the records of all shards."""

    @abstractmethod
    def earliest(self, limit: int) -> Sequence[Record]:
        """Return the records with the earliest deadlines, overdue ones included."""

    @abstractmethod
    def due_between(self, edges: Sequence[int]) -> Sequence[int]:
        """Count, for each edge but the last, the deadlines from it up to the next one."""

    @abstractmethod
    def record(self, member: bytes) -> Record | None:
        """Return the record of one member, or None if it has none."""

    @abstractmethod
    def scan(
        self, prefix: bytes | tuple[bytes, ...], text: bytes = b""
    ) -> Iterator[tuple[int, Iterable[Record]]]:
        """Yield how many records were looked at, and those of them that match.

        Their members begin with ``prefix``, or one of several, and the names of their files
        contain ``text``.
        """

    @abstractmethod
    def set_aside(self, prefix: bytes = b"", cursor: str = "", limit: int = 1_000) -> Page:
        """Return records set aside whose members begin with ``prefix``.

        They come in no order, and there may be a few more than ``limit``.
        """

    @abstractmethod
    def retry(self, members: Sequence[bytes]) -> Sequence[bytes]:
        """Make members that were set aside due now; return those that were set aside."""

    @abstractmethod
    def forget(self, members: Sequence[bytes]) -> Sequence[bytes]:
        """Forget members that were set aside; return those that were set aside."""

    # -- what each kind of store does in its own way, with the claim that is ``over``

    @abstractmethod
    def _schedule(
        self, over: int, members: Sequence[bytes], ttl: int
    ) -> Attempt[tuple[int, Sequence[bytes]]]:
        """Its value: the deadline, and the members that were left alone."""

    @abstractmethod
    def _keep(self, over: int, member: bytes) -> Attempt[None]: ...

    @abstractmethod
    def _await_owner(self, over: int, member: bytes, ttl: int, life: int) -> Attempt[None]: ...

    @abstractmethod
    def _let_go(self, over: int, member: bytes, ttl: int) -> Attempt[None]: ...

    @abstractmethod
    def _take_up(self, over: int, member: bytes, unawaited: bool) -> Attempt[None]: ...

    @abstractmethod
    def _begin(
        self, over: int, member: bytes, token: str, lease: int, default_ttl: int
    ) -> Attempt[Begun]: ...

    @abstractmethod
    def _finish(
        self, over: int, member: bytes, write: Begun, grace: int, default_ttl: int
    ) -> Attempt[Finished]: ...

    @abstractmethod
    def _reserve(self, over: int, member: bytes, token: int) -> Attempt[Reserved]: ...

    @abstractmethod
    def _revoke(self, member: bytes, revocation: str) -> None: ...

    @abstractmethod
    def _place_at(
        self, over: int, member: bytes, deadline: int, expected: int
    ) -> Attempt[None]: ...

    def _when_free(
        self,
        attempt: Callable[[int], Attempt[T]],
        *,
        waits_for_the_dead: bool = True,
    ) -> T:
        """Repeat ``attempt`` until no live claim forbids it; then fence lapsed ones.

        A claim whose lease is not extended for longer than it may last is over, whatever the
        store's clock says: that may have been set back. ``attempt`` is told where it ends.
        """
        busy, lapsed, value = attempt(0)
        give_up, pause = monotonic() + PATIENCE, FIRST_PAUSE
        over, seen, since = 0, busy.ends, monotonic()
        while busy.left:
            for member in lapsed:
                self._fence(member)
            now = monotonic()
            if now > give_up:
                raise FileBusy(f"a sweep has held the file for {PATIENCE:g} s: try again")
            if busy.ends != seen:
                seen, since = busy.ends, now
            unchanged = round((now - since) * SECOND)
            if not waits_for_the_dead and self.lease > LIVE < unchanged:
                left = ceil(busy.left / SECOND)
                raise FileBusy(f"a sweep died while it deleted the file: try again in {left} s")
            over = seen if unchanged > self.lease + LONGEST_PAUSE * SECOND else 0
            sleep(min(pause, busy.left / SECOND))
            pause = min(2 * pause, LONGEST_PAUSE)
            busy, lapsed, value = attempt(over)
        for member in lapsed:
            self._fence(member)
        return value


class ExpirationStore(ABC):
    """All the records of one site, or of several that share a ``key_prefix``."""

    #: Whether all shards are away if one is.
    on_one_server = True

    @cached_property
    def known(self) -> dict[Hashable, Expirations]:
        """What callers ask for again and again, for them to fill; it goes with the store."""
        return {}

    @abstractmethod
    def at(
        self, place: str, lease: int = LIVE, fence: Fence = no_fence, backoff: Backoff = BACKOFF
    ) -> Expirations:
        """Return the records of one place."""

    @abstractmethod
    def introduce(self, place: str, called: str) -> None:
        """Note that there may be records of a place, and what a person calls it."""

    @abstractmethod
    def places(self) -> Mapping[str, str]:
        """Return the places that were introduced, and what a person calls them."""

    def waiting(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[NextDue], Sequence[Exception]]:
        """Return the shards in which something can be claimed, in one round trip per server.

        Beside them come the errors of those that cannot be asked.
        """
        found, problems = self.next_due(records)
        return [it for it in found if it.is_due], problems

    @abstractmethod
    def next_due(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[NextDue], Sequence[Exception]]:
        """Return when there is something to claim in each shard, in one round trip per server.

        Beside them come the errors of those that cannot be asked.
        """

    @abstractmethod
    def readable(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[Expirations], Sequence[Exception]]:
        """Return records for onlookers, without the shards that cannot be read.

        Beside them come the errors of those. In one round trip per server. Raises the first error
        if no shard can be read.
        """

    @abstractmethod
    def keep_time(
        self,
        timekeeper: str,
        lease: int,
        records: Sequence[Expirations],
        kept: Sequence[Expirations] = (),
    ) -> TimeKept:
        """Take or extend the timekeeper's lease of each place, unless somebody else has it.

        It lasts for ``lease`` ms from now; 0 gives it up. The same round trip per server tells
        what is due next in those places of which the ``timekeeper`` has ``kept`` the time so far.
        """

    @abstractmethod
    def timekeepers(self, records: Sequence[Expirations]) -> Mapping[str, str]:
        """Return who keeps the time of each place; places whose time nobody keeps are left out."""

    @abstractmethod
    def take_seat(self, seats: str, name: str, lease: int, most: int = 1) -> Collection[str]:
        """Take one of ``most`` seats for ``lease`` ms, or extend that; return who has one now.

        The caller's ``name`` is among them if a seat was free, or its own. A ``lease`` of 0 gives
        it up.
        """

    @abstractmethod
    def pace(self, place: str, most: int | None = None) -> Pace:
        """Return the rate at which files of a place may be deleted, ``most`` a second.

        All processes keep it together. With None there is none until the store asks for less.
        """

    @abstractmethod
    def now(self) -> int:
        """Return the time in µs since the epoch, by the store's clock."""

    @abstractmethod
    def keeps_each_change(self) -> bool:
        """Return whether the records are the same after a restart of the server as before."""

    @abstractmethod
    def record_sweep(
        self, sweep: str, report: Mapping[str, float], tally: Mapping[str, float] = NOTHING
    ) -> Mapping[str, float]:
        """Note what a ``sweep`` (its id) did, for `sweeps`, and add ``tally`` to the totals.

        What other workers, or earlier turns, have reported of the same sweep stays in its report,
        which is returned.
        """

    @abstractmethod
    def sweeps(self, limit: int) -> list[dict[str, float]]:
        """Return the last reports, newest first, each with the time it was noted at."""

    @abstractmethod
    def totals(self) -> dict[str, float]:
        """Return what sweeps and one-shots have done so far; the names are those of a tally."""

    @abstractmethod
    def spread(self) -> Spread:
        """Tell over how many shards the records are spread, which the store itself knows."""

    @abstractmethod
    def reshard(self, shards: int, backoff: Backoff = BACKOFF) -> Iterator[Move]:
        """Spread all records over so many ``shards`` while writers and sweeps go on.

        Others see the result of each step at once. It may stop after any step, and goes on
        where it was when it is called again with the same number.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up the connections."""


def _new_write() -> str:
    return f"{getrandbits(48):x}"


def write_lease(token: str, member: bytes) -> bytes:
    """Return the name of the lease of a write."""
    return token.encode() + b"\0" + member


def written_under(lease: bytes) -> bytes | None:
    """Return the member whose write has a lease of this name, or None for that of a claim."""
    _, separator, member = lease.partition(b"\0")
    return member if separator else None


def claim_lease(token: int) -> bytes:
    """Return the name of the lease of a claim."""
    return b"%d" % token


def file_name(member: bytes) -> bytes:
    """Return the last segment of a member, which is the name of its file."""
    return member.rpartition(b"/")[2]


def new_token() -> int:
    """Return a number that no other claim has, and that a double holds exactly."""
    return getrandbits(52) | 1


def find(steps: Iterable[tuple[int, Iterable[Record]]], limit: int, looks: int) -> Found:
    """Return up to ``limit`` records that the ``steps`` of a scan find, soonest first.

    Ends after about ``looks`` records of any name, because the store can only find a name by
    looking at all records. What changes its state meanwhile may be missing.
    """
    found: dict[bytes, Record] = {}
    for looked, step in steps:
        if looks <= 0 or len(found) > limit:
            return Found(soonest(found.values(), limit), False)
        looks -= looked
        found.update((record.member, record) for record in step)
    return Found(soonest(found.values(), limit), len(found) <= limit)


def total(counts: Iterable[Counts]) -> Counts:
    """Return the counts of several groups of records together."""
    groups = list(counts) or [Counts()]
    sums = Counts(*map(sum, zip(*groups, strict=True)))
    newest, oldest = (max(getattr(one, name) for one in groups) for name in ("now", "oldest"))
    return sums._replace(now=newest, oldest=oldest)


def soonest(records: Iterable[Record], limit: int) -> list[Record]:
    """Return the ``limit`` records with the earliest deadlines."""
    return nsmallest(limit, records, key=attrgetter("deadline", "member"))


_OF_REDIS = """redis rediss unix sentinel redis+sentinel rediss+sentinel
    redis+cluster rediss+cluster""".split()
_BY_SCHEME = {"memory": "djpyfs.expirations.memory_store.MemoryStore"} | dict.fromkeys(
    _OF_REDIS, "djpyfs.expirations.redis_store.RedisStore"
)
_Named = tuple[str, str, int, int]
_stores = Registry[_Named, ExpirationStore]()
fresh, close_all = _stores.fresh, _stores.close_all


def store_for(settings: Settings) -> ExpirationStore:
    """Return the record store that ``settings`` name, the same one for the same URL."""
    named = settings.redis_url, settings.key_prefix, settings.shards, settings.wait_replicas
    return _stores.get(named, lambda: _made(named))


def _made(named: _Named) -> ExpirationStore:
    scheme = named[0].partition("://")[0]
    if scheme not in _BY_SCHEME:  # nor is it shown: without "://" it may be the password
        known = ", ".join(f"{known}://" for known in _BY_SCHEME)
        raise ConfigurationError(f"DJFS['redis_url'] has an unknown scheme: use one of {known}")
    store: ExpirationStore = import_string(_BY_SCHEME[scheme])(*named)
    return store
