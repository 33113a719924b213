"""Running the scripts: one round trip for each server, whatever it takes to find the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary
from zlib import crc32

import redis
from redis.crc import key_slot
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError
from redis.sentinel import MasterNotFoundError

from ..errors import ConfigurationError, RecordStoreError, RecordStoreUnavailable
from .servers import Address, Servers, has_moved, passes, servers_at

T = TypeVar("T")

FORMAT = 5  # of the records; what does not know it must leave them alone
WAIT_TIMEOUT = 1_000  # ms, for the replicas

_FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)
VERBS = """schedule keep begin finish abandon reserve pledge release reserve_free release_all
    extend renew place_at adopt await_owner let_go take_up deadline use_ticket claim claim_one
    acknowledge fail postpone excuse tally next_due take_seat note_sweep counts take_back
    linked""".split()
READING = frozenset({"deadline", "counts", "linked", "next_due"})
# What the keys of a shard hold, by the last part of their names.
_ZSETS = "due retries suspects claimed deadlines leases notes timekeeper sweepers".split()
_HASHES = "failed writing owners revocations totals places".split()
TYPES = {
    **dict.fromkeys(_ZSETS, "zset"),
    **dict.fromkeys(_HASHES, "hash"),
    "permanent": "set",
    "sweeps": "stream",
    "format": "string",
}


class Unconfirmed(RecordStoreUnavailable):
    """A change was made, but too few replicas have it as well."""


class Call(NamedTuple):
    """One run of a script on the keys of one shard."""

    verb: str
    shard: int
    keys: Sequence[bytes]
    arguments: Sequence[Any]


class Command(NamedTuple):
    """One command about a key of one shard, as a method of redis-py."""

    shard: int
    method: str
    arguments: Sequence[Any]
    options: Mapping[str, Any] = {}

    @property
    def keys(self) -> Sequence[bytes]:
        """The keys that it is about."""
        if self.method == "evalsha":
            return self.arguments[2 : 2 + self.arguments[1]]
        return self.arguments[:1]


@cache
def _sources() -> Mapping[str, str]:
    lua = files(__package__) / "lua"
    prelude = (lua / "prelude.lua").read_text(encoding="utf-8").split("\n\n")
    return {
        verb: _source((lua / f"{verb}.lua").read_text(encoding="utf-8"), prelude) for verb in VERBS
    }


def _source(verb: str, prelude: Sequence[str]) -> str:
    """Prepend only those parts of the prelude that a verb needs: each costs time at every run."""
    flags, _, source = verb.partition("\n")  # Redis wants the flags in the very first line
    for part in reversed(prelude):
        function = _FUNCTION.search(part)
        if not function or f"{function[1]}(" in source:
            source = f"{part}\n\n{source}"
    return f"{flags}\n{source}"


class Scripts:
    """The scripts on the servers of one ``redis_url``, over ``shards`` groups of keys.

    A server is used once it has the scripts and keeps what it is given, and a shard once its
    records are of the form that these scripts know.
    """

    def __init__(self, url: str, key_prefix: str, shards: int, wait_replicas: int) -> None:
        self.shards = range(shards)
        self._prefix = key_prefix
        self._wait_replicas = wait_replicas
        self._servers = servers_at(url)
        self._translation = _Translation(self._servers)
        self._translations = [_Translation(self._servers, [shard]) for shard in self.shards]
        self._slots = [key_slot(self.key(shard, "format")) for shard in self.shards]
        self._sources = _sources()
        self._digests = {
            verb: sha1(source.encode(), usedforsecurity=False).hexdigest()
            for verb, source in self._sources.items()
        }
        # client -> the shards whose records it has been asked about
        self._ready: WeakKeyDictionary[redis.Redis, set[int]] = WeakKeyDictionary()

    def close(self) -> None:
        """Give up the connections."""
        self._servers.close()

    def key(self, shard: int, *names: str) -> bytes:
        """Return a key; all of a shard are in one slot of a Cluster."""
        return ":".join((self._prefix, f"{{{shard:02}}}", *names)).encode()

    def shard_of(self, member: bytes) -> int:
        """Return the shard that holds a member's record."""
        return crc32(member) % len(self.shards) if len(self.shards) > 1 else 0

    def by_shard(self, members: Iterable[bytes]) -> dict[int, list[bytes]]:
        """Group members by the shards that hold their records."""
        groups: dict[int, list[bytes]] = {}
        for member in members:
            groups.setdefault(self.shard_of(member), []).append(member)
        return groups

    def run(self, call: Call) -> Any:
        """Run one script."""
        if self._wait_replicas:
            return self.run_all([call])[0]
        command = self._evalsha(call)
        with self._translations[call.shard]:
            return self._servers.patiently(lambda: self._evaluated(command))

    def run_all(self, calls: Sequence[Call], confirmed: bool = True) -> list[Any]:
        """Run several scripts, in one round trip for each server."""
        changing = confirmed and any(call.verb not in READING for call in calls)
        return self.send(list(map(self._evalsha, calls)), changing)

    def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts that no replica needs to confirm, whichever servers are away.

        In place of a reply there may be one of djpyfs' errors.
        """
        commands = list(map(self._evalsha, calls))
        replies: list[Any] = [None] * len(calls)
        for shards in self._shards_by_server():
            own = [i for i, command in enumerate(commands) if command.shard in shards]
            try:
                answers = self._answered([commands[i] for i in own])
            except (RecordStoreError, ConfigurationError) as error:
                answers = [error] * len(own)
            for i, answer in zip(own, answers, strict=True):
                replies[i] = answer
        return replies

    def _shards_by_server(self) -> Collection[Collection[int]]:
        try:
            groups: dict[redis.Redis, list[int]] = {}
            for shard in self.shards:
                groups.setdefault(self._servers.of(self._slots[shard]), []).append(shard)
            return list(groups.values())
        except RedisError:  # then nobody is asked together with those of another server
            return [[shard] for shard in self.shards]

    def _answered(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []

        def attempt() -> list[Any]:
            client = self._servers.of(self._slots[commands[0].shard])
            answers = self._answers(client, commands, changing=False)
            for answer in answers:
                if isinstance(answer, RedisError) and passes(answer):
                    raise answer
            return answers

        with _Translation(self._servers, sorted({command.shard for command in commands})):
            answers = self._servers.patiently(attempt)
        return [
            _translated(answer, self._servers.address) if isinstance(answer, RedisError) else answer
            for answer in answers
        ]

    def _evaluated(self, command: Command) -> Any:
        client = self._servers.of(self._slots[command.shard])
        try:
            if command.shard in self._ready.get(client, ()):
                try:
                    return client.evalsha(*command.arguments)
                except NoScriptError:  # a server that was restarted, or has failed over
                    self._ready.pop(client, None)
            _without_errors(list(self._prepare(client, [command.shard]).values()))
            return client.evalsha(*command.arguments)
        except ResponseError as error:
            raise self._explained(client, command, error) from None

    def _evalsha(self, call: Call) -> Command:
        arguments = self._digests[call.verb], len(call.keys), *call.keys, *call.arguments
        return Command(call.shard, "evalsha", arguments)

    def send(self, commands: Sequence[Command], changing: bool = False) -> list[Any]:
        """Send commands, in one round trip for each server; what is ``changing`` is confirmed."""
        replies: dict[int, Any] = {}

        def attempt() -> list[Any]:
            for client, own in self._by_server(commands, replies).items():
                answers = self._answers(client, [commands[i] for i in own], changing)
                replies.update(zip(own, _without_errors(answers), strict=True))
            return [replies[i] for i in range(len(commands))]

        shards = {command.shard for command in commands}
        with self._translations[min(shards)] if len(shards) == 1 else self._translation:
            return self._servers.patiently(attempt)

    def all_servers(self, ask: Callable[[redis.Redis], Any]) -> list[Any]:
        """Return what ``ask`` returns for each server."""
        with self._translation:
            return self._servers.patiently(lambda: list(map(ask, self._servers.all())))

    def on_server(self, shard: int, ask: Callable[[redis.Redis], T]) -> T:
        """Return what ``ask`` returns for the server of a shard."""
        with self._translations[shard]:
            return self._servers.patiently(lambda: ask(self._servers.of(self._slots[shard])))

    def _by_server(
        self, commands: Sequence[Command], answered: Collection[int]
    ) -> dict[redis.Redis, list[int]]:
        groups: dict[redis.Redis, list[int]] = {}
        for i, command in enumerate(commands):
            if i not in answered:
                groups.setdefault(self._servers.of(self._slots[command.shard]), []).append(i)
        return groups

    def _answers(
        self, client: redis.Redis, commands: Sequence[Command], changing: bool
    ) -> list[Any]:
        """Return replies; in place of one there may be an error."""
        wrong = self._prepare(client, {command.shard for command in commands})
        asked = [command for command in commands if command.shard not in wrong]
        replies = self._pipelined(client, asked, changing)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            self._ready.pop(client, None)
            self._prepare(client, {command.shard for command in asked})
            again = self._pipelined(client, [asked[i] for i in unknown], changing)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        for i, reply in enumerate(replies):
            if isinstance(reply, ResponseError):
                replies[i] = self._explained(client, asked[i], reply)
        answers = iter(replies)
        return [wrong[it.shard] if it.shard in wrong else next(answers) for it in commands]

    def _pipelined(
        self, client: redis.Redis, commands: Sequence[Command], changing: bool
    ) -> list[Any]:
        if not commands:
            return []
        confirmed = changing and self._wait_replicas > 0
        if len(commands) == 1 and not confirmed:  # a pipeline of one takes a third longer
            return [_reply(client, commands[0])]
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
            raise Unconfirmed(
                f"Redis at {self._servers.address} has the change, but only {count} of the "
                f"{self._wait_replicas} replicas that DJFS['wait_replicas'] asks for: try again"
            )

    def _prepare(self, client: redis.Redis, shards: Collection[int]) -> Mapping[int, Exception]:
        """Check the server and load the scripts; return what is wrong with which shard."""
        known = self._ready.get(client)
        unknown = [shard for shard in shards if known is None or shard not in known]
        if not unknown:
            return {}
        form = f"{FORMAT} {len(self.shards)}"
        with client.pipeline(transaction=False) as pipeline:
            # That of the first, where this server has it, is known to whoever has more or fewer.
            for shard in 0, *unknown:
                pipeline.set(self.key(shard, "format"), form, nx=True)
                pipeline.get(self.key(shard, "format"))
            if known is None:
                pipeline.info("memory")
                for source in self._sources.values():
                    pipeline.script_load(source)
            _, first, *replies = pipeline.execute(raise_on_error=False)
        forms = replies[: 2 * len(unknown)]
        if known is None:
            memory, *_ = _without_errors(replies[len(forms) :])
            _check_eviction(memory)
            known = self._ready.setdefault(client, set())
        found = zip(unknown, forms[::2], forms[1::2], strict=True)
        problems = {shard: self._problem(client, shard, form, *rest) for shard, *rest in found}
        if isinstance(first, bytes) and first.decode() != form:
            problems = dict.fromkeys(unknown, self._disagreement(first.decode()))
        known.update(shard for shard, problem in problems.items() if problem is None)
        return {shard: problem for shard, problem in problems.items() if problem}

    def _explained(self, client: redis.Redis, command: Command, error: RedisError) -> Exception:
        """Return what tells of the key that a command found to be of the wrong type."""
        if not str(error).startswith("WRONGTYPE"):
            return error
        with client.pipeline(transaction=False) as pipeline:
            for key in command.keys:
                pipeline.type(key)
            kinds = [kind.decode() for kind in pipeline.execute()]
        for key, kind in zip(command.keys, kinds, strict=True):
            wanted = TYPES.get(key.decode().rpartition(":")[2], kind)
            if kind not in ("none", wanted):
                return RecordStoreError(
                    f"shard {command.shard:02} cannot be used: its key {key.decode()} in Redis at "
                    f"{self._servers.address} is a {kind}, and must be a {wanted}. Delete that "
                    "key: 'manage.py djpyfs audit' then lists the files whose records are gone"
                )
        return error

    def _problem(
        self, client: redis.Redis, shard: int, form: str, registered: Any, found: Any
    ) -> Exception | None:
        """Return what is wrong with the records of a shard, by what became of their form."""
        for answer in found, registered:
            # A full server takes no new key, and must still let sweeps through.
            if isinstance(answer, RedisError) and not isinstance(answer, OutOfMemoryError):
                if passes(answer):
                    raise answer
                look = Command(shard, "get", [self.key(shard, "format")])
                return self._explained(client, look, answer)
        return self._disagreement(found.decode()) if found and found.decode() != form else None

    def _disagreement(self, found: str) -> ConfigurationError:
        form, _, shards = found.partition(" ")
        if form != str(FORMAT):
            return ConfigurationError(
                f"the records in Redis have the form {form}, and this djpyfs knows {FORMAT}: let "
                "the same version run everywhere, or give it another DJFS['key_prefix']"
            )
        return ConfigurationError(
            f"DJFS['shards'] is {len(self.shards)}, but the records in Redis are spread over "
            f"{shards}: set it to {shards}, or empty the keys {self._prefix}:* first"
        )


def _check_eviction(memory: Mapping[str, Any]) -> None:
    policy = str(memory.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        raise ConfigurationError(
            f"Redis may evict the records, its maxmemory-policy is {policy}: set it to noeviction"
        )


def _reply(client: redis.Redis, command: Command) -> Any:
    """Return the reply to a command, or in its place the error with which a server refused it."""
    try:
        return getattr(client, command.method)(*command.arguments, **command.options)
    except redis.ResponseError as error:
        return error


def _without_errors(replies: list[Any]) -> list[Any]:
    """Return ``replies``; raise the first of them that is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


class _Translation:
    """A block in which errors of Redis become djpyfs'; a plain class, as every call enters one."""

    def __init__(self, servers: Servers, shards: Sequence[int] = ()) -> None:
        self._servers = servers
        self._shards = shards

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
            raise _translated(error, self._servers.address, self._shards) from error


def _translated(
    error: RedisError, address: Address, shards: Sequence[int] = ()
) -> RecordStoreError:
    if has_moved(error) and address.kind == "single":
        return RecordStoreError(
            f"Redis at {address} is one of a Cluster: have DJFS['redis_url'] begin with "
            "redis+cluster://"
        )
    if passes(error) or isinstance(error, redis.ConnectionError):
        if shards and address.kind == "cluster":
            named = ", ".join(f"{shard:02}" for shard in shards)
            return RecordStoreUnavailable(
                f"shard {named} cannot be used: its master in Redis at {address} is away or does "
                f"not answer. Start it, or let a replica take over ({error})"
            )
        return RecordStoreUnavailable(f"Redis at {address} is away or does not answer: {error}")
    if isinstance(error, OutOfMemoryError):
        return RecordStoreError(f"Redis at {address} is full: give it more memory ({error})")
    return RecordStoreError(f"Redis at {address} refused: {error}")
