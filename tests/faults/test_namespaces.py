"""Namespaces that are used once and never again, as those of an XBlock and a learner are."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import boto3
import pytest
from django.conf import settings as django_settings

from djpyfs import expire_objects, get_filesystem
from djpyfs.inspection import status
from djpyfs.names import RESERVED, Entry
from djpyfs.places import records_for
from tests.conftest import BUCKET, KEYS
from tests.faults.conftest import Measured
from tests.faults.processes import Actor
from tests.servers import RedisServer, wait_for

WRITERS = 2
USED = {"osfs": 200_000, "storage": 20_000, "s3fs": 20_000}  # by the writers
BACKLOG = 800_000  # on disk, which an outage has left
A_FEW = 100
AT_ONCE = 10_000
LIFE = 0.01  # s
# So many namespaces later every cache of namespaces, names and policies is full.
CACHED = 10_000
AGAIN = 0.1  # of the namespaces are written to again, while a sweep may be working on them
MIB = 1_024  # KiB

Place = dict[str, Any]


@pytest.fixture(params=list(USED))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where files are, as DJFS has it; ``STORAGES`` for what keeps them there."""
    if request.param == "storage":
        kind = "django.core.files.storage.FileSystemStorage"
        files = {"BACKEND": kind, "OPTIONS": {"location": str(tmp_path / "files")}}
        return {"type": "storage", "STORAGES": {"default": files}}
    if request.param == "s3fs":
        endpoint = request.getfixturevalue("s3_endpoint")
        own = {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": endpoint}
        return {"type": "s3fs", **own, **KEYS}
    return {"type": "osfs", "directory_root": str(tmp_path / "files")}


@pytest.fixture
def start(place: Place, redis_server: RedisServer, settings: Any) -> Iterator[Callable[..., Actor]]:
    storages = place.pop("STORAGES", settings.STORAGES)
    records = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    settings.DJFS, settings.STORAGES = {**place, **records}, storages
    actors: list[Actor] = []

    def begin(job: Callable[..., object], *arguments: Any) -> Actor:
        actors.append(Actor(settings.DJFS, job, storages, *arguments))
        return actors[-1]

    yield begin
    for actor in actors:
        actor.kill()


def leave_overdue(root: Path, count: int) -> None:
    """Make so many namespaces with an overdue file, without a call for each."""
    records = records_for("backlog")
    for first in range(0, count, AT_ONCE):
        entries = [
            Entry(f"backlog/{number // 1_000}/{number}", "a")
            for number in range(first, min(first + AT_ONCE, count))
        ]
        for entry in entries:
            directory = root / entry.namespace
            directory.mkdir(parents=True)
            os.close(os.open(directory / entry.path, os.O_CREAT))
        records.schedule([entry.member for entry in entries], 0)


def write(storages: Any, numbers: Sequence[int]) -> int:
    """Use each namespace once, and some again; return by how many KiB the process grew."""
    django_settings.STORAGES = storages
    before = 0
    for done, number in enumerate(numbers):
        publish(number)
        if random.random() < AGAIN:
            publish(numbers[max(0, done - random.randrange(200))])
        if done == min(CACHED, len(numbers) // 2):
            before = resident()
    return resident() - before


def publish(number: int) -> None:
    # Those above are emptied as well, now and then.
    with get_filesystem(f"users/{number % 10}/{number:07}").temporary_file(seconds=LIFE) as file:
        file.write(b"picture")


def sweep(storages: Any, stop: Path) -> tuple[int, int]:
    """Sweep until the end; return how many files that deleted, and how much it grew."""
    django_settings.STORAGES = storages
    deleted = before = 0
    while not stop.exists():
        deleted += int(expire_objects().deleted)
        if not before and deleted > CACHED:
            before = resident()
        time.sleep(0.002)
    return deleted, resident() - before if before else 0


def resident() -> int:
    [told] = [it for it in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in it]
    return int(told.split()[1])


def left_in(place: Place, settings: Any) -> list[str]:
    """What is there: directories on disk, except that of djpyfs, and all objects on S3."""
    if place["type"] == "s3fs":
        given: Any = {key: KEYS[key] for key in ("aws_access_key_id", "aws_secret_access_key")}
        client = boto3.Session(**given, region_name=KEYS["region"]).client(
            "s3", endpoint_url=place["endpoint_url"]
        )
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=place["prefix"])
        return [it["Key"] for it in found.get("Contents", ())]
    root = place.get("directory_root") or settings.STORAGES["default"]["OPTIONS"]["location"]
    tops = [it.path for it in os.scandir(root) if it.name != RESERVED]
    return list(chain(tops, *(map(str, Path(top).rglob("*")) for top in tops)))


@pytest.mark.fault(
    "1,000,000 namespaces on disk, 20,000 in a storage and on S3, swept while writers use others",
    "0 writes raise; 0 directories, objects and records left, each process grows by 32 MiB at most",
)
def test_namespaces_that_have_been_swept_leave_nothing_behind(
    place: Place,
    start: Callable[..., Actor],
    settings: Any,
    redis_server: RedisServer,
    tmp_path: Path,
    full: bool,
    measured: Measured,
) -> None:
    used, stop = USED[place["type"]] if full else A_FEW, tmp_path / "stop"
    backlog = 0
    if place["type"] == "osfs":
        backlog = BACKLOG if full else A_FEW
        leave_overdue(tmp_path / "files", backlog)
    began = time.monotonic()
    sweeper = start(sweep, stop)
    writers = [start(write, range(first, used, WRITERS)) for first in range(WRITERS)]
    grown = [writer.result(timeout=1_700) for writer in writers]  # which fails where one raised
    wait_for(lambda: status().tracked == 0, 60, "the last sweep")
    stop.touch()
    deleted, sweepers = sweeper.result()
    took = time.monotonic() - began

    left = left_in(place, settings)
    assert left == []
    assert deleted >= backlog + used
    assert max(*grown, sweepers) < 32 * MIB
    with redis_server.client() as client:
        keys: Any = client.keys(f"{settings.DJFS['key_prefix']}*")
        kept: Any = sum(client.memory_usage(key) or 0 for key in keys)
    assert kept < 1_024 * MIB
    measured(
        f"{place['type']}: {backlog + used:,} namespaces in {took:.0f} s; "
        f"{deleted:,} deleted, {len(left)} left; "
        f"{kept / 1_024:.0f} kB in Redis; the writers grew by {max(grown) / MIB:.1f} MiB, "
        f"the sweeper by {sweepers / MIB:.1f} MiB"
    )
