"""How to reach the servers of the records: one, the master that Sentinels know, or a Cluster."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis
from redis import connection
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, SSLConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel

from ..errors import ConfigurationError

T = TypeVar("T")
_parse_url: Callable[[str], dict[str, Any]] = connection.parse_url

# Together below the 5 s after which a Redis that hangs must have become an error.
CONNECT_TIMEOUT = 2  # s
REPLY_TIMEOUT = 4  # s
# Where another server may take over: short enough for a second try within a call's patience.
FAILOVER_CONNECT_TIMEOUT = 1  # s
FAILOVER_REPLY_TIMEOUT = 2  # s
FIRST_PAUSE = 0.02  # s
LONGEST_PAUSE = 0.5  # s
GUIDE_TIMEOUT = 0.5  # s for a Sentinel, or a node that is asked who is where
LOOK_TIMEOUT = 1.5  # s for asking one node after the other

SLOTS = 16_384
_KINDS = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("single", False),
    "sentinel": ("sentinel", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}

# What a server says, or what happens to the connection, while another one takes over.
_PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    ReadOnlyError,
    AskError,  # and MovedError
    TryAgainError,
    ClusterDownError,
    MasterDownError,
)
_PASSING_CODES = (
    *("NOREPLICAS", "UNBLOCKED", "WAIT cannot be used with replica"),
    # Older versions of redis-py have classes for these in their client for Clusters alone.
    *("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN"),
)


@dataclass(frozen=True)
class Address:
    """A ``redis_url``, taken apart."""

    kind: str  # single, sentinel or cluster
    hosts: Sequence[tuple[str, int]]
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # of a connection
    master_name: str = ""
    guide_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # to a Sentinel

    @property
    def tls(self) -> bool:
        """Whether the connections are encrypted."""
        return self.options.get("connection_class") is SSLConnection

    def __str__(self) -> str:
        """Say where it is, without user and password."""
        hosts = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        if self.kind == "sentinel":
            return f"{self.master_name} (Sentinels {hosts})"
        if self.kind == "cluster":
            return f"{hosts} (Cluster)"
        return str(self.options.get("path") or f"{hosts}/{self.options.get('db', 0)}")


def address_of(url: str) -> Address:
    """Take a ``redis_url`` apart. Raises `ConfigurationError`, which shows no part of it.

    Beside what redis-py takes (``redis://``, ``rediss://``, ``unix://``) it may be

    - ``redis+sentinel://[user:password@]host:port,host:port/master_name/db``, or as Celery has
      it ``sentinel://[user:password@]host:port/db;sentinel://host:port?master_name=…``
    - ``redis+cluster://[user:password@]host:port,host:port``

    and ``rediss+…`` for TLS. The options in the query are redis-py's, and ``master_name``,
    ``sentinel_username``, ``sentinel_password``.
    """
    scheme = url.partition("://")[0]
    if scheme not in _KINDS:
        raise ConfigurationError("DJFS['redis_url'] has an unknown scheme")
    kind, tls = _KINDS[scheme]
    try:
        address = _single(url) if kind == "single" else _several(url, kind, tls)
        for host, _ in address.hosts:
            host.encode("idna")  # as each connection does, and fails with a raw error
        return address
    except (ValueError, TypeError, RedisError):
        # The error may quote a part of the password.
        raise ConfigurationError(
            "DJFS['redis_url'] cannot be read: look at its hosts, ports, database and options, and "
            "write special characters of a password as %2F for / and so on"
        ) from None


def _single(url: str) -> Address:
    parts = urlsplit(url)
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ValueError("redis-py would take it for database 0")
    options = _options_of(url)
    _check_options(options)
    host = options.get("host", "localhost"), options.get("port", _PORTS["single"])
    return Address("single", [host], options)


def _several(url: str, kind: str, tls: bool) -> Address:
    first, *others = url.split(";")
    rest, _, query = first.partition("://")[2].partition("?")
    authority, _, path = rest.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    for other in others:  # as Celery has it
        other, _, more = other.rpartition("://")[2].partition("?")
        hosts += "," + other.partition("/")[0].rpartition("@")[2]
        query += f"&{more}"
    *service, db = [*filter(None, path.split("/"))] or [""]
    if db and not db.isdigit():
        service, db = [*service, db], ""
    if len(service) > (kind == "sentinel"):
        raise ValueError("the path names too much")
    scheme = "rediss" if tls else "redis"
    options = _options_of(f"{scheme}://{credentials}{at}localhost/{db}?{query}")
    del options["host"]
    named = options.pop("master_name", service[0] if service else "")
    guide = {
        key: options.pop(f"sentinel_{key}")
        for key in ("username", "password")
        if f"sentinel_{key}" in options
    }
    _check_options(options)
    address = Address(kind, [_host(h, kind) for h in hosts.split(",")], options, named, guide)
    _check(address)
    return address


def _host(node: str, kind: str) -> tuple[str, int]:
    parts = urlsplit(f"//{node}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or _PORTS[kind]


def _options_of(url: str) -> dict[str, Any]:
    options = _parse_url(url)
    # The address must not decide what requests and answers look like.
    return {key: options[key] for key in options.keys() - _OURS}


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for an option that no connection takes."""
    ConnectionPool(**options).make_connection()
    if any(
        options.get(timeout, 1) <= 0 for timeout in ("socket_timeout", "socket_connect_timeout")
    ):
        raise ValueError("a time-out must be above 0")


_OURS = {"decode_responses", "encoding", "encoding_errors"}


def _check(address: Address) -> None:
    if address.kind == "sentinel" and not address.master_name:
        raise ConfigurationError(
            "DJFS['redis_url'] does not say which master the Sentinels should find: "
            "add ?master_name=mymaster"
        )
    if address.kind == "cluster" and address.options.get("db"):
        raise ConfigurationError(
            "DJFS['redis_url'] names a database, of which a Redis Cluster has only 0: "
            "leave it out, and use DJFS['key_prefix']"
        )


class Servers(ABC):
    """Which server holds a slot, and what to do while another one takes it over."""

    #: Seconds within which a call is repeated, and has ended.
    patience = 4.5

    def __init__(self, address: Address) -> None:
        self.address = address

    @abstractmethod
    def of(self, slot: int) -> redis.Redis:
        """Return the client of the server that holds a slot."""

    @abstractmethod
    def all(self) -> Sequence[redis.Redis]:
        """Return the clients of all servers that hold slots."""

    @abstractmethod
    def look_again(self) -> None:
        """Forget where the servers were."""

    @abstractmethod
    def close(self) -> None:
        """Give up the connections."""

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Repeat ``attempt`` while another server takes over, for no longer than `patience`.

        A further attempt is made only if it ends in time even where it takes as long as the
        last one, so that servers that hang are not waited for in vain.
        """
        begun = started = monotonic()
        pause = FIRST_PAUSE
        while True:
            try:
                return attempt()
            except RedisError as error:
                ended = monotonic()
                if not passes(error) or ended + pause + ended - started > begun + self.patience:
                    raise
            self.look_again()
            sleep(pause)
            started, pause = monotonic(), min(2 * pause, LONGEST_PAUSE)


def passes(error: RedisError) -> bool:
    """Return whether a call that failed like this may succeed as soon as a failover is over."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    if isinstance(error, _PASSING):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(_PASSING_CODES)


def has_moved(error: RedisError) -> bool:
    """Return whether a node of a Cluster said that another one holds the slot."""
    return isinstance(error, MovedError) or str(error).startswith("MOVED ")


def servers_at(url: str) -> Servers:
    """Return how to reach what a ``redis_url`` leads to; nothing is connected to yet."""
    address = address_of(url)
    return {"single": OneServer, "sentinel": MasterOfSentinels, "cluster": Cluster}[address.kind](
        address
    )


class OneServer(Servers):
    """A server without a stand-in."""

    patience = 0.0

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._client = self._connect()

    def _connect(self) -> redis.Redis:
        # A lost connection is tried once more at once; a time-out is not, because it cost seconds.
        once_more = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        options = {
            "socket_timeout": REPLY_TIMEOUT,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "retry": once_more,
            **self.address.options,
        }
        return redis.Redis.from_pool(ConnectionPool(**options))

    def of(self, slot: int) -> redis.Redis:
        return self._client

    def all(self) -> Sequence[redis.Redis]:
        return [self._client]

    def look_again(self) -> None:
        pass

    def close(self) -> None:
        self._client.close()


_WITHOUT_RETRY = Retry(NoBackoff(), 0)  # `Servers.patiently` repeats
_FAILOVER_OPTIONS = {
    "socket_timeout": FAILOVER_REPLY_TIMEOUT,
    "socket_connect_timeout": FAILOVER_CONNECT_TIMEOUT,
    "retry": _WITHOUT_RETRY,
}
_GUIDE_OPTIONS = {
    "socket_timeout": GUIDE_TIMEOUT,
    "socket_connect_timeout": GUIDE_TIMEOUT,
    "retry": _WITHOUT_RETRY,
}


class MasterOfSentinels(OneServer):
    """The server that the Sentinels call the master: each new connection asks them."""

    patience = Servers.patience

    def _connect(self) -> redis.Redis:
        options = {**_FAILOVER_OPTIONS, **self.address.options}
        tls = self.address.tls
        options.pop("connection_class", None)
        certificates = {key: value for key, value in options.items() if key.startswith("ssl_")}
        guide = {**_GUIDE_OPTIONS, "ssl": tls, **certificates, **self.address.guide_options}
        found: Any = Sentinel
        self._sentinels = found(list(self.address.hosts), sentinel_kwargs=guide)
        master: redis.Redis = self._sentinels.master_for(
            self.address.master_name, ssl=tls, **options
        )
        return master

    def close(self) -> None:
        super().close()
        for sentinel in self._sentinels.sentinels:  # not every redis-py closes them itself
            sentinel.close()


class Cluster(Servers):
    """The masters of a Redis Cluster.

    redis-py's own client for Clusters takes no EVALSHA into a pipeline, and repeats for longer
    than our bounds allow: so each master has an ordinary client, and who holds which slots is
    asked again whenever an answer shows that this has changed.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._clients: dict[tuple[str, int], redis.Redis] = {}
        self._owners: list[redis.Redis | None] = []  # of each slot; empty: to be asked for
        self._known = list(address.hosts)
        self._lock = Lock()
        self._looked_at = 0.0  # when the last look ended

    def of(self, slot: int) -> redis.Redis:
        owners = self._owners or self._look()
        owner = owners[slot]
        if owner is None:
            raise ClusterDownError("a slot is not served")
        return owner

    def all(self) -> Sequence[redis.Redis]:
        owners = self._owners or self._look()
        return [client for client in dict.fromkeys(owners) if client is not None]

    def look_again(self) -> None:
        self._owners = []

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _look(self) -> list[redis.Redis | None]:
        asked = monotonic()
        with self._lock:
            if self._owners:
                return self._owners
            if self._looked_at > asked:  # by another thread, in vain
                raise redis.ConnectionError("none of the nodes answers")
            try:
                ranges = self._ranges()
            finally:
                self._looked_at = monotonic()
            owners: list[redis.Redis | None] = [None] * SLOTS
            for first, last, node in ranges:
                owners[first : last + 1] = [self._client(node)] * (last + 1 - first)
            self._owners = owners
            masters = {node for *_, node in ranges}
            self._clients = {node: self._clients[node] for node in masters}
            return owners

    def _client(self, node: tuple[str, int]) -> redis.Redis:
        if node not in self._clients:
            host, port = node
            options = {**_FAILOVER_OPTIONS, **self.address.options, "host": host, "port": port}
            self._clients[node] = redis.Redis.from_pool(ConnectionPool(**options))
        return self._clients[node]

    def _ranges(self) -> list[tuple[int, int, tuple[str, int]]]:
        """Ask the nodes, in any order, until one answers who holds which slots."""
        end, why = monotonic() + LOOK_TIMEOUT, ""
        candidates = random.sample(self._known, len(self._known))
        for node in dict.fromkeys([*candidates, *self.address.hosts]):
            if monotonic() > end:
                break
            try:
                ranges, self._known = self._ask(node)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if isinstance(error, AuthenticationError | AuthorizationError):
                    raise
                why = str(error)
                continue
            return ranges
        raise redis.ConnectionError(f"none of the nodes answers ({why})")

    def _ask(
        self, node: tuple[str, int]
    ) -> tuple[list[tuple[int, int, tuple[str, int]]], list[tuple[str, int]]]:
        host, port = node
        options = {**self.address.options, **_GUIDE_OPTIONS, "host": host, "port": port}
        with redis.Redis.from_pool(ConnectionPool(**options)) as client:
            answer: Any = client.execute_command("CLUSTER", "SLOTS")
        ranges, nodes = [], []
        for first, last, *told in answer:
            master, *replicas = _nodes(told, host)
            ranges.append((first, last, master))
            nodes += [master, *replicas]
        return ranges, list(dict.fromkeys(nodes)) or self._known


def _nodes(told: Sequence[Sequence[Any]], asked: str) -> Iterator[tuple[str, int]]:
    for host, port, *_ in told:
        # A node that does not know its own name is at the address where it was asked.
        yield (host.decode() if isinstance(host, bytes) else host) or asked, port
