"""When the timekeeper sends a sweep, and when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine

from djpyfs import RecordStoreUnavailable, expire_objects, get_filesystem
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import status
from djpyfs_tasks.timekeeper import LOOK, Timekeeper
from tests.servers import running_redis, wait_for

NIGHT = 8 * 3_600  # s


@pytest.fixture
def plots(djfs: Callable[..., None], tmp_path: Path, records: dict[str, Any]) -> ExpiringFS:
    djfs(type="osfs", directory_root=tmp_path, **records)
    fs = get_filesystem("plots")
    fs.touch("here")  # so that there is a place
    return fs


class Site:
    """A timekeeper, and the sweeps that it has sent, which run if it says so."""

    def __init__(self, name: str = "one", sweeps: bool = False) -> None:
        self.sent: list[float] = []
        self._sweeps = sweeps
        self.timekeeper = Timekeeper(name, self._send)

    def _send(self) -> None:
        self.sent.append(time.monotonic())
        if self._sweeps:
            expire_objects()

    def run(self, seconds: float) -> int:
        """Keep time for so long, as a worker does; return how often a sweep was sent."""
        before, end = len(self.sent), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(self.timekeeper.look(), left))
        return len(self.sent) - before


def test_nothing_is_sent_while_nothing_is_due(plots: ExpiringFS) -> None:
    plots.touch("later")
    plots.expire("later", seconds=60)
    assert Site().run(0.5) == 0


def test_a_sweep_is_sent_when_the_deadline_has_come_and_then_no_more(plots: ExpiringFS) -> None:
    plots.touch("soon")
    plots.expire("soon", seconds=0.3)
    deadline = time.monotonic() + 0.3
    site = Site(sweeps=True)
    assert site.run(0.6) == 1
    assert site.sent[0] > deadline - 0.1
    assert not plots.exists("soon")
    assert site.run(0.3) == 0


def test_a_single_file_goes_within_a_second_of_its_deadline_even_after_an_idle_night(
    djfs: Callable[..., None],
) -> None:
    djfs(type="memory")
    files, site = get_filesystem("plots"), Site(sweeps=True)
    files.touch("here")  # so that there is a place
    with time_machine.travel(time.time(), tick=False) as clock:
        for night, life in (0, 1), (0, 600), (NIGHT, 1), (NIGHT, 600):
            for _ in range(0, night, 60):
                clock.shift(60)
                assert site.timekeeper.look() <= LOOK
            pause = site.timekeeper.look()
            assert site.sent == []
            files.touch("alone")
            deadline = time.time() + life
            files.expire("alone", life)
            while not site.sent:
                clock.shift(pause)
                pause = site.timekeeper.look()
            assert deadline <= time.time() < deadline + 1
            assert not files.exists("alone")
            site.sent.clear()


def test_many_deadlines_share_a_sweep(plots: ExpiringFS) -> None:
    for number in range(50):
        plots.expire(f"{number}", seconds=0.2 + number / 100)
    site = Site(sweeps=True)
    assert 0 < site.run(1) <= 8
    assert status().tracked == 0


def test_sweeps_that_no_worker_takes_do_not_pile_up(plots: ExpiringFS) -> None:
    for number in range(50):
        plots.expire(f"{number}", seconds=number / 100)
    site = Site()
    assert site.run(0.7) == 1
    wait_for(lambda: site.run(0.1), what="another one, for the first may be lost")
    assert len(site.sent) == 2


def test_an_overdue_file_that_is_being_written_is_not_swept_for(plots: ExpiringFS) -> None:
    plots.writebytes("written", b"")
    plots.expire("written", seconds=0.1)
    site = Site(sweeps=True)
    with plots.open("written", "wb"):
        assert site.run(0.3) == 0
        plots.expire("other", seconds=0.1)  # which waits behind it
        assert wait_for(lambda: site.run(0.3)) == 1


def test_a_file_on_hold_is_not_swept_for_again(
    djfs: Callable[..., None], tmp_path: Path, records: dict[str, Any]
) -> None:
    djfs(type="osfs", directory_root=tmp_path, hold=True, **records)
    get_filesystem("plots").writebytes("evidence", b"")
    get_filesystem("plots").expire("evidence", 0)
    assert Site(sweeps=True).run(0.6) == 1
    assert status().held == 1


def test_one_worker_keeps_time_and_another_one_after_it_has_resigned(plots: ExpiringFS) -> None:
    first, second = Site("first", sweeps=True), Site("second", sweeps=True)
    assert not status().punctual
    first.run(0.1)
    assert status().punctual
    plots.expire("soon", 0)
    assert (second.run(0.3), first.run(0.3)) == (0, 1)
    first.timekeeper.resign()
    assert not status().punctual
    plots.expire("then", 0)
    assert second.run(0.3) == 1


def test_the_time_of_a_place_that_comes_later_is_kept_too(
    djfs: Callable[..., None], tmp_path: Path, records: dict[str, Any]
) -> None:
    djfs(type="osfs", directory_root=tmp_path / "files", **records)
    site = Site(sweeps=True)
    assert site.timekeeper.look() > 0
    get_filesystem("plots").expire("new", 0)
    assert site.run(0.3) == 1


def test_each_look_says_that_the_record_store_is_away_until_it_is_back(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    with running_redis(appendonly="yes") as redis:
        djfs(type="osfs", directory_root=tmp_path, redis_url=redis.url)
        get_filesystem("plots").expire("soon", seconds=0.5)
        site = Site(sweeps=True)
        assert site.run(0.1) == 0
        redis.stop()
        for _ in range(2):
            with pytest.raises(RecordStoreUnavailable):
                site.timekeeper.look()
        redis.start()
        wait_for(lambda: site.run(0.1), what="the sweep")
        assert status().tracked == 0


def test_nobody_keeps_time_if_that_is_off(
    djfs: Callable[..., None], tmp_path: Path, records: dict[str, Any]
) -> None:
    djfs(type="osfs", directory_root=tmp_path, punctual=False, **records)
    get_filesystem("plots").expire("overdue", 0)
    assert Site().run(0.3) == 0
    assert not status().punctual
