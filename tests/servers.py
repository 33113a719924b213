"""Real servers for the tests: processes on free loopback ports, which stop with their test."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, TypeVar
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import psycopg
import pytest
import redis
from django.core.handlers.wsgi import WSGIHandler
from moto.moto_server.werkzeug_app import create_backend_app
from redis.crc import key_slot
from werkzeug import serving

from demo.stack import redis_server

T = TypeVar("T")

HOST = "127.0.0.1"
PATIENCE = 150  # s, for an overloaded machine: this only ends what hangs
# Below the ports that the kernel hands out: a server that is restarted there might find its port
# taken by a client.
PORTS = range(20_000, 32_000)


def installed(*names: str) -> str:
    """Return the path of a program; without it the test is skipped, or fails if CI is set."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing(f"no {names[0]} here: install it (Debian: apt-get install {names[0]})")
    return str(found)


# Sockets with these names tell other test runs on this machine that a port is taken.
_taken: list[socket.socket] = []


def free_port() -> int:
    """Return a port that is this process's until its end, even while nothing listens there."""
    while True:
        port = secrets.choice(PORTS)
        ours = socket.socket(socket.AF_UNIX)
        try:
            ours.bind(f"\0djpyfs-tests-{port}")
            with socket.socket() as probe:
                probe.bind((HOST, port))
        except OSError:
            ours.close()
            continue
        _taken.append(ours)
        return port


def wait_for(
    condition: Callable[[], T], timeout: float = PATIENCE, what: str = "the condition"
) -> T:
    """Poll until ``condition`` returns something true, and return that."""
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        if found := condition():
            return found
        now = time.monotonic()
        assert now < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(min(max(0.01, 4 * (now - asked)), 0.1))


class Server:
    """A process that listens on a port of its own."""

    def __init__(self, arguments: list[str], port: int) -> None:
        self.arguments = arguments
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self.answers, what=f"{self.arguments[0]} on port {self.port}")

    def answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"{self.arguments} ended with {self.process.returncode}"
        try:
            socket.create_connection((HOST, self.port), 1).close()
        except OSError:
            return False
        return True

    def send(self, signal_: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(signal_)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


class RedisServer(Server):
    """Redis or Valkey, without persistence unless ``options`` say otherwise."""

    def __init__(self, directory: Path, **options: str) -> None:
        self._socket = str(directory / "socket")
        options = {
            "bind": HOST,
            "port": str(free_port()),
            "dir": str(directory),
            "unixsocket": self._socket,
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "repl-diskless-sync-delay": "0",
            **options,
        }
        pairs = [part for name, value in options.items() for part in (f"--{name}", value)]
        super().__init__([redis_server(), *pairs], int(options["port"]))

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def local_url(self) -> str:
        """The same without TCP, which is faster."""
        return f"unix://{self._socket}"

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port)

    def commands(self) -> int:
        """How many commands came from outside, including this one."""
        stats: dict[str, Any] = self.client().info("commandstats")
        inside = ("time", "get", "z", "h", "exists")  # what the scripts call
        return sum(
            stat["calls"]
            for name, stat in stats.items()
            if not name.removeprefix("cmdstat_").startswith(inside)
        )


def scripts_run(server: RedisServer) -> int:
    """Return how many scripts a server has run."""
    stats: dict[str, Any] = server.client().info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


@contextlib.contextmanager
def running_redis(**options: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="djpyfs-redis-") as directory:
        server = RedisServer(Path(directory), **options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def running_late_store(answers_after: float) -> Iterator[int]:
    """A store that speaks enough S3 for a sweep, and takes so many seconds; yields its port."""
    port = free_port()
    program = [sys.executable, "-m", "tests.bench.late_store"]
    store = Server([*program, str(port), str(answers_after)], port)
    store.start()
    try:
        yield port
    finally:
        store.stop()


@contextlib.contextmanager
def running_postgres() -> Iterator[dict[str, Any]]:
    """A PostgreSQL on its own socket, for this test alone; yields Django's settings."""
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), reverse=True)
    program = Path(installed("postgresql", *debian, "postgres"))
    # It refuses to run as root.
    nobody = pwd.getpwnam("nobody")
    user: dict[str, Any] = (
        {"user": nobody.pw_uid, "group": nobody.pw_gid} if os.geteuid() == 0 else {}
    )
    with tempfile.TemporaryDirectory(prefix="djpyfs-postgres-") as here:
        if user:
            shutil.chown(here, **user)
        files = f"{here}/files"
        how: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
        made = ["-D", files, "-U", "tests", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]
        subprocess.run([program.with_name("initdb"), *made], check=True, **how)
        options = ["-D", files, "-k", here, "-c", "listen_addresses=", "-c", "fsync=off"]
        server = subprocess.Popen([program, *options], **how)

        def answers() -> bool:
            assert server.poll() is None, f"{program} ended with {server.returncode}"
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(host=here, user="tests", dbname="postgres").close()
                return True
            return False

        try:
            wait_for(answers, what="PostgreSQL")
            engine = "django.db.backends.postgresql"
            yield {"ENGINE": engine, "HOST": here, "USER": "tests", "NAME": "postgres"}
        finally:
            server.send_signal(signal.SIGQUIT)  # at once, with its children
            server.wait()


