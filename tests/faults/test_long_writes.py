"""Writes that take as long as they take, and writers that are killed, while sweeps go on."""

from __future__ import annotations

import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

import pytest
from fs.errors import ResourceNotFound

from djpyfs import expire_objects, get_filesystem
from djpyfs.filesystem import ExpiringFS
from tests.faults.conftest import Measured
from tests.faults.processes import Actor, processes
from tests.faults.test_races import PAUSE, sweep_until
from tests.servers import RedisServer

BORN = "born"  # a namespace with a default life
NAMESPACES = (BORN, "bare")
GRACE = 1  # s; also how long a write whose process died still counts
LONGEST = 2.5 * GRACE
SETTINGS = {"grace": GRACE, "namespaces": {BORN: {"default_ttl": 600}}, "batch_size": 10}


class Kept(NamedTuple):
    """What a finished write has left."""

    contents: bytes
    deadline: datetime | None

    def check(self, fs: ExpiringFS, name: str) -> None:
        try:
            assert fs.readbytes(name) == self.contents
        except ResourceNotFound:
            is_over = self.deadline is not None and self.deadline <= datetime.now(UTC)
            assert is_over, f"{name} was written, and is gone"


Found = dict[tuple[str, str], Kept]  # namespace, name -> what was left there


def write_side_by_side(whose: str, writers: int, seconds: float) -> Found:
    """Write in so many threads; return what the last writes have left."""
    with ThreadPoolExecutor(writers) as pool:
        owners = [(NAMESPACES[n % 2], f"{whose}-{n}") for n in range(writers)]
        found = list(pool.map(lambda own: keep_writing(own[0], own[1], seconds), owners))
    return {name: kept for own in found for name, kept in own.items()}


def keep_writing(namespace: str, whose: str, seconds: float) -> Found:
    fs, found = get_filesystem(namespace), Found()
    end = time.monotonic() + seconds
    for number in count():
        if time.monotonic() > end:
            break
        name = f"{whose}-{number % 3}"
        if random.random() < 0.7:
            fs.expire(name, seconds=random.uniform(0, 2 * GRACE))
        found[namespace, name] = kept = write_slowly(fs, name, f"{whose} {number}".encode())
        kept.check(fs, name)
    return found


def write_slowly(fs: ExpiringFS, name: str, contents: bytes) -> Kept:
    before = fs.expiration(name)
    with fs.open(name, "wb") as file:
        had_one = before is not None and before > datetime.now(UTC)
        for part in contents[:3], contents[3:]:
            file.write(part)
            time.sleep(random.uniform(0, LONGEST / 2))
        closed = datetime.now(UTC)
    deadline = fs.expiration(name)
    assert deadline or not (had_one or fs.namespace == BORN), f"{name} has no deadline"
    least = closed + timedelta(seconds=0.9 * GRACE)
    assert deadline is None or deadline > least, f"{name} has no grace"
    return Kept(contents, deadline)


def sweep_beside(whose: str, writers: int, seconds: float) -> tuple[Found, int]:
    """Write and sweep in one process; return what was left, and how many were deleted."""
    with ThreadPoolExecutor(1) as pool:
        work, deleted = pool.submit(write_side_by_side, whose, writers, seconds), 0
        while not work.done():
            deleted += expire_objects().deleted
            time.sleep(PAUSE)
    return work.result(), deleted


def kill_writers(settings: dict[str, Any], writers: int, kills: int) -> None:
    for kill in range(kills):
        victim = Actor(settings, write_side_by_side, f"victim-{kill}", writers, 600)
        time.sleep(random.uniform(0.5, 1) + random.uniform(0, LONGEST))
        victim.kill()


@pytest.mark.fault(
    "writes of 0 to 2.5 times the grace, killed or not, against sweeps",
    "no file without a deadline, no write that has returned is lost",
)
@pytest.mark.parametrize(
    ("place", "writers"),
    [("osfs", 20), ("memory", 20), pytest.param("s3fs", 6, marks=pytest.mark.long)],
    indirect=["place"],
)
def test_writes_of_any_length_are_kept_and_leave_no_file_forever(
    place: dict[str, Any],
    writers: int,
    redis_server: RedisServer,
    settings: Any,
    full: bool,
    measured: Measured,
) -> None:
    seconds, kills = (120.0, 30) if full else (3.0, 1)
    own = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    if place["type"] == "memory":  # which lives in one process
        own, kills = {"redis_url": "memory://"}, 0
    settings.DJFS = {**place, **own, **SETTINGS}
    if not kills:
        kept, deleted = sweep_beside("writer", writers, seconds)
    else:
        stop = processes.Event()
        actors = [
            Actor(settings.DJFS, sweep_until, stop),
            Actor(settings.DJFS, write_side_by_side, "writer", writers, seconds),
        ]
        try:
            kill_writers(settings.DJFS, writers, kills)
            kept = actors[1].result(timeout=seconds + 60)
            stop.set()
            deleted = actors[0].result()
        finally:
            for actor in actors:
                actor.kill()

    for (namespace, name), left in kept.items():
        left.check(get_filesystem(namespace), name)
    fs = get_filesystem(BORN)
    found = fs.listdir("/")
    assert [name for name in found if fs.expiration(name) is None] == []
    assert deleted
    measured(
        f"{place['type']}: {kills} kills of {writers} writers each, {deleted:,} deleted "
        f"meanwhile, {len(found)} files left, each with a deadline, 0 lost"
    )
