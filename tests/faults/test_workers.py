"""Celery workers and beats that die, overlap, come late or have been away, as processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from djpyfs import conf, get_filesystem
from djpyfs.expirations import Counts, store_for, total
from djpyfs.filesystem import ExpiringFS
from djpyfs.places import records_known
from djpyfs_tasks.tasks import SEAT
from tests.conftest import files_beneath
from tests.faults.conftest import Measured
from tests.servers import RedisServer, running_redis, wait_for
from tests.services import Service

ONE_SHOT = "djpyfs_tasks.delete_expired"
ONE_SHOTS = "djpyfs.one_shot"  # the queue
MIB = 1 << 20


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def service_with(
    tmp_path: Path, redis: RedisServer, djfs: Callable[..., None]
) -> Iterator[Callable[..., Service]]:
    """Makes a service with these settings, whose files this process sees as well."""
    made: list[Service] = []

    def make(**settings: Any) -> Service:
        service = Service(tmp_path, redis, **settings)
        made.append(service)
        djfs(**service.djfs)
        return service

    yield make
    for service in made:
        service.close()


def counts() -> Counts:
    return total(records.counts() for records in records_known(conf.current()).records)


def fill(fs: ExpiringFS, paths: list[str]) -> None:
    """Put files there on a disk or on S3, bypassing djpyfs."""
    for path in paths:
        files_beneath(fs.namespace).writebytes(path, b"")


# -- workers that are killed


@pytest.mark.fault(
    "SIGKILL a Celery worker 20 times during a 20,000-file sweep with 10,000 live files beside "
    "them (osfs; and 5,000 on S3)",
    "0 live gone, 0 expired left after one lease and two sweeps",
)
@pytest.mark.parametrize(
    "place", ["osfs", pytest.param("s3fs", marks=pytest.mark.long)], indirect=True
)
def test_workers_killed_in_mid_sweep_leave_nothing_and_take_nothing_alive(
    service_with: Callable[..., Service], place: dict[str, Any], full: bool, measured: Measured
) -> None:
    on_disk = place["type"] == "osfs"
    due, alive, kills = 400, 200, 1
    if full:
        due, alive, kills = (20_000, 10_000, 20) if on_disk else (5_000, 5_000, 20)
    lease = 2 if on_disk else 15
    options = {key: str(value) for key, value in place.items()}
    # So small that a sweep is slow enough to be killed.
    batch_size = 5 if full else 2
    by_hand = {"sweep_interval": 60, "punctual": False}
    service = service_with(**options, lease=lease, batch_size=batch_size, **by_hand)
    fs = get_filesystem("plots")
    living = [f"alive-{n:05}" for n in range(alive)]
    doomed = [f"due-{n:05}" for n in range(due)]
    fill(fs, [*living, *doomed])
    fs.expire_many(living, seconds=3_600)
    fs.expire_many(doomed, 0)

    for kill in range(kills):
        # Some are left in the end: what a killed one had claimed waits for the end of its lease.
        left = alive + due - (due * (kill + 1) // (kills + 5) if full else 50)
        with service.victim("worker"):
            service.sweep()
            wait_for(lambda: counts().tracked <= left, what="a part of the sweep")  # noqa: B023
        assert counts().claimed + counts().overdue > 0, "the worker was faster than the kill"
    with service.process("worker"):
        wait_for(lambda: counts().claimed == 0 and not leaders(), what="the end of the last leases")
        reports = [service.sweep().get(timeout=300) for _ in range(2)]
        # Each has handed over to others what was left when its turn was over.
        wait_for(lambda: counts().overdue == counts().claimed == 0, what="the follow-ups")

    left_over = set(files_beneath(fs.namespace).listdir("/"))
    assert left_over == set(living)
    assert counts()[1:6] == (alive, 0, 0, 0, 0)
    measured(
        f"{place['type']}: {kills} kills, {alive - len(left_over & set(living))} of {alive:,} live "
        f"gone, {len(left_over - set(living))} of {due:,} expired left; the two sweeps deleted "
        f"{reports[0]['deleted']:,} and {reports[1]['deleted']:,}"
    )


def leaders() -> Collection[str]:
    """The sweep that leads the others, if one does, or was killed just now."""
    return store_for(conf.current()).take_seat(SEAT, "nobody", 0)


# -- tasks that come twice, or late


@pytest.mark.fault(
    "two beats; the same one-shot 50 times; a one-shot an hour late after an extension",
    "one deletion; none",
)
def test_two_beats_and_fifty_one_shots_delete_a_file_once_and_a_late_one_shot_deletes_nothing(
    service_with: Callable[..., Service], full: bool, measured: Measured
) -> None:
    service = service_with(punctual=False)
    fs = get_filesystem("plots")
    swept = [f"swept-{n:03}" for n in range(100 if full else 5)]
    fill(fs, [*swept, "shot", "extended"])
    with service.process("worker"):
        # An hour ago it was due; since then it was extended.
        fs.expire("extended", seconds=600)
        send_one_shots(service, "extended", 1, eta=datetime.now(UTC) - timedelta(hours=1))
        fs.expire("shot", 0)
        send_one_shots(service, "shot", 50)
        wait_for_one_shots(service)
        by_one_shots = totals()
        with service.process("beat"), service.process("beat"):
            for number, name in enumerate(swept):
                fs.expire(name, seconds=number % 10 / 3)
            wait_for(lambda: counts().tracked == 1, what="the sweeps")
    assert by_one_shots == {"deleted": 1}
    assert totals() == {"deleted": 1 + len(swept)}
    assert fs.listdir("/") == ["extended"]
    measured(
        f"two beats: {len(swept)} files, {totals()['deleted'] - 1:g} deletions; 50 one-shots: "
        f"{by_one_shots['deleted']:g}; an hour late: 0"
    )


def send_one_shots(
    service: Service, name: str, times: int, namespace: str = "plots", **when: Any
) -> None:
    """Send the same one-shot some times."""
    for _ in range(times):
        service.celery.send_task(ONE_SHOT, args=[namespace, [name]], queue=ONE_SHOTS, **when)


def wait_for_one_shots(service: Service) -> None:
    """Wait until all that were sent have been carried out."""
    with service.redis.client() as client:
        wait_for(lambda: not client.exists(ONE_SHOTS, "unacked"), what="the one-shots")


def totals() -> dict[str, float]:
    """What has happened to due files so far."""
    found = store_for(conf.current()).totals()
    return {name: found[name] for name in ("deleted", "missing", "retried") if found.get(name)}


# -- a day without sweeps


@pytest.mark.fault(
    "beat off for a day: 1,000,000 overdue",
    "drained at a steady rate, RSS growth < 32 MiB, new sweeps and one-shots not starved",
)
def test_a_million_overdue_are_drained_steadily_beside_new_work(
    service_with: Callable[..., Service], full: bool, measured: Measured
) -> None:
    total, batch_size = (1_000_000, 1_000) if full else (1_000, 5)
    service = service_with(sweep_interval=60, batch_size=batch_size)
    directory = Path(service.djfs["directory_root"], "plots")
    fs, backlog = get_filesystem("plots"), [f"{n // 1_000:03}/{n:06}" for n in range(total)]
    make(directory, backlog)
    fs.expire_many(backlog, 0)

    newcomers: list[tuple[float, float]] = []
    with service.process("worker") as worker:
        service.wait_for_workers()
        before = memory_of(worker.pid, "VmRSS")
        start = time.monotonic()
        service.sweep()
        with samples_of(lambda: counts().overdue) as left:
            while not newcomers or counts().overdue or counts().claimed:
                newcomers.append(lateness_of_newcomers(service))
        took = time.monotonic() - start
        growth = memory_of(worker.pid, "VmHWM") - before

    assert not directory.exists()
    one_shot, sweep = map(max, zip(*newcomers, strict=True))
    assert max(one_shot, sweep) < 30
    assert growth < 32 * 1024
    first, last = rate_between(left, total, 3 * total // 4), rate_between(left, total // 4, 0)
    assert not full or last > first / 4  # the short form is over too soon to tell
    measured(
        f"{total:,} files in {took:.0f} s, {first:,.0f}/s in the first quarter and {last:,.0f}/s "
        f"in the last; RSS + {growth / 1024:.1f} MiB; one-shots up to {one_shot:.1f} s late, new "
        f"sweeps done within {sweep:.1f} s"
    )


@contextmanager
def samples_of(count: Callable[[], int]) -> Iterator[list[tuple[float, int]]]:
    """Give a list that grows by (s, a count) ten times a second."""
    samples: list[tuple[float, int]] = []
    is_over = threading.Event()

    def take() -> None:
        while not is_over.wait(0.1):
            samples.append((time.monotonic(), count()))

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


def rate_between(left: list[tuple[float, int]], most: int, least: int) -> float:
    """Return how many went in a second while between ``most`` and ``least`` were left."""
    begin = next(time for time, count in left if count <= most)
    end = next((time for time, count in left if count <= least), left[-1][0])
    return (most - least) / max(end - begin, 0.1)


def make(directory: Path, paths: list[str]) -> None:
    """Make empty files, a directory for each thousand."""
    for path in paths:
        if path.endswith("000"):
            (directory / path).parent.mkdir(parents=True)
        os.close(os.open(directory / path, os.O_CREAT))


def memory_of(process: int, kind: str) -> int:
    """Return the KiB of memory that a process and its children take, or their peak."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    statuses = [Path(f"/proc/{one}/status").read_text() for one in (process, *children)]
    return sum(int(status.partition(f"{kind}:")[2].split()[0]) for status in statuses)


def lateness_of_newcomers(service: Service) -> tuple[float, float]:
    """Return how late a one-shot deletes, in seconds, and how long a sweep waits and takes."""
    fs = get_filesystem("fresh")
    fs.writebytes("new", b"")
    fs.expire("new", seconds=0.5)
    start = time.monotonic()
    send_one_shots(service, "new", 1, namespace="fresh", countdown=0.5)
    sweep = service.sweep()
    wait_for(lambda: not fs.exists("new"), what="the one-shot")
    one_shot = time.monotonic()
    sweep.get(timeout=120)
    return one_shot - start - 0.5, time.monotonic() - start
