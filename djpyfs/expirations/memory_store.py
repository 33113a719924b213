"""The record store in this process, for unit tests and the memory backend."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from threading import RLock
from typing import TYPE_CHECKING, Literal, NamedTuple

from .. import clock
from ..conf import SECOND
from ..errors import ConfigurationError
from . import (
    BACKOFF,
    LIVE,
    NOTHING,
    SCANNED,
    SWEEPS_KEPT,
    Attempt,
    Backoff,
    Begun,
    Busy,
    Claim,
    ClaimOne,
    Counts,
    Expirations,
    ExpirationStore,
    Fence,
    Finished,
    GivenUp,
    Linked,
    Move,
    NextDue,
    Page,
    Record,
    Reserved,
    Settled,
    Spread,
    State,
    TimeKept,
    Verdict,
    claim_lease,
    file_name,
    new_token,
    no_fence,
    soonest,
    write_lease,
)

if TYPE_CHECKING:
    from limits.storage import MemoryStorage

    from .pace import Pace

LAPSED = "its deletion did not end in time, or ended the process that tried it"


class Note(NamedTuple):
    """How many attempts have failed, and why a member is not merely due."""

    attempts: int = 0
    state: str = ""


class Ticket(NamedTuple):
    """How often a ticket can be used, and until when."""

    left: int
    end: int  # µs since the epoch


class Owners(NamedTuple):
    """What rows have to do with a member."""

    deadline: int  # that it has if a row owns it, in µs since the epoch; 0: none
    state: Literal["awaited", "gone", "there"]

    @property
    def awaited(self) -> bool:
        """Whether the member is deleted only if no row owns it."""
        return self.state != "there"


PERMANENT = Owners(0, "there")


@dataclass
class Writes:
    """The writes that are going on to one member."""

    tokens: list[str] = field(default_factory=list)
    provisional: bool = False  # only they have made the record


class Scores(dict[bytes, int]):
    """A sorted set, as Redis has it."""

    def __init__(self) -> None:
        super().__init__()
        # May hold outdated pairs too: a pair counts while the dict says the same.
        self._queue: list[tuple[int, bytes]] = []

    def __setitem__(self, member: bytes, score: int) -> None:
        super().__setitem__(member, score)
        heapq.heappush(self._queue, (score, member))

    def first(self) -> int | None:
        """Return the lowest score."""
        while self._queue and self.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def first_of(self, until: int, wanted: Callable[[bytes], bool]) -> int | None:
        """Return the lowest score that is ``wanted`` or higher than ``until``."""
        left = []
        while (first := self.first()) is not None and first <= until:
            if wanted(self._queue[0][1]):
                break
            left.append(heapq.heappop(self._queue))
        for pair in left:
            heapq.heappush(self._queue, pair)
        return first

    def take(
        self, until: int, limit: int, wanted: Callable[[bytes], bool]
    ) -> list[tuple[bytes, int]]:
        """Remove and return the lowest scores that are ``wanted`` and no higher than ``until``."""
        taken: list[tuple[bytes, int]] = []
        left = []
        while len(taken) < limit and (first := self.first()) is not None and first <= until:
            score, member = heapq.heappop(self._queue)
            if wanted(member):
                taken.append((member, score))
                del self[member]
            else:
                left.append((score, member))
        for pair in left:
            heapq.heappush(self._queue, pair)
        return taken

    def up_to(self, score: int) -> int:
        """Count the scores that are no higher."""
        return sum(one <= score for one in self.values())


class MemoryStore(ExpirationStore):
    """Records that live and die with this process; the verbs do what the scripts do.

    Its arguments only tell one store from another. Its clock is `djpyfs.clock.now`; leases end
    by `djpyfs.clock.uptime`.
    """

    def __init__(
        self, url: str = "", key_prefix: str = "", shards: int = 1, wait_replicas: int = 0
    ) -> None:
        self._lock = RLock()
        self._called: dict[str, str] = {}
        self._records: dict[str, _Records] = {}
        self._seats: defaultdict[str, dict[str, int]] = defaultdict(dict)  # name -> end of lease
        self._totals: defaultdict[str, float] = defaultdict(float)
        self._sweeps: dict[str, dict[str, float]] = {}
        self._counts: MemoryStorage | None = None

    def at(
        self, place: str, lease: int = LIVE, fence: Fence = no_fence, backoff: Backoff = BACKOFF
    ) -> Expirations:
        records = self._records.setdefault(place, _Records())
        return _Expirations(self, records, place, lease, fence, backoff)

    def introduce(self, place: str, called: str) -> None:
        self._called[place] = called

    def places(self) -> Mapping[str, str]:
        return dict(self._called)

    def next_due(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[NextDue], Sequence[Exception]]:
        now = clock.now()
        found = [(own, self._records[own.place]) for own in records]
        return [NextDue(own, 0, now, it.next_due(now), it.claimable(now)) for own, it in found], []

    def readable(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[Expirations], Sequence[Exception]]:
        return records, []

    def keep_time(
        self,
        timekeeper: str,
        lease: int,
        records: Sequence[Expirations],
        kept: Sequence[Expirations] = (),
    ) -> TimeKept:
        held = {
            own.place
            for own in records
            if timekeeper in self.take_seat(f"{own.place}:timekeeper", timekeeper, lease)
        }
        found, problems = self.next_due([own for own in kept if own.place in held])
        return TimeKept(held, found, problems)

    def timekeepers(self, records: Sequence[Expirations]) -> Mapping[str, str]:
        holders = {own.place: self.take_seat(f"{own.place}:timekeeper", "", 0) for own in records}
        return {place: next(iter(names)) for place, names in holders.items() if names}

    def take_seat(self, seats: str, name: str, lease: int, most: int = 1) -> Collection[str]:
        with self._lock:
            now = clock.uptime()
            taken = {holder: end for holder, end in self._seats[seats].items() if end > now}
            if not lease:
                taken.pop(name, None)
            elif name in taken or len(taken) < most:
                taken[name] = now + lease * 1_000
            self._seats[seats] = taken
            return list(taken)

    def now(self) -> int:
        return clock.now()

    def pace(self, place: str, most: int | None = None) -> Pace:
        from limits.storage import MemoryStorage

        from .pace import Pace  # which takes a while to import

        with self._lock:
            counts = self._counts = self._counts or MemoryStorage()
        return Pace(place, most, lambda ask: ask(counts))

    def keeps_each_change(self) -> bool:
        return False

    def record_sweep(
        self, sweep: str, report: Mapping[str, float], tally: Mapping[str, float] = NOTHING
    ) -> Mapping[str, float]:
        with self._lock:
            before, now = self._sweeps.pop(sweep, None), clock.now() / SECOND
            whole = _together(before, report, now) if before else dict(report)
            self._sweeps[sweep] = {**whole, "finished": now}
            if len(self._sweeps) > SWEEPS_KEPT:
                del self._sweeps[next(iter(self._sweeps))]
            self.add_to_totals(tally)
            return whole

    def sweeps(self, limit: int) -> list[dict[str, float]]:
        with self._lock:
            return [dict(report) for report in islice(reversed(self._sweeps.values()), limit)]

    def totals(self) -> dict[str, float]:
        with self._lock:
            return dict(self._totals)

    def add_to_totals(self, tally: Mapping[str, float]) -> None:
        """Let totals grow."""
        with self._lock:
            for number, growth in tally.items():
                self._totals[number] += growth

    def spread(self) -> Spread:
        return Spread(1, 1)

    def reshard(self, shards: int, backoff: Backoff = BACKOFF) -> Iterator[Move]:
        raise ConfigurationError(
            "DJFS['redis_url'] is memory://, and what is kept in a process has no shards"
        )

    def close(self) -> None:
        """Keep everything: there is nothing to give up."""


class _Records:
    """The records of one place, each kind under the name that its key has in Redis."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.due = Scores()
        self.retries = Scores()
        self.suspects = Scores()
        self.waiting = self.due, self.retries, self.suspects
        self.claimed: dict[bytes, int] = {}
        self.deadlines = Scores()
        self.leases = Scores()
        self.notes: dict[bytes, Note] = {}
        self.failed: dict[bytes, GivenUp] = {}
        self.writing: dict[bytes, Writes] = {}
        self.permanent: set[bytes] = set()
        self.owners: dict[bytes, Owners] = {}
        self.revocations: dict[bytes, str] = {}
        self.tickets: dict[str, Ticket] = {}

    def next_due(self, now: int) -> int | None:
        """Return when there is something to claim, or a lease that lapses."""
        with self.lock:
            firsts = [
                scores.first_of(now, lambda member: member not in self.writing)
                for scores in self.waiting
            ]
            lapse = self.leases.first()
            if lapse is not None:
                firsts.append(now + lapse - clock.uptime())
            known = [at for at in firsts if at is not None]
            return min(known, default=None)

    def claimable(self, now: int) -> int:
        """Count what a sweep could claim."""
        with self.lock:
            overdue = sum(scores.up_to(now) for scores in self.waiting)
            return max(0, overdue - len(self.writing))

    def note(self, member: bytes) -> Note:
        return self.notes.get(member, Note())

    def deadline_of(self, member: bytes) -> int:
        if member in self.failed:
            return self.failed[member].deadline
        return self.due.get(member) or self.deadlines.get(member, 0)

    def is_permanent(self, member: bytes) -> bool:
        return member in self.permanent or self.owners.get(member) == PERMANENT

    def lives_until(self, member: bytes) -> int:
        """Return the deadline of a member, or 0; if it waits for an owner, the one it has then."""
        if self.awaits_owner(member):
            return self.owners[member].deadline
        return self.deadline_of(member)

    def awaits_owner(self, member: bytes) -> bool:
        return member in self.owners and self.owners[member].awaited

    def set_deadline(self, member: bytes, deadline: int) -> None:
        self.permanent.discard(member)
        if self.owners.get(member) == PERMANENT:
            del self.owners[member]
        self.due[member] = deadline

    def forget(self, member: bytes) -> None:
        """Forget the record, but not its writes, its owner, or that it is permanent."""
        for kind in (*self.waiting, self.claimed, self.deadlines, self.notes, self.failed):
            kind.pop(member, None)

    def confirm(self, member: bytes) -> None:
        """Make a record outlast the writes that made it."""
        if member in self.writing:
            self.writing[member].provisional = False

    def unclaim(self, member: bytes, now: int) -> None:
        """End a claim without counting an attempt."""
        deadline, attempts = self.deadlines.get(member, 0), self.note(member).attempts
        del self.claimed[member]
        if deadline and attempts:
            self.retries[member] = now
            self.notes[member] = Note(attempts, State.RETRIED)
            return
        self.deadlines.pop(member, None)
        self.notes.pop(member, None)
        if deadline:
            self.set_deadline(member, deadline)

    def end_lease(self, token: int) -> None:
        """End a lease once no member is claimed under it."""
        if token not in self.claimed.values():
            self.leases.pop(claim_lease(token), None)

    def end_write(self, member: bytes, token: str) -> tuple[bool, bool, int]:
        """Remove a write from those of its member.

        Returns whether it was there, whether only writes have made the record, and how many writes
        are left.
        """
        self.leases.pop(write_lease(token, member), None)
        writes = self.writing.get(member, Writes())
        found = token in writes.tokens
        if found:
            writes.tokens.remove(token)
        if not writes.tokens:
            self.writing.pop(member, None)
        return found, writes.provisional, len(writes.tokens)

    def count_attempt(
        self, member: bytes, reason: str, state: str, most: int, delay: int, now: int
    ) -> bool:
        """Count a failed attempt; return whether it was the last one, which sets aside."""
        attempts = self.note(member).attempts + 1
        del self.claimed[member]
        if attempts < most:
            again = self.suspects if state == "suspect" else self.retries
            again[member] = now + delay
            self.notes[member] = Note(attempts, state)
            return False
        self.notes.pop(member, None)
        deadline = self.deadlines.pop(member, now)
        self.failed[member] = GivenUp(member, reason, attempts, now // SECOND, deadline)
        return True


class _Expirations(Expirations):
    def __init__(
        self,
        store: MemoryStore,
        records: _Records,
        place: str,
        lease: int,
        fence: Fence,
        backoff: Backoff,
    ) -> None:
        super().__init__(place, lease, fence, backoff)
        self._store = store
        self._of = records
        self._lock = records.lock

    # -- the verbs of writers

    def _claim_on(self, over: int, member: bytes) -> tuple[Busy, Sequence[bytes]]:
        """Return the live claim on a member, or end the one that has lapsed."""
        if member not in self._of.claimed:
            return Busy(), [member] * self._is_suspect(member)
        uptime, lease = clock.uptime(), claim_lease(self._of.claimed[member])
        ends = self._of.leases.get(lease, 0)
        if ends > uptime and ends != over:
            return Busy(ends - uptime, ends), ()
        if ends:  # it stays lapsed, even if somebody extends it now
            self._of.leases[lease] = 1
        self._of.unclaim(member, clock.now())
        return Busy(), [member]

    def _schedule(
        self, over: int, members: Sequence[bytes], ttl: int
    ) -> Attempt[tuple[int, Sequence[bytes]]]:
        with self._lock:
            deadline, longest = clock.now() + ttl, Busy()
            left_alone: list[bytes] = []
            lapsed: list[bytes] = []
            for member in members:
                busy, own = self._claim_on(over, member)
                lapsed += own
                if busy.left:
                    longest = max(longest, busy)
                    left_alone.append(member)
                else:
                    self._set(member, deadline)
            return Attempt(longest, lapsed, (deadline, left_alone))

    def _set(self, member: bytes, deadline: int) -> None:
        self._of.forget(member)
        self._of.confirm(member)
        self._of.owners.pop(member, None)
        self._of.set_deadline(member, deadline)

    def _keep(self, over: int, member: bytes) -> Attempt[None]:
        with self._lock:
            busy, lapsed = self._claim_on(over, member)
            if not busy.left:
                self._of.forget(member)
                self._of.confirm(member)
                self._of.owners.pop(member, None)
                self._of.permanent.add(member)
            return Attempt(busy, lapsed, None)

    def _await_owner(self, over: int, member: bytes, ttl: int, life: int) -> Attempt[None]:
        with self._lock:
            busy, lapsed = self._claim_on(over, member)
            now, of = clock.now(), self._of
            deadline = of.deadline_of(member)
            if busy.left or not deadline:
                pass
            elif life < 0 and not of.awaits_owner(member):
                of.owners[member] = Owners(deadline, "there")
            else:
                owned = of.owners[member].deadline if life < 0 else life and now + life
                self._set(member, max(deadline, now + ttl))
                of.owners[member] = Owners(owned, "awaited")
            return Attempt(busy, lapsed, None)

    def _let_go(self, over: int, member: bytes, ttl: int) -> Attempt[None]:
        with self._lock:
            busy, lapsed = self._claim_on(over, member)
            due_at, of = clock.now() + ttl, self._of
            deadline = of.deadline_of(member)
            known = of.owners.get(member)
            by_hand = not known and (deadline or of.is_permanent(member))
            is_new = known and known.state == "awaited"
            later = not deadline or deadline > due_at
            if later and not (busy.left or by_hand or is_new):
                self._set(member, due_at)
                had = known if known and known.awaited else Owners(deadline, "gone")
                of.owners[member] = had
            return Attempt(busy, lapsed, None)

    def _take_up(self, over: int, member: bytes, unawaited: bool) -> Attempt[None]:
        with self._lock:
            of = self._of
            awaits = of.awaits_owner(member)
            if not awaits and (not unawaited or of.is_permanent(member)):
                return Attempt(Busy(), (), None)
            busy, lapsed = self._claim_on(over, member)
            if busy.left:
                return Attempt(busy, lapsed, None)
            deadline = of.deadline_of(member)
            if awaits:
                deadline = of.owners[member].deadline
                of.forget(member)
                of.confirm(member)
                if deadline:
                    of.set_deadline(member, deadline)
            of.owners[member] = Owners(deadline, "there")
            return Attempt(busy, lapsed, None)

    def _begin(
        self, over: int, member: bytes, token: str, lease: int, default_ttl: int
    ) -> Attempt[Begun]:
        with self._lock:
            now = clock.now()
            busy, lapsed = self._claim_on(over, member)
            if busy.left:
                return Attempt(busy, lapsed, Begun(token))
            writes = self._of.writing.setdefault(member, Writes())
            before = 0 if writes.provisional else self._of.deadline_of(member)
            writes.tokens.append(token)
            permanent = self._of.is_permanent(member)
            unknown = not (writes.provisional or before or permanent)
            if unknown and default_ttl:
                self._of.set_deadline(member, now + default_ttl)
                writes.provisional = True
            self._of.leases[write_lease(token, member)] = clock.uptime() + lease
            return Attempt(busy, lapsed, Begun(token, before, 0 < before <= now, permanent))

    def _finish(
        self, over: int, member: bytes, write: Begun, grace: int, default_ttl: int
    ) -> Attempt[Finished]:
        with self._lock:
            busy, lapsed = self._claim_on(over, member)
            if busy.left:
                return Attempt(busy, lapsed, Finished(0, False, False))
            now = clock.now()
            unbroken, provisional, _ = self._of.end_write(member, write.token)
            self._of.confirm(member)
            deadline = self._of.deadline_of(member)
            # Nobody deletes what is not due.
            unbroken = unbroken or deadline == write.before > now
            kept = self._of.is_permanent(member) or (write.permanent and not unbroken)
            if write.overdue and deadline == write.before:
                self._of.forget(member)
                deadline = 0
            by_default = bool(default_ttl and (provisional or not (deadline or kept)))
            vanished = not (unbroken or write.overdue or kept) and write.before
            if by_default:
                deadline = now + default_ttl
            elif deadline or vanished:
                deadline = max(deadline or write.before, now + grace)
            if deadline:
                self._of.forget(member)
                self._of.set_deadline(member, deadline)
            return Attempt(busy, lapsed, Finished(deadline, by_default, unbroken))

    def abandon(self, member: bytes, token: str) -> None:
        with self._lock:
            _, provisional, others = self._of.end_write(member, token)
            if provisional and not others:
                # Not its claim: somebody may be removing or replacing the file.
                self._of.due.pop(member, None)
                self._of.deadlines.pop(member, None)

    def _reserve(self, over: int, member: bytes, token: int) -> Attempt[Reserved]:
        with self._lock:
            busy, lapsed = self._claim_on(over, member)
            if busy.left:
                return Attempt(busy, lapsed, Reserved(token, 0, False))
            deadline, attempts = self._of.deadline_of(member), self._of.note(member).attempts
            self._of.forget(member)
            if deadline:
                self._of.deadlines[member] = deadline
            self._of.notes[member] = Note(attempts, "reserved")
            self._hold([member], token)
            kept, owners = self._of.is_permanent(member), self._of.owners.get(member)
            awaits = bool(owners and owners.awaited)
            owned = bool(owners) and not awaits
            return Attempt(busy, lapsed, Reserved(token, deadline, kept, owned, awaits))

    def _hold(self, members: Iterable[bytes], token: int) -> None:
        self._of.claimed.update((member, token) for member in members)
        self._of.leases[claim_lease(token)] = clock.uptime() + self.lease

    def pledge(self, member: bytes, token: int, deadline: int) -> bool:
        with self._lock:
            if self._of.claimed.get(member) != token:
                return False
            self._of.confirm(member)
            self._of.notes[member] = Note(0, "reserved")
            self._of.deadlines.pop(member, None)
            if deadline:
                self._of.deadlines[member] = deadline
            return True

    def release(self, member: bytes, token: int, deadline: int | None = None) -> None:
        with self._lock:
            if self._of.claimed.get(member) != token:
                return
            if deadline is None:
                self._of.unclaim(member, clock.now())
            else:
                self._of.forget(member)
                self._of.permanent.discard(member)
                self._of.confirm(member)
                self._of.owners.pop(member, None)
                if deadline:
                    self._of.set_deadline(member, deadline)
            self._of.end_lease(token)

    def reserve_free(self, members: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        token = new_token()
        with self._lock:
            of = self._of
            more_known = of.claimed.keys() | of.deadlines.keys() | of.failed.keys()
            free = [member for member in members if member not in more_known]
            for member in free:
                of.notes[member] = Note(0, "reserved")
                if member in of.due:
                    of.deadlines[member] = of.due.pop(member)
            self._hold(free, token)
            return token, [member for member in members if member in more_known]

    def release_all(self, shards: Iterable[int], token: int, gone: bool) -> None:
        with self._lock:
            members = [member for member, held in self._of.claimed.items() if held == token]
        for member in members:
            self.release(member, token, 0 if gone else None)

    def extend(
        self, shard: int, leases: Mapping[bytes, int], new: Collection[bytes] = ()
    ) -> Sequence[bytes]:
        with self._lock:
            uptime = clock.uptime()
            for lease in set(new) - self._of.leases.keys():
                token, _, member = lease.partition(b"\0")
                if member not in self._of.claimed:
                    self._of.writing.setdefault(member, Writes()).tokens.append(token.decode())
                    self._of.leases[lease] = uptime + leases[lease]
            gone = [lease for lease in leases if self._of.leases.get(lease, 0) <= uptime]
            for lease in leases.keys() - set(gone):
                self._of.leases[lease] = uptime + leases[lease]
            return gone

    def _place_at(self, over: int, member: bytes, deadline: int, expected: int) -> Attempt[None]:
        with self._lock:
            busy, lapsed = self._claim_on(over, member)
            if not busy.left and expected in (-1, self._of.deadline_of(member)):
                self._of.forget(member)
                self._of.confirm(member)
                self._of.owners.pop(member, None)
                if deadline:
                    self._of.set_deadline(member, deadline)
            return Attempt(busy, lapsed, None)

    def adopt(self, deadlines: Mapping[bytes, int]) -> Sequence[bytes]:
        with self._lock:
            of = self._of
            new = [
                member
                for member in deadlines
                if not (of.deadline_of(member) or member in of.claimed or of.is_permanent(member))
            ]
            for member in new:
                if deadlines[member]:
                    of.set_deadline(member, deadlines[member])
                else:
                    of.permanent.add(member)
            return new

    def permanent(self, members: Sequence[bytes]) -> Sequence[bytes]:
        with self._lock:
            return [member for member in members if self._of.is_permanent(member)]

    def deadlines(self, members: Sequence[bytes]) -> tuple[int, list[int]]:
        with self._lock:
            return clock.now(), [self._of.deadline_of(member) for member in members]

    def renew(self, member: bytes, ttl: int, written: int = 0, longest: int = 0) -> int:
        with self._lock:
            now, deadline = clock.now(), self._of.due.get(member, 0)
            if deadline <= now or written > now:
                return 0
            renewed = min(now + ttl, written + longest) if longest else now + ttl
            if renewed > deadline:
                self._of.due[member] = renewed
            return self._of.due[member]

    def linked(self, members: Sequence[bytes]) -> tuple[int, list[Linked]]:
        with self._lock:
            of, now = self._of, clock.now()
            return now, [
                Linked(of.lives_until(member), of.revocations.get(member, "")) for member in members
            ]

    def _revoke(self, member: bytes, revocation: str) -> None:
        with self._lock:
            self._of.revocations[member] = revocation

    def issue_ticket(self, ticket: str, uses: int, end: int) -> None:
        with self._lock:
            now, tickets = clock.now(), self._of.tickets
            for key in [key for key, kept in tickets.items() if kept.end <= now]:
                del tickets[key]
            tickets[ticket] = Ticket(uses, end)

    def use_ticket(self, ticket: str, take: bool = True, hold: int = 0) -> bool | None:
        with self._lock:
            now, known = clock.now(), self._of.tickets.get(ticket)
            if known is None or known.end <= now:
                return None
            left = max(0, known.left - take)
            self._of.tickets[ticket] = Ticket(left, max(known.end, now + hold))
            return known.left > 0

    # -- the verbs of sweeps

    def claim(self, shard: int, limit: int, alone: bool = True) -> Claim:
        with self._lock:
            now = clock.now()
            self._end_lapsed(now)
            taken = self._take(now, limit, alone)
            token = new_token()
            if taken:
                self._hold([member for member, _ in taken], token)
            full = len(taken) >= limit or bool(taken and self._is_suspect(taken[0][0]))
            lags = [now - due for _, due in taken]
            overdue = self._of.claimable(now) if full else 0
            members = [member for member, _ in taken]
            awaiting = [member for member in members if self._of.awaits_owner(member)]
            return Claim(shard, token, members, lags, overdue, awaiting)

    def _end_lapsed(self, now: int) -> None:
        of = self._of
        for lease, _ in of.leases.take(clock.uptime(), len(of.leases), lambda lease: True):
            token, _, member = lease.partition(b"\0")
            if member:
                of.end_write(member, token.decode())
                continue
            members = [member for member, held in of.claimed.items() if held == int(token)]
            for member in members:
                self._lapse(member, len(members) == 1, now)

    def _lapse(self, member: bytes, alone: bool, now: int) -> None:
        if self._of.note(member).state in ("reserved", "excused"):
            return self._of.unclaim(member, now)
        delay = _delay(self.backoff, self._of.note(member).attempts + 1) if alone else 0
        self._of.count_attempt(member, LAPSED, "suspect", self.backoff.max_attempts, delay, now)
        return None

    def _take(self, now: int, limit: int, alone: bool) -> list[tuple[bytes, int]]:
        of = self._of
        fresh = of.due.take(now, limit, lambda member: member not in of.writing)
        for member, deadline in fresh:
            of.deadlines[member] = deadline
        left = limit - len(fresh)
        again = of.retries.take(now, left, lambda member: member not in of.writing)
        if fresh or again or not (limit and alone):
            return fresh + again
        return of.suspects.take(now, 1, lambda member: member not in of.writing)

    def _is_suspect(self, member: bytes) -> bool:
        return self._of.note(member).state == "suspect"

    def claim_these(self, shard: int, members: Sequence[bytes]) -> Sequence[ClaimOne]:
        with self._lock:
            token = new_token()
            return [self._claim_one(member, token) for member in members]

    def _claim_one(self, member: bytes, token: int) -> ClaimOne:
        if member in self._of.claimed or member in self._of.writing:
            return ClaimOne()
        now = clock.now()
        waits_for = max(scores.get(member, 0) for scores in self._of.waiting)
        if not waits_for or waits_for > now:
            return ClaimOne(wait=(waits_for or now) - now)
        self._of.deadlines[member] = self._of.deadline_of(member)
        for scores in self._of.waiting:
            scores.pop(member, None)
        self._hold([member], token)
        return ClaimOne(token, now - waits_for, 0, self._of.awaits_owner(member))

    def settle(
        self, claim: Claim, verdict: Verdict, limit: int | None = None, alone: bool = True
    ) -> Settled:
        of, token = self._of, claim.token

        def own(members: Iterable[bytes]) -> list[bytes]:
            return [member for member in members if of.claimed.get(member) == token]

        with self._lock:
            now = clock.now()
            for member in own(verdict.done):
                for kind in of.claimed, of.deadlines, of.notes, of.owners:
                    kind.pop(member, None)
            for (delay, state), members in verdict.put_off.items():
                for member in own(members):
                    self._postpone(member, state, now, delay)
            for member in own(verdict.excused):
                of.notes[member] = Note(of.note(member).attempts, "excused")
            failed = (verdict.failures, self.backoff), (verdict.broken, Backoff(1))
            fates = [
                self._fail(member, why, backoff, now)
                for failures, backoff in failed
                for member, why in failures
                if of.claimed.get(member) == token
            ]
            of.end_lease(token)
            set_aside = sum(fates)
            retried = len(fates) - set_aside
            results = {"retried": retried, "set_aside": set_aside}
            self._store.add_to_totals({**verdict.tally, **results})
            following = None if limit is None else self.claim(claim.shard, limit, alone)
            return Settled(retried, set_aside, following)

    def _postpone(self, member: bytes, state: State, now: int, delay: int) -> None:
        if state is State.DUE:
            return self._of.unclaim(member, now)
        del self._of.claimed[member]
        self._of.retries[member] = now + delay
        self._of.notes[member] = Note(self._of.note(member).attempts, state)
        return None

    def _fail(self, member: bytes, why: str, backoff: Backoff, now: int) -> bool:
        delay = _delay(backoff, self._of.note(member).attempts + 1)
        return self._of.count_attempt(member, why, State.RETRIED, backoff.max_attempts, delay, now)

    # -- the verbs of onlookers

    def counts(self) -> Counts:
        with self._lock:
            of, now = self._of, clock.now()
            uptime = clock.uptime()
            lapsed = {
                int(lease)
                for lease, end in of.leases.items()
                if end <= uptime and b"\0" not in lease
            }
            live = sum(token not in lapsed for token in of.claimed.values())
            tracked = sum(map(len, of.waiting)) + len(of.claimed)
            overdue = tracked - live - (len(of.due) - of.due.up_to(now))
            firsts = [first for first in (of.due.first(), of.deadlines.first()) if first]
            oldest = now - min([now, *firsts])
            noted = Counter(note.state for note in of.notes.values())
            retried = noted[State.RETRIED] + noted["suspect"]
            states = retried, noted[State.HELD], noted[State.POSTPONED]
            return Counts(now, tracked, overdue, live, len(of.failed), oldest, *states)

    def earliest(self, limit: int) -> Sequence[Record]:
        with self._lock:
            return soonest(self._tracked(), limit)

    def _tracked(self) -> list[Record]:
        members = [*self._of.due, *self._of.deadlines]
        return [record for member in members if (record := self.record(member))]

    def due_between(self, edges: Sequence[int]) -> Sequence[int]:
        with self._lock:
            deadlines = list(self._of.due.values())
        return [
            sum(first <= deadline < end for deadline in deadlines) for first, end in pairwise(edges)
        ]

    def record(self, member: bytes) -> Record | None:
        with self._lock:
            deadline = self._of.deadline_of(member)
            return Record(member, deadline, self._state(member)) if deadline else None

    def _state(self, member: bytes) -> State:
        if member in self._of.failed:
            return State.SET_ASIDE
        if member in self._of.claimed:
            return State.CLAIMED
        if member in self._of.due:
            return State.DUE
        state = self._of.note(member).state
        return State(state) if state in {*State} else State.RETRIED

    def scan(
        self, prefix: bytes | tuple[bytes, ...], text: bytes = b""
    ) -> Iterator[tuple[int, Iterable[Record]]]:
        with self._lock:
            records = self._tracked()
            records += [record for member in self._of.failed if (record := self.record(member))]
        for first in range(0, len(records), SCANNED):
            step = records[first : first + SCANNED]
            yield (
                len(step),
                [
                    record
                    for record in step
                    if record.member.startswith(prefix) and text in file_name(record.member)
                ],
            )

    def set_aside(self, prefix: bytes = b"", cursor: str = "", limit: int = 1_000) -> Page:
        with self._lock:
            after = bytes.fromhex(cursor)
            members = sorted(m for m in self._of.failed if m.startswith(prefix) and m > after)
            page = members[:limit]
            records = [self._of.failed[member] for member in page]
        return Page(records, page[-1].hex() if len(members) > limit else "")

    def retry(self, members: Sequence[bytes]) -> Sequence[bytes]:
        with self._lock:
            deadlines = {member: self._of.deadline_of(member) for member in members}
            released = self._released(members)
            for member in released:
                self._of.set_deadline(member, deadlines[member])
            return released

    def forget(self, members: Sequence[bytes]) -> Sequence[bytes]:
        with self._lock:
            released = self._released(members)
            for member in released:
                self._of.owners.pop(member, None)
            return released

    def _released(self, members: Sequence[bytes]) -> Sequence[bytes]:
        return [member for member in members if self._of.failed.pop(member, None)]


def _together(
    before: Mapping[str, float], report: Mapping[str, float], now: float
) -> dict[str, float]:
    """Return the report of a sweep with that of another part of it."""
    lasted = now - before["finished"] + before.get("duration", 0)
    no_sums = {
        "duration": max(report.get("duration", 0), lasted),
        "lag": max(report.get("lag", 0), before.get("lag", 0)),
        "remaining": report.get("remaining", 0),
        "unreachable": report.get("unreachable", 0),
    }
    sums = {name: before.get(name, 0) + number for name, number in report.items()}
    return {name: no_sums.get(name, number) for name, number in sums.items()}


def _delay(backoff: Backoff, attempts: int) -> int:
    wait = min(backoff.longest, backoff.shortest * 2 ** (attempts - 1))
    return int(wait * random.uniform(0.5, 1))
