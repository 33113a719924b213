"""Processes that race, die and freeze, and the namespace that they share."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis
from django.conf import settings as django_settings

from djpyfs import conf, get_filesystem
from djpyfs.backends import backend_for
from djpyfs.names import Entry

# Forks of a process that has imported everything, and opened nothing.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [__name__, "djpyfs.sweeper", "djpyfs.backends.osfs", "djpyfs.backends.s3"]
)


class Actor:
    """A process that does one job under ``DJFS`` settings of its own."""

    def __init__(self, djfs: dict[str, Any], job: Callable[..., object], *arguments: Any) -> None:
        self._answer, theirs = processes.Pipe(duplex=False)
        self._process = processes.Process(target=_perform, args=(theirs, djfs, job, arguments))
        self._process.start()
        theirs.close()

    def result(self, timeout: float = 60) -> Any:
        """Wait so many seconds for what the job returns, or fail with what it raised."""
        assert self._answer.poll(timeout), "no answer"
        error, result = self._answer.recv()
        assert not error, error
        return result

    def has_result(self) -> bool:
        """Whether the job has returned, or raised."""
        try:
            return self._answer.poll() and bool(self._answer.recv())
        except EOFError:  # it has died
            return False

    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def wait(self) -> None:
        self._process.join()

    def send(self, number: signal.Signals) -> None:
        assert self._process.pid
        os.kill(self._process.pid, number)

    def is_stopped(self) -> bool:
        state = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    def die(self) -> None:
        self._process.kill()
        self._process.join()

    def kill(self) -> None:
        self.die()
        self._answer.close()


def _perform(
    answer: Connection, djfs: dict[str, Any], job: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    django_settings.DJFS = djfs
    try:
        answer.send((None, job(*arguments)))
    except Exception:
        answer.send((traceback.format_exc(), None))


class Race:
    """A namespace on disk, its records in Redis, and the processes that work on them."""

    namespace = "plots"

    def __init__(self, djfs: dict[str, Any], client: redis.Redis) -> None:
        self._djfs = djfs
        self._client: Any = client
        self._actors: list[Actor] = []
        self.directory = Path(djfs["directory_root"], self.namespace)
        self.fs = get_filesystem(self.namespace)

    def start(self, job: Callable[..., object], *arguments: Any, **djfs: Any) -> Actor:
        self._actors.append(Actor({**self._djfs, **djfs}, job, *arguments))
        return self._actors[-1]

    def end(self) -> None:
        for actor in self._actors:
            actor.kill()

    def fill(self, names: Iterable[str], contents: bytes = b"old") -> None:
        """Put files there, bypassing djpyfs."""
        self.fs.makedir("/", recreate=True)
        for name in names:
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)

    def files(self) -> set[str]:
        found = (path for path in self.directory.rglob("*") if path.is_file())
        return {str(path.relative_to(self.directory)) for path in found}

    def kinds(self) -> set[str]:
        """What is kept of any file in Redis: the kinds of its keys."""
        return {key.decode().rpartition(":")[2] for key in self._client.keys(self._key("*", "*"))}

    def claims(self) -> dict[str, float]:
        """The files that are claimed, and until when in µs."""
        ends = dict(self._client.zrange(self._key("leases"), 0, -1, withscores=True))
        found = self._client.zrange(self._key("claimed"), 0, -1, withscores=True)
        return {_path(member): ends.get(b"%d" % token, 0) for member, token in found}

    def live_claims(self) -> set[str]:
        now = time.time() * 1e6
        return {name for name, ends in self.claims().items() if ends > now}

    def is_claimed(self, name: str) -> bool:
        return name in self.live_claims()

    def is_waiting(self, name: str) -> bool:
        return self._client.zscore(self._key("due"), Entry(self.namespace, name).member) is not None

    def waiting(self) -> set[str]:
        """The files that wait for their deadline, or for a sweep."""
        return {_path(member) for member in self._client.zrange(self._key("due"), 0, -1)}

    def set_aside(self) -> dict[str, dict[str, Any]]:
        found = self._client.hgetall(self._key("failed"))
        return {_path(member): json.loads(why) for member, why in found.items()}

    def _key(self, kind: str, place: str = "") -> str:
        return f"{self._djfs['key_prefix']}:{{00}}:{place or self._place}:{kind}"

    @cached_property
    def _place(self) -> str:
        return backend_for(conf.parse(self._djfs), self.namespace).place()


def _path(member: bytes) -> str:
    """The path of a file below the namespace."""
    return member.decode().partition("/")[2]


def names(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number:05}" for number in range(count)]
