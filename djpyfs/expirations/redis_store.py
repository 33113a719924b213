"""The record store in Redis or Valkey: one Lua script for each verb, one round trip each."""

from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate, chain, pairwise
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import redis

from ..conf import SECOND
from ..errors import RecordStoreError
from . import (
    BACKOFF,
    LIVE,
    NOTHING,
    SWEEPS_AT_ONCE,
    SWEEPS_KEPT,
    Backoff,
    Begun,
    Busy,
    Claim,
    ClaimOne,
    Counts,
    Expirations,
    ExpirationStore,
    Finished,
    GivenUp,
    Linked,
    NextDue,
    Page,
    Record,
    Reserved,
    Settled,
    State,
    TimeKept,
    Verdict,
    file_name,
    new_token,
    soonest,
    total,
)
from .scripts import Call, Command, Scripts, Unconfirmed

if TYPE_CHECKING:
    from limits.storage import RedisStorage

    from .pace import Pace

SLICE = 5_000  # members that one script takes, so that Redis serves others in between
SCANNED = 2_000  # records that Redis looks at in one step of a scan
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

    def at(
        self, place: str, lease: int = LIVE, fence: Callable[[bytes], object] = lambda member: None
    ) -> Expirations:
        return _Expirations(self._scripts, place, lease, fence)

    def introduce(self, place: str, told: str) -> None:
        self._send("hset", "places", place, told)

    def places(self) -> Mapping[str, str]:
        known = self._send("hgetall", "places")
        return {place.decode(): told.decode() for place, told in known.items()}

    def next_due(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[NextDue], Sequence[Exception]]:
        shards = _shards(records)
        return _next_due(shards, self._scripts.run_each(list(map(_look, shards))))

    def readable(
        self, records: Sequence[Expirations]
    ) -> tuple[Sequence[Expirations], Sequence[Exception]]:
        shards = _shards(records)
        replies = self._scripts.run_each(
            [Call("counts", shard, own.keys[shard], ()) for own, shard in shards]
        )
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

    def keeps_records_on_disk(self) -> bool:
        def kept(client: redis.Redis) -> bool:
            persistence: Any = client.info("persistence")
            if persistence.get("aof_enabled"):
                return True  # without CONFIG, which a user of its own need not be allowed
            intervals: Any = client.config_get("save")
            return bool(intervals.get("save"))

        return all(self._scripts.all_servers(kept))

    def record_sweep(
        self, sweep: str, report: Mapping[str, float], tally: Mapping[str, float] = NOTHING
    ) -> Mapping[str, float]:
        keys = [self._scripts.key(0, name) for name in ("sweeps", "totals")]
        about = sweep, json.dumps(report), SWEEPS_KEPT, SWEEPS_AT_ONCE, *chain(*tally.items())
        [whole] = self._scripts.run_all([Call("note_sweep", 0, keys, about)], confirmed=False)
        merged: dict[str, float] = json.loads(whole)
        return merged

    def sweeps(self, limit: int) -> list[dict[str, float]]:
        entries = self._send("xrevrange", "sweeps", count=limit)
        return [
            {**json.loads(fields[b"report"]), "finished": int(id_.partition(b"-")[0]) / 1_000}
            for id_, fields in entries
        ]

    def totals(self) -> dict[str, float]:
        shards: list[dict[bytes, bytes]] = self._scripts.send(
            [
                Command(shard, "hgetall", (self._scripts.key(shard, "totals"),))
                for shard in self._scripts.shards
            ]
        )
        totals: defaultdict[str, float] = defaultdict(float)
        for number, value in chain(*(own.items() for own in shards)):
            totals[number.decode()] += float(value)
        return dict(totals)

    def close(self) -> None:
        self._scripts.close()

    def _send(self, method: str, name: str, *arguments: Any, **options: Any) -> Any:
        """Send a command about a key that is there once, in the first shard."""
        command = Command(0, method, (self._scripts.key(0, name), *arguments), options)
        return self._scripts.send([command])[0]