class RedisCluster:
    """Three masters, each with a replica. Nobody takes over before ``node_timeout`` seconds."""

    def __init__(self, directory: Path, node_timeout: float, **options: str) -> None:
        self._node_timeout = str(int(node_timeout * 1_000))
        self._bus = [free_port() for _ in range(6)]
        self.nodes = [
            RedisServer(
                _made(directory / f"node-{bus}"),
                **{
                    "cluster-enabled": "yes",
                    "cluster-port": str(bus),
                    "cluster-node-timeout": self._node_timeout,
                    **options,
                },
            )
            for bus in self._bus
        ]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        self._configure("500", no_failover="yes")  # news goes round faster like this
        self._join()
        wait_for(self.is_whole, what="the Cluster")
        self._configure(self._node_timeout, no_failover="no")

    def _configure(self, node_timeout: str, no_failover: str) -> None:
        for node in self.nodes:
            with node.client() as client:
                client.config_set("cluster-node-timeout", node_timeout)
                client.config_set("cluster-replica-no-failover", no_failover)

    def _join(self) -> None:
        masters, replicas = self.nodes[:3], self.nodes[3:]
        bounds = [0, 5_461, 10_923, 16_384]
        for number, master in enumerate(masters):
            first, last = bounds[number], bounds[number + 1] - 1
            self.say(master, "ADDSLOTSRANGE", first, last)
            self.say(master, "SET-CONFIG-EPOCH", number + 1)
        for other, bus in zip(self.nodes, self._bus, strict=True):
            for node in self.nodes:
                if node is not other:
                    self.say(node, "MEET", HOST, other.port, bus)
        wait_for(lambda: all(len(self._known(node)) == 6 for node in self.nodes), what="6 nodes")
        for master, replica in zip(masters, replicas, strict=True):
            self.say(replica, "REPLICATE", self.say(master, "MYID").decode())

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def is_whole(self) -> bool:
        """Whether all slots are served, as every node sees it, and each master is followed."""
        states = [self.say(node, "INFO") for node in self.nodes]
        return (
            all(b"cluster_state:ok" in state for state in states)
            and all(
                len([n for n in self._known(node) if b"slave" in n]) == 3 for node in self.nodes
            )
            and sum(map(is_replica_in_step, self.nodes)) == 3
        )

    def say(self, node: RedisServer, *words: Any) -> Any:
        with node.client() as client:
            client.response_callbacks.clear()  # they make a dict of what is read here
            return client.execute_command("CLUSTER", *words)

    def master(self, key: bytes) -> RedisServer:
        """Return the master that holds a key, as the first node that lives sees it."""
        slot = key_slot(key)
        for first, last, (_, port, *_), *_ in self.say(self._living(), "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError("nobody has that slot")

    def masters(self) -> list[RedisServer]:
        ports = {master[1] for _, _, master, *_ in self.say(self._living(), "SLOTS")}
        return [node for node in self.nodes if node.port in ports]

    def hand_over(self, key: bytes) -> None:
        """Have the replica of a key's master take over, whether the master lives or not."""
        old = self.master(key)
        replica = next(node for node in self.nodes if self._follows(node, old))
        self.say(replica, "FAILOVER", "TAKEOVER")
        wait_for(lambda: self.master(key) is replica, what="the replica as the master")

    def take_back(self, server: RedisServer) -> None:
        """Wait until a server follows the one that has taken over."""
        wait_for(lambda: is_replica_in_step(server), what="the old master in step with the new one")

    def _follows(self, node: RedisServer, master: RedisServer) -> bool:
        if node is master:
            return False
        with node.client() as client:
            return bool(client.info("replication").get("master_port") == master.port)

    def _living(self) -> RedisServer:
        return next(node for node in self.nodes if node.process and node.process.poll() is None)

    def _known(self, node: RedisServer) -> list[set[bytes]]:
        """The flags of each node that this one considers a sound member."""
        flags = [set(line.split()[2].split(b",")) for line in self.say(node, "NODES").splitlines()]
        return [own for own in flags if own.isdisjoint({b"handshake", b"fail", b"fail?"})]


class SentinelSet:
    """A master with replicas, and three Sentinels that watch over it."""

    name = "mymaster"

    def __init__(
        self, directory: Path, down_after: float, replicas: int = 1, **options: str
    ) -> None:
        self.servers = [
            RedisServer(_made(directory / f"server-{number}"), **options)
            for number in range(1 + replicas)
        ]
        self.sentinels = []
        for port in (free_port() for _ in range(3)):
            file = directory / f"sentinel-{port}.conf"
            file.write_text(
                f"port {port}\nbind {HOST}\ndir {directory}\n"
                f"sentinel monitor {self.name} {HOST} {self.servers[0].port} 2\n"
                f"sentinel down-after-milliseconds {self.name} {int(down_after * 1_000)}\n"
                f"sentinel failover-timeout {self.name} 2000\n"
            )
            self.sentinels.append(Server([redis_server(), str(file), "--sentinel"], port))

    @property
    def url(self) -> str:
        places = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{self.name}/0"

    def start(self) -> None:
        master, *replicas = self.servers
        master.start()
        for replica in replicas:
            replica.start()
            with replica.client() as client:
                client.replicaof(HOST, str(master.port))
        wait_for(lambda: all(map(is_replica_in_step, replicas)), what="the replicas")
        for sentinel in self.sentinels:
            sentinel.start()
        wait_for(self.is_whole, what="the Sentinels")

    def stop(self) -> None:
        for server in [*self.sentinels, *self.servers]:
            server.stop()

    def is_whole(self) -> bool:
        """Whether every Sentinel knows of the others, and of every replica."""
        seen = [self._master_seen_by(sentinel) for sentinel in self.sentinels]
        replicas = len(self.servers) - 1
        return all(
            state["num-other-sentinels"] == 2 and state["num-slaves"] == replicas for state in seen
        )

    def hand_over(self, key: bytes = b"") -> None:
        """Have a replica take over, whether the master lives or not."""
        old = self.master()
        wait_for(lambda: self._has_replaced(old), what="the new master")

    def _has_replaced(self, old: RedisServer) -> bool:
        if self.master() is not old:
            return True
        # Refused while one is under way, and before it is known that the replica is sound.
        with (
            redis.Redis(host=HOST, port=self.sentinels[0].port) as client,
            contextlib.suppress(redis.ResponseError),
        ):
            client.sentinel_failover(self.name)
        return False

    def take_back(self, server: RedisServer) -> None:
        """Have a server follow the one that has taken over. Sentinels do that too, after 8 s."""
        with server.client() as client:
            client.replicaof(HOST, str(self.master().port))
        wait_for(lambda: is_replica_in_step(server), what="the replica")

    def master(self, key: bytes = b"") -> RedisServer:
        port = self._master_seen_by(self.sentinels[0])["port"]
        return next(server for server in self.servers if server.port == port)

    def _master_seen_by(self, sentinel: Server) -> dict[str, Any]:
        with redis.Redis(host=HOST, port=sentinel.port) as client:
            state: dict[str, Any] = client.sentinel_master(self.name)
            return state


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def is_replica_in_step(server: RedisServer) -> bool:
    """Whether a server is a replica that has all of its master."""
    with server.client() as client:
        info: Any = client.info("replication")
    return bool(info["role"] == "slave" and info["master_link_status"] == "up")


S = TypeVar("S", RedisCluster, SentinelSet)


@contextlib.contextmanager
def running_set(kind: type[S], patience: float, **options: Any) -> Iterator[S]:
    """Run servers that stand in for each other, after ``patience`` seconds."""
    with tempfile.TemporaryDirectory(prefix="djpyfs-redis-") as directory:
        servers = kind(Path(directory), patience, **options)
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()


# S3 alone: moto's own program finds out at each request for which service that is, which takes a
# third of its time.
SERVE_S3 = """
import sys
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple
host, port = sys.argv[1:]
how = {"threaded": True, "request_handler": MotoRequestHandler}
run_simple(host, int(port), create_backend_app("s3"), **how)
"""


@contextlib.contextmanager
def running_moto() -> Iterator[str]:
    """An S3 endpoint over HTTP, in a process of its own."""
    port = free_port()
    server = Server([sys.executable, "-c", SERVE_S3, HOST, str(port)], port)
    server.start()
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.stop()


class ThreadedServer(ThreadingMixIn, WSGIServer):
    """A server that is not held up by a connection over which a browser asks nothing."""

    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running_site() -> Iterator[int]:
    """Serve the Django site of this process over HTTP, on the port that is returned."""
    with make_server(HOST, 0, WSGIHandler(), ThreadedServer, QuietHandler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield served.server_port
        finally:
            served.shutdown()
            thread.join()


class InThread:
    """What answers over HTTP in a thread of this process, under its ``url``."""

    def start(self, server: HTTPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://{HOST}:{server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Moto(InThread):
    """An S3 endpoint in this process that remembers the requests it got."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        #: How many bytes the answers to GET announced.
        self.promised = 0
        self._application = create_backend_app("s3")
        self.start(
            serving.make_server(
                HOST, 0, self._answer, threaded=True, request_handler=_SilentHandler
            )
        )

    def _answer(self, environ: Any, start_response: Any) -> Any:
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        lists = {"list-type", "delimiter"} & query.keys()
        kind = "LIST" if lists else environ["REQUEST_METHOD"]
        self.requests.append(kind)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if kind == "GET":
                self.promised += int(dict(headers).get("Content-Length", 0))
            return start_response(status, headers, *more)

        return self._application(environ, start)

    def requests_of(self, action: Callable[[], object]) -> list[str]:
        self.requests.clear()
        action()
        return list(self.requests)


class _SilentHandler(serving.WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class BigObject(InThread):
    """A store with one object, which it makes up while sending it; it counts what it sends."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.etag = '"first"'
        self.requests: list[str] = []
        self.sent = 0
        #: After how many bytes of an answer it hangs up.
        self.patience: int | None = None
        #: Whether it supports ranges.
        self.ranges = True
        #: Whether something in front of it hides how long the body of an answer is.
        self.hides_length = False
        self.start(_PatientServer((HOST, 0), self._handler()))

    def _end(self, method: str, length: int) -> tuple[str, str]:
        """Return the header that says where the body of an answer ends."""
        if self.hides_length and method == "GET":
            return "Connection", "close"
        return "Content-Length", str(length)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:  # noqa: N805
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
                self.requests.append(handler.command)
                asked = asked if self.ranges else None
                first, last = map(int, asked.groups()) if asked else (0, self.size - 1)
                last = min(last, self.size - 1)
                handler.send_response(206 if asked else 200)
                handler.send_header(*self._end(handler.command, last + 1 - first))
                handler.send_header("ETag", self.etag)
                handler.send_header("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
                if asked:
                    handler.send_header("Content-Range", f"bytes {first}-{last}/{self.size}")
                handler.end_headers()
                if handler.command == "GET":
                    with contextlib.suppress(ConnectionError):
                        handler.send(last + 1 - first)

            def send(handler, length: int) -> None:  # noqa: N805
                if self.patience is not None and self.patience < length:
                    length, handler.close_connection = self.patience, True
                for start in range(0, length, len(CHUNK)):
                    self.sent += handler.wfile.write(CHUNK[: length - start])

            do_HEAD = do_GET  # noqa: N815

            def log_message(handler, format: str, *args: Any) -> None:  # noqa: N805
                pass

        return Handler


class _PatientServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that hang up."""


CHUNK = memoryview(bytes(1 << 16))


NGINX = """
daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;
events {{}}
http {{
    access_log off; default_type application/octet-stream;
    client_body_temp_path {here}/1; proxy_temp_path {here}/2; fastcgi_temp_path {here}/3;
    uwsgi_temp_path {here}/4; scgi_temp_path {here}/5;
    server {{
        listen {host}:{port};
        {locations}
    }}
}}
"""


@contextlib.contextmanager
def running_nginx(here: Path, locations: str) -> Iterator[str]:
    """Run nginx with these locations; what it needs goes to the new directory ``here``."""
    here.mkdir()
    port, conf = free_port(), here / "nginx.conf"
    conf.write_text(NGINX.format(here=here, host=HOST, port=port, locations=locations))
    program = installed("nginx", "/usr/sbin/nginx")
    server = Server([program, "-p", str(here), "-c", str(conf)], port)
    server.start()
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.stop()


def python(code: str, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
    """Start Python code in a process of its own, with the checkout on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environ},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
    )
