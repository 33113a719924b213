"""Sweeping beside a million records that are not due, or ten with ``--full``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from django.test import override_settings

from djpyfs import conf, expire_objects, get_filesystem
from djpyfs.names import Entry
from djpyfs.places import records_for
from tests.bench.goals import Explained, Goal, compared, explained, tell
from tests.bench.records import RECORDS as MANY
from tests.bench.trips import in_round_trips, round_trips
from tests.bench.turns import Turn, seconds, take_turns
from tests.servers import RedisServer, running_redis

FEW = 10_000
A_USER = 10  # records
MONTH = 30 * 86_400
AT_A_TIME = 10_000
FILES, DIRECTORIES = 20_000, 200
ROUNDS = 7
CALLS, TURNS = 10, 500  # of idle sweeps: so short that few turns are interrupted


def goals() -> Iterator[Goal]:
    """Compare sweeps beside many records with those beside few, and idle ones with a PING."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        running_redis() as few,
        running_redis() as many,
        TemporaryDirectory(prefix="djpyfs-bench-", dir=memory) as directory,
    ):
        turns = []
        for server, count in (few, FEW), (many, MANY):
            with override_settings(DJFS=_djfs(directory, server.url)):
                _fill(count)
        for number in range(ROUNDS):
            tell(f"Sweeping beside {FEW:,} and {MANY:,} records, {number + 1} of {ROUNDS}")
            took = {}
            for server in (few, many) if number % 2 else (many, few):
                with override_settings(DJFS=_djfs(directory, server.url)):
                    took[server.url] = _sweep(Path(directory))
            turns.append(Turn(took[many.url], took[few.url]))
        what, why = f"sweep rate beside {MANY:,} records", explained(Explained.SWEEPS, 0.7)
        yield compared(what, f"beside {FEW:,}", turns, least=0.9, **why)
        with override_settings(DJFS=_djfs(directory, many.url)):
            yield _idle(many)


def _djfs(directory: str, url: str) -> dict[str, str]:
    return {"type": "osfs", "directory_root": directory, "redis_url": url}


def _fill(count: int) -> None:
    tell(f"Keeping {count:,} records")
    records = records_for("users")
    members = (
        Entry(f"users/{number // A_USER:07}", f"plot-{number % A_USER}.png").member
        for number in range(count)
    )
    while some := list(islice(members, AT_A_TIME)):
        records.schedule(some, MONTH * conf.SECOND)


def _sweep(root: Path) -> float:
    names = [f"{number:06}.png" for number in range(FILES // DIRECTORIES)]
    for directory in range(DIRECTORIES):
        here = root / "due" / str(directory)
        here.mkdir(parents=True, exist_ok=True)
        for name in names:
            (here / name).touch()
        get_filesystem(f"due/{directory}").expire_many(names, 0)

    def sweep() -> None:
        assert expire_objects().deleted == FILES

    return seconds(sweep)


def _idle(server: RedisServer) -> Goal:
    tell("Sweeping when there is nothing to do")
    trips = round_trips(server, expire_objects)
    with redis.Redis.from_url(server.url) as client:

        def sweep() -> None:
            for _ in range(CALLS):
                expire_objects()

        def ping() -> None:
            for _ in range(CALLS):
                client.ping()

        take_turns(sweep, ping, 20)
        turns = take_turns(sweep, ping, TURNS)
    what = f"idle sweep beside {MANY:,} records"
    why = explained(Explained.SWEEPS, 4)
    return compared(what, "one PING", turns, most=2, **why, **in_round_trips(trips, 1))
