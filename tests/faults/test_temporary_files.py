"""Processes that are killed while they publish files, and what is left after the life of these."""

from __future__ import annotations

import random
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from djpyfs import expire_objects, get_filesystem
from djpyfs.filesystem import ExpiringFS
from tests.conftest import counted
from tests.faults.conftest import Measured
from tests.faults.processes import Actor
from tests.servers import RedisServer, wait_for

LIFE = 1.0  # s
GRACE = 1  # s; for so long a write that has died counts as one
PIECE = bytes(100_000)


def publish(stop_after: float) -> None:
    """Publish one file after the other: somebody will put an end to it."""
    fs = get_filesystem("plots")
    end = time.monotonic() + stop_after
    while time.monotonic() < end:
        with fs.temporary_file(".bin", seconds=LIFE) as file:
            for _ in range(3):
                file.write(PIECE)


def kill_at_random(settings: dict[str, Any]) -> None:
    """Kill a publisher at a random moment after it has begun."""
    before = counted().tracked
    publisher = Actor(settings, publish, 60.0)
    try:
        wait_for(lambda: counted().tracked > before)
        time.sleep(random.uniform(0, 0.1))
    finally:
        publisher.kill()


def files_left(place: dict[str, Any], fs: ExpiringFS) -> list[str]:
    """Name the files that are there, on disk also those that nobody sees."""
    if place["type"] != "osfs":
        return fs.listdir("/")
    found = (path for path in Path(place["directory_root"]).rglob("*") if path.is_file())
    return [str(path) for path in found if path.name != "place"]


@pytest.mark.fault(
    "a process killed at a random moment while it publishes temporary files",
    "0 files and 0 records left after their life",
)
@pytest.mark.parametrize("place", ["osfs", "s3fs"], indirect=True)
def test_publishers_that_are_killed_leave_nothing_after_the_life_of_their_files(
    place: dict[str, Any],
    redis_server: RedisServer,
    settings: Any,
    full: bool,
    measured: Measured,
) -> None:
    own = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    settings.DJFS = {**place, **own, "grace": GRACE}
    fs = get_filesystem("plots")
    kills = 200 if full else 3
    for _ in range(kills):
        kill_at_random(settings.DJFS)
    records = counted().tracked

    def is_empty() -> bool:
        expire_objects()
        return not counted().tracked

    wait_for(is_empty)
    assert (files_left(place, fs), counted().set_aside) == ([], 0)
    measured(
        f"{place['type']}: {kills} kills, {records:,} records; then 0 files and 0 records left"
    )