class _Expirations(Expirations):
    def __init__(
        self, scripts: Scripts, place: str, lease: int, fence: Callable[[bytes], object]
    ) -> None:
        super().__init__(place, lease, fence)
        self.shards = scripts.shards
        self.shard_of = scripts.shard_of  # type: ignore[method-assign]  # a call less each time
        self.keys = [[scripts.key(shard, place, name) for name in KEYS] for shard in self.shards]
        self._linking = [
            [*keys, scripts.key(shard, place, "revocations")]
            for shard, keys in zip(self.shards, self.keys, strict=True)
        ]
        self._totals = [scripts.key(shard, "totals") for shard in self.shards]
        self._scripts = scripts

    # -- the verbs of writers

    def _schedule(
        self, over: int, members: Sequence[bytes], ttl: int
    ) -> tuple[Busy, int, Sequence[bytes], Sequence[bytes]]:
        if len(members) == 1:
            return _schedule(self._run("schedule", members[0], over, ttl, members[0]))
        replies = self._run_all("schedule", members, over, ttl)
        busy, deadlines, left_alone, lapsed = zip(*map(_schedule, replies), strict=True)
        return max(busy), max(deadlines), list(chain(*left_alone)), list(chain(*lapsed))

    def _keep(self, over: int, member: bytes) -> tuple[Busy, Sequence[bytes]]:
        left, ends, lapsed = self._run("keep", member, over, member)
        return Busy(left, ends), [member] * lapsed

    def _await_owner(
        self, over: int, member: bytes, ttl: int, life: int
    ) -> tuple[Busy, Sequence[bytes]]:
        left, ends, lapsed = self._run("await_owner", member, over, member, ttl, life)
        return Busy(left, ends), [member] * lapsed

    def _let_go(self, over: int, member: bytes, ttl: int) -> tuple[Busy, Sequence[bytes]]:
        left, ends, lapsed = self._run("let_go", member, over, member, ttl)
        return Busy(left, ends), [member] * lapsed

    def _take_up(self, over: int, member: bytes, unawaited: bool) -> tuple[Busy, Sequence[bytes]]:
        left, ends, lapsed = self._run("take_up", member, over, member, int(unawaited))
        return Busy(left, ends), [member] * lapsed

    def _begin(
        self, over: int, member: bytes, token: str, lease: int, default_ttl: int
    ) -> tuple[Busy, Sequence[bytes], int, int]:
        left, ends, lapsed, before, now = self._run(
            "begin", member, over, member, token, lease, default_ttl
        )
        return Busy(left, ends), [member] * lapsed, before, now

    def _finish(
        self, over: int, member: bytes, write: Begun, grace: int, default_ttl: int
    ) -> tuple[Busy, Sequence[bytes], Finished]:
        token, before, overdue = write
        left, ends, lapsed, deadline, by_default, unbroken = self._run(
            "finish", member, over, member, token, grace, default_ttl, before, int(overdue)
        )
        finished = Finished(deadline, bool(by_default), bool(unbroken))
        return Busy(left, ends), [member] * lapsed, finished

    def abandon(self, member: bytes, token: str) -> None:
        self._run("abandon", member, member, token)

    def _reserve(
        self, over: int, member: bytes, token: int
    ) -> tuple[Busy, Sequence[bytes], Reserved]:
        left, ends, lapsed, deadline, kept, owned = self._run(
            "reserve", member, over, member, token, self.lease
        )
        reserved = Reserved(token, deadline, bool(kept), bool(owned))
        return Busy(left, ends), [member] * lapsed, reserved

    def pledge(self, member: bytes, token: int, deadline: int) -> bool:
        return bool(self._run("pledge", member, member, token, deadline))

    def release(self, member: bytes, token: int, deadline: int | None = None) -> None:
        self._run("release", member, member, token, -1 if deadline is None else deadline)

    def reserve_free(self, members: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        token = new_token()
        return token, list(chain(*self._run_all("reserve_free", members, token, self.lease)))

    def release_all(self, shards: Iterable[int], token: int, gone: bool) -> None:
        self._scripts.run_all(
            [Call("release_all", shard, self.keys[shard], (token, int(gone))) for shard in shards]
        )

    def extend(
        self, shard: int, leases: Mapping[bytes, int], new: Collection[bytes] = ()
    ) -> Sequence[bytes]:
        told = [x for lease, length in leases.items() for x in (lease, length, int(lease in new))]
        call = Call("extend", shard, self.keys[shard], told)
        gone: Sequence[bytes] = self._scripts.run(call)
        return gone

    def renew(self, member: bytes, ttl: int, written: int = 0, longest: int = 0) -> int:
        return int(self._run("renew", member, member, ttl, written, longest))

    def _place_at(
        self, over: int, member: bytes, deadline: int, expected: int
    ) -> tuple[Busy, Sequence[bytes]]:
        left, ends, lapsed = self._run("place_at", member, over, member, deadline, expected)
        return Busy(left, ends), [member] * lapsed

    def adopt(self, deadlines: Mapping[bytes, int]) -> Sequence[bytes]:
        calls = [
            Call("adopt", shard, self.keys[shard], [x for m in own for x in (m, deadlines[m])])
            for shard, own in self._sliced(list(deadlines))
        ]
        return list(chain(*self._scripts.run_all(calls)))

    def permanent(self, members: Sequence[bytes]) -> Sequence[bytes]:
        groups = self._sliced(members)
        replies = self._scripts.send(
            [
                Command(shard, method, (self._key(shard, name), own))
                for shard, own in groups
                for method, name in (("smismember", "permanent"), ("hmget", "owners"))
            ]
        )
        return [
            member
            for (_, own), kept, owned in zip(groups, replies[::2], replies[1::2], strict=True)
            for member, is_kept, fate in zip(own, kept, owned, strict=True)
            if is_kept or fate == b"=0"
        ]

    def deadlines(self, members: Sequence[bytes]) -> tuple[int, list[int]]:
        return self._read("deadline", members, self.keys)

    def linked(self, members: Sequence[bytes]) -> tuple[int, list[Linked]]:
        now, found = self._read("linked", members, self._linking)
        return now, [Linked(deadline, revocation.decode()) for deadline, revocation in found]

    def _read(
        self, verb: str, members: Sequence[bytes], keys: Sequence[Sequence[bytes]]
    ) -> tuple[int, list[Any]]:
        """Run a script that answers with the time and something of each member, in each shard."""
        groups = self._sliced(members)
        calls = [Call(verb, shard, keys[shard], own) for shard, own in groups]
        one = len(calls) == 1
        replies = [self._scripts.run(calls[0])] if one else self._scripts.run_all(calls)
        known = {
            member: value
            for (_, own), (_, *found) in zip(groups, replies, strict=True)
            for member, value in zip(own, found, strict=True)
        }
        now = max((reply[0] for reply in replies), default=0)
        return now, [known[member] for member in members]

    def _revoke(self, member: bytes, revocation: str) -> None:
        shard = self.shard_of(member)
        arguments = self._linking[shard][-1], member, revocation
        self._scripts.send([Command(shard, "hset", arguments)], changing=True)

    def issue_ticket(self, member: bytes, ticket: str, uses: int, end: int) -> None:
        shard = self.shard_of(member)
        arguments = self._ticket_key(shard, ticket), uses
        self._scripts.send([Command(shard, "set", arguments, {"pxat": end // 1_000})])

    def use_ticket(self, member: bytes, ticket: str, uses: int = 1, hold: int = 0) -> bool | None:
        shard = self.shard_of(member)
        keys = [*self.keys[shard], self._ticket_key(shard, ticket)]
        arguments = (hold // 1_000, *((token_hex(8),) if uses else ()))
        was_left = self._scripts.run(Call("use_ticket", shard, keys, arguments))
        return None if was_left is None else bool(was_left)

    def _ticket_key(self, shard: int, ticket: str) -> bytes:
        return self._scripts.key(shard, "ticket", ticket)

    # -- the verbs of sweeps

    def claim(
        self, shard: int, limit: int, backoff: Backoff = BACKOFF, alone: bool = True
    ) -> Claim:
        token = new_token()
        with self._given_back_unconfirmed(shard, token):
            reply = self._scripts.run(self._claim_call(shard, token, limit, backoff, alone))
        return _claim(token, reply)

    def _claim_call(
        self, shard: int, token: int, limit: int, backoff: Backoff, alone: bool
    ) -> Call:
        arguments = token, limit, self.lease, *backoff, int(alone)
        return Call("claim", shard, self.keys[shard], arguments)

    def claim_these(self, shard: int, members: Sequence[bytes]) -> Sequence[ClaimOne]:
        token, keys = new_token(), self.keys[shard]
        with self._given_back_unconfirmed(shard, token):
            replies = self._scripts.run_all(
                [Call("claim_one", shard, keys, (member, token, self.lease)) for member in members]
            )
        return [
            ClaimOne(token if claimed else 0, late, wait, bool(awaiting))
            for claimed, late, wait, awaiting in replies
        ]

    def settle(
        self,
        shard: int,
        token: int,
        verdict: Verdict,
        backoff: Backoff = BACKOFF,
        limit: int | None = None,
        tally: Mapping[str, float] = NOTHING,
        alone: bool = True,
    ) -> Settled:
        keys = self.keys[shard]
        counting = [*keys, self._totals[shard]]
        calls = []
        if verdict.done:
            told = () if verdict.all_done else verdict.done
            calls.append(Call("acknowledge", shard, keys, (token, *told)))
        calls += [
            Call("postpone", shard, keys, (token, delay, NOTED.index(state), *members))
            for (delay, state), members in verdict.put_off.items()
            if members
        ]
        if verdict.excused:
            calls.append(Call("excuse", shard, keys, (token, *verdict.excused)))
        for why, policy in (verdict.failures, backoff), (verdict.broken, Backoff(1)):
            if why:
                calls.append(Call("fail", shard, counting, (token, *policy, *chain(*why))))
        if tally:
            calls.append(Call("tally", shard, counting, list(chain(*tally.items()))))
        next_token = new_token()
        if limit is not None:
            calls.append(self._claim_call(shard, next_token, limit, backoff, alone))
        with self._given_back_unconfirmed(shard, next_token):
            replies = self._scripts.run_all(calls)
        claim = None if limit is None else _claim(next_token, replies[-1])
        fates = [own for call, own in zip(calls, replies, strict=True) if call.verb == "fail"]
        retried, set_aside = map(sum, zip((0, 0), *fates, strict=True))
        return Settled(retried, set_aside, claim)

    @contextmanager
    def _given_back_unconfirmed(self, shard: int, token: int) -> Iterator[None]:
        """Give back claims that no replica confirms, without counting an attempt."""
        try:
            yield
        except Unconfirmed:
            arguments = token, 0, NOTED.index(State.DUE)
            with suppress(RecordStoreError):
                call = Call("postpone", shard, self.keys[shard], arguments)
                self._scripts.run_all([call], confirmed=False)
            raise

    # -- the verbs of onlookers

    def counts(self) -> Counts:
        calls = [Call("counts", shard, self.keys[shard], ()) for shard in self.shards]
        return total(Counts(*reply) for reply in self._scripts.run_all(calls))

    def earliest(self, limit: int) -> Sequence[Record]:
        found: dict[bytes, Record] = {}
        names = "due", "deadlines"
        firsts = self._each(names, lambda key: ("zrange", key, 0, limit - 1), withscores=True)
        for name, pairs in firsts:
            for member, score in pairs:
                found[member] = Record(
                    member, int(score), State.DUE if name == "due" else State.CLAIMED
                )
        first = soonest(found.values(), limit)
        return self._with_states(first)

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
        shard = self.shard_of(member)
        looks = ("zscore", "due"), ("zscore", "deadlines"), ("hget", "failed")
        due, deadline, failed = self._scripts.send(
            [Command(shard, method, (self._key(shard, name), member)) for method, name in looks]
        )
        if failed:
            return Record(member, int(json.loads(failed)["deadline"]), State.SET_ASIDE)
        if deadline:
            return self._with_states([Record(member, int(deadline), State.CLAIMED)])[0]
        return Record(member, int(due)) if due else None

    def _with_states(self, records: Sequence[Record]) -> list[Record]:
        """Say of those that are not merely due whether a sweep is at them."""
        unsure = [record for record in records if record.state is State.CLAIMED]
        looks = [(record.member, self.shard_of(record.member)) for record in unsure]
        replies = self._scripts.send(
            [
                Command(shard, method, (self._key(shard, name), member))
                for member, shard in looks
                for method, name in (("zscore", "claimed"), ("zscore", "notes"))
            ]
        )
        states = {
            record.member: _state(claimed, note)
            for record, claimed, note in zip(unsure, replies[::2], replies[1::2], strict=True)
        }
        return [
            record._replace(state=states.get(record.member, record.state)) for record in records
        ]

    def scan(
        self, prefix: bytes | tuple[bytes, ...], text: bytes = b""
    ) -> Iterator[tuple[int, Iterable[Record]]]:
        pattern = _pattern(prefix, text)
        cursors = {
            (shard, name): 0 for shard in self.shards for name in ("due", "deadlines", "failed")
        }
        while cursors:
            replies = self._scripts.send(
                [
                    Command(
                        shard,
                        "hscan" if name == "failed" else "zscan",
                        (self._key(shard, name), cursor, pattern, SCANNED),
                    )
                    for (shard, name), cursor in cursors.items()
                ]
            )
            steps = list(zip(cursors, replies, strict=True))
            found = [
                _scanned(name, member, value)
                for (_, name), (_, own) in steps
                for member, value in dict(own).items()
                if member.startswith(prefix) and text in file_name(member)
            ]
            yield SCANNED * len(steps), self._with_states(found)
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
        return list(chain(*self._run_all("take_back", members, 1)))

    def forget(self, members: Sequence[bytes]) -> Sequence[bytes]:
        return list(chain(*self._run_all("take_back", members, 0)))

    # -- how

    def _key(self, shard: int, name: str) -> bytes:
        return self.keys[shard][KEYS.index(name)]

    def _run(self, verb: str, member: bytes, *arguments: Any) -> Any:
        shard = self.shard_of(member)
        return self._scripts.run(Call(verb, shard, self.keys[shard], arguments))

    def _run_all(self, verb: str, members: Sequence[bytes], *arguments: Any) -> list[Any]:
        return self._scripts.run_all(
            [
                Call(verb, shard, self.keys[shard], (*arguments, *own))
                for shard, own in self._sliced(members)
            ]
        )

    def _sliced(self, members: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
        return [
            (shard, own[first : first + SLICE])
            for shard, own in self._scripts.by_shard(members).items()
            for first in range(0, len(own), SLICE)
        ]

    def _each(
        self, names: Sequence[str], look: Callable[[bytes], Sequence[Any]], **options: Any
    ) -> list[tuple[str, Any]]:
        """Send a command about each of the keys of these names, of all shards."""
        asked = [(shard, name) for shard in self.shards for name in names]
        commands = []
        for shard, name in asked:
            method, *arguments = look(self._key(shard, name))
            commands.append(Command(shard, method, arguments, options))
        replies = self._scripts.send(commands)
        return [(name, reply) for (_, name), reply in zip(asked, replies, strict=True)]


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


def _schedule(reply: list[Any] | int) -> tuple[Busy, int, list[bytes], list[bytes]]:
    if isinstance(reply, int):
        return Busy(), reply, [], []
    left, ends, deadline, count, *members = reply
    return Busy(left, ends), deadline, members[:count], members[count:]


def _claim(token: int, reply: list[Any]) -> Claim:
    overdue, late, lengths, joined, awaiting = reply
    ends = list(accumulate(map(int, lengths.split())))
    members = [joined[start:end] for start, end in pairwise([0, *ends])]
    return Claim(token, members, struct.unpack(f"<{len(members)}d", late), overdue, awaiting)


def _state(claimed: float | None, note: float | None) -> State:
    if claimed is not None:
        return State.CLAIMED
    number = int(note or 0) // 1_000_000
    return NOTED[number] if 0 < number < len(NOTED) else State.RETRIED


def _scanned(name: str, member: bytes, value: Any) -> Record:
    if name == "failed":
        return Record(member, int(json.loads(value)["deadline"]), State.SET_ASIDE)
    return Record(member, int(value), State.DUE if name == "due" else State.CLAIMED)


def _given_up(member: bytes, why: Mapping[str, Any]) -> GivenUp:
    return GivenUp(member, **{**why, "deadline": int(why["deadline"])})


def _pattern(prefix: bytes | tuple[bytes, ...], text: bytes = b"") -> bytes:
    """Return the pattern of SCAN for a ``prefix``, and for a ``text`` somewhere behind it.

    Where there are several, it says of each place which bytes one of them has there: that keeps
    most of the others from being sent.
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
