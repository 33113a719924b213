"""How late files go with the defaults and real workers, but neither beat nor one-shots."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from djpyfs import conf, get_filesystem
from djpyfs.backends import Lease, Outcome
from djpyfs.backends.osfs import DiskBackend
from djpyfs.expirations import store_for
from djpyfs.inspection import status
from djpyfs.names import Entry
from djpyfs.places import places_here
from tests.faults.conftest import Measured
from tests.servers import RedisServer, running_redis, wait_for
from tests.services import SWEEP, Service

INTERVAL = 60  # s, the default
SOON = INTERVAL / 2  # on a busy machine: no sweep of the interval was that quick


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis(appendonly="yes") as server:
        yield server


@pytest.fixture
def service(tmp_path: Path, redis: RedisServer, djfs: Callable[..., None]) -> Iterator[Service]:
    """A service with the defaults, whose files this process sees as well."""
    noting = f"{__name__}.{NotingBackend.__name__}"
    made = Service(tmp_path, redis, sweep_interval=INTERVAL, type=noting)
    djfs(**made.djfs)
    yield made
    made.close()


class NotingBackend(DiskBackend):
    """Notes when it has deleted which file."""

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        outcome = super().delete(entries, lease)
        now = time.time()
        with notes(self.root).open("a") as file:
            file.writelines(f"{now} {entry.path}\n" for entry in outcome.deleted)
        return outcome


def notes(root: str) -> Path:
    return Path(root).with_name("notes")


def gone(service: Service) -> dict[str, float]:
    """When which file was deleted."""
    path = notes(service.djfs["directory_root"])
    lines = path.read_text().splitlines() if path.exists() else []
    return {name: float(at) for at, name in map(str.split, lines)}


def sweeps_sent(service: Service, log: str = "worker") -> int:
    return len(re.findall(rf"Task {SWEEP}\[\S+\] received", service.log(log).read_text()))


def lateness_of_one(service: Service, name: str, life: float) -> float:
    """Let one file live for so many seconds; return how many it was late."""
    fs = get_filesystem("plots")
    fs.writebytes(name, b"")
    deadline = time.time() + life
    fs.expire(name, seconds=life)
    wait_for(lambda: name in gone(service), life + INTERVAL, "the deletion")
    return gone(service)[name] - deadline


def wait_for_timekeeper(service: Service) -> str:
    """Wait until a worker keeps the time, and takes tasks; return its name."""
    get_filesystem("plots").touch("so that there is a place")
    service.wait_for_workers()
    return wait_for(lambda: "".join(timekeepers()), what="a timekeeper")


def timekeepers() -> list[str]:
    settings = conf.current()
    here = [place.records for place in places_here(settings)]
    return list(store_for(settings).timekeepers(here).values())


@pytest.mark.fault(
    "500 expirations a second for two minutes, lives of 1 to 60 s, the defaults and no beat",
    "late by 150 ms at the median, 1 s at the 99th percentile; 10 Celery messages a second",
)
def test_a_few_sweeps_keep_a_stream_of_deadlines(
    service: Service, full: bool, measured: Measured
) -> None:
    rate, seconds, longest = (500, 120, 60) if full else (100, 3, 2)
    fs, deadlines = get_filesystem("plots"), dict[str, float]()
    with service.process("worker"):
        wait_for_timekeeper(service)
        directory = Path(service.djfs["directory_root"], "plots")
        start = time.time()
        for number in range(rate * seconds):
            life = random.uniform(1, longest)
            name = f"{number:06}"
            (directory / name).touch()
            deadlines[name] = time.time() + life
            fs.expire(name, seconds=life)
            time.sleep(max(0.0, start + number / rate - time.time()))
        made = time.time() - start
        wait_for(lambda: status().tracked == 0, what="the sweeps")
        took = time.time() - start
    late = [at - deadlines[name] for name, at in gone(service).items()]
    centiles = quantiles(late, n=100)
    messages = sweeps_sent(service) / took
    measured(
        f"{len(late):,} files, {len(late) / made:.0f} a second; late by "
        f"{centiles[49] * 1e3:.0f} ms at the median, {centiles[98] * 1e3:.0f} ms at the 99th "
        f"percentile, {max(late):.2f} s at most; {messages:.1f} sweeps a second"
    )
    assert len(late) == len(deadlines)
    assert min(late) > 0
    assert messages <= 10
    assert centiles[49] < (0.15 if full else SOON)
    assert centiles[98] < (1 if full else SOON)


@pytest.mark.long  # tests/test_services.py has one file alone, beside a worker of its own app
@pytest.mark.fault(
    "one file alone, with the defaults and no beat: in 1 s, in 10 min, in 1 s after that",
    "late by 1 s at most, each",
)
def test_a_single_file_goes_within_a_second_or_so(
    service: Service, full: bool, measured: Measured
) -> None:
    with service.process("worker"):
        wait_for_timekeeper(service)
        late = [lateness_of_one(service, "soon", 1)]
        if full:
            late.append(lateness_of_one(service, "later", 600))
        late.append(lateness_of_one(service, "after-nothing", 1))
    assert sweeps_sent(service) == len(late)
    assert max(late) < (1 if full else SOON)
    measured("late by " + ", ".join(f"{it:.2f} s" for it in late))


@pytest.mark.fault(
    "idle: 1,000,000 records, none due", "1 call to Redis a second and worker, no task in Flower"
)
def test_a_worker_with_nothing_due_asks_once_a_second_and_sends_nothing(
    service: Service, redis: RedisServer, full: bool, measured: Measured
) -> None:
    fs, count = get_filesystem("plots"), 1_000_000 if full else 1_000
    for first in range(0, count, 10_000):
        fs.expire_many([f"{n:07}" for n in range(first, min(count, first + 10_000))], seconds=3_600)

    def scripts_run() -> int:
        with redis.client() as client:
            stats: Any = client.info("commandstats")
        return int(stats["cmdstat_evalsha"]["calls"])

    with service.process("worker"):
        wait_for_timekeeper(service)
        before, start = scripts_run(), time.monotonic()
        time.sleep(60 if full else 3)
        calls, took = scripts_run() - before, time.monotonic() - start
    assert 0 < calls <= 2 * (took + 1), "two scripts go together"
    assert sweeps_sent(service) == 0
    measured(
        f"{count:,} records: {calls / 2} round trips in {took:.1f} s, {sweeps_sent(service)} tasks"
    )


@pytest.mark.fault(
    "the worker that keeps time is killed; Redis restarts",
    "late by one interval (60 s) at most, then punctual again",
)
def test_another_worker_keeps_time_when_the_first_one_is_killed_or_redis_was_away(
    service: Service, redis: RedisServer, full: bool, measured: Measured
) -> None:
    with contextlib.ExitStack() as others:
        with service.victim("worker"):
            first = wait_for_timekeeper(service)
            others.enter_context(service.process("worker"))
            service.wait_for_workers(2)
            assert timekeepers() == [first]
        late = [lateness_of_one(service, "killed", 1), lateness_of_one(service, "then", 1)]
        assert timekeepers() not in ([], [first])
        redis.stop()
        redis.start()
        late += [lateness_of_one(service, "restarted", 1), lateness_of_one(service, "again", 1)]
    assert max(late) <= INTERVAL
    assert max(late[1], late[3]) < (1 if full else SOON)
    killed, then, restarted, again = late
    measured(
        f"after the kill late by {killed:.2f} s, then {then:.2f} s; after the restart "
        f"{restarted:.2f} s, then {again:.2f} s"
    )
