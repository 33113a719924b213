"""Running the scripts: one round trip for each server, whatever it takes to find the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from hashlib import sha1
from importlib.resources import files
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.sentinel import MasterNotFoundError

from ..errors import ConfigurationError, RecordStoreError, RecordStoreUnavailable
from .layout import FORMAT, Layout, Relaid
from .servers import Address, Servers, has_moved, passes, servers_at

T = TypeVar("T")

WAIT_TIMEOUT = 1_000  # ms, for the replicas

_FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)
VERBS = """schedule keep begin finish abandon reserve pledge release reserve_free release_all
    extend renew place_at adopt await_owner let_go take_up deadline use_ticket claim claim_one
    acknowledge fail postpone excuse tally next_due take_seat note_sweep counts take_back
    linked revoke kept record lay depart arrive deliver left_behind tidy introduce""".split()
READING = frozenset({"deadline", "counts", "linked", "next_due", "kept", "record", "left_behind"})
RELAID = "LAYOUT "  # how a script answers a call by another layout
# The types of the keys of a shard, by the last part of their names.
_ZSETS = "due retries suspects claimed deadlines leases notes timekeeper sweepers".split()
_HASHES = "failed writing owners revocations totals places transit".split()
TYPES = {
    **dict.fromkeys(_ZSETS, "zset"),
    **dict.fromkeys(_HASHES, "hash"),
    **dict.fromkeys(("permanent", "returned", "arrived"), "set"),
    "sweeps": "stream",
    "format": "string",
}


class _Ground(NamedTuple):
    """What each call to a shard needs."""

    format: bytes  # the key of its layout
    slot: int  # of a Cluster
    translation: _Translation


class Unconfirmed(RecordStoreUnavailable):
    """A change was made, but too few replicas have it as well."""


class Call(NamedTuple):
    """One run of a script on the keys of one shard."""

    verb: str
    shard: int
    keys: Sequence[bytes]
    arguments: Sequence[Any]
    #: The layout by which the shard was chosen; None: it is right by any.
    layout: Layout | None = None


class Command(NamedTuple):
    """One command about a key of one shard, as a method of redis-py."""

    shard: int
    method: str
    arguments: Sequence[Any]
    options: Mapping[str, Any] = {}

    @property
    def keys(self) -> Sequence[bytes]:
        """The keys that it is about."""
        if self.method in ("eval", "evalsha"):
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
    """The scripts on the servers of one ``redis_url``, over groups of keys.

    A server is used once it has the scripts and keeps what it is given, and a shard once its
    records are of the form that these scripts know. The first process that comes decides over how
    many ``shards`` a new store is spread; from then on each of them has the ``layout``. Each script
    compares it with the one that it is called by, and refuses if they differ.
    """

    def __init__(self, url: str, key_prefix: str, shards: int, wait_replicas: int) -> None:
        self.layout = Layout(0, shards, shards)
        self._is_sure = False  # that this is the layout
        self._prefix = key_prefix
        self._wait_replicas = wait_replicas
        self._servers = servers_at(url)
        self.on_one_server = self._servers.address.kind != "cluster"
        self._translation = _Translation(self._servers)
        self._grounds: dict[int, _Ground] = {}
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

    def _ground(self, shard: int) -> _Ground:
        ground = self._grounds.get(shard)
        if ground is None:
            key = self.key(shard, "format")
            ground = _Ground(key, key_slot(key), _Translation(self._servers, [shard]))
            self._grounds[shard] = ground
        return ground

    def _server_of(self, shard: int) -> redis.Redis:
        return self._servers.of(self._ground(shard).slot)

    def _format(self, shard: int) -> bytes:
        return self._ground(shard).format

    def run(self, call: Call) -> Any:
        """Run one script. Raises `Relaid` if its shard was chosen by another layout."""
        if self._wait_replicas:
            return self.run_all([call])[0]
        ground = self._ground(call.shard)
        while True:
            command = self._evalsha(call)
            try:
                with ground.translation:
                    return self._servers.patiently(partial(self._evaluated, ground, command))
            except Relaid:
                if call.layout:
                    raise

    def run_all(self, calls: Sequence[Call], confirmed: bool = True) -> list[Any]:
        """Run several scripts, in one round trip for each server. Raises what `run` does."""
        return _without_errors(self.run_where(calls, confirmed))

    def run_where(self, calls: Sequence[Call], confirmed: bool = True) -> list[Any]:
        """Do what `run_all` does, with a `Relaid` in place of the reply if one is raised."""
        changing = confirmed and any(call.verb not in READING for call in calls)
        replies = self.send(list(map(self._evalsha, calls)), changing)
        again = [
            i for i, call in enumerate(calls) if not call.layout and isinstance(replies[i], Relaid)
        ]
        if again:
            repeated = self.run_where([calls[i] for i in again], confirmed)
            for i, reply in zip(again, repeated, strict=True):
                replies[i] = reply
        return replies

    def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts that no replica needs to confirm, whichever servers are away.

        Their shards are chosen by hand. In place of a reply there may be one of djpyfs' errors.
        """
        replies = self._send_each(list(map(self._evalsha, calls)))
        if again := [i for i, reply in enumerate(replies) if isinstance(reply, Relaid)]:
            repeated = self.run_each([calls[i] for i in again])
            for i, reply in zip(again, repeated, strict=True):
                replies[i] = reply
        return replies

    def _send_each(self, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        for shards in self._shards_by_server({command.shard for command in commands}):
            own = [i for i, command in enumerate(commands) if command.shard in shards]
            try:
                answers = self._answered([commands[i] for i in own])
            except (RecordStoreError, ConfigurationError) as error:
                answers = [error] * len(own)
            for i, answer in zip(own, answers, strict=True):
                replies[i] = answer
        return replies

    def _shards_by_server(self, shards: Collection[int]) -> Collection[Collection[int]]:
        try:
            groups: dict[redis.Redis, list[int]] = {}
            for shard in shards:
                groups.setdefault(self._server_of(shard), []).append(shard)
            return list(groups.values())
        except RedisError:  # then nobody is asked together with those of another server
            return [[shard] for shard in shards]

    def over_shards(self, ask: Callable[[range], T]) -> T:
        """Return what ``ask`` returns for all shards; ask again if it found more shards."""
        while True:
            layout = self.layout
            answer = ask(layout.shards)
            if self.layout is layout:
                return answer

    def sure_layout(self) -> Layout:
        """Return the layout, and ask for it if it is not known yet."""
        return self.layout if self._is_sure else self.newest_layout()

    def newest_layout(self) -> Layout:
        """Return the last layout that any shard has, which counts from now on.

        It may be older than the one known here, if Redis has come back with old data or with none.
        The first process that comes then, as to a new store, lays its own layout down.
        """
        while True:
            answers = self._forms()
            found = [self._read(form.decode()) for form in answers.values() if _is_form(form)]
            if found:
                is_whole = not any(isinstance(answer, Exception) for answer in answers.values())
                # A shard that is away may have a later one.
                known = [self.layout] if self._is_sure and not is_whole else []
                return self._use(max([*found, *known], key=attrgetter("epoch")))
            _without_errors([answers[0]])
            self.send([self._lay_command(0, self.layout)])

    def _forms(self) -> Mapping[int, Any]:
        """Ask each shard for its layout; in place of one there may be an error."""
        answers: dict[int, Any] = {}
        shards = self.layout.shards
        while unasked := [shard for shard in shards if shard not in answers]:
            gets = [Command(shard, "get", (self._format(shard),)) for shard in unasked]
            forms = dict(zip(unasked, self._send_each(gets), strict=True))
            answers |= forms
            known = [self._read(it.decode()).shards for it in forms.values() if _is_form(it)]
            shards = max([shards, *known], key=len)
        return answers

    def lay(self, layout: Layout, shards: Iterable[int]) -> None:
        """Write a layout down in shards. Raises `Relaid` if one has a later one, or another."""
        for shard in shards:
            believed = None
            while believed != layout:
                [found] = self.send([Command(shard, "get", (self._format(shard),))])
                believed = self._read(found.decode()) if found else None
                if believed != layout:
                    if believed and believed.epoch >= layout.epoch:
                        raise Relaid
                    self.send([self._lay_command(shard, layout, believed)], changing=True)
        self._use(layout)

    def _lay_command(self, shard: int, layout: Layout, believed: Layout | None = None) -> Command:
        forms = layout.form, believed.form if believed else ""
        return Command(shard, "eval", (self._sources["lay"], 1, self._format(shard), *forms))

    def _answered(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []

        last: list[Any] = []

        def attempt() -> None:
            client = self._server_of(commands[0].shard)
            last[:] = self._answers(client, commands, changing=False)
            for answer in last:
                if isinstance(answer, RedisError) and passes(answer):
                    raise answer

        with _Translation(self._servers, sorted({command.shard for command in commands})):
            try:
                self._servers.patiently(attempt)
            except RedisError:
                if not last:  # else some shards have answered
                    raise
        return [
            _translated(answer, self._servers.address, [command.shard])
            if isinstance(answer, RedisError)
            else answer
            for command, answer in zip(commands, last, strict=True)
        ]

    def _evaluated(self, ground: _Ground, command: Command) -> Any:
        client = self._servers.of(ground.slot)
        try:
            self._make_ready(client, command.shard)
            try:
                return client.evalsha(*command.arguments)
            except NoScriptError:  # a server that was restarted, or has failed over
                self._ready.pop(client, None)
            self._make_ready(client, command.shard)
            return client.evalsha(*command.arguments)
        except ResponseError as error:
            raise self._explained(client, command, error) from None

    def _make_ready(self, client: redis.Redis, shard: int) -> None:
        if shard not in self._ready.get(client, ()):
            _without_errors(list(self._prepare(client, [shard]).values()))

    def _evalsha(self, call: Call) -> Command:
        verb, shard, keys, arguments, layout = call
        form = (layout or self.layout).form
        told = self._digests[verb], len(keys) + 1, *keys, self._format(shard), *arguments, form
        return Command(shard, "evalsha", told)

    def send(self, commands: Sequence[Command], changing: bool = False) -> list[Any]:
        """Send commands, in one round trip for each server; what is ``changing`` is confirmed."""
        replies: dict[int, Any] = {}

        def attempt() -> list[Any]:
            for client, own in self._by_server(commands, replies).items():
                answers = self._answers(client, [commands[i] for i in own], changing)
                _without_errors([it for it in answers if not isinstance(it, Relaid)])
                replies.update(zip(own, answers, strict=True))
            return [replies[i] for i in range(len(commands))]

        shards = {command.shard for command in commands}
        with self._ground(min(shards)).translation if len(shards) == 1 else self._translation:
            return self._servers.patiently(attempt)

    def all_servers(self, ask: Callable[[redis.Redis], Any]) -> list[Any]:
        """Return what ``ask`` returns for each server."""
        with self._translation:
            return self._servers.patiently(lambda: list(map(ask, self._servers.all())))

    def on_server(self, shard: int, ask: Callable[[redis.Redis], T]) -> T:
        """Return what ``ask`` returns for the server of a shard."""
        with self._ground(shard).translation:
            return self._servers.patiently(lambda: ask(self._server_of(shard)))

    def _by_server(
        self, commands: Sequence[Command], answered: Collection[int]
    ) -> dict[redis.Redis, list[int]]:
        groups: dict[redis.Redis, list[int]] = {}
        for i, command in enumerate(commands):
            if i not in answered:
                groups.setdefault(self._server_of(command.shard), []).append(i)
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
            replicas = replies.pop()
            if not all(isinstance(reply, Exception) for reply in replies):  # something has changed
                self._check_confirmed(replicas)
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
        with client.pipeline(transaction=False) as pipeline:
            for shard in unknown:
                pipeline.get(self._format(shard))
            if known is None:
                pipeline.info("memory")
                for source in self._sources.values():
                    pipeline.script_load(source)
            replies = pipeline.execute(raise_on_error=False)
        if known is None:
            memory, *_ = _without_errors(replies[len(unknown) :])
            _check_eviction(memory)
            known = self._ready.setdefault(client, set())
        forms = zip(unknown, replies, strict=False)
        problems = {shard: self._problem(client, shard, form) for shard, form in forms}
        known.update(shard for shard, problem in problems.items() if problem is None)
        return {shard: problem for shard, problem in problems.items() if problem}

    def _explained(self, client: redis.Redis, command: Command, error: RedisError) -> Exception:
        """Return what to raise: for another layout, or a key that is of the wrong type."""
        if str(error).startswith(RELAID):
            return self._relaid(client, command, error)
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

    def _problem(self, client: redis.Redis, shard: int, form: Any) -> Exception | None:
        """Return what is wrong with the records of a shard, by their form."""
        if isinstance(form, RedisError):
            if passes(form):
                raise form
            return self._explained(client, Command(shard, "get", [self._format(shard)]), form)
        try:
            if form:
                self._read(form.decode())
        except ConfigurationError as error:
            return error
        return None

    # -- the layout

    def _relaid(self, client: redis.Redis, command: Command, error: RedisError) -> Exception:
        """Take in the layout of a shard, or tell it the one that counts; return what to raise."""
        try:
            form = str(error)[len(RELAID) :]
            found = self._read(form) if form else None
            layout = self.newest_layout()
            if layout != found:  # it is new, or has lost the last one in a failover
                laid = _reply(client, self._lay_command(command.shard, layout, found))
                if isinstance(laid, RedisError) and not str(laid).startswith(RELAID):
                    return laid
        except (ConfigurationError, RecordStoreError) as wrong:
            return wrong
        return Relaid()

    def _use(self, layout: Layout) -> Layout:
        if layout != self.layout:
            self.layout = layout
        self._is_sure = True
        return self.layout

    def _read(self, form: str) -> Layout:
        layout = Layout.read(form)
        if not layout:
            raise ConfigurationError(
                f"the records in Redis have the form {form.split(' ')[0]}, and this djpyfs knows "
                f"{FORMAT}: let the same version run everywhere, or give it another "
                "DJFS['key_prefix']"
            )
        return layout


def _check_eviction(memory: Mapping[str, Any]) -> None:
    policy = str(memory.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        raise ConfigurationError(
            f"Redis may evict the records, its maxmemory-policy is {policy}: set it to noeviction"
        )


def _is_form(answer: Any) -> bool:
    return isinstance(answer, bytes)


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


def _named(shards: Sequence[int]) -> str:
    return ", ".join(f"{shard:02}" for shard in shards)


def _translated(
    error: RedisError, address: Address, shards: Sequence[int] = ()
) -> RecordStoreError:
    if has_moved(error) and address.kind == "single":
        return RecordStoreError(
            f"Redis at {address} is one of a Cluster: have DJFS['redis_url'] begin with "
            "redis+cluster://"
        )
    if isinstance(error, AskError | TryAgainError):
        return RecordStoreUnavailable(
            f"shard {_named(shards)} cannot be used while its slot moves to another node of Redis "
            f"at {address}: 'redis-cli --cluster fix' ends a move that was broken off ({error})"
        )
    if passes(error) or isinstance(error, redis.ConnectionError):
        if shards and address.kind == "cluster":
            return RecordStoreUnavailable(
                f"shard {_named(shards)} cannot be used: its master in Redis at {address} is away "
                f"or does not answer. Start it, or let a replica take over ({error})"
            )
        return RecordStoreUnavailable(f"Redis at {address} is away or does not answer: {error}")
    if isinstance(error, OutOfMemoryError):
        return RecordStoreError(f"Redis at {address} is full: give it more memory ({error})")
    return RecordStoreError(f"Redis at {address} refused: {error}")
