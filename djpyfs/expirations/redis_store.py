"""The record store in Redis or Valkey: one Lua script for each verb, one round trip each."""

from __future__ import annotations

import json
import logging
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain, compress, pairwise
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import redis

from ..conf import SECOND
from ..errors import RecordStoreError
from . import (
    BACKOFF,
    LIVE,
    NOTHING,
    SCANNED,
    SWEEPS_AT_ONCE,
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
    file_name,
    new_token,
    no_fence,
    soonest,
    total,
    written_under,
)
from .layout import Layout, Relaid
from .scripts import Call, Command, Scripts, Unconfirmed
from .transit import LEAVES_LAPSED, SCANS, Held, Moves, reshard

if TYPE_CHECKING:
    from limits.storage import RedisStorage

    from .pace import Pace

log = logging.getLogger("djpyfs")

LEAST_SCANNED = 10  # records of one key: with fewer, commands would cost more than what they find
SLICE = 5_000  # members that one script takes, so that Redis serves others in between
# What a note says of a record, by its number in prelude.lua; 0 is none.
NOTED = State.DUE, State.RETRIED, State.HELD, State.POSTPONED
KEYS = "due retries claimed deadlines leases notes failed writing permanent suspects owners".split()


class RedisStore(ExpirationStore):
    """Records in Redis ≥ 7 or Valkey, spread over ``shards`` groups of keys for each place.

    With ``wait_replicas``, each verb that changes something returns once that many replicas have
    the change as well. If they do not within `scripts.WAIT_TIMEOUT` it raises
    `RecordStoreUnavailable`: the change may last or be lost with the next failover, and the call
    can be repeated. That applies to the claims of sweeps too: nothing is deleted under a claim
    that was not confirmed, so a master that no replica follows any more deletes nothing.
    """

    def __init__(self, url: str, key_prefix: str, shards: int, wait_replicas: int = 0) -> None:
        self._scripts = Scripts(url, key_prefix, shards, wait_replicas)
        self._counts: WeakKeyDictionary[redis.Redis, RedisStorage] = WeakKeyDictionary()
        self.on_one_server = self._scripts.on_one_server

    def at(
        self, place: str, lease: int = LIVE, fence: Fence = no_fence, backoff: Backoff = BACKOFF
    ) -> _Expirations:
        return _Expirations(self._scripts, place, lease, fence, backoff)

    def introduce(self, place: str, told: str) -> None:
        self._scripts.run(Call("introduce", 0, [self._scripts.key(0, "places")], (place, told)))

    def places(self) -> Mapping[str, str]:
        known = self._send("hgetall", "places")
        return {place.decode(): told.decode() for place, told in known.items()}

    def next_due(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[NextDue], Sequence[Exception]]:
        def ask(_: object) -> tuple[Sequence[NextDue], Sequence[Exception]]:
            shards = _shards(records)
            return _next_due(shards, self._scripts.run_each(list(map(_look, shards))))

        return self._scripts.over_shards(ask)

    def readable(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[Expirations], Sequence[Exception]]:
        def ask(_: object) -> tuple[Sequence[_Shard], Sequence[Any]]:
            shards = _shards(records)
            calls = [Call("counts", shard, own.keys[shard], ()) for own, shard in shards]
            return shards, self._scripts.run_each(calls)

        shards, replies = self._scripts.over_shards(ask)
        problems = [reply for reply in replies if isinstance(reply, Exception)]
        if not problems:
            return records, []
        if len(problems) == len(replies):
            raise problems[0]
        answers = list(zip(shards, replies, strict=True))
        read = {where for where, reply in answers if not isinstance(reply, Exception)}
        return [
            own.within([shard for shard in own.shards if (own, shard) in read]) for own in records
        ], problems

    def keep_time(
        self,
        timekeeper: str,
        lease: int,
        records: Sequence[Expirations],
        kept: Sequence[Expirations] = (),
    ) -> TimeKept:
        calls = [
            self._seat_call(f"{own.place}:timekeeper", timekeeper, lease, 1) for own in records
        ]
        shards = _shards(kept)
        replies = self._scripts.run_each([*calls, *map(_look, shards)])
        leases = replies[: len(records)]
        held = {
            own.place
            for own, reply in zip(records, leases, strict=True)
            if not isinstance(reply, Exception) and timekeeper.encode() in reply
        }
        found, problems = _next_due(shards, replies[len(records) :])
        return TimeKept(
            held,
            [it for it in found if it.records.place in held],
            [*(reply for reply in leases if isinstance(reply, Exception)), *problems],
        )

    def timekeepers(self, records: Sequence[Expirations]) -> Mapping[str, str]:
        holders = self._scripts.run_all(
            [self._seat_call(f"{own.place}:timekeeper", "", 0, 1) for own in records],
            confirmed=False,
        )
        return {
            own.place: holder[0].decode()
            for own, holder in zip(records, holders, strict=True)
            if holder
        }

    def take_seat(self, seats: str, name: str, lease: int, most: int = 1) -> Collection[str]:
        [taken] = self._scripts.run_all(
            [self._seat_call(seats, name, lease, most)], confirmed=False
        )
        return [holder.decode() for holder in taken]

    def _seat_call(self, seats: str, name: str, lease: int, most: int) -> Call:
        return Call("take_seat", 0, [self._scripts.key(0, seats)], (name, lease, most))

    def pace(self, place: str, most: int | None = None) -> Pace:
        from .pace import Pace  # which takes a while to import

        return Pace(place, most, self._count)

    def _count(self, ask: Callable[[RedisStorage], int]) -> int:
        return self._scripts.on_server(0, lambda client: ask(self._counts_on(client)))

    def _counts_on(self, client: redis.Redis) -> RedisStorage:
        from limits.storage import RedisStorage

        if client not in self._counts:
            # Each count is in the slot of this key, and so on the server that it leads to.
            prefix = self._scripts.key(0, "pace").decode()
            pool = client.connection_pool
            self._counts[client] = RedisStorage("redis://", pool, key_prefix=prefix)
        return self._counts[client]

    def now(self) -> int:
        seconds, rest = self._scripts.send([Command(0, "time", ())])[0]
        return int(seconds) * SECOND + int(rest)

    def keeps_each_change(self) -> bool:
        def keeps(client: redis.Redis) -> bool:
            # Snapshots do not count: what they bring back may have been changed since.
            persistence: Any = client.info("persistence")
            return bool(persistence.get("aof_enabled"))

        return all(self._scripts.all_servers(keeps))

    def record_sweep(
        self, sweep: str, report: Mapping[str, float], tally: Mapping[str, float] = NOTHING
    ) -> Mapping[str, float]:
        keys = [self._scripts.key(0, name) for name in ("sweeps", "totals")]
        about = sweep, json.dumps(report), SWEEPS_KEPT, SWEEPS_AT_ONCE, *chain(*tally.items())
        [whole] = self._scripts.run_all([Call("note_sweep", 0, keys, about)], confirmed=False)
        return {**report, **json.loads(whole)}  # Lua's tables have no order, and people read this

    def sweeps(self, limit: int) -> list[dict[str, float]]:
        entries = self._send("xrevrange", "sweeps", count=limit) if limit else []
        return [
            {**json.loads(fields[b"report"]), "finished": int(id_.partition(b"-")[0]) / 1_000}
            for id_, fields in entries
        ]

    def totals(self) -> dict[str, float]:
        self._scripts.sure_layout()
        shards: list[dict[bytes, bytes]] = self._scripts.over_shards(
            lambda shards: self._scripts.send(
                [
                    Command(shard, "hgetall", (self._scripts.key(shard, "totals"),))
                    for shard in shards
                ]
            )
        )
        totals: defaultdict[str, float] = defaultdict(float)
        for number, value in chain(*(own.items() for own in shards)):
            totals[number.decode()] += float(value)
        return dict(totals)

    def spread(self) -> Spread:
        layout = self._scripts.newest_layout()
        return Spread(layout.old, layout.new)

    def reshard(self, shards: int, backoff: Backoff = BACKOFF) -> Iterator[Move]:
        return reshard(self._scripts, shards, partial(self._all_records, backoff))

    def _all_records(self, backoff: Backoff) -> Mapping[str, tuple[Moves, Expirations]]:
        """Return the records of all places: those introduced, and those found here."""
        found = {*self.places(), *self._places_with_records()}
        own = {place: self.at(place, backoff=backoff) for place in found}
        return {place: (records.moves, records) for place, records in own.items()}

    def _places_with_records(self) -> Iterator[str]:
        beginning, end = self._scripts.key(0, "").split(b"{00}")
        pattern = _literally(beginning) + b"{*}" + _literally(end) + b"*"
        for keys in self._scripts.all_servers(
            lambda client: list(client.scan_iter(pattern, SCANNED))
        ):
            for key in keys:
                place, _, name = key.partition(b"}:")[2].rpartition(b":")
                if place and name.decode() in SCANS:
                    yield place.decode()

    def close(self) -> None:
        self._scripts.close()

    def _send(self, method: str, name: str, *arguments: Any, **options: Any) -> Any:
        """Send a command about a key that only the first shard has."""
        command = Command(0, method, (self._scripts.key(0, name), *arguments), options)
        return self._scripts.send([command])[0]


