"""The record store in Redis or Valkey: one Lua script for each verb, one round trip each."""

from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha1
from heapq import nsmallest
from importlib.resources import files
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import WeakSet
from zlib import crc32

import redis
from redis.crc import key_slot
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError
from redis.sentinel import MasterNotFoundError

from ..errors import ConfigurationError, RecordStoreError, RecordStoreUnavailable
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
from .servers import Address, Servers, has_moved, passes, servers_at

WAIT_TIMEOUT = 1_000  # ms, for the replicas
SLICE = 5_000  # members that one script takes, so that Redis serves others in between

SCANNED = 2_000  # records that Redis looks at in one step of a scan

KEYS = "due claimed attempts failed".split()
_FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)
VERBS = """schedule cancel place touch carry pin deadline claim claim_one acknowledge fail
    counts release postpone renew adopt use_ticket tally""".split()
READING = frozenset({"deadline", "counts"})


class _Call(NamedTuple):
    """One run of a script."""

    verb: str
    shard: int
    arguments: Sequence[Any]
    more_keys: Sequence[str] = ()


class _Command(NamedTuple):
    """One command to the server that holds a slot, as a method of redis-py."""

    slot: int
    method: str
    arguments: Sequence[Any]
    options: Mapping[str, Any] = {}


def _sources() -> dict[str, str]:
    lua = files(__package__) / "lua"
    prelude = (lua / "prelude.lua").read_text(encoding="utf-8").split("\n\n")
    return {
        verb: _source((lua / f"{verb}.lua").read_text(encoding="utf-8"), prelude) for verb in VERBS
    }


def _source(verb: str, prelude: Sequence[str]) -> str:
    """Put what a verb needs of the prelude in front: each function costs time at every run."""
    flags, _, source = verb.partition("\n")  # Redis wants the flags in the very first line
    for part in reversed(prelude):
        function = _FUNCTION.search(part)
        if not function or f"{function[1]}(" in source:
            source = f"{part}\n\n{source}"
    return f"{flags}\n{source}"


