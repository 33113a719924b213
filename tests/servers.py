"""Real servers for the tests: processes on free loopback ports, stopped by whoever started them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import redis
from django.core.handlers.wsgi import WSGIHandler

from demo.stack import redis_server

T = TypeVar("T")

HOST = "127.0.0.1"


def installed(*names: str) -> str:
    """Return the path of a program; without it the test is skipped, and fails where CI is set."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing(f"no {names[0]} here: install it (Debian: apt-get install {names[0]})")
    return str(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], T], timeout: float = 20, what: str = "the condition") -> T:
    """Poll until ``condition`` returns something true, and return that."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(0.01)


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
        options = {
            "bind": HOST,
            "port": str(free_port()),
            "dir": str(directory),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            **options,
        }
        pairs = [part for name, value in options.items() for part in (f"--{name}", value)]
        super().__init__([redis_server(), *pairs], int(options["port"]))

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port)

    def commands(self) -> int:
        """How many commands came from outside, this question included."""
        stats: dict[str, Any] = self.client().info("commandstats")
        inside = ("time", "z", "h")  # what the scripts call
        return sum(
            stat["calls"]
            for name, stat in stats.items()
            if not name.removeprefix("cmdstat_").startswith(inside)
        )


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
def running_moto() -> Iterator[str]:
    """An S3 endpoint over HTTP, in a process of its own."""
    port = free_port()
    server = Server(
        [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)],
        port,
    )
    server.start()
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.stop()


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running_site() -> Iterator[int]:
    """Serve the Django site of this process over HTTP, on the port that is returned."""
    with make_server(HOST, 0, WSGIHandler(), handler_class=QuietHandler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield served.server_port
        finally:
            served.shutdown()
            thread.join()


def python(code: str, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
    """Start Python code in a process of its own, with the checkout on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environ},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
    )
