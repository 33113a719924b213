"""What the records weigh in Redis."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import redis
from django.test import override_settings

from djpyfs import conf, expire_objects
from djpyfs.names import Entry
from djpyfs.places import records_for
from tests.bench.goals import Goal, tell
from tests.servers import running_redis

RECORDS = 10_000_000 if "--full" in sys.argv else 1_000_000
NAMESPACES = RECORDS // 10
MONTH = 30 * 86_400
AT_A_TIME = 10_000


def goals() -> Iterator[Goal]:
    """Compare a million records, or ten with ``--full``, with what Redis alone does."""
    with running_redis() as server, TemporaryDirectory(prefix="djpyfs-bench-") as directory:
        djfs = {"type": "osfs", "directory_root": Path(directory), "redis_url": server.url}
        with override_settings(DJFS=djfs), redis.Redis.from_url(server.url) as client:
            yield _weight(client)


def _weight(client: redis.Redis) -> Goal:
    records = records_for("plots")
    expire_objects()  # loads the scripts
    client.flushdb()
    weighed = [_memory(client)]
    tell(f"Keeping {RECORDS} records in {NAMESPACES} namespaces")
    for members in _members():
        records.schedule(members, MONTH * conf.SECOND)
    weighed.append(_memory(client))
    tell(f"Keeping {RECORDS} members in a bare sorted set")
    for number, members in enumerate(_members()):
        client.zadd("bare", dict.fromkeys(members, 1_800_000_000_000_000 + number))
    weighed.append(_memory(client))
    bare = weighed[2] - weighed[1]
    by_key = _usage(client, "djpyfs:*") / _usage(client, "bare")
    client.delete("bare")
    worse = max((weighed[1] - weighed[0]) / bare, by_key)
    return Goal(f"{RECORDS:,} records in Redis", "a bare ZSET of them", worse, most=1.1)


def _members() -> Iterator[list[bytes]]:
    each = RECORDS // NAMESPACES
    members = (
        Entry(f"users/{number:06}", f"plot-{file}.png").member
        for number in range(NAMESPACES)
        for file in range(each)
    )
    while some := list(islice(members, AT_A_TIME)):
        yield some


def _memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _usage(client: redis.Redis, pattern: str) -> int:
    keys = cast("list[bytes]", client.keys(pattern))
    return sum(cast(int, client.memory_usage(key, samples=0)) for key in keys)