class RedisStore(ExpirationStore):
    """Records in Redis ≥ 7 or Valkey, spread over ``shards`` groups of keys.

    With ``wait_replicas``, each verb that changes something returns once so many replicas have
    the change as well. Where they do not within `WAIT_TIMEOUT` it raises
    `RecordStoreUnavailable`: then the change may hold or be lost with the next failover, and
    the call can be repeated. That goes for the claims of sweeps, too: what was not confirmed is
    not deleted, so a master that nobody follows any more lets nothing go.
    """

    def __init__(self, url: str, key_prefix: str, shards: int, wait_replicas: int = 0) -> None:
        self.shards = range(shards)
        self._prefix = key_prefix
        self._wait_replicas = wait_replicas
        self._servers = servers_at(url)
        self._translation = _Translation(self._servers)
        self._keys = [
            [f"{key_prefix}:{{{shard:02}}}:{name}".encode() for name in KEYS]
            for shard in self.shards
        ]
        self._slots = [key_slot(due) for due, *_ in self._keys]
        self._sources = _sources()
        self._digests = {
            verb: sha1(source.encode(), usedforsecurity=False).hexdigest()
            for verb, source in self._sources.items()
        }
        self._ready: WeakSet[redis.Redis] = WeakSet()

    def close(self) -> None:
        self._servers.close()

    # -- the verbs of writers

    def _schedule(self, members: Sequence[bytes], ttl: int) -> tuple[int, int, Sequence[bytes]]:
        if len(members) == 1:
            return _schedule(self._run("schedule", self.shard_of(members[0]), ttl, *members))
        calls = [
            _Call("schedule", shard, (ttl, *own[first : first + SLICE]))
            for shard, own in self._by_shard(members).items()
            for first in range(0, len(own), SLICE)
        ]
        lefts, deadlines, busy = zip(*map(_schedule, self._run_all(calls)), strict=True)
        return max(lefts), max(deadlines), list(chain(*busy))

    def _cancel(self, member: bytes, expected: int) -> int:
        (left,) = self._run("cancel", self.shard_of(member), member, expected)
        return int(left)

    def _place(self, member: bytes, deadline: int, token: int, expected: int) -> int:
        (left,) = self._run("place", self.shard_of(member), member, deadline, token, expected)
        return int(left)

    def _touch(
        self, member: bytes, grace: int, default_ttl: int, registered: int, unfinished: int
    ) -> tuple[int, Touch]:
        left, *touch = self._run(
            "touch", self.shard_of(member), member, grace, default_ttl, registered, unfinished
        )
        return left, Touch(*touch)

    def _carry(self, source: bytes, destination: bytes, grace: int) -> tuple[int, Carried]:
        shard = self.shard_of(source)
        if shard != self.shard_of(destination):
            return self._carry_across(source, destination, grace)
        left, *carried = self._run("carry", shard, source, destination, grace)
        return left, Carried(*carried)

    def _carry_across(self, source: bytes, destination: bytes, grace: int) -> tuple[int, Carried]:
        left, deadline, had = self._run("pin", self.shard_of(source), source, grace)
        if left:
            return left, Carried()
        _, replaced = self.deadline(destination)
        left = self._place(destination, deadline, 0, -1) if deadline else 0
        if left:  # the next attempt shall find the deadline that there was
            self._place(source, had, 0, deadline)
        return left, Carried(deadline, had, replaced)

    def deadlines(self, members: Sequence[bytes]) -> tuple[int, list[int]]:
        groups = self._by_shard(members)
        calls = [
            _Call("deadline", shard, own[first : first + SLICE])
            for shard, own in groups.items()
            for first in range(0, len(own), SLICE)
        ]
        now, found = 0, []
        for reply in self._run_all(calls):
            now = max(now, reply[0])
            found += reply[1:]
        known = dict(zip(chain(*groups.values()), found, strict=True))
        return now, [known[member] for member in members]

    def renew(self, member: bytes, ttl: int, latest: int = 0) -> int:
        return int(self._run("renew", self.shard_of(member), member, ttl, latest))

    # -- tickets

    def issue_ticket(self, member: bytes, ticket: str, uses: int, end: int) -> None:
        slot, key = self._slots[self.shard_of(member)], self._ticket_key(member, ticket)
        self._send([_Command(slot, "set", (key, uses), {"pxat": end // 1_000})])

    def use_ticket(self, member: bytes, ticket: str, uses: int = 1) -> bool:
        key = self._ticket_key(member, ticket)
        return bool(self._run("use_ticket", self.shard_of(member), uses, more_keys=[key]) > 0)

    def _ticket_key(self, member: bytes, ticket: str) -> str:
        # In the shard of its file, for the sake of a Redis Cluster.
        return f"{self._prefix}:{{{self.shard_of(member):02}}}:ticket:{ticket}"

    # -- the verbs of sweeps

    def claim(self, shard: int, limit: int, lease: int) -> Claim:
        return _claim(self._run("claim", shard, limit, lease))

    def claim_one(self, member: bytes, lease: int, early: int = 0) -> ClaimOne:
        return ClaimOne(*self._run("claim_one", self.shard_of(member), member, lease, early))

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
        calls = []
        totals = [self._totals_key(shard)]
        if done is None or done:
            calls.append(_Call("acknowledge", shard, (token, *(done or ()))))
        for delay, members in put_off.items():
            calls.append(_Call("postpone", shard, (token, delay, *members)))
        for why, policy in (failures, backoff), (broken, Backoff(1)):
            if why and policy:
                calls.append(_Call("fail", shard, (token, *policy, *chain(*why)), totals))
        if tally:
            calls.append(_Call("tally", shard, list(chain(*tally.items())), totals))
        if then:
            calls.append(_Call("claim", shard, then))
        replies = self._run_all(calls)
        claim = _claim(replies[-1]) if then else None
        fates = [own for call, own in zip(calls, replies, strict=True) if call.verb == "fail"]
        retried, set_aside = map(sum, zip((0, 0), *fates, strict=True))
        return Settled(retried, set_aside, claim)

    def _totals_key(self, shard: int) -> str:
        return f"{self._prefix}:{{{shard:02}}}:totals"

    def keeps_records_on_disk(self) -> bool:
        def kept(client: redis.Redis) -> bool:
            persistence: Any = client.info("persistence")
            if persistence.get("aof_enabled"):
                return True  # without CONFIG, which a user of ours need not be allowed
            intervals: Any = client.config_get("save")
            return bool(intervals.get("save"))

        with self._translation:
            return self._servers.patiently(lambda: all(map(kept, self._servers.all())))

    def adopt(self, deadlines: Mapping[bytes, int]) -> Sequence[bytes]:
        calls = [
            _Call(
                "adopt", shard, [x for m in own[first : first + SLICE] for x in (m, deadlines[m])]
            )
            for shard, own in self._by_shard(list(deadlines)).items()
            for first in range(0, len(own), SLICE)
        ]
        return list(chain(*self._run_all(calls)))

    # -- the verbs of onlookers

    def counts(self) -> Counts:
        shards = self._run_all([_Call("counts", shard, ()) for shard in self.shards])
        now, tracked, overdue, claimed, set_aside, oldest = zip(*shards, strict=True)
        return Counts(
            max(now), sum(tracked), sum(overdue), sum(claimed), sum(set_aside), max(oldest)
        )

    def earliest(self, limit: int) -> Sequence[Record]:
        firsts = self._send_to_shards("due", "zrange", 0, limit - 1, withscores=True)
        records = (Record(member, int(score)) for member, score in chain(*firsts))
        return nsmallest(limit, records, key=attrgetter("deadline"))

    def due_between(self, edges: Sequence[int]) -> Sequence[int]:
        counts: list[int] = self._send(
            [
                _Command(slot, "zcount", (due, first, f"({end}"))
                for slot, (due, *_) in zip(self._slots, self._keys, strict=True)
                for first, end in pairwise(edges)
            ]
        )
        bars = len(edges) - 1
        return [sum(counts[bar::bars]) for bar in range(bars)]

    def record(self, member: bytes) -> Record | None:
        shard = self.shard_of(member)
        due, claimed, _, failed = self._keys[shard]
        looks = (("zscore", due), ("zscore", claimed), ("hexists", failed))
        found = self._send(
            [_Command(self._slots[shard], method, (key, member)) for method, key in looks]
        )
        return next(
            (
                Record(member, int(value) if state is State.DUE else 0, state)
                for value, state in zip(found, State, strict=True)
                if value
            ),
            None,
        )

    def scan(self, prefix: bytes, text: bytes = b"") -> Iterator[tuple[int, Iterable[Record]]]:
        pattern = _pattern(prefix, text)
        cursors = {
            (slot, key, state): 0
            for slot, (due, claimed, _, failed) in zip(self._slots, self._keys, strict=True)
            for key, state in zip((due, claimed, failed), State, strict=True)
        }
        while cursors:
            replies = self._send(
                [
                    _Command(
                        slot,
                        "hscan" if state is State.SET_ASIDE else "zscan",
                        (key, cursor, pattern, SCANNED),
                    )
                    for (slot, key, state), cursor in cursors.items()
                ]
            )
            steps = list(zip(cursors, replies, strict=True))
            yield (
                SCANNED * len(steps),
                [
                    Record(member, int(value) if state is State.DUE else 0, state)
                    for (*_, state), (_, found) in steps
                    for member, value in dict(found).items()
                ],
            )
            cursors = {place: cursor for place, (cursor, _) in steps if cursor}

    def set_aside(self, prefix: bytes = b"", cursor: str = "", limit: int = 1_000) -> Page:
        shard, position = map(int, cursor.split(":")) if cursor else (0, 0)
        found: dict[bytes, bytes] = {}
        while len(found) < limit and shard < len(self.shards):
            failed = self._keys[shard][KEYS.index("failed")]
            look = failed, position, _pattern(prefix), min(limit, SCANNED)
            [(position, page)] = self._send([_Command(self._slots[shard], "hscan", look)])
            found.update(page)
            shard += not position
        records = [GivenUp(member, **json.loads(why)) for member, why in found.items()]
        return Page(records, f"{shard}:{position}" if shard < len(self.shards) else "")

    def retry(self, members: Sequence[bytes]) -> Sequence[bytes]:
        return self._release(members, due=True)

    def forget(self, members: Sequence[bytes]) -> Sequence[bytes]:
        return self._release(members, due=False)

    def _release(self, members: Sequence[bytes], due: bool) -> Sequence[bytes]:
        calls = [
            _Call("release", shard, (int(due), *own))
            for shard, own in self._by_shard(members).items()
        ]
        return list(chain(*self._run_all(calls)))

    def record_sweep(
        self, report: Mapping[str, float], tally: Mapping[str, float] = NOTHING
    ) -> None:
        key, entry = f"{self._prefix}:sweeps", {"report": json.dumps(report)}
        limit = {"maxlen": SWEEPS_KEPT, "approximate": True}
        growths = [
            _Command(self._slots[0], "hincrbyfloat", (self._totals_key(0), number, growth))
            for number, growth in tally.items()
        ]
        self._send([_Command(_slot_of(key), "xadd", (key, entry), limit), *growths])

    def sweeps(self, limit: int) -> list[dict[str, float]]:
        key = f"{self._prefix}:sweeps"
        [entries] = self._send([_Command(_slot_of(key), "xrevrange", (key,), {"count": limit})])
        return [
            {**json.loads(fields[b"report"]), "finished": int(id_.partition(b"-")[0]) / 1_000}
            for id_, fields in entries
        ]

    def totals(self) -> dict[str, float]:
        shards: list[dict[bytes, bytes]] = self._send(
            [
                _Command(self._slots[shard], "hgetall", (self._totals_key(shard),))
                for shard in self.shards
            ]
        )
        totals: defaultdict[str, float] = defaultdict(float)
        for number, value in chain(*(own.items() for own in shards)):
            totals[number.decode()] += float(value)
        return dict(totals)

    # -- running scripts

    def shard_of(self, member: bytes) -> int:
        """Return the shard that holds a member's record."""
        return crc32(member) % len(self.shards) if len(self.shards) > 1 else 0

    def _by_shard(self, members: Sequence[bytes]) -> dict[int, list[bytes]]:
        groups: dict[int, list[bytes]] = {}
        for member in members:
            groups.setdefault(self.shard_of(member), []).append(member)
        return groups

    def _run(self, verb: str, shard: int, *arguments: Any, more_keys: Sequence[str] = ()) -> Any:
        call = _Call(verb, shard, arguments, more_keys)
        if self._wait_replicas:
            return self._run_all([call])[0]
        command = self._evalsha(call)
        with self._translation:
            return self._servers.patiently(lambda: self._evaluated(command))

    def _evaluated(self, command: _Command) -> Any:
        client = self._servers.of(command.slot)
        if client in self._ready:
            try:
                return client.evalsha(*command.arguments)
            except NoScriptError:  # a server that was restarted, or has failed over
                pass
        self._load(client)
        return client.evalsha(*command.arguments)

    def _run_all(self, calls: Sequence[_Call]) -> list[Any]:
        """Run several scripts, in one round trip for each server."""
        changing = any(call.verb not in READING for call in calls)
        return self._send(list(map(self._evalsha, calls)), changing)

    def _evalsha(self, call: _Call) -> _Command:
        verb, shard, arguments, more_keys = call
        keys = len(KEYS) + len(more_keys)
        arguments = self._digests[verb], keys, *self._keys[shard], *more_keys, *arguments
        return _Command(self._slots[shard], "evalsha", arguments)

    def _send_to_shards(self, name: str, method: str, *arguments: Any, **options: Any) -> list[Any]:
        """Send the same command about one key of each shard."""
        keys = [own[KEYS.index(name)] for own in self._keys]
        return self._send(
            [
                _Command(slot, method, (key, *arguments), options)
                for slot, key in zip(self._slots, keys, strict=True)
            ]
        )

    def _send(self, commands: Sequence[_Command], changing: bool = False) -> list[Any]:
        """Send commands, in one round trip for each server; what is ``changing`` is confirmed."""
        replies: dict[int, Any] = {}

        def attempt() -> list[Any]:
            for client, own in self._by_server(commands, replies).items():
                answers = self._answers(client, [commands[i] for i in own], changing)
                replies.update(zip(own, answers, strict=True))
            return [replies[i] for i in range(len(commands))]

        with self._translation:
            return self._servers.patiently(attempt)

    def _by_server(
        self, commands: Sequence[_Command], answered: Collection[int]
    ) -> dict[redis.Redis, list[int]]:
        groups: dict[redis.Redis, list[int]] = {}
        for i, command in enumerate(commands):
            if i not in answered:
                groups.setdefault(self._servers.of(command.slot), []).append(i)
        return groups

    def _answers(
        self, client: redis.Redis, commands: Sequence[_Command], changing: bool
    ) -> list[Any]:
        if client not in self._ready:
            self._load(client)
        replies = self._pipelined(client, commands, changing)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            self._load(client)
            again = self._pipelined(client, [commands[i] for i in unknown], changing)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return _without_errors(replies)

    def _pipelined(
        self, client: redis.Redis, commands: Sequence[_Command], changing: bool
    ) -> list[Any]:
        confirmed = changing and self._wait_replicas > 0
        with client.pipeline(transaction=False) as pipeline:
            for command in commands:
                getattr(pipeline, command.method)(*command.arguments, **command.options)
            if confirmed:
                pipeline.wait(self._wait_replicas, WAIT_TIMEOUT)
            replies = pipeline.execute(raise_on_error=False)
        if confirmed:
            self._check_confirmed(replies.pop())
        return replies

    def _check_confirmed(self, replicas: int | Exception) -> None:
        [count] = _without_errors([replicas])
        if count < self._wait_replicas:
            raise RecordStoreUnavailable(
                f"Redis at {self._servers.address} has the change, but only {count} of the "
                f"{self._wait_replicas} replicas that DJFS['wait_replicas'] asks for: try again"
            )

    def _load(self, client: redis.Redis) -> None:
        """Check the ground and load the scripts."""
        self._agree_on_shards()
        with client.pipeline(transaction=False) as pipeline:
            pipeline.info("memory")
            for source in self._sources.values():
                pipeline.script_load(source)
            memory, *_ = _without_errors(pipeline.execute(raise_on_error=False))
        _check_eviction(memory)
        self._ready.add(client)

    def _agree_on_shards(self) -> None:
        key = f"{self._prefix}:shards"
        with self._servers.of(_slot_of(key)).pipeline(transaction=False) as pipeline:
            pipeline.set(key, len(self.shards), nx=True)
            pipeline.get(key)
            registered, shards = pipeline.execute(raise_on_error=False)
        # A full server takes no new key, and must still let sweeps through.
        _without_errors(
            [shards] if isinstance(registered, OutOfMemoryError) else [registered, shards]
        )
        if int(shards or len(self.shards)) != len(self.shards):
            raise ConfigurationError(
                f"DJFS['shards'] is {len(self.shards)}, but the records in Redis are spread over "
                f"{int(shards)}: set it to {int(shards)}, or empty the keys {self._prefix}:* first"
            )


def _check_eviction(memory: Mapping[str, Any]) -> None:
    policy = str(memory.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        raise ConfigurationError(
            f"Redis may evict the records, its maxmemory-policy is {policy}: set it to noeviction"
        )


def _without_errors(replies: list[Any]) -> list[Any]:
    """Return ``replies``; raise the first of them that is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _slot_of(key: str) -> int:
    return key_slot(key.encode())


def _schedule(reply: list[Any] | int) -> tuple[int, int, list[bytes]]:
    if isinstance(reply, int):
        return 0, reply, []
    left, deadline, *busy = reply
    return left, deadline, busy


def _claim(reply: list[Any]) -> Claim:
    token, overdue, late, *members = reply
    return Claim(int(token), members, struct.unpack(f"<{len(members)}d", late), overdue)


def _pattern(prefix: bytes, text: bytes = b"") -> bytes:
    """Return the pattern of SCAN for a ``prefix``, and for a ``text`` somewhere in the path."""
    beginning = _literally(prefix) + b"*"
    if not text:
        return beginning
    path = b"" if prefix.endswith(b"\0") else b"\0*"
    return beginning + path + _literally(text) + b"*"


def _literally(name: bytes) -> bytes:
    return re.sub(rb"([*?\[\\])", rb"\\\1", name)


class _Translation:
    """A block in which errors of Redis become ours; written out, for each call enters one."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, MasterNotFoundError):
            # It quotes the options of the connections to the Sentinels.
            raise RecordStoreUnavailable(
                f"Redis at {self._servers.address} is away: no Sentinel knows of a master, or none "
                "lets us ask (sentinel_password in DJFS['redis_url'])"
            ) from None
        if isinstance(error, RedisError):
            raise _translated(error, self._servers.address) from error


def _translated(error: RedisError, address: Address) -> RecordStoreError:
    if has_moved(error) and address.kind == "single":
        return RecordStoreError(
            f"Redis at {address} is one of a Cluster: have DJFS['redis_url'] begin with "
            "redis+cluster://"
        )
    if passes(error) or isinstance(error, redis.ConnectionError):
        return RecordStoreUnavailable(f"Redis at {address} is away or does not answer: {error}")
    if isinstance(error, OutOfMemoryError):
        return RecordStoreError(f"Redis at {address} is full: give it more memory ({error})")
    return RecordStoreError(f"Redis at {address} refused: {error}")
