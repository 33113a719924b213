"""Files and trees that are removed, and their deadlines with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS

from djpyfs import expire_objects, get_filesystem
from djpyfs.backends.memory import MemoryBackend
from djpyfs.expirations import State, Verdict
from djpyfs.filesystem import AT_A_TIME, ExpiringFS
from tests.conftest import counted, records_here
from tests.filesystem.steps import WRITES, left, overdue
from tests.servers import running_redis, scripts_run

REMOVALS: dict[str, Callable[[ExpiringFS], object]] = {
    "sweep": lambda fs: expire_objects(),
    "remove": lambda fs: fs.remove("a.png"),
    "removetree": lambda fs: fs.removetree("/"),
}


class SlowToRemove(MemoryFS):
    """Takes its time to remove a file."""

    removing, go_on = threading.Event(), threading.Event()

    def remove(self, path: str) -> None:
        self.removing.set()
        self.go_on.wait(60)
        super().remove(path)


class SlowBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return SlowToRemove()


@pytest.mark.parametrize("write", ["writebytes", "open"])
@pytest.mark.parametrize("removed_by", REMOVALS)
def test_a_write_waits_for_a_removal_and_brings_the_file_back(
    djfs: Callable[..., None], removed_by: str, write: str
) -> None:
    djfs(type="tests.filesystem.test_removals.SlowBackend")
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 0 if removed_by == "sweep" else 100)
    SlowToRemove.removing.clear()
    SlowToRemove.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        removal = pool.submit(REMOVALS[removed_by], plots)
        assert SlowToRemove.removing.wait(60)
        writing = pool.submit(WRITES[write], plots, "a.png")
        with pytest.raises(TimeoutError):
            writing.result(0.2)
        SlowToRemove.go_on.set()
        removal.result(60), writing.result(60)
    assert plots.exists("a.png")
    assert plots.expiration("a.png") is None


def test_remove_forgets_the_deadline(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 100)
    plots.remove("a.png")
    assert plots.expiration("a.png") is None
    plots.writebytes("a.png", b"new")
    assert plots.expiration("a.png") is None
    assert expire_objects().deleted == 0


def test_a_removal_that_fails_keeps_the_deadline(disk: ExpiringFS) -> None:
    disk.expire("missing.png", 100)
    deadline = disk.expiration("missing.png")
    with pytest.raises(errors.ResourceNotFound):
        disk.remove("missing.png")
    assert disk.expiration("missing.png") == deadline


def test_removetree_forgets_the_deadlines_of_what_it_removed(plots: ExpiringFS) -> None:
    plots.makedirs("d/e")
    for path in "d/a.png", "d/e/b.png", "c.png":
        plots.writebytes(path, b"old")
        plots.expire(path, 100)
    plots.removetree("d")
    assert plots.listdir("/") == ["c.png"]
    assert [plots.expiration(p) for p in ("d/a.png", "d/e/b.png")] == [None, None]
    assert plots.expiration("c.png") is not None


@pytest.mark.parametrize("place", ["osfs", "memory"], indirect=True)
def test_a_tree_of_any_size_is_removed(plots: ExpiringFS) -> None:
    for number in range(3):
        below = plots.makedirs(f"d/{number}/empty")
        for name in range(0, 2 * AT_A_TIME // 3, 1 if number else 100):
            below.writebytes(f"{name}.png", b"old")
    plots.expire_many([f"d/1/empty/{name}.png" for name in range(AT_A_TIME // 3)], 100)
    plots.writebytes("kept.png", b"old")
    plots.removetree("d")
    assert plots.listdir("/") == ["kept.png"]
    assert counted().tracked == 0


def test_a_tree_is_removed_in_a_few_round_trips(djfs: Callable[..., None]) -> None:
    with running_redis() as server:  # on a shared one others may run scripts too
        djfs(type="memory", redis_url=server.url)
        files = get_filesystem("plots")
        for number in range(50):
            files.makedir(f"{number}").writebytes("a.png", b"old")
        before = scripts_run(server)
        files.removetree("/")
        assert files.listdir("/") == []
        assert scripts_run(server) - before < 10


class Stubborn(MemoryFS):
    """Keeps one file."""

    def remove(self, path: str) -> None:
        if path.endswith("b.png"):
            raise errors.PermissionDenied(path)
        super().remove(path)


class StubbornBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return Stubborn()


def test_a_tree_that_cannot_be_removed_keeps_its_deadlines(djfs: Callable[..., None]) -> None:
    djfs(type="tests.filesystem.test_removals.StubbornBackend")
    plots = get_filesystem("plots")
    for path in "a.png", "b.png":
        plots.writebytes(path, b"old")
        plots.expire(path, 100)
    with pytest.raises(errors.PermissionDenied):
        plots.removetree("/")
    assert plots.listdir("/") == ["b.png"]
    assert left(plots, "b.png") == pytest.approx(100, abs=30)


def test_nobody_else_claims_a_tree_that_takes_long_to_remove(djfs: Callable[..., None]) -> None:
    lease = 3  # and so for how long this process may stand still
    djfs(type="tests.filesystem.test_removals.SlowBackend", lease=lease)
    plots = get_filesystem("plots")
    overdue(plots, "a.png")
    SlowToRemove.removing.clear()
    SlowToRemove.go_on.clear()
    end = time.monotonic() + 1.2 * lease
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(plots.removetree, "/")
        assert SlowToRemove.removing.wait(60)
        while time.monotonic() < end:
            report = expire_objects()
            assert report.deleted + report.missing == 0
            time.sleep(0.05)
        SlowToRemove.go_on.set()
        removal.result(60)
    assert counted().tracked == 0


def test_the_removal_of_a_tree_waits_for_a_sweep_that_has_claimed_one_of_its_files(
    plots: ExpiringFS,
) -> None:
    for path in "d/a.png", "d/b.png":
        plots.makedirs("d", recreate=True)
        overdue(plots, path)
    records = records_here()
    claim = records.claim(0, 1)
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(plots.removetree, "d")
        with pytest.raises(TimeoutError):
            removal.result(0.2)
        records.settle(claim, Verdict(put_off={(0, State.DUE): list(claim.members)}))
        removal.result(60)
    assert plots.listdir("/") == []
    assert counted().tracked == 0


def test_a_record_below_what_is_a_file_by_now_is_forgotten(plots: ExpiringFS) -> None:
    plots.expire("d/later", 0)
    plots.writebytes("d", b"picture")
    assert expire_objects().failed == 0
    assert plots.expiration("d/later") is None
    assert plots.readbytes("d") == b"picture"
