"""Sites that share their records, namespaces that move, and roots that are not there for a time."""

from __future__ import annotations

import random
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from djpyfs import backends, expire_objects, get_filesystem
from djpyfs.inspection import status
from djpyfs.lifetimes import datetime_of
from tests.faults.conftest import Measured
from tests.faults.processes import Actor, names
from tests.servers import RedisServer, wait_for

NAMESPACE = "plots"
LATER = 3_600  # s
PATIENCE = timedelta(seconds=30)

Djfs = dict[str, Any]


@pytest.fixture
def shared(redis_server: RedisServer) -> Djfs:
    """The records of all sites of a test."""
    return {
        "type": "osfs",
        "redis_url": redis_server.url,
        "key_prefix": f"test-{uuid.uuid4().hex}",
        "batch_size": 50,
    }


@pytest.fixture
def start() -> Iterator[Callable[..., Actor]]:
    actors: list[Actor] = []

    def begin(djfs: Djfs, job: Callable[..., object], *arguments: Any) -> Actor:
        actors.append(Actor(djfs, job, *arguments))
        return actors[-1]

    yield begin
    for actor in actors:
        actor.kill()


def files_below(root: Path) -> list[str]:
    return sorted(path.name for path in (root / NAMESPACE).glob("*"))


# -- two sites that share their records


def live_and_sweep(short: list[str], long: list[str], whose: str) -> float:
    """Write files, sweep until the short-lived are gone; return by how much the last was late.

    Fails if one goes too early, or anything of another site shows.
    """
    fs = get_filesystem(NAMESPACE)
    for name in [*short, *long]:
        fs.writebytes(name, whose.encode())
    fs.expire_many(long, seconds=LATER)
    for name in short:
        fs.expire(name, seconds=random.uniform(0, 2))
    waiting, late = {name: fs.expiration(name) or datetime_of(0) for name in short}, 0.0
    while waiting:
        expire_objects()
        there, now = set(fs.listdir("/")), datetime.now(UTC)
        for name in waiting.keys() - there:
            seconds = (now - waiting.pop(name)).total_seconds()
            assert seconds >= 0, f"{name} of {whose} went too early"
            late = max(late, seconds)
        assert now - min(waiting.values(), default=now) < PATIENCE, "one is forgotten"
    for name in long:
        assert fs.readbytes(name) == whose.encode()
        assert fs.expiration(name), f"{name} of {whose} is forgotten"
    return late


@pytest.mark.fault(
    "two sites, one Redis and key_prefix, other roots, equal names, both sweep",
    "each file goes at its own time, 0 of the other's touched, 0 forgotten",
)
def test_sites_that_share_their_records_leave_each_others_files_alone(
    shared: Djfs,
    start: Callable[..., Actor],
    tmp_path: Path,
    full: bool,
    measured: Measured,
) -> None:
    of_each = names("file", 2_000 if full else 100)
    halves = of_each[::2], of_each[1::2]
    sites = [
        start({**shared, "directory_root": str(tmp_path / whose)}, live_and_sweep, *own, whose)
        for whose, own in (("one", halves), ("two", halves[::-1]))
    ]
    late = max(site.result(timeout=120) for site in sites)
    assert files_below(tmp_path / "one") == halves[1]
    assert files_below(tmp_path / "two") == halves[0]
    measured(f"{2 * len(of_each):,} files, 0 early, 0 of the other's, the latest by {late:.1f} s")


# -- a namespace that moves


def write_and_sweep(files: list[str]) -> int:
    """Write files with short lives and sweep meanwhile; return how many this process deleted."""
    fs, deleted, missing = get_filesystem(NAMESPACE), 0, 0
    for name in files:
        fs.writebytes(name, b"")
        fs.expire(name, seconds=random.uniform(0, 1))
        report = expire_objects()
        deleted, missing = deleted + report.deleted, missing + report.missing
    assert not missing
    return deleted


