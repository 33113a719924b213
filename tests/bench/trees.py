"""Removing trees."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.test import override_settings

from djpyfs import get_filesystem
from tests.bench.goals import Explained, Goal, compared, explained, tell
from tests.bench.s3 import BUCKET, KEYS, REGION, client_of, put
from tests.bench.turns import Turn, seconds
from tests.bench.views import DISKS
from tests.servers import running_moto, running_redis

FILES, DIRECTORIES = 20_000, 100
OBJECTS = 3_000
TURNS = 4
PICTURE = bytes(1024)


def goals() -> Iterator[Goal]:
    """Compare `removetree` with what removes trees without records."""
    with running_redis() as server:
        for name, place in DISKS.items():
            if place is None or os.path.isdir(place):
                with TemporaryDirectory(prefix="djpyfs-bench-", dir=place) as directory:
                    djfs = {"type": "osfs", "directory_root": directory, "redis_url": server.url}
                    with override_settings(DJFS=djfs):
                        yield _on_disk(name, Path(directory))
        with running_moto() as endpoint:
            place_ = {"bucket": BUCKET, "region": REGION, "endpoint_url": endpoint, **KEYS}
            with override_settings(DJFS={"type": "s3fs", "redis_url": server.url, **place_}):
                yield _on_s3(endpoint)


def _on_disk(name: str, root: Path) -> Goal:
    files, turns = get_filesystem("plots"), []
    for number in range(TURNS):
        tell(f"Removing {FILES} files on disk ({name}), {number + 1} of {TURNS}")
        paths = [f"{number % DIRECTORIES:03}/{number:06}.png" for number in range(FILES)]
        for tree in root / "plots" / "tree", root / "bare":
            for directory in range(DIRECTORIES):
                (tree / f"{directory:03}").mkdir(parents=True)
            for path in paths:
                (tree / path).write_bytes(PICTURE)
        files.expire_many([f"tree/{path}" for path in paths], days=1)
        ours = seconds(lambda: files.removetree("tree"))
        turns.append(Turn(ours, seconds(lambda: shutil.rmtree(root / "bare"))))
    what = f"removetree() of {FILES:,} files ({name})"
    why = explained(Explained.VIEWS, 0.35)
    return compared(what, "shutil.rmtree", turns, least=0.5, **why)


def _on_s3(endpoint: str) -> Goal:
    client, turns = client_of(endpoint), []
    client.create_bucket(Bucket=BUCKET)
    files = get_filesystem("plots")
    for number in range(TURNS):
        tell(f"Removing {OBJECTS} objects in S3, {number + 1} of {TURNS}")
        names = [f"{number:06}.png" for number in range(OBJECTS)]
        put(endpoint, [f"{top}/{name}" for name in names for top in ("plots/tree", "bare")])
        files.expire_many([f"tree/{name}" for name in names], days=1)
        ours = seconds(lambda: files.removetree("tree"))
        turns.append(Turn(ours, seconds(lambda: _remove(client))))
    what = f"removetree() of {OBJECTS:,} objects in S3"
    return compared(what, "bare list and delete_objects", turns, least=0.5)


def _remove(client: Any) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="bare/"):
        keys = [{"Key": item["Key"]} for item in page["Contents"]]
        client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys, "Quiet": True})
