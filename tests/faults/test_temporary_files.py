"""Processes that are killed while they publish files, and what is left after the life of these."""

from __future__ import annotations

import random
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from djpyfs import expire_objects, get_filesystem
from djpyfs.filesystem import ExpiringFS
from tests.conftest import BUCKET, KEYS, counted
from tests.faults.conftest import Measured
from tests.faults.processes import Actor
from tests.servers import RedisServer, wait_for

LIFE = 1.0  # s
GRACE = 1  # s; how long a write whose process died still counts
PIECE = bytes(100_000)


def publish(storages: dict[str, Any], stop_after: float) -> None:
    """Publish one file after the other, until the process is killed."""
    django_settings.STORAGES = storages
    fs = get_filesystem("plots")
    end = time.monotonic() + stop_after
    while time.monotonic() < end:
        with fs.temporary_file(".bin", seconds=LIFE) as file:
            for _ in range(3):
                file.write(PIECE)


def kill_at_random(settings: Any) -> None:
    """Kill a publisher at a random moment after it has begun."""
    before = counted().tracked
    publisher = Actor(settings.DJFS, publish, settings.STORAGES, 60.0)
    try:
        wait_for(lambda: counted().tracked > before)
        time.sleep(random.uniform(0, 0.1))
    finally:
        publisher.kill()


@pytest.fixture(params=["osfs", "s3fs", "storage"])
def where(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> dict[str, Any]:
    """The part of DJFS that says where files are kept: all those on disk are below one path."""
    if request.param == "s3fs":
        endpoint = request.getfixturevalue("s3_endpoint")
        own = {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": endpoint}
        return {"type": "s3fs", **own, **KEYS}
    if request.param == "osfs":
        return {"type": "osfs", "directory_root": str(tmp_path)}
    backend = "django.core.files.storage.FileSystemStorage"
    settings.STORAGES = {"default": {"BACKEND": backend, "OPTIONS": {"location": str(tmp_path)}}}
    return {"type": "storage"}


def files_left(fs: ExpiringFS, directory: Path) -> list[str]:
    """Name the files that are there, on disk also those that nobody sees."""
    found = (path for path in directory.rglob("*") if path.is_file() and path.name != "place")
    return [*fs.listdir("/"), *map(str, found)]


@pytest.mark.fault(
    "a process killed at a random moment while it publishes temporary files",
    "0 files and 0 records left after their life",
)
def test_publishers_that_are_killed_leave_nothing_after_the_life_of_their_files(
    where: dict[str, Any],
    redis_server: RedisServer,
    settings: Any,
    tmp_path: Path,
    full: bool,
    measured: Measured,
) -> None:
    own = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    settings.DJFS = {**where, **own, "grace": GRACE}
    fs = get_filesystem("plots")
    kills = 200 if full else 3
    for _ in range(kills):
        kill_at_random(settings)
    records = counted().tracked

    def is_empty() -> bool:
        expire_objects()
        return not counted().tracked

    wait_for(is_empty)
    assert (files_left(fs, tmp_path), counted().set_aside) == ([], 0)
    measured(
        f"{where['type']}: {kills} kills, {records:,} records; then 0 files and 0 records left"
    )
