"""Sweeping files on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from django.test import override_settings

from djpyfs import get_filesystem
from tests.bench import ancestor
from tests.bench.goals import Goal, tell
from tests.bench.turns import Turn, sweep_in_turns, times_the_rate
from tests.servers import running_redis

FILES = 20_000
NAMESPACES = [f"users/{number}" for number in range(10)]
BATCH = 1_000
ROUNDS = 3
PICTURE = bytes(1024)
ANCESTORS_FILES = 300


def goals() -> Iterator[Goal]:
    """Compare sweeps with `os.unlink`, and with the ancestor's."""
    turns: list[Turn] = []
    ancestors: list[float] = []
    with running_redis() as server, TemporaryDirectory(prefix="djpyfs-bench-") as directory:
        swept, unlinked, other = (Path(directory, name) for name in ("swept", "unlinked", "other"))
        djfs = {"type": "osfs", "directory_root": str(swept), "redis_url": server.url}
        with override_settings(DJFS=djfs):
            for number in range(ROUNDS):
                tell(f"Sweeping {FILES} files on disk, {number + 1} of {ROUNDS}")
                turns += _sweep(swept, unlinked)
                ancestors.append(_ancestor(other))
    what = f"sweep of {FILES:,} files on disk"
    yield Goal(what, "a bare os.unlink loop", times_the_rate(turns), least=0.5)
    rate = BATCH / median(turn.ours for turn in turns)
    yield Goal(what, f"{ancestor.NAME} on SQLite", rate * median(ancestors), least=50)


def _sweep(swept: Path, unlinked: Path) -> list[Turn]:
    names = [f"{number:06}.png" for number in range(FILES // len(NAMESPACES))]
    _write(swept, names)
    bare = _write(unlinked, names)
    _register(names)
    turns = sweep_in_turns(_unlink_batches(bare))
    assert len(turns) == FILES // BATCH
    assert not any(files for root in (swept, unlinked) for *_, files in os.walk(root))
    return turns


def _write(root: Path, names: list[str]) -> list[str]:
    """Write as views do: now in one namespace, now in the other."""
    for namespace in NAMESPACES:
        (root / namespace).mkdir(parents=True, exist_ok=True)
    paths = [str(root / namespace / name) for name in names for namespace in NAMESPACES]
    for path in paths:
        with open(path, "wb") as file:
            file.write(PICTURE)
    return paths


def _register(names: list[str], at_a_time: int = 10) -> None:
    for first in range(0, len(names), at_a_time):
        for namespace in NAMESPACES:
            get_filesystem(namespace).expire_many(names[first : first + at_a_time], 0)


def _unlink_batches(paths: list[str]) -> Callable[[], None]:
    rest = iter(paths)

    def unlink_batch() -> None:
        for path in islice(rest, BATCH):
            os.unlink(path)

    return unlink_batch


def _ancestor(root: Path) -> float:
    djfs = {"type": "osfs", "directory_root": str(root), "url_root": "/"}
    return ancestor.seconds_per_file(djfs, ANCESTORS_FILES)