class _Keys(dict[int, Sequence[bytes]]):
    """The keys of one place by shard, made when they are asked for."""

    def __init__(self, key: Callable[[int], Sequence[bytes]]) -> None:
        super().__init__()
        self._key = key

    def __missing__(self, shard: int) -> Sequence[bytes]:
        keys = self[shard] = self._key(shard)
        return keys


@dataclass
class _Answers:
    """The results of a verb that was called for members, wherever their records were."""

    #: The members of one call, and its reply.
    given: list[tuple[Sequence[bytes], Any]] = field(default_factory=list)
    #: Members that a claim keeps in the shard that they must leave.
    held: dict[bytes, Held] = field(default_factory=dict)
    #: Under claims that had lapsed.
    lapsed: list[bytes] = field(default_factory=list)

    @property
    def replies(self) -> list[Any]:
        return [reply for _, reply in self.given]


class _Expirations(Expirations):
    def __init__(
        self, scripts: Scripts, place: str, lease: int, fence: Fence, backoff: Backoff
    ) -> None:
        super().__init__(place, lease, fence, backoff)
        self._within: Sequence[int] | None = None
        self.keys = _Keys(lambda shard: [scripts.key(shard, place, name) for name in KEYS])
        self._linking = _Keys(
            lambda shard: [*self.keys[shard], scripts.key(shard, place, "revocations")]
        )
        self._freeing = _Keys(
            lambda shard: [*self.keys[shard], scripts.key(shard, place, "returned")]
        )
        self._scripts = scripts
        self.moves = Moves(scripts, place, self.keys)

    @property
    def shards(self) -> Sequence[int]:  # while records move there are more
        return self._scripts.layout.shards if self._within is None else self._within

    @shards.setter
    def shards(self, within: Sequence[int]) -> None:
        self._within = within

    def shard_of(self, member: bytes) -> int:
        return self._scripts.sure_layout().shard_of(member)

    # -- the verbs of writers

    def _schedule(
        self, over: int, members: Sequence[bytes], ttl: int
    ) -> Attempt[tuple[int, Sequence[bytes]]]:
        layout = self._scripts.layout
        if len(members) == 1 and not layout.moving:
            shard = layout.shard_of(members[0])
            call = Call("schedule", shard, self.keys[shard], (over, ttl, members[0]), layout)
            try:
                return _schedule(self._scripts.run(call))
            except Relaid:
                pass  # then as those of many
        found = self._ask("schedule", members, lambda own: (over, ttl, *own), over=over)
        tried = list(map(_schedule, found.replies))
        tried += [Attempt(it.busy, [], (0, [member])) for member, it in found.held.items()]
        busy, lapsed, values = zip(*tried, strict=True)
        deadlines, left_alone = zip(*values, strict=True)
        return Attempt(
            max(busy),
            [*found.lapsed, *chain(*lapsed)],
            (max(deadlines), list(chain(*left_alone))),
        )

    def _keep(self, over: int, member: bytes) -> Attempt[None]:
        return self._attempt("keep", over, member)

    def _await_owner(self, over: int, member: bytes, ttl: int, life: int) -> Attempt[None]:
        return self._attempt("await_owner", over, member, ttl, life)

    def _let_go(self, over: int, member: bytes, ttl: int) -> Attempt[None]:
        return self._attempt("let_go", over, member, ttl)

    def _take_up(self, over: int, member: bytes, unawaited: bool) -> Attempt[None]:
        return self._attempt("take_up", over, member, int(unawaited))

    def _begin(
        self, over: int, member: bytes, token: str, lease: int, default_ttl: int
    ) -> Attempt[Begun]:
        busy, lapsed, rest = self._attempt("begin", over, member, token, lease, default_ttl)
        before, overdue, permanent = rest or (0, 0, 0)
        return Attempt(busy, lapsed, Begun(token, before, bool(overdue), bool(permanent)))

    def _finish(
        self, over: int, member: bytes, write: Begun, grace: int, default_ttl: int
    ) -> Attempt[Finished]:
        token, before, *flags = write
        busy, lapsed, rest = self._attempt(
            "finish", over, member, token, grace, default_ttl, before, *map(int, flags)
        )
        deadline, by_default, unbroken = rest or (0, 0, 0)
        return Attempt(busy, lapsed, Finished(deadline, bool(by_default), bool(unbroken)))

    def abandon(self, member: bytes, token: str) -> None:
        def ask() -> _Answers:
            return self._ask("abandon", [member], lambda _: (member, token))

        if ask().held:
            layout = self._scripts.layout
            shard = layout.left_by(member)
            call = Call("abandon", shard, self.keys[shard], (member, token), layout)
            self._scripts.run_where([call])
            ask()  # it may have left meanwhile

    def _reserve(self, over: int, member: bytes, token: int) -> Attempt[Reserved]:
        busy, lapsed, rest = self._attempt("reserve", over, member, token, self.lease)
        deadline, *flags = rest or (0, 0, 0, 0)
        return Attempt(busy, lapsed, Reserved(token, deadline, *map(bool, flags)))

    def pledge(self, member: bytes, token: int, deadline: int) -> bool:
        return any(self._under_claim("pledge", self.keys, member, token, deadline))

    def release(self, member: bytes, token: int, deadline: int | None = None) -> None:
        known = -1 if deadline is None else deadline
        self._under_claim("release", self._freeing, member, token, known)

    def reserve_free(self, members: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        token = new_token()
        found = self._ask("reserve_free", members, lambda own: (token, self.lease, *own))
        others = [member for member, it in found.held.items() if it.token != token]
        return token, [*others, *chain(*found.replies)]

    def release_all(self, shards: Iterable[int], token: int, gone: bool) -> None:
        arguments = token, int(gone)
        self._scripts.run_all(
            [Call("release_all", shard, self._freeing[shard], arguments) for shard in shards]
        )

    def extend(
        self, shard: int, leases: Mapping[bytes, int], new: Collection[bytes] = ()
    ) -> Sequence[bytes]:
        # The lease of a write is where its member is, and that of a claim where it was made.
        written = {lease: written_under(lease) for lease in leases}
        gone: list[bytes] = []
        elsewhere: dict[bytes, list[bytes]] = {}
        asked: Sequence[bytes] = list(leases)
        while asked:
            layout = self._scripts.layout
            groups: dict[int, list[bytes]] = {}
            for lease in asked:
                member = written[lease]
                at = shard if member is None else layout.left_by(member)
                groups.setdefault(at, []).append(lease)
            begins = () if layout.moving else new  # a write begins where its member will be
            calls = [
                Call("extend", at, self.keys[at], _told(own, leases, begins), layout)
                for at, own in groups.items()
            ]
            replies = zip(groups.items(), self._run_where(calls), strict=True)
            asked = []
            for (at, own), reply in replies:
                if isinstance(reply, Relaid):
                    asked = [*asked, *own]
                    continue
                for lease in reply:
                    member = written[lease]
                    if member is None or (layout.shard_of(member) == at and not layout.moving):
                        gone.append(lease)
                    else:
                        elsewhere.setdefault(member, []).append(lease)
        found = self._ask(
            "extend",
            list(elsewhere),
            lambda own: _told(chain(*(elsewhere[member] for member in own)), leases, new),
        )
        return [*gone, *chain(*found.replies), *chain(*(elsewhere[it] for it in found.held))]

    def renew(self, member: bytes, ttl: int, written: int = 0, longest: int = 0) -> int:
        found = self._ask("renew", [member], lambda _: (member, ttl, written, longest))
        return int(sum(found.replies))  # what is claimed is not renewed

    def _place_at(self, over: int, member: bytes, deadline: int, expected: int) -> Attempt[None]:
        return self._attempt("place_at", over, member, deadline, expected)

    def adopt(self, deadlines: Mapping[bytes, int]) -> Sequence[bytes]:
        found = self._ask(
            "adopt", list(deadlines), lambda own: list(chain(*((m, deadlines[m]) for m in own)))
        )
        return list(chain(*found.replies))

    def permanent(self, members: Sequence[bytes]) -> Sequence[bytes]:
        found = self._ask("kept", members, lambda own: own)
        kept = {member for own, reply in found.given for member in compress(own, reply)}
        kept |= {member for member, it in found.held.items() if it.permanent}
        return [member for member in members if member in kept]

    def deadlines(self, members: Sequence[bytes]) -> tuple[int, list[int]]:
        return self._read("deadline", members, self.keys, lambda held: held.deadline)

    def linked(self, members: Sequence[bytes]) -> tuple[int, list[Linked]]:
        now, found = self._read(
            "linked",
            members,
            self._linking,
            lambda held: (held.deadline, held.revocation.encode()),
        )
        return now, [Linked(deadline, revocation.decode()) for deadline, revocation in found]

    def _read(
        self,
        verb: str,
        members: Sequence[bytes],
        keys: Mapping[int, Sequence[bytes]],
        of_held: Callable[[Held], Any],
    ) -> tuple[int, list[Any]]:
        """Run a script that answers with the time and something of each member, in each shard."""
        found = self._ask(verb, members, lambda own: own, keys)
        known = {
            member: value
            for own, (_, *values) in found.given
            for member, value in zip(own, values, strict=True)
        }
        known |= {member: of_held(held) for member, held in found.held.items()}
        times = chain((it.now for it in found.held.values()), (it[0] for it in found.replies))
        return max(times, default=0), [known[member] for member in members]

    def _revoke(self, member: bytes, revocation: str) -> None:
        self._when_free(  # that is at once, unless its record moves
            lambda over: self._attempt("revoke", over, member, revocation, keys=self._linking)
        )

    def issue_ticket(self, ticket: str, uses: int, end: int) -> None:
        arguments = self._ticket_key(ticket), uses
        self._scripts.send([Command(0, "set", arguments, {"pxat": end // 1_000})])

    def use_ticket(self, ticket: str, take: bool = True, hold: int = 0) -> bool | None:
        arguments = (hold // 1_000, *((token_hex(8),) if take else ()))
        was_left = self._scripts.run(Call("use_ticket", 0, [self._ticket_key(ticket)], arguments))
        return None if was_left is None else bool(was_left)

    def _ticket_key(self, ticket: str) -> bytes:
        """Return a key in the first shard, which it never needs to leave."""
        return self._scripts.key(0, "ticket", ticket)

    # -- the verbs of sweeps

    def claim(self, shard: int, limit: int, alone: bool = True) -> Claim:
        token = new_token()
        with self._given_back_unconfirmed(shard, token):
            reply = self._scripts.run(self._claim_call(shard, token, limit, alone))
        return self._own(_claim(shard, token, reply))

    def _own(self, claim: Claim) -> Claim:
        """Return a claim without records that do not belong in its shard, and forget these.

        Redis had them before a loss: the file has another record, or none, and then it stays.
        """
        layout, shard = self._scripts.layout, claim.shard
        if layout.old == layout.new == 1:
            return claim
        foreign = {
            member
            for member in claim.members
            if shard not in (layout.shard_of(member), layout.left_by(member))
        }
        if not foreign:
            return claim
        log.warning(
            "shard %02d had %d old records that belong in other shards, as after Redis has lost "
            "data: they are dropped, and 'manage.py djpyfs audit' finds files left without one",
            shard,
            len(foreign),
        )
        self.settle(Claim(shard, claim.token), Verdict(done=[*foreign]))
        own = [it not in foreign for it in claim.members]
        return claim._replace(
            members=[*compress(claim.members, own)], lags=[*compress(claim.lags, own)]
        )

    def _claim_call(self, shard: int, token: int, limit: int, alone: bool) -> Call:
        arguments = token, limit, self.lease, *self.backoff, int(alone)
        return Call("claim", shard, self._freeing[shard], arguments)

    def claim_these(self, shard: int, members: Sequence[bytes]) -> Sequence[ClaimOne]:
        token, keys, layout = new_token(), self.keys[shard], self._scripts.layout
        if layout.moving:
            with suppress(Relaid):  # then that is reported below
                self.moves.bring_home(layout, members)
        with self._given_back_unconfirmed(shard, token):
            replies = self._scripts.run_where(
                [
                    Call("claim_one", shard, keys, (member, token, self.lease), layout)
                    for member in members
                ]
            )
        return [_claim_one(token, reply) for reply in replies]

    def settle(
        self, claim: Claim, verdict: Verdict, limit: int | None = None, alone: bool = True
    ) -> Settled:
        shard, token = claim.shard, claim.token
        keys, freeing = self.keys[shard], self._freeing[shard]
        totals = self._scripts.key(shard, "totals")
        calls = []
        if verdict.done:
            told = () if verdict.all_done else verdict.done
            calls.append(Call("acknowledge", shard, keys, (token, *told)))
        calls += [
            Call("postpone", shard, freeing, (token, delay, NOTED.index(state), *members))
            for (delay, state), members in verdict.put_off.items()
            if members
        ]
        if verdict.excused:
            calls.append(Call("excuse", shard, keys, (token, *verdict.excused)))
        for why, backoff in (verdict.failures, self.backoff), (verdict.broken, Backoff(1)):
            if why:
                about = token, *backoff, *chain(*why)
                calls.append(Call("fail", shard, [*freeing, totals], about))
        if verdict.tally:
            calls.append(Call("tally", shard, [totals], list(chain(*verdict.tally.items()))))
        next_token = new_token()
        if limit is not None:
            calls.append(self._claim_call(shard, next_token, limit, alone))
        with self._given_back_unconfirmed(shard, next_token):
            replies = self._scripts.run_all(calls)
        following = None if limit is None else self._own(_claim(shard, next_token, replies[-1]))
        fates = [own for call, own in zip(calls, replies, strict=True) if call.verb == "fail"]
        retried, set_aside = map(sum, zip((0, 0), *fates, strict=True))
        return Settled(retried, set_aside, following)

    @contextmanager
    def _given_back_unconfirmed(self, shard: int, token: int) -> Iterator[None]:
        """Give back claims that no replica confirms, without counting an attempt."""
        try:
            yield
        except Unconfirmed:
            arguments = token, 0, NOTED.index(State.DUE)
            with suppress(RecordStoreError):
                call = Call("postpone", shard, self._freeing[shard], arguments)
                self._scripts.run_all([call], confirmed=False)
            raise

    # -- the verbs of onlookers

    def counts(self) -> Counts:
        replies = self._scripts.over_shards(
            lambda _: self._scripts.run_all(
                [Call("counts", shard, self.keys[shard], ()) for shard in self.shards]
            )
        )
        return total(Counts(*reply) for reply in replies)

    def earliest(self, limit: int) -> Sequence[Record]:
        if limit < 1:  # a range up to -1 has them all
            return []
        found: dict[bytes, _Found] = {}
        names = "due", "deadlines"
        firsts = self._each(names, lambda key: ("zrange", key, 0, limit - 1), withscores=True)
        for shard, name, pairs in firsts:
            for member, score in pairs:
                state = State.DUE if name == "due" else State.CLAIMED
                found[member] = _Found(shard, Record(member, int(score), state))
        first = soonest((it.record for it in found.values()), limit)
        return self._with_states([found[record.member] for record in first])

    def due_between(self, edges: Sequence[int]) -> Sequence[int]:
        counts: list[int] = self._scripts.send(
            [
                Command(shard, "zcount", (self._key(shard, "due"), first, f"({end}"))
                for shard in self.shards
                for first, end in pairwise(edges)
            ]
        )
        bars = len(edges) - 1
        return [sum(counts[bar::bars]) for bar in range(bars)]

    def record(self, member: bytes) -> Record | None:
        found = self._ask("record", [member], lambda own: own)
        for held in found.held.values():
            return Record(member, held.deadline, State.CLAIMED) if held.deadline else None
        [(due, deadline, failed, claimed, note)] = found.replies
        if failed:
            return Record(member, int(json.loads(failed)["deadline"]), State.SET_ASIDE)
        if deadline:
            return Record(member, int(float(deadline)), _state(claimed or None, note))
        return Record(member, int(float(due))) if due else None

    def _with_states(self, found: Sequence[_Found]) -> list[Record]:
        """Find out which of those that are more than due a sweep has claimed."""
        unsure = [it for it in found if it.record.state is State.CLAIMED]
        replies = self._scripts.send(
            [
                Command(it.shard, method, (self._key(it.shard, name), it.record.member))
                for it in unsure
                for method, name in (("zscore", "claimed"), ("zscore", "notes"))
            ]
        )
        states = {
            it.record.member: _state(claimed, note)
            for it, claimed, note in zip(unsure, replies[::2], replies[1::2], strict=True)
        }
        return [
            it.record._replace(state=states.get(it.record.member, it.record.state)) for it in found
        ]

    def scan(
        self, prefix: bytes | tuple[bytes, ...], text: bytes = b""
    ) -> Iterator[tuple[int, Iterable[Record]]]:
        pattern = _pattern(prefix, text)
        cursors = {
            (shard, name): 0 for shard in self.shards for name in ("due", "deadlines", "failed")
        }
        while cursors:
            share = max(LEAST_SCANNED, SCANNED // len(cursors))
            replies = self._scripts.send(
                [
                    Command(
                        shard,
                        "hscan" if name == "failed" else "zscan",
                        (self._key(shard, name), cursor, pattern, share),
                    )
                    for (shard, name), cursor in cursors.items()
                ]
            )
            steps = list(zip(cursors, replies, strict=True))
            found = [
                _Found(shard, _scanned(name, member, value))
                for (shard, name), (_, own) in steps
                for member, value in dict(own).items()
                if member.startswith(prefix) and text in file_name(member)
            ]
            yield share * len(steps), self._with_states(found)
            cursors = {place: cursor for place, (cursor, _) in steps if cursor}

    def set_aside(self, prefix: bytes = b"", cursor: str = "", limit: int = 1_000) -> Page:
        first, position = map(int, cursor.split(":")) if cursor else (0, 0)
        left = [shard for shard in self.shards if shard >= first]
        found: dict[bytes, bytes] = {}
        while len(found) < limit and left:
            look = self._key(left[0], "failed"), position, _pattern(prefix), min(limit, SCANNED)
            [(position, page)] = self._scripts.send([Command(left[0], "hscan", look)])
            found.update(page)
            if not position:
                del left[0]
        records = [_given_up(member, json.loads(why)) for member, why in found.items()]
        return Page(records, f"{left[0]}:{position}" if left else "")

    def retry(self, members: Sequence[bytes]) -> Sequence[bytes]:
        return list(chain(*self._ask("take_back", members, lambda own: (1, *own)).replies))

    def forget(self, members: Sequence[bytes]) -> Sequence[bytes]:
        return list(chain(*self._ask("take_back", members, lambda own: (0, *own)).replies))

    # -- how

    def _key(self, shard: int, name: str) -> bytes:
        return self.keys[shard][KEYS.index(name)]

    def _attempt(
        self,
        verb: str,
        over: int,
        member: bytes,
        *arguments: Any,
        keys: Mapping[int, Sequence[bytes]] | None = None,
    ) -> Attempt[Any]:
        """Run a script that a live claim forbids; the value is the rest of its answer."""
        found = self._ask(verb, [member], lambda _: (over, member, *arguments), keys, over)
        for held in found.held.values():
            return Attempt(held.busy, found.lapsed, [])
        [(left, ends, lapsed, *rest)] = found.replies
        return Attempt(Busy(left, ends), [*found.lapsed, *[member] * lapsed], rest)

    def _under_claim(
        self, verb: str, keys: Mapping[int, Sequence[bytes]], member: bytes, *arguments: Any
    ) -> list[Any]:
        """Run a script that does something only under a claim, in whichever shard that is."""
        while True:
            layout = self._scripts.layout
            shards = dict.fromkeys((layout.left_by(member), layout.shard_of(member)))
            calls = [Call(verb, it, keys[it], (member, *arguments), layout) for it in shards]
            with suppress(Relaid):
                return [self._scripts.run(call) for call in calls]

    def _ask(
        self,
        verb: str,
        members: Sequence[bytes],
        arguments: Callable[[Sequence[bytes]], Sequence[Any]],
        keys: Mapping[int, Sequence[bytes]] | None = None,
        over: int = LEAVES_LAPSED,
    ) -> _Answers:
        """Run a script for members, in each of their shards.

        While records move, theirs are brought home first. If ``over`` is given, the end of a claim
        that is over or 0, claims that have lapsed are ended for that.
        """
        keys = self.keys if keys is None else keys
        answers = _Answers()
        while members:
            layout = self._scripts.layout
            held: dict[bytes, Held] = {}
            if layout.moving:
                try:
                    departed = self.moves.bring_home(layout, members, over)
                except Relaid:
                    continue
                held = departed.held
                answers.lapsed += departed.lapsed
            calls = [
                (own, Call(verb, shard, keys[shard], arguments(own), layout))
                for shard, own in self._sliced(layout, [it for it in members if it not in held])
            ]
            answers.held |= held
            members = []
            for (own, _), reply in zip(
                calls, self._run_where([it for _, it in calls]), strict=True
            ):
                if isinstance(reply, Relaid):
                    members = [*members, *own]
                else:
                    answers.given.append((own, reply))
        return answers

    def _run_where(self, calls: Sequence[Call]) -> list[Any]:
        if len(calls) != 1:
            return self._scripts.run_where(calls)
        try:  # which is a little faster
            return [self._scripts.run(calls[0])]
        except Relaid as relaid:
            return [relaid]

    def _sliced(self, layout: Layout, members: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
        return [
            (shard, own[first : first + SLICE])
            for shard, own in layout.by_shard(members).items()
            for first in range(0, len(own), SLICE)
        ]

    def _each(
        self, names: Sequence[str], look: Callable[[bytes], Sequence[Any]], **options: Any
    ) -> list[tuple[int, str, Any]]:
        """Send a command about each of the keys of these names, of all shards."""
        asked = [(shard, name) for shard in self.shards for name in names]
        commands = []
        for shard, name in asked:
            method, *arguments = look(self._key(shard, name))
            commands.append(Command(shard, method, arguments, options))
        replies = self._scripts.send(commands)
        return [(*place, reply) for place, reply in zip(asked, replies, strict=True)]


class _Found(NamedTuple):
    """A record, and the shard in which it was found."""

    shard: int
    record: Record


_Shard = tuple[_Expirations, int]


def _shards(records: Sequence[Expirations]) -> list[_Shard]:
    return [
        (own, shard) for own in records if isinstance(own, _Expirations) for shard in own.shards
    ]


def _look(where: _Shard) -> Call:
    records, shard = where
    return Call("next_due", shard, records.keys[shard], ())


def _next_due(
    shards: Sequence[_Shard], replies: Sequence[Any]
) -> tuple[Sequence[NextDue], Sequence[Exception]]:
    answers = list(zip(shards, replies, strict=True))
    return (
        [NextDue(*where, *reply) for where, reply in answers if not isinstance(reply, Exception)],
        [reply for reply in replies if isinstance(reply, Exception)],
    )


def _schedule(reply: list[Any] | int) -> Attempt[tuple[int, Sequence[bytes]]]:
    if isinstance(reply, int):
        return Attempt(Busy(), [], (reply, []))
    left, ends, deadline, count, *members = reply
    return Attempt(Busy(left, ends), members[count:], (deadline, members[:count]))


def _claim(shard: int, token: int, reply: list[Any]) -> Claim:
    overdue, packed, lengths, joined, awaiting = reply
    ends = list(accumulate(map(int, lengths.split())))
    members = [joined[start:end] for start, end in pairwise([0, *ends])]
    lags = struct.unpack(f"<{len(members)}d", packed)
    return Claim(shard, token, members, lags, overdue, awaiting)


def _told(
    own: Iterable[bytes], leases: Mapping[bytes, int], new: Collection[bytes]
) -> list[bytes | int]:
    return [it for lease in own for it in (lease, leases[lease], int(lease in new))]


def _claim_one(token: int, reply: list[Any] | Relaid) -> ClaimOne:
    if isinstance(reply, Relaid):
        return ClaimOne()  # it is in another shard now, and left to a sweep
    claimed, lag, wait, awaiting = reply
    return ClaimOne(token if claimed else 0, lag, wait, bool(awaiting))


def _state(claimed: float | bytes | None, note: float | bytes | None) -> State:
    if claimed is not None:
        return State.CLAIMED
    number = int(float(note or 0)) // 1_000_000
    return NOTED[number] if 0 < number < len(NOTED) else State.RETRIED


def _scanned(name: str, member: bytes, value: Any) -> Record:
    if name == "failed":
        return Record(member, int(json.loads(value)["deadline"]), State.SET_ASIDE)
    return Record(member, int(value), State.DUE if name == "due" else State.CLAIMED)


def _given_up(member: bytes, why: Mapping[str, Any]) -> GivenUp:
    return GivenUp(member, **{**why, "deadline": int(why["deadline"])})


def _pattern(prefix: bytes | tuple[bytes, ...], text: bytes = b"") -> bytes:
    """Return the pattern of SCAN for a ``prefix``, and for a ``text`` somewhere behind it.

    For several prefixes it lists, at each position, the bytes that one of them has there: so most
    other members need not be sent.
    """
    if isinstance(prefix, tuple):
        beginning = b"".join(map(_one_of, zip(*prefix, strict=False)))
    else:
        beginning = _literally(prefix)
    return beginning + b"*" + (_literally(text) + b"*" if text else b"")


def _one_of(values: Iterable[int]) -> bytes:
    return b"[" + b"".join(b"\\%c" % value for value in sorted(set(values))) + b"]"


def _literally(name: bytes) -> bytes:
    return re.sub(rb"([*?\[\\])", rb"\\\1", name)
