"""The record store in Redis or Valkey: one Lua script for each verb, one round trip each."""

from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from importlib.resources import files
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import (
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
)
from redis.retry import Retry

from ..errors import ConfigurationError, RecordStoreError, RecordStoreUnavailable
from . import (
    NOBODY,
    NOTHING,
    SWEEPS_KEPT,
    Backoff,
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

# Together below the 5 s after which a Redis that hangs must have become an error.
CONNECT_TIMEOUT = 2  # s
REPLY_TIMEOUT = 4  # s
SLICE = 5_000  # members that one script takes, so that Redis serves others in between

SCANNED = 2_000  # records that Redis looks at in one step of a scan

KEYS = "due claimed attempts failed".split()
_FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)
VERBS = """schedule cancel place touch rename deadline claim claim_one acknowledge fail
    counts release postpone renew adopt use_ticket tally""".split()


class _Call(NamedTuple):
    """One run of a script."""

    verb: str
    shard: int
    arguments: Sequence[Any]
    more_keys: Sequence[str] = ()


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
    """Records in Redis ≥ 7 or Valkey, spread over ``shards`` groups of keys."""

    def __init__(self, url: str, key_prefix: str, shards: int) -> None:
        self.shards = range(shards)
        self._prefix = key_prefix
        self._redis = _connect(url)
        self._translation = _Translation(self._redis)
        self._keys = [
            [f"{key_prefix}:{{{shard:02}}}:{name}".encode() for name in KEYS]
            for shard in self.shards
        ]
        self._digests: dict[str, str] = {}

    def close(self) -> None:
        self._redis.close()

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
        self, member: bytes, grace: int, default_ttl: int, registered: int
    ) -> tuple[int, Touch]:
        left, *touch = self._run(
            "touch", self.shard_of(member), member, grace, default_ttl, registered
        )
        return left, Touch(*touch)

    def _rename(
        self, source: bytes, destination: bytes, remaining: int
    ) -> tuple[int, tuple[int, int]]:
        shard = self.shard_of(source)
        if shard != self.shard_of(destination):
            return self._rename_across(source, destination, remaining)
        left, carried, replaced = self._run("rename", shard, source, destination, remaining)
        return left, (carried, replaced)

    def _rename_across(
        self, source: bytes, destination: bytes, remaining: int
    ) -> tuple[int, tuple[int, int]]:
        # The new record first: a crash in between leaves one record too many, never too few.
        _, carried = self.deadline(source)
        _, replaced = self.deadline(destination)
        place, cancel = self._place, self._cancel
        left = place(destination, carried, 0, -1) if carried else cancel(destination, 0)
        if left:
            return left, (0, 0)
        # From here on `replaced` is known to nobody else: this waits instead of starting anew.
        if remaining:
            self.place(source, remaining)
        else:
            self.cancel(source, carried)
        return 0, (carried, replaced)

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
        with self._translation:
            self._redis.set(self._ticket_key(member, ticket), uses, pxat=end // 1_000)

    def use_ticket(self, member: bytes, ticket: str, uses: int = 1) -> bool:
        key = self._ticket_key(member, ticket)
        return bool(self._run("use_ticket", self.shard_of(member), uses, more_keys=[key]) > 0)

    def _ticket_key(self, member: bytes, ticket: str) -> str:
        # In the shard of its file, for the sake of a Redis Cluster.
        return f"{self._prefix}:{{{self.shard_of(member):02}}}:ticket:{ticket}"

    # -- the verbs of sweeps

    def claim(self, shard: int, limit: int, lease: int) -> Claim:
        return _claim(self._run("claim", shard, limit, lease))

    def claim_one(self, member: bytes, lease: int, early: bool = False) -> ClaimOne:
        return ClaimOne(*self._run("claim_one", self.shard_of(member), member, lease, int(early)))

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
        with self._translation:
            persistence: Any = self._redis.info("persistence")
            intervals: Any = self._redis.config_get("save")
        return bool(persistence.get("aof_enabled") or intervals.get("save"))

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
        with self._translation, self._reading() as reading:
            for due, *_ in self._keys:
                reading.zrange(due, 0, limit - 1, withscores=True)
            waiting = chain(*reading.execute())
        records = (Record(member, int(score)) for member, score in waiting)
        return nsmallest(limit, records, key=attrgetter("deadline"))

    def due_between(self, edges: Sequence[int]) -> Sequence[int]:
        with self._translation, self._reading() as reading:
            for due, *_ in self._keys:
                for first, end in pairwise(edges):
                    reading.zcount(due, first, f"({end}")
            counts: list[int] = reading.execute()
        bars = len(edges) - 1
        return [sum(counts[bar::bars]) for bar in range(bars)]

    def record(self, member: bytes) -> Record | None:
        due, claimed, _, failed = self._keys[self.shard_of(member)]
        with self._translation, self._reading() as reading:
            reading.zscore(due, member)
            reading.zscore(claimed, member)
            reading.hexists(failed, member)
            found = reading.execute()
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
            (key, state): 0
            for due, claimed, _, failed in self._keys
            for key, state in zip((due, claimed, failed), State, strict=True)
        }
        while cursors:
            with self._translation, self._reading() as reading:
                for (key, state), cursor in cursors.items():
                    scan = reading.hscan if state is State.SET_ASIDE else reading.zscan
                    scan(key, cursor, pattern, SCANNED)
                replies: list[Any] = reading.execute()
            steps = list(zip(cursors, replies, strict=True))
            yield (
                SCANNED * len(steps),
                [
                    Record(member, int(value) if state is State.DUE else 0, state)
                    for (_, state), (_, found) in steps
                    for member, value in dict(found).items()
                ],
            )
            cursors = {place: cursor for place, (cursor, _) in steps if cursor}

    def set_aside(self, prefix: bytes = b"", cursor: str = "", limit: int = 1_000) -> Page:
        shard, position = map(int, cursor.split(":")) if cursor else (0, 0)
        found: dict[bytes, bytes] = {}
        while len(found) < limit and shard < len(self.shards):
            with self._translation, self._reading() as reading:
                failed = self._keys[shard][KEYS.index("failed")]
                reading.hscan(failed, position, _pattern(prefix), min(limit, SCANNED))
                [(position, page)] = reading.execute()
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

    def _reading(self) -> Pipeline:
        """Return what sends several reads in one round trip."""
        if not self._digests:
            self._load()
        return self._redis.pipeline(transaction=False)

    def record_sweep(
        self, report: Mapping[str, float], tally: Mapping[str, float] = NOTHING
    ) -> None:
        with self._translation, self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xadd(
                f"{self._prefix}:sweeps",
                {"report": json.dumps(report)},
                maxlen=SWEEPS_KEPT,
                approximate=True,
            )
            for number, growth in tally.items():
                pipeline.hincrbyfloat(self._totals_key(0), number, growth)
            pipeline.execute()

    def sweeps(self, limit: int) -> list[dict[str, float]]:
        with self._translation:
            entries: Any = self._redis.xrevrange(f"{self._prefix}:sweeps", count=limit)
        return [
            {**json.loads(fields[b"report"]), "finished": int(id_.partition(b"-")[0]) / 1_000}
            for id_, fields in entries
        ]

    def totals(self) -> dict[str, float]:
        with self._translation, self._reading() as reading:
            for shard in self.shards:
                reading.hgetall(self._totals_key(shard))
            shards: list[dict[bytes, bytes]] = reading.execute()
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
        with self._translation:
            digest = self._digests.get(verb) or self._load()[verb]
            keys_and_arguments = *self._keys[shard], *more_keys, *arguments
            keys = len(KEYS) + len(more_keys)
            try:
                return self._redis.evalsha(digest, keys, *keys_and_arguments)
            except NoScriptError:  # a server that was restarted, or has failed over
                self._load()
                return self._redis.evalsha(digest, keys, *keys_and_arguments)

    def _run_all(self, calls: Sequence[_Call]) -> list[Any]:
        """Run several scripts in one round trip."""
        if not calls:
            return []
        with self._translation:
            if not self._digests:
                self._load()
            replies = self._pipelined(calls)
            unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:
                self._load()
                again = self._pipelined([calls[i] for i in unknown])
                for i, reply in zip(unknown, again, strict=True):
                    replies[i] = reply
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

    def _pipelined(self, calls: Sequence[_Call]) -> list[Any]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for verb, shard, arguments, more_keys in calls:
                keys: list[Any] = [*self._keys[shard], *more_keys]
                pipeline.evalsha(self._digests[verb], len(keys), *keys, *arguments)
            return pipeline.execute(raise_on_error=False)

    def _load(self) -> dict[str, str]:
        """Check the ground and load the scripts, in one round trip; return their digests."""
        sources = _sources()
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(f"{self._prefix}:shards", len(self.shards), nx=True)
            pipeline.get(f"{self._prefix}:shards")
            pipeline.info("memory")
            for source in sources.values():
                pipeline.script_load(source)
            registered, *answers = pipeline.execute(raise_on_error=False)
        # A full server takes no new key, and must still let sweeps through.
        excused = isinstance(registered, OutOfMemoryError)
        for answer in answers if excused else (registered, *answers):
            if isinstance(answer, Exception):
                raise answer
        shards, memory, *digests = answers
        self._check_server(int(shards or len(self.shards)), memory)
        self._digests = dict(zip(sources, digests, strict=True))
        return self._digests

    def _check_server(self, shards: int, memory: Mapping[str, Any]) -> None:
        if shards != len(self.shards):
            raise ConfigurationError(
                f"DJFS['shards'] is {len(self.shards)}, but the records in Redis are spread over "
                f"{shards}: set it to {shards}, or empty the keys {self._prefix}:* first"
            )
        policy = str(memory.get("maxmemory_policy", ""))
        if policy.startswith("allkeys"):
            raise ConfigurationError(
                f"Redis may evict the records, its maxmemory-policy is {policy}: "
                "set it to noeviction"
            )


def _connect(url: str) -> redis.Redis:
    # A lost connection is tried once more at once; a time-out is not, for it has cost seconds.
    once_more = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=REPLY_TIMEOUT,
            socket_connect_timeout=CONNECT_TIMEOUT,
            retry=once_more,
        )
    except ValueError as error:
        raise ConfigurationError(f"DJFS['redis_url'] cannot be read: {error}") from error


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

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, RedisError):
            raise _translated(error, _address(self._client)) from error


def _translated(error: RedisError, address: str) -> RecordStoreError:
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | BusyLoadingError):
        return RecordStoreUnavailable(f"Redis at {address} is away or does not answer: {error}")
    if isinstance(error, OutOfMemoryError):
        return RecordStoreError(f"Redis at {address} is full: give it more memory ({error})")
    return RecordStoreError(f"Redis at {address} refused: {error}")


def _address(client: redis.Redis) -> str:
    """Say where a client connects to, without user and password."""
    options = client.connection_pool.connection_kwargs
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"
