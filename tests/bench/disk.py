"""Sweeping files on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from django.test import override_settings

from djpyfs import get_filesystem
from tests.bench import ancestor
from tests.bench.goals import Explained, Goal, compared, explained, tell
from tests.bench.sweeping import Process, processes
from tests.bench.turns import Turn
from tests.servers import running_redis

FILES, DIRECTORIES = 100_000, 1_000
ON_NETWORK = 5_000  # files there, each of which takes a millisecond
TURNS = 5
GROWTH = 1_000_000
PICTURE = bytes(1024)
ANCESTORS_FILES = 300
MEMORY = "/dev/shm"
PLACES = {"tmpfs": MEMORY, "disk": None}  # None: where temporary files are


def goals() -> Iterator[Goal]:
    """Compare sweeps with `os.unlink`, two with one, and with the ancestor's."""
    for name, above in PLACES.items():
        if above is None or os.path.isdir(above):
            yield from _sweeps(name, above)
    yield _on_a_network()
    yield _growth()


def _sweeps(name: str, above: str | None) -> Iterator[Goal]:
    with _site(above) as (root, djfs), processes(2, djfs) as both:
        alone, together, ancestors = [], [], []
        for number in range(TURNS):
            tell(f"Sweeping {FILES:,} files on {name}, {number + 1} of {TURNS}")
            alone.append(_turn(both[0], root, FILES, first=number % 2))
            together.append(_two_and_one(both, root, FILES, first=number % 2))
        if above is None:
            other = {"type": "osfs", "directory_root": str(root / "other"), "url_root": "/"}
            ancestors = [ancestor.seconds_per_file(other, ANCESTORS_FILES) for _ in range(3)]
    what = f"sweep of {FILES:,} files in {DIRECTORIES:,} directories on {name}"
    yield compared(
        what, "a bare os.unlink loop", alone, least=1, **explained(Explained.SWEEPS, 0.4)
    )
    why = explained(Explained.SWEEPS, 0.9)
    yield compared(f"{what}, two processes", "one", together, least=1.7, **why)
    if ancestors:
        rate = FILES / median(turn.ours for turn in alone)
        why = explained(Explained.SWEEPS, 12)
        against = f"{ancestor.NAME} on SQLite"
        yield Goal(what, against, rate * median(ancestors), least=50, **why)


def _on_a_network() -> Goal:
    with _site(MEMORY) as (root, djfs):
        shim = str(root / "slow_unlink.so")
        source = Path(__file__).with_name("slow_unlink.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        with processes(1, djfs, LD_PRELOAD=shim) as [process]:
            turns = []
            for number in range(TURNS):
                tell(f"Sweeping {ON_NETWORK:,} files, 1 ms each, {number + 1} of {TURNS}")
                turns.append(_turn(process, root, ON_NETWORK, first=number % 2))
    what = f"sweep of {ON_NETWORK:,} files in {DIRECTORIES:,} directories, 1 ms for each unlink"
    return compared(what, "a bare os.unlink loop", turns, least=8)


def _growth() -> Goal:
    tell(f"Sweeping {GROWTH:,} files")
    with _site(MEMORY) as (root, djfs), processes(1, djfs) as [process]:
        _prepare(root, 10_000)
        process.begin()
        before = process.ended().resident
        _prepare(root, GROWTH)
        process.begin()
        after = process.ended()
        assert after.files == GROWTH
    grown = (after.resident - before) / (1 << 20)
    return Goal(f"growth of a worker that sweeps {GROWTH:,}", "before", grown, most=32, unit="MiB")


@contextmanager
def _site(above: str | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    with (
        running_redis() as server,
        TemporaryDirectory(prefix="djpyfs-bench-", dir=above) as directory,
    ):
        djfs = {"type": "osfs", "directory_root": f"{directory}/swept", "redis_url": server.url}
        with override_settings(DJFS=djfs):
            yield Path(directory), djfs


def _turn(process: Process, root: Path, files: int, first: int) -> Turn:
    """Let a process sweep a tree, and unlink the files of another one like it."""
    _prepare(root, files)
    bare = _write(root / "unlinked", files)
    os.sync()  # a file that has not reached the disk yet is unlinked sooner
    took = {}
    for side in ("ours", "bare") if first else ("bare", "ours"):
        process.begin(bare if side == "bare" else ())
        ended = process.ended()
        assert ended.files == files
        took[side] = ended.seconds
    shutil.rmtree(root / "unlinked")
    return Turn(**took)


def _two_and_one(both: list[Process], root: Path, files: int, first: int) -> Turn:
    took = {}
    for count in (2, 1) if first else (1, 2):
        _prepare(root, files)
        os.sync()
        started = perf_counter()
        for process in both[:count]:
            process.begin()
        assert sum(process.ended().files for process in both[:count]) == files
        took[count] = perf_counter() - started
    return Turn(took[2], took[1])


def _prepare(root: Path, files: int) -> None:
    """Write files that are due at once, a view's at a time."""
    _write(root / "swept", files)
    names = list(_names(files))
    for directory in range(DIRECTORIES):
        get_filesystem(f"users/{directory}").expire_many(names, 0)


def _names(files: int) -> Iterator[str]:
    return (f"{number:06}.png" for number in range(files // DIRECTORIES))


def _write(root: Path, files: int) -> list[str]:
    paths = []
    for directory in range(DIRECTORIES):
        here = root / "users" / str(directory)
        here.mkdir(parents=True, exist_ok=True)
        paths += [str(here / name) for name in _names(files)]
    for path in paths:
        with open(path, "wb") as file:
            file.write(PICTURE)
    return paths
