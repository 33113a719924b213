"""Sweeping files behind backends that answer late, each call after 20 ms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.core.files.storage import InMemoryStorage, storages
from django.test import override_settings
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.opener import Opener, registry

from djpyfs import expire_objects, get_filesystem
from tests.bench.goals import Goal, compared, tell
from tests.bench.turns import Turn, take_turns
from tests.servers import running_redis

ANSWERS_AFTER = 0.02  # s
FILES = 200
TURNS = 3


class Answers:
    """How long the backends here take for each answer, in seconds."""

    after = 0.0


class LateStorage(InMemoryStorage):
    """A storage whose calls take as long as over a network."""

    def exists(self, name: str) -> bool:
        time.sleep(Answers.after)
        return super().exists(name)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        time.sleep(Answers.after)
        return super().listdir(path)

    def delete(self, name: str) -> None:
        time.sleep(Answers.after)
        super().delete(name)


class LateFS(MemoryFS):
    """A filesystem behind a network, the same through each connection."""

    files = MemoryFS()

    def __init__(self) -> None:
        super().__init__()
        self.root = self.files.root
        self._meta = {**self._meta, "network": True}

    def remove(self, path: str) -> None:
        time.sleep(Answers.after)
        super().remove(path)


class ToLateFS(Opener):
    """What opens one."""

    protocols = ["late"]

    def open_fs(self, *_: Any) -> FS:
        return LateFS()


def goals() -> Iterator[Goal]:
    """Compare sweeps with a bare loop of the calls that delete the same files."""
    registry.install(ToLateFS)
    storage = {"default": {"BACKEND": f"{__name__}.LateStorage"}}
    with running_redis() as server, override_settings(STORAGES=storage):
        late = storages["default"]
        yield _goal("storage", server.url, late.exists, late.delete, alias="default")
        yield _goal("opener", server.url, LateFS().remove, url="late://")


def _goal(kind: str, redis_url: str, *calls: Callable[[str], object], **options: str) -> Goal:
    names = [f"{number:06}.png" for number in range(FILES)]

    def sweep() -> None:
        assert expire_objects().deleted == FILES

    def loop() -> None:
        for name in names:
            for call in calls:
                call(f"bare/{name}")

    turns: list[Turn] = []
    with override_settings(DJFS={"type": kind, "redis_url": redis_url, **options}):
        for number in range(TURNS):
            tell(f"Sweeping {FILES} files through {kind}, {number + 1} of {TURNS}")
            Answers.after = 0
            for top in "plots", "bare":
                _write(top, names)
            get_filesystem("plots").expire_many(names, 0)
            Answers.after = ANSWERS_AFTER
            turns += take_turns(sweep, loop, 1)
    what = f"sweep of {FILES} files, {kind}, {1_000 * ANSWERS_AFTER:g} ms a call"
    return compared(what, "a bare loop of the same calls", turns, least=6)


def _write(namespace: str, names: Sequence[str]) -> None:
    files = get_filesystem(namespace)
    for name in names:
        files.writebytes(name, b"picture")