@pytest.mark.fault(
    "a namespace moved to another root while an old and a new process run",
    "every file goes from where it is; status tells what waits elsewhere",
)
def test_files_of_a_namespace_that_has_moved_are_deleted_from_where_they_are(
    shared: Djfs,
    start: Callable[..., Actor],
    djfs: Callable[..., None],
    tmp_path: Path,
    full: bool,
    measured: Measured,
) -> None:
    count = 1_000 if full else 100
    old, new = tmp_path / "old", tmp_path / "new"
    before = {**shared, "directory_root": str(old)}
    after = {**before, "namespaces": {NAMESPACE: {"directory_root": str(new)}}}
    for settings in before, after:
        djfs(**settings)
        fs = get_filesystem(NAMESPACE)
        for name in names("long", 10):
            fs.writebytes(name, b"")
            fs.expire(name, seconds=LATER)

    actors = [
        start(settings, write_and_sweep, names("file", count)) for settings in (before, after)
    ]
    deleted = sum(actor.result(timeout=120) for actor in actors)

    def sweep() -> bool:
        report = expire_objects()
        nonlocal deleted
        deleted += report.deleted
        assert not report.missing
        return files_below(old) == files_below(new) == names("long", 10)

    wait_for(sweep, what="the last sweep")
    assert deleted == 2 * count
    assert status().elsewhere == {}
    djfs(**before)
    assert elsewhere() == {str(new): 10}
    djfs(**{**shared, "directory_root": str(new)})
    assert elsewhere() == {str(old): 10}
    measured(f"{deleted:,} files gone from both roots, 0 missing; 10 told to wait elsewhere")


def elsewhere() -> dict[str, int]:
    """How many files wait in places that are not known here, by the names of the places."""
    return {told.rpartition(" ")[0]: count for told, count in status().elsewhere.items()}


# -- roots that are not there for a time


@pytest.fixture(params=["osfs", "storage", "opener", "bind mount"])
def root(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> Iterator[Any]:
    """Where files are, and what takes the root away and brings it back."""
    root, away = tmp_path / "files", tmp_path / "away"
    root.mkdir()
    place: Djfs = {"type": "osfs", "directory_root": root}
    if request.param == "storage":
        place = {"type": "storage"}
        kind = "django.core.files.storage.FileSystemStorage"
        settings.STORAGES = {"default": {"BACKEND": kind, "OPTIONS": {"location": root}}}
    elif request.param == "opener":
        place = {"type": "opener", "url": f"osfs://{root}"}
    elif request.param == "bind mount":
        away.mkdir()
        mount(away, root)
        yield place, lambda: umount(root), lambda: mount(away, root)
        with suppress(subprocess.CalledProcessError):
            umount(root)
        return
    yield place, lambda: root.rename(away), lambda: away.rename(root)


def mount(source: Path, target: Path) -> None:
    done = subprocess.run(["mount", "--bind", source, target], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("nothing can be mounted here: run it as root, with --cap-add=SYS_ADMIN")


def umount(target: Path) -> None:
    subprocess.run(["umount", target], check=True, capture_output=True)


@pytest.mark.fault("a root that is not there", "0 records dropped, swept once it is back")
def test_nothing_is_forgotten_while_a_root_is_missing(
    root: Any, djfs: Callable[..., None], full: bool, measured: Measured
) -> None:
    place, take_away, bring_back = root
    djfs(**place, max_attempts=1, batch_size=7)
    fs, files = get_filesystem(NAMESPACE), names("file", 1_000 if full else 50)
    for name in files:
        fs.writebytes(name, b"")
    fs.expire_many(files, 0)

    take_away()
    for knows_it in True, False:
        if not knows_it:
            backends.close_all()  # as in a process that has never seen it
        report = expire_objects()
        assert (report.deleted, report.missing, report.failed) == (0, 0, 0)
        assert (status().tracked, status().set_aside) == (len(files), 0)
        assert sum(status().elsewhere.values()) == len(files)
    bring_back()

    assert expire_objects().deleted == len(files)
    assert get_filesystem(NAMESPACE).listdir("/") == []
    assert status().tracked == 0
    measured(f"{place['type']}: {len(files):,} records kept, all swept afterwards")
