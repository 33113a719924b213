"""Processes that move records between shards are killed, under writers and sweepers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count, cycle, islice
from multiprocessing.synchronize import Event

import pytest
from fs.errors import ResourceNotFound

from djpyfs import conf, expire_objects, get_filesystem
from djpyfs.expirations import store_for
from djpyfs.resharding import reshard
from tests.faults.conftest import Measured
from tests.faults.processes import Race, processes
from tests.servers import wait_for

SLACK = timedelta(seconds=0.05)  # between the clock here and that of Redis, and a call


class Writer:
    """Writes files with short lives, and decides at about their end what happens to them."""

    def __init__(self, number: int) -> None:
        self.fs = get_filesystem(Race.namespace)
        self.names = (f"{number}-{n}" for n in count())
        self.stay: list[str] = []
        self.fates = self.extend, self.keep, self.move, self.remove, self.leave, self.leave

    def work(self) -> None:
        group = list(islice(self.names, 10))
        for name in group:
            self.fs.writebytes(name, b"short")
            self.fs.expire(name, random.uniform(0.02, 0.3))
        for name in group:
            deadline = self.fs.expiration(name)
            if not self.fs.exists(name):
                assert not deadline or deadline < datetime.now(UTC) + SLACK, f"{name} went early"
            stays = random.choice(self.fates)(name)
            if stays and self.fs.exists(stays):
                self.stay.append(stays)
        for name in random.sample(self.stay, min(10, len(self.stay))):
            assert self.fs.exists(name), f"{name} is lost"

    def extend(self, name: str) -> str:
        self.fs.expire(name, 3_600)
        return name

    def keep(self, name: str) -> str:
        self.fs.expire(name, expires=False)
        return name

    def move(self, name: str) -> str:
        self.fs.expire(name, 3_600)
        with suppress(ResourceNotFound):
            self.fs.move(name, f"{name}-moved")
        return f"{name}-moved"

    def remove(self, name: str) -> None:
        with suppress(ResourceNotFound):
            self.fs.remove(name)

    def leave(self, name: str) -> None:
        pass


def keep_writing(number: int, stop: Event) -> list[str]:
    """Return the files that have to stay."""
    writer = Writer(number)
    while not stop.is_set():
        writer.work()
    return writer.stay


def keep_sweeping(stop: Event) -> int:
    deleted = 0
    while not stop.wait(0.01):
        deleted += expire_objects().deleted
    return deleted


def reshard_to(shards: int, begun: Event | None = None) -> None:
    for _ in reshard(shards):
        if begun:
            begun.set()


@pytest.mark.fault(
    "`djpyfs reshard` killed 100 times at random moments under 4 writers and 2 sweepers, 20,000 "
    "files beside them, from 1 shard to 16",
    "0 lost, 0 early, all records where they belong, nothing left of it",
)
def test_a_mover_of_records_that_is_killed_again_and_again_loses_no_file_and_makes_none_early(
    race_with: Callable[..., Race], full: bool, measured: Measured
) -> None:
    race = race_with(shards=2, batch_size=50, lease=1)
    waiting, kills, longest, writers = (20_000, 100, 1.0, 4) if full else (500, 2, 0.1, 1)
    names = [f"waiting-{number}" for number in range(waiting)]
    race.fs.expire_many(names, 3_600)
    deadlines = {name: race.fs.expiration(name) for name in names[:: waiting // 100]}
    stop, numbers = processes.Event(), cycle([5, 1, 3, 16, 8, 2])
    working = [race.start(keep_writing, number, stop) for number in range(writers)]
    sweeping = [race.start(keep_sweeping, stop) for _ in range(2)]

    killed = 0
    for shards in islice(numbers, max(1, kills // 5)):
        for _ in range(min(5, kills)):
            begun = processes.Event()
            mover = race.start(reshard_to, shards, begun)
            assert begun.wait(60)
            time.sleep(random.uniform(0, longest))
            killed += not mover.has_ended()
            mover.die()
        race.start(reshard_to, shards).result(600)
        assert store_for(conf.current()).spread() == (shards, shards)
    stop.set()
    found = [writer.result(120) for writer in working]
    deleted = sum(sweeper.result(120) for sweeper in sweeping)

    stay = {name for own in found for name in own}
    assert stay - race.files() == set()
    assert {name: race.fs.expiration(name) for name in deadlines} == deadlines
    wait_for(lambda: expire_objects().remaining == 0 and not race.files() - stay, 30)
    reshard_to(1)
    assert not race.kinds() & {"transit", "arrived", "returned"}
    race.fs.expire_many([*stay, *names], 0)
    expire_objects()
    assert race.files() == set()
    measured(
        f"{killed} killed, {max(1, kills // 5)} times brought to its end, {len(stay):,} files "
        f"stayed, {deleted:,} went, 0 lost, 0 early"
    )
