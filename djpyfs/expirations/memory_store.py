"""The record store in this process, for unit tests and the memory back-end."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from operator import attrgetter
from threading import RLock
from time import monotonic_ns, time, time_ns
from typing import NamedTuple

from ..conf import SECOND
from . import (
    NOBODY,
    NOTHING,
    SWEEPS_KEPT,
    Backoff,
    Carried,
    Claim,
    ClaimOne,
    Counts,
    ExpirationStore,
    GivenUp,
    Page,
    Record,
    Settled,
    State,
    Touch,
)

SCANNED = 2_000  # records that are looked at in one step of a scan


@dataclass(frozen=True)
class SetAside:
    """Why a member is not tried any more."""

    reason: str
    attempts: int
    at: int  # s since the epoch


class Ticket(NamedTuple):
    """How often a ticket can be used, and until when."""

    left: int
    end: int  # µs since the epoch


class MemoryStore(ExpirationStore):
    """Records that live and die with this process; the verbs do what the scripts do.

    What it is given only tells one store from another.
    """

    def __init__(
        self, url: str = "", key_prefix: str = "", shards: int = 1, wait_replicas: int = 0
    ) -> None:
        self._lock = RLock()
        self._last_token = 0
        self._due: dict[bytes, int] = {}
        # May hold outdated pairs too: a pair counts while `_due` says the same.
        self._queue: list[tuple[int, bytes]] = []
        self._claimed: dict[bytes, int] = {}
        self._attempts: dict[bytes, int] = {}
        self._failed: dict[bytes, SetAside] = {}
        self._tickets: dict[tuple[bytes, str], Ticket] = {}
        self._sweeps: deque[dict[str, float]] = deque(maxlen=SWEEPS_KEPT)
        self._totals: defaultdict[str, float] = defaultdict(float)
        # The wall clock may be set; from here on only the monotonic one is asked.
        self._epoch = time_ns() - monotonic_ns()

    def _now(self) -> int:
        return (self._epoch + monotonic_ns()) // 1_000

    def _busy(self, member: bytes) -> int:
        return max(0, self._claimed.get(member, 0) - self._now())

    def _forget(self, member: bytes) -> None:
        self._due.pop(member, None)
        self._claimed.pop(member, None)
        self._attempts.pop(member, None)
        self._failed.pop(member, None)

    def _set_deadline(self, member: bytes, deadline: int) -> None:
        self._due[member] = deadline
        heapq.heappush(self._queue, (deadline, member))

    # -- the verbs of writers

    def _schedule(self, members: Sequence[bytes], ttl: int) -> tuple[int, int, Sequence[bytes]]:
        with self._lock:
            deadline = self._now() + ttl
            busy = {member: left for member in members if (left := self._busy(member))}
            for member in members:
                if member not in busy:
                    self._forget(member)
                    self._set_deadline(member, deadline)
            return max(busy.values(), default=0), deadline, list(busy)

    def _cancel(self, member: bytes, expected: int) -> int:
        with self._lock:
            left = self._busy(member)
            if not left and expected in (0, self._due.get(member)):
                self._forget(member)
            return left

    def _place(self, member: bytes, deadline: int, token: int, expected: int) -> int:
        with self._lock:
            if not token and (left := self._busy(member)):
                return left
            held = token in (0, self._claimed.get(member))
            known = self._due.get(member) or self._known_deadline(member, self._now())
            if held and expected in (-1, known):
                self._forget(member)
                self._set_deadline(member, deadline)
            return 0

    def _touch(
        self, member: bytes, grace: int, default_ttl: int, registered: int, unfinished: int
    ) -> tuple[int, Touch]:
        with self._lock:
            if left := self._busy(member):
                return left, Touch()
            now = self._now()
            before = self._known_deadline(member, now)
            deadline, own = before, bool(before and before == registered)
            if deadline and deadline <= now:
                self._forget(member)
            if deadline and not own and deadline <= now:
                deadline = 0
                if unfinished and not default_ttl:
                    self._attempts[member] = 0
                    self._set_deadline(member, now + unfinished)
                    return 0, Touch(now + unfinished, before, unfinished=True)
            by_default = bool(default_ttl and (own or (not deadline and registered <= now)))
            if by_default:
                self._set_deadline(member, now + default_ttl)
            elif deadline and deadline < now + grace:
                self._set_deadline(member, now + grace)
            return 0, Touch(self._due.get(member, 0), before, by_default)

    def _carry(self, source: bytes, destination: bytes, grace: int) -> tuple[int, Carried]:
        with self._lock:
            if left := max(self._busy(source), self._busy(destination)):
                return left, Carried()
            now = self._now()
            had = self._known_deadline(source, now)
            replaced = self._known_deadline(destination, now)
            deadline = max(had, now + grace) if had else 0
            for member in (source, destination) if deadline else ():
                self._forget(member)
                self._set_deadline(member, deadline)
            return 0, Carried(deadline, had, replaced)

    def deadlines(self, members: Sequence[bytes]) -> tuple[int, list[int]]:
        with self._lock:
            now = self._now()
            return now, [self._known_deadline(member, now) for member in members]

    def _known_deadline(self, member: bytes, now: int) -> int:
        if member in self._claimed or member in self._failed:
            return now
        deadline = self._due.get(member, 0)
        return min(deadline, now) if member in self._attempts else deadline

    def renew(self, member: bytes, ttl: int, latest: int = 0) -> int:
        with self._lock:
            now, deadline = self._now(), self._due.get(member, 0)
            if deadline <= now or member in self._attempts:
                return 0
            renewed = min(now + ttl, latest or now + ttl)
            if renewed > deadline:
                self._set_deadline(member, renewed)
            return self._due[member]

    # -- tickets

    def issue_ticket(self, member: bytes, ticket: str, uses: int, end: int) -> None:
        with self._lock:
            now = self._now()
            self._tickets = {key: kept for key, kept in self._tickets.items() if kept.end > now}
            self._tickets[member, ticket] = Ticket(uses, end)

    def use_ticket(self, member: bytes, ticket: str, uses: int = 1) -> bool:
        with self._lock:
            left, end = self._tickets.get((member, ticket), (0, 0))
            if left < 1 or end <= self._now():
                return False
            self._tickets[member, ticket] = Ticket(left - uses, end)
            return True

    # -- the verbs of sweeps

    def claim(self, shard: int, limit: int, lease: int) -> Claim:
        with self._lock:
            now = self._now()
            token = self._new_token(now + lease)
            lapsed = [member for member, ends in self._claimed.items() if ends <= now]
            taken = [(member, self._claimed[member]) for member in lapsed[:limit]]
            while len(taken) < limit and (member := self._next_due(now)):
                taken.append((member, self._due.pop(member)))
            self._claimed.update((member, token) for member, _ in taken)
            late = [now - deadline for _, deadline in taken]
            overdue = self._overdue(now) if len(taken) == limit else 0
            return Claim(token, [member for member, _ in taken], late, overdue)

    def _next_due(self, now: int) -> bytes | None:
        while self._queue and self._queue[0][0] <= now:
            deadline, member = heapq.heappop(self._queue)
            if self._due.get(member) == deadline:
                return member
        return None

    def _overdue(self, now: int) -> int:
        lapsed = sum(ends <= now for ends in self._claimed.values())
        return lapsed + sum(deadline <= now for deadline in self._due.values())

    def claim_one(self, member: bytes, lease: int, early: int = 0) -> ClaimOne:
        with self._lock:
            if left := self._busy(member):
                return ClaimOne(left)
            now = self._now()
            deadline = self._known_deadline(member, now)
            if not early and member in self._failed:
                deadline = 0
            wait = max(0, self._due.get(member, now) - now)
            if not deadline or (wait and not early):
                return ClaimOne(0, 0, wait, deadline)
            self._due.pop(member, None)
            self._failed.pop(member, None)
            token = self._claimed[member] = self._new_token(now + lease)
            return ClaimOne(0, token, wait, deadline)

    def _new_token(self, ends: int) -> int:
        """Return the end of a lease that no other claim has."""
        self._last_token = max(self._last_token + 1, ends)
        return self._last_token

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
        def ours(failures: Sequence[tuple[bytes, str]]) -> list[tuple[bytes, str]]:
            return [failure for failure in failures if self._claimed.get(failure[0]) == token]

        with self._lock:
            whole = [member for member, ends in self._claimed.items() if ends == token]
            for member in whole if done is None else done:
                if self._claimed.get(member) == token:
                    del self._claimed[member]
                    self._attempts.pop(member, None)
            for delay, members in put_off.items():
                for member in members:
                    if self._claimed.get(member) == token:
                        self._postpone(member, delay)
            fates = [self._fail(*failure, backoff) for failure in ours(failures) if backoff]
            fates += [self._fail(*failure, Backoff(1)) for failure in ours(broken)]
            set_aside = sum(fates)
            retried = len(fates) - set_aside
            self._add_to_totals({**tally, "retried": retried, "set_aside": set_aside})
            claim = self.claim(shard, *then) if then else None
            return Settled(retried, set_aside, claim)

    def _postpone(self, member: bytes, delay: int) -> None:
        del self._claimed[member]
        self._attempts.setdefault(member, 0)
        self._set_deadline(member, self._now() + delay)

    def _fail(self, member: bytes, reason: str, backoff: Backoff) -> bool:
        del self._claimed[member]
        attempts = self._attempts.pop(member, 0) + 1
        if attempts >= backoff.max_attempts:
            self._failed[member] = SetAside(reason, attempts, self._now() // SECOND)
            return True
        self._attempts[member] = attempts
        wait = min(backoff.longest, backoff.shortest * 2 ** (attempts - 1))
        self._set_deadline(member, self._now() + int(wait * random.uniform(0.5, 1)))
        return False

    def keeps_records_on_disk(self) -> bool:
        return False

    def adopt(self, deadlines: Mapping[bytes, int]) -> Sequence[bytes]:
        with self._lock:
            new = [m for m in deadlines if not self._known_deadline(m, self._now())]
            for member in new:
                self._set_deadline(member, deadlines[member])
            return new

    # -- the verbs of onlookers

    def counts(self) -> Counts:
        with self._lock:
            now = self._now()
            live = sum(ends > now for ends in self._claimed.values())
            tracked = len(self._due) + len(self._claimed)
            first = min((*self._due.values(), *self._claimed.values()), default=now)
            oldest = max(0, now - first)
            return Counts(now, tracked, self._overdue(now), live, len(self._failed), oldest)

    def earliest(self, limit: int) -> Sequence[Record]:
        with self._lock:
            records = [Record(member, deadline) for member, deadline in self._due.items()]
        return heapq.nsmallest(limit, records, key=attrgetter("deadline"))

    def due_between(self, edges: Sequence[int]) -> Sequence[int]:
        with self._lock:
            deadlines = sorted(self._due.values())
        before = [bisect_left(deadlines, edge) for edge in edges]
        return [end - first for first, end in pairwise(before)]

    def record(self, member: bytes) -> Record | None:
        with self._lock:
            if member in self._due:
                return Record(member, self._due[member])
            if member in self._claimed:
                return Record(member, 0, State.CLAIMED)
            return Record(member, 0, State.SET_ASIDE) if member in self._failed else None

    def scan(self, prefix: bytes, text: bytes = b"") -> Iterator[tuple[int, Iterable[Record]]]:
        with self._lock:
            records = [Record(member, deadline) for member, deadline in self._due.items()]
            records += [Record(member, 0, State.CLAIMED) for member in self._claimed]
            records += [Record(member, 0, State.SET_ASIDE) for member in self._failed]
        for first in range(0, len(records), SCANNED):
            step = records[first : first + SCANNED]
            yield (
                len(step),
                [
                    record
                    for record in step
                    if record.member.startswith(prefix)
                    and text in record.member.partition(b"\0")[2]
                ],
            )

    def set_aside(self, prefix: bytes = b"", cursor: str = "", limit: int = 1_000) -> Page:
        with self._lock:
            after = bytes.fromhex(cursor)
            members = sorted(m for m in self._failed if m.startswith(prefix) and m > after)
            page = members[:limit]
            records = [GivenUp(member, *astuple(self._failed[member])) for member in page]
        return Page(records, page[-1].hex() if len(members) > limit else "")

    def retry(self, members: Sequence[bytes]) -> Sequence[bytes]:
        with self._lock:
            released = self.forget(members)
            for member in released:
                self._set_deadline(member, self._now())
            return released

    def forget(self, members: Sequence[bytes]) -> Sequence[bytes]:
        with self._lock:
            return [member for member in members if self._failed.pop(member, None)]

    def close(self) -> None:
        """Keep everything: there is nothing to give up."""

    def record_sweep(
        self, report: Mapping[str, float], tally: Mapping[str, float] = NOTHING
    ) -> None:
        self._sweeps.appendleft({**report, "finished": time()})
        self._add_to_totals(tally)

    def totals(self) -> dict[str, float]:
        with self._lock:
            return dict(self._totals)

    def _add_to_totals(self, tally: Mapping[str, float]) -> None:
        with self._lock:
            for number, growth in tally.items():
                self._totals[number] += growth

    def sweeps(self, limit: int) -> list[dict[str, float]]:
        return [dict(report) for report in list(self._sweeps)[:limit]]
