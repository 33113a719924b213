"""What several workers share: a backlog, the seats at a backend, and its rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import pytest

from djpyfs import SweepReport, conf, expire_objects, get_filesystem
from djpyfs.backends import Lease, Outcome
from djpyfs.backends.memory import MemoryBackend
from djpyfs.expirations import store_for
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import status
from djpyfs.names import Entry
from djpyfs.places import place_for
from djpyfs.sweeper import delete_if_due


class CrowdedBackend(MemoryBackend):
    """Takes its time, and notes how many sweeps worked at once, and in which order."""

    now = most = 0
    seen: list[str]
    lock = Lock()

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        cls = CrowdedBackend
        with self.lock:
            cls.now += 1
            cls.most = max(cls.most, cls.now)
            cls.seen += [entry.namespace for entry in entries]
        time.sleep(0.02)
        with self.lock:
            cls.now -= 1
        return super().delete(entries, lease)


@pytest.fixture
def crowded(djfs: Callable[..., None], records: dict[str, Any]) -> Callable[..., ExpiringFS]:
    """Make a backend for several sweeps, with files that are due."""
    CrowdedBackend.now = CrowdedBackend.most = 0
    CrowdedBackend.seen = []

    def make(files: int, **options: Any) -> ExpiringFS:
        crowded = f"{__name__}.{CrowdedBackend.__name__}"
        djfs(**{"type": crowded, "batch_size": 1, **records, **options})
        plots = get_filesystem("plots")
        names = [f"{number:05}" for number in range(files)]
        for name in names:
            plots.touch(name)
        plots.expire_many(names, 0)
        return plots

    return make


def sweep_at_once(count: int) -> list[SweepReport]:
    with ThreadPoolExecutor(count) as pool:
        return [it.result() for it in [pool.submit(expire_objects) for _ in range(count)]]


# -- seats


def test_any_number_of_sweeps_works_at_a_backend_without_a_bound(
    crowded: Callable[..., ExpiringFS],
) -> None:
    crowded(20)
    assert sum(report.deleted for report in sweep_at_once(4)) == 20
    assert CrowdedBackend.most > 2


def test_no_more_sweeps_work_at_a_backend_than_its_bound_says(
    crowded: Callable[..., ExpiringFS],
) -> None:
    crowded(20, sweepers=2)
    reports = sweep_at_once(4)
    assert sum(report.deleted for report in reports) == 20
    assert CrowdedBackend.most == 2
    assert sum(report.deleted == 0 and report.remaining > 0 for report in reports) == 2
    crowded(1, sweepers=2)
    assert expire_objects().deleted == 1, "a seat was not given up"


def test_a_one_shot_that_finds_no_seat_leaves_its_files_to_the_sweep(
    crowded: Callable[..., ExpiringFS],
) -> None:
    plots = crowded(1, sweepers=1)
    store = store_for(conf.current())
    seats = f"{place_for(conf.current(), 'plots').records.place}:sweepers"
    store.take_seat(seats, "another", 60_000)
    assert delete_if_due("plots", ["00000"], bounded=True) == {}
    assert plots.exists("00000")
    store.take_seat(seats, "another", 0)
    delete_if_due("plots", ["00000"], bounded=True)
    assert not plots.exists("00000")


# -- rates


def test_a_sweep_keeps_the_rate_of_its_backend(crowded: Callable[..., ExpiringFS]) -> None:
    crowded(30, deletions_per_second=20, batch_size=1_000)
    report = expire_objects(seconds=0.2)
    assert 0 < report.deleted <= 20
    assert report.remaining == 30 - report.deleted
    start = time.monotonic()
    assert expire_objects().remaining == 0
    assert time.monotonic() - start > 0.3
    assert status().tracked == 0


def test_a_one_shot_keeps_the_rate_and_leaves_the_rest_to_the_sweep(
    crowded: Callable[..., ExpiringFS],
) -> None:
    plots = crowded(30, deletions_per_second=20)
    assert delete_if_due("plots", [f"{number:05}" for number in range(30)], True) == {}
    assert len(plots.listdir("/")) == 28


def test_the_strictest_bound_of_a_place_holds_for_all_its_namespaces(
    djfs: Callable[..., None],
) -> None:
    strict = {"deletions_per_second": 100, "sweepers": 8}
    djfs(type="memory", sweepers=4, namespaces={"plots": strict, "disk": {"type": "osfs"}})
    settings = conf.current()
    assert settings.bounds[settings.policy.placement] == conf.Bounds(100, 4)
    assert settings.bounds[settings.policy_for("disk").placement] == conf.Bounds(None, 4)


# -- a backlog


def test_small_work_is_done_before_a_backlog(crowded: Callable[..., ExpiringFS]) -> None:
    other = {"other": {"type": f"{__name__}.{OtherBackend.__name__}"}}
    crowded(30, batch_size=10, namespaces=other)
    get_filesystem("other").touch("a")
    get_filesystem("other").expire("a", 0)
    expire_objects()
    assert CrowdedBackend.seen[0] == "other"
    assert len(CrowdedBackend.seen) == 31


class OtherBackend(CrowdedBackend):
    """One with a place of its own."""
