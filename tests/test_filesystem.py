"""What the filesystem of `get_filesystem` does, on every back-end with every record store."""

from __future__ import annotations

import errno
import io
import math
import os
import pickle
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import urlopen

import fs.copy
import fs.move
import pytest
import redis
from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS

from djpyfs import (
    BackendUnavailable,
    DjpyfsError,
    FileBusy,
    InvalidLifetime,
    RecordStoreUnavailable,
    conf,
    expire_objects,
    get_filesystem,
)
from djpyfs.backends.memory import MemoryBackend
from djpyfs.backends.spool import WholeOrNot
from djpyfs.errors import WriteLost
from djpyfs.expirations import State, Verdict
from djpyfs.filesystem import AT_A_TIME, ExpiringFS
from tests.conftest import counted, records_here
from tests.servers import HOST, RedisServer, scripts_run, wait_for


class Unreadable(io.BytesIO):
    """An upload that breaks off."""

    def read(self, *_: Any) -> bytes:
        raise OSError(errno.EIO, "the client hung up")


def left(filesystem: ExpiringFS, path: str) -> float:
    """Return the seconds that a file has left."""
    deadline = filesystem.expiration(path)
    assert deadline is not None, f"{path} has no deadline"
    return (deadline - datetime.now(UTC)).total_seconds()


def overdue(filesystem: ExpiringFS, path: str) -> None:
    """Write a file that is due at once."""
    filesystem.writebytes(path, b"old")
    filesystem.expire(path, 0)


# -- expire and expiration


def test_a_file_is_deleted_after_its_deadline_and_not_before(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", seconds=0.3)
    deadline = plots.expiration("a.png")
    assert deadline
    wait_for(lambda: expire_objects().deleted == 1)
    assert datetime.now(UTC) >= deadline
    assert not plots.exists("a.png")
    assert plots.expiration("a.png") is None


def test_seconds_and_days_are_added(plots: ExpiringFS) -> None:
    plots.expire("a.png", 60, 2)
    assert left(plots, "a.png") == pytest.approx(2 * 86_400 + 60, abs=30)


def test_a_later_deadline_replaces_an_earlier_one(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 0)
    plots.expire("a.png", 100)
    assert expire_objects().deleted == 0
    assert plots.exists("a.png")


def test_expires_false_makes_a_file_permanent(plots: ExpiringFS) -> None:
    overdue(plots, "a.png")
    plots.expire("a.png", 0, expires=False)
    expire_objects()
    assert plots.exists("a.png")


def test_a_deadline_may_be_set_before_the_file_is_there(plots: ExpiringFS) -> None:
    plots.expire("a.png", 100)
    plots.writebytes("a.png", b"picture")
    assert left(plots, "a.png") > 90


def test_every_spelling_of_a_path_is_one_file(plots: ExpiringFS) -> None:
    plots.makedir("d")
    plots.expire("/d/./a.png", 100)
    assert plots.expiration("d/a.png") == plots.expiration("d/../d//a.png")
    assert plots.expiration("d/a.png") is not None


def test_many_files_expire_at_once(plots: ExpiringFS) -> None:
    names = [f"{number}.png" for number in range(20)]
    for name in names:
        plots.writebytes(name, b"picture")
    plots.expire_many(names, 0)
    expire_objects()
    assert plots.listdir("/") == []


def test_namespaces_do_not_touch_each_other(plots: ExpiringFS) -> None:
    other = get_filesystem("plots/inner")
    overdue(plots, "a.png")
    other.writebytes("a.png", b"picture")
    expire_objects()
    assert other.exists("a.png")


@pytest.mark.parametrize(
    "arguments",
    [
        (-1,),
        (0, -1),
        (math.nan,),
        (math.inf,),
        pytest.param((10**5_000,), id="huge"),
        ("5",),
        ("",),
        (None,),
        (True,),
        (10**400,),
        (0, 10**6),
        (timedelta(-1),),
        (0, timedelta(1)),
    ],
    ids=str,
)
def test_a_bad_life_time_is_one_error_and_stores_nothing(
    plots: ExpiringFS, arguments: tuple[Any, ...]
) -> None:
    for act in plots.expire, lambda name, *rest: plots.expire_many([name], *rest):
        with pytest.raises(InvalidLifetime) as raised:
            act("a.png", *arguments)
        assert isinstance(raised.value, ValueError)
    assert plots.expiration("a.png") is None


def test_a_life_may_be_a_timedelta(plots: ExpiringFS) -> None:
    plots.expire("a.png", timedelta(minutes=5))
    plots.expire_many(["b.png"], timedelta(minutes=5), days=1)
    assert left(plots, "a.png") == pytest.approx(300, abs=30)
    assert left(plots, "b.png") == pytest.approx(300 + 86_400, abs=30)
    plots.set_default_life(timedelta(minutes=5))
    plots.writebytes("c.png", b"picture")
    assert left(plots, "c.png") == pytest.approx(300, abs=30)


def test_a_life_that_is_not_given_is_an_error_that_says_what_to_write(plots: ExpiringFS) -> None:
    with pytest.raises(InvalidLifetime, match="seconds=0"):
        plots.expire("a.png")
    with pytest.raises(InvalidLifetime, match="seconds=0"):
        plots.expire_many(["a.png"])
    assert plots.expiration("a.png") is None


def test_a_deadline_may_be_an_aware_datetime(plots: ExpiringFS) -> None:
    when = datetime.now(timezone(timedelta(hours=9))) + timedelta(minutes=5)
    plots.expire_at("a.png", when)
    assert plots.expiration("a.png") == when
    plots.makedir("d").expire_at("a.png", when)
    assert plots.expiration("d/a.png") == when


def test_a_datetime_that_has_passed_is_now(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"picture")
    plots.expire_at("a.png", datetime.now(UTC) - timedelta(days=1))
    assert left(plots, "a.png") == pytest.approx(0, abs=30)
    assert expire_objects().deleted == 1


@pytest.mark.parametrize(
    "when",
    [datetime.fromisoformat("2030-01-01"), 1_900_000_000, None, datetime.max.replace(tzinfo=UTC)],
    ids=str,
)
def test_a_naive_datetime_or_one_too_far_away_is_one_error(plots: ExpiringFS, when: Any) -> None:
    with pytest.raises(InvalidLifetime, match="when is"):
        plots.expire_at("a.png", when)
    assert plots.expiration("a.png") is None


def test_a_string_is_not_taken_for_a_list_of_names(plots: ExpiringFS) -> None:
    with pytest.raises(TypeError, match="list of names"):
        plots.expire_many("abc", 5)


# -- names

ODD = [
    "a b.png",
    "100%.png",
    "$HOME.png",
    "~x",
    "what?.png",
    "a#b.png",
    "quote'\".png",
    "é+&<>;.png",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_ordinary(plots: ExpiringFS, name: str) -> None:
    overdue(plots, name)
    assert plots.listdir("/") == [name]
    expire_objects()
    assert plots.listdir("/") == []


def test_a_namespace_may_be_opened_by_many_at_once(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    start = threading.Barrier(8)

    def open_all() -> None:
        start.wait(60)
        for number in range(100):
            get_filesystem(f"deep/down/{number}")

    with ThreadPoolExecutor(8) as threads:
        for opened in [threads.submit(open_all) for _ in range(8)]:
            opened.result()


def test_a_root_that_cannot_be_made_is_one_error(djfs: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    djfs(type="osfs", directory_root=tmp_path / "file" / "root")
    with pytest.raises(errors.CreateFailed, match=r"Not a directory: .*file/root"):
        get_filesystem("plots")


# -- rewrites


def test_a_rewrite_keeps_the_deadline(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 100)
    deadline = plots.expiration("a.png")
    with plots.open("a.png", "wb") as file:
        file.write(b"new")
    assert plots.expiration("a.png") == deadline


WRITES: dict[str, Callable[[ExpiringFS, str], object]] = {
    "writebytes": lambda fs, path: fs.writebytes(path, b"new"),
    "writetext": lambda fs, path: fs.writetext(path, "new"),
    "appendbytes": lambda fs, path: fs.appendbytes(path, b"new"),
    "upload": lambda fs, path: fs.upload(path, io.BytesIO(b"new")),
    "writefile": lambda fs, path: fs.writefile(path, io.BytesIO(b"new")),
    "open": lambda fs, path: fs.open(path, "w").close(),
    "openbin r+": lambda fs, path: fs.openbin(path, "r+").close(),
    "create": lambda fs, path: fs.create(path, wipe=True),
    "copy": lambda fs, path: fs.copy("other", path, overwrite=True),
    "fs.copy.copy_file": lambda fs, path: fs_copy(fs, path),
    "through a sub-filesystem": lambda fs, path: fs.opendir("/").writebytes(path, b"new"),
}


def fs_copy(filesystem: ExpiringFS, path: str) -> None:
    with MemoryFS() as memory:
        memory.writebytes("a", b"new")
        fs.copy.copy_file(memory, "a", filesystem, path)


@pytest.mark.parametrize("write", WRITES)
def test_writing_to_an_expired_path_starts_a_new_life(plots: ExpiringFS, write: str) -> None:
    plots.writebytes("other", b"other")
    overdue(plots, "a.png")
    WRITES[write](plots, "a.png")
    assert expire_objects().deleted == 0
    assert plots.exists("a.png")
    assert plots.expiration("a.png") is None


@pytest.mark.parametrize("write", WRITES)
def test_writing_shortly_before_the_deadline_leaves_the_grace(
    plots: ExpiringFS, write: str
) -> None:
    plots.writebytes("other", b"other")
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 30)
    WRITES[write](plots, "a.png")
    assert 31 < left(plots, "a.png") < 61


@pytest.mark.parametrize(
    "attempt",
    [
        lambda fs: fs.openbin("a.png", "x"),
        lambda fs: fs.copy("missing", "a.png", overwrite=True),
        lambda fs: fs.copy("other", "a.png"),
        lambda fs: fs.move("other", "a.png"),
        lambda fs: fs.move("missing", "a.png", overwrite=True),
        lambda fs: fs.upload("a.png", Unreadable()),
    ],
    ids="exclusive copy_missing copy_existing move_existing move_missing upload".split(),
)
def test_a_write_that_fails_leaves_the_deadline_as_it_was(
    plots: ExpiringFS, attempt: Callable[[ExpiringFS], object]
) -> None:
    plots.writebytes("other", b"other")
    overdue(plots, "a.png")
    with pytest.raises((errors.FSError, OSError)):
        attempt(plots)
    report = expire_objects()
    assert report.deleted + report.missing == 1  # on disk half an upload does not stay behind
    assert not plots.exists("a.png")
    assert plots.expiration("a.png") is None


def test_a_write_of_any_length_keeps_its_file(
    djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]
) -> None:
    djfs(**place, **records, grace=1)
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 0.3)
    end = time.monotonic() + 1.6
    with plots.open("a.png", "wb") as file:
        file.write(b"picture")
        while time.monotonic() < end:  # without another call of the file
            assert expire_objects().deleted == 0
            time.sleep(0.05)
    assert plots.readbytes("a.png") == b"picture"
    assert 0 < left(plots, "a.png") < 10


@pytest.mark.parametrize("mode", ["w", "wb", "w+", "r+", "a"])
@pytest.mark.parametrize("buffering", [-1, 16])
def test_a_block_that_raises_stores_nothing(plots: ExpiringFS, mode: str, buffering: int) -> None:
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 100)
    before = plots.expiration("a.png")
    with pytest.raises(ZeroDivisionError), plots.open("a.png", mode, buffering) as file:  # noqa: PT012
        file.write(b"half" if "b" in mode else "half")
        file.flush()
        raise ZeroDivisionError
    assert plots.readbytes("a.png") == b"old"
    assert plots.expiration("a.png") == before
    assert plots.listdir("/") == ["a.png"]


@pytest.fixture
def frozen(
    djfs: Callable[..., None],
    records: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> ExpiringFS:
    """A filesystem in a process that stands still, as far as its leases can tell."""
    djfs(type="memory", **records, grace=1)
    monkeypatch.setattr("djpyfs.leases.keep", lambda lease: None)
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 0.1)
    return plots


def test_a_write_that_outlasts_its_lease_puts_the_deadline_back(frozen: ExpiringFS) -> None:
    with frozen.open("a.png", "wb") as file:
        wait_for(lambda: expire_objects().deleted == 1)
        file.write(b"new")
    assert frozen.readbytes("a.png") == b"new"
    assert left(frozen, "a.png") > 0


def test_a_write_that_was_overtaken_by_a_sweep_is_an_error(
    frozen: ExpiringFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = frozen.open("a.png", "wb")
    wait_for(lambda: expire_objects().deleted == 1)
    monkeypatch.setattr(frozen._files, "isfile", lambda path: False)
    with pytest.raises(WriteLost, match=r"a\.png"):
        file.close()


# -- remove, move, copy


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
    djfs(type="tests.test_filesystem.SlowBackend")
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


def test_a_tree_is_removed_in_a_few_round_trips(
    disk: ExpiringFS, redis_server: RedisServer
) -> None:
    for number in range(50):
        disk.makedir(f"{number}").writebytes("a.png", b"old")
    before = scripts_run(redis_server)
    disk.removetree("/")
    assert disk.listdir("/") == []
    assert scripts_run(redis_server) - before < 10


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
    djfs(type="tests.test_filesystem.StubbornBackend")
    plots = get_filesystem("plots")
    for path in "a.png", "b.png":
        plots.writebytes(path, b"old")
        plots.expire(path, 100)
    with pytest.raises(errors.PermissionDenied):
        plots.removetree("/")
    assert plots.listdir("/") == ["b.png"]
    assert left(plots, "b.png") == pytest.approx(100, abs=30)


def test_a_tree_that_takes_long_to_remove_is_nobody_elses(djfs: Callable[..., None]) -> None:
    djfs(type="tests.test_filesystem.SlowBackend", lease=1)
    plots = get_filesystem("plots")
    overdue(plots, "a.png")
    SlowToRemove.removing.clear()
    SlowToRemove.go_on.clear()
    end = time.monotonic() + 1.3
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


def test_a_tree_waits_for_the_sweep_that_has_one_of_its_files(plots: ExpiringFS) -> None:
    for path in "d/a.png", "d/b.png":
        plots.makedirs("d", recreate=True)
        overdue(plots, path)
    records = records_here()
    claim = records.claim(0, 1)
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(plots.removetree, "d")
        with pytest.raises(TimeoutError):
            removal.result(0.2)
        records.settle(0, claim.token, Verdict(put_off={(0, State.DUE): list(claim.members)}))
        removal.result(60)
    assert plots.listdir("/") == []
    assert counted().tracked == 0


def test_move_carries_the_deadline_along(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 100)
    deadline = plots.expiration("a.png")
    plots.move("a.png", "b.png")
    assert plots.expiration("b.png") == deadline
    assert plots.expiration("a.png") is None


class SweptWhileMoving(MemoryFS):
    """Reads a file, is swept, and writes the file under its new name."""

    def move(self, src_path: str, dst_path: str, *_: Any) -> None:
        contents = self.readbytes(src_path)
        expire_objects()
        self.writebytes(dst_path, contents)
        if self.exists(src_path):
            self.remove(src_path)


class SweptBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return SweptWhileMoving()


def test_what_was_made_permanent_stays_so_where_it_is_moved(
    djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]
) -> None:
    djfs(**place, **records, default_ttl=300)
    plots, others = get_filesystem("plots"), get_filesystem("others")
    plots.writebytes("a", b"old")
    plots.expire("a", expires=False)
    plots.move("a", "b")
    plots.writebytes("b", b"new")
    assert plots.expiration("b") is None
    others.makedir("/", recreate=True)
    fs.move.move_file(plots, "b", others, "c")
    others.writebytes("c", b"newer")
    assert others.expiration("c") is None
    plots.writebytes("b", b"another")
    assert plots.expiration("b"), "it is another file, which nobody made permanent"


def test_a_sweep_during_a_move_makes_no_file_stay_for_ever(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_filesystem.SweptBackend", **records)
    plots = get_filesystem("plots")
    overdue(plots, "a.png")
    plots.move("a.png", "b.png")
    assert plots.listdir("/") == ["b.png"]
    assert expire_objects().deleted == 1
    assert plots.listdir("/") == []


def test_a_permanent_file_stays_so_where_it_replaces_one_that_expires(plots: ExpiringFS) -> None:
    overdue(plots, "a.png")
    plots.writebytes("b.png", b"permanent")
    plots.move("b.png", "a.png", overwrite=True)
    assert expire_objects().deleted == 0
    assert plots.readbytes("a.png") == b"permanent"


def test_a_move_that_fails_changes_no_deadline(disk: ExpiringFS) -> None:
    disk.writebytes("a.png", b"old")
    disk.expire("a.png", 30)  # which is less than the grace
    disk.expire("missing/a.png", 200)
    before = disk.expiration("a.png"), disk.expiration("missing/a.png")
    with pytest.raises(errors.ResourceNotFound):
        disk.move("a.png", "missing/a.png")
    assert (disk.expiration("a.png"), disk.expiration("missing/a.png")) == before


class CopiedOnly(MemoryFS):
    """Goes away after the first half of a move."""

    def move(self, src_path: str, dst_path: str, *_: Any) -> None:
        self.copy(src_path, dst_path, overwrite=True)
        raise errors.RemoteConnectionError(src_path)


class CopyingBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return CopiedOnly()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_copy_that_a_failed_move_left_does_not_stay_for_ever(
    djfs: Callable[..., None], records: dict[str, Any], overwrite: bool
) -> None:
    djfs(type="tests.test_filesystem.CopyingBackend", **records)
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 30)
    deadline = plots.expiration("a.png")
    with pytest.raises(errors.RemoteConnectionError):
        plots.move("a.png", "b.png", overwrite)
    assert (plots.expiration("a.png"), plots.expiration("b.png")) == (deadline, deadline)


def test_a_failed_move_onto_a_permanent_file_gives_it_no_deadline(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_filesystem.CopyingBackend", **records)
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"picture")
    plots.writebytes("b.png", b"permanent")
    plots.expire("a.png", 30)
    with pytest.raises(errors.RemoteConnectionError):
        plots.move("a.png", "b.png", overwrite=True)
    assert plots.expiration("b.png") is None


def test_movedir_carries_every_deadline_along(plots: ExpiringFS) -> None:
    plots.makedirs("d/e")
    for number, path in enumerate(["d/a.png", "d/e/b.png"]):
        plots.writebytes(path, b"old")
        plots.expire(path, 100 * (number + 1))
    plots.writebytes("d/c.png", b"permanent")
    plots.movedir("d", "f", create=True)
    assert not plots.exists("d")
    assert left(plots, "f/a.png") == pytest.approx(100, abs=40)
    assert left(plots, "f/e/b.png") == pytest.approx(200, abs=40)
    assert plots.expiration("f/c.png") is None


class WrittenMeanwhile(MemoryFS):
    """Has another writer, who is as fast as a move."""

    def move(self, src_path: str, dst_path: str, *_: Any) -> None:
        self.writebytes(dst_path, self.readbytes(src_path))
        self.remove(src_path)
        self.writebytes("d/other.png", b"permanent")


class WrittenBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return WrittenMeanwhile()


def test_what_is_written_into_a_directory_while_it_moves_is_not_lost(
    djfs: Callable[..., None],
) -> None:
    djfs(type="tests.test_filesystem.WrittenBackend")
    plots = get_filesystem("plots")
    plots.makedirs("d/e")
    plots.writebytes("d/e/a.png", b"picture")
    plots.movedir("d", "f", create=True)
    assert plots.listdir("d") == ["other.png"]
    assert plots.readbytes("f/e/a.png") == b"picture"


def test_a_directory_cannot_move_into_itself(disk: ExpiringFS) -> None:
    disk.makedirs("d/e")
    disk.writebytes("d/a.png", b"old")
    with pytest.raises(errors.OperationFailed):
        disk.movedir("d", "d/e")
    assert disk.exists("d/a.png")


@pytest.mark.parametrize("through", ["method", "fs.copy", "copydir"])
def test_a_copy_is_a_new_file_without_a_deadline(plots: ExpiringFS, through: str) -> None:
    plots.makedir("d")
    overdue(plots, "d/a.png")
    plots.makedir("f")
    if through == "method":
        plots.copy("d/a.png", "f/a.png")
    elif through == "fs.copy":
        fs.copy.copy_dir(plots, "d", plots, "f")
    else:
        plots.copydir("d", "f")
    expire_objects()
    assert plots.listdir("f") == ["a.png"]
    assert plots.expiration("f/a.png") is None


def test_no_file_is_moved_onto_a_directory(plots: ExpiringFS) -> None:
    plots.makedir("there")
    plots.writebytes("there/kept", b"kept")
    plots.writebytes("moved", b"moved")
    for destination in "there", "there/":
        with pytest.raises(errors.FileExpected):
            plots.move("moved", destination, overwrite=True)
    assert {*plots.walk.files()} == {"/moved", "/there/kept"}


def test_a_copy_onto_itself_changes_nothing(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 100)
    deadline = plots.expiration("a.png")
    plots.copy("a.png", "/a.png", overwrite=True)
    assert plots.readbytes("a.png") == b"picture"
    assert plots.expiration("a.png") == deadline
    with pytest.raises(errors.DestinationExists):
        plots.copy("a.png", "/a.png")


def test_the_short_cuts_of_fs_move_forget_what_they_took_away(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    overdue(disk, "a.png")
    with fs.open_fs(f"osfs://{tmp_path}") as elsewhere:
        fs.move.move_file(disk, "a.png", elsewhere, "moved.png")
    disk.writebytes("a.png", b"new")
    assert expire_objects().deleted == 0


def test_the_short_cuts_of_fs_move_start_a_new_life_where_they_write(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    overdue(disk, "a.png")
    (tmp_path / "new.png").write_bytes(b"new")
    with fs.open_fs(f"osfs://{tmp_path}") as elsewhere:
        fs.move.move_file(elsewhere, "new.png", disk, "a.png")
    assert expire_objects().deleted == 0
    assert disk.readbytes("a.png") == b"new"


# -- sub-filesystems, closing


def test_a_sub_filesystem_has_the_same_methods(plots: ExpiringFS) -> None:
    inner = plots.makedir("d").opendir("/")
    inner.writebytes("a.png", b"old")
    inner.expire("a.png", 100)
    assert inner.expiration("a.png") == plots.expiration("d/a.png")
    inner.expire_many(["a.png"], 0)
    expire_objects()
    assert not inner.exists("a.png")
    assert plots.opendir("/").opendir("/").expiration("d/a.png") is None


def test_closing_one_filesystem_closes_no_other(plots: ExpiringFS) -> None:
    with get_filesystem("plots") as other:
        other.writebytes("a.png", b"picture")
    assert other.isclosed()
    with pytest.raises(errors.FilesystemClosed):
        other.writebytes("a.png", b"picture")
    assert plots.readbytes("a.png") == b"picture"
    assert get_filesystem("plots").exists("a.png")


# -- default lives


@pytest.fixture
def memos(djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]) -> ExpiringFS:
    """A filesystem with a default life of 100 s."""
    djfs(**place, **records, namespaces={"memos/*": {"default_ttl": 100, "max_ttl": 1_000}})
    return get_filesystem("memos/of/today")


@pytest.mark.parametrize("write", WRITES)
def test_every_write_registers_the_default_life(memos: ExpiringFS, write: str) -> None:
    memos.writebytes("other", b"other")
    overdue(memos, "a.png")
    WRITES[write](memos, "a.png")
    assert left(memos, "a.png") == pytest.approx(100, abs=40)


def test_a_rewrite_keeps_a_deadline_that_was_set_by_hand(memos: ExpiringFS) -> None:
    memos.writebytes("a.png", b"old")
    memos.expire("a.png", 500)
    memos.writebytes("a.png", b"new")
    assert left(memos, "a.png") > 400


def test_a_record_is_there_before_the_first_byte(memos: ExpiringFS) -> None:
    with memos.open("a.png", "wb"):
        assert memos.expiration("a.png") is not None


def test_the_default_life_begins_when_the_write_has_ended(memos: ExpiringFS) -> None:
    with memos.open("a.png", "wb"):
        begun = memos.expiration("a.png")
    ended = memos.expiration("a.png")
    assert begun
    assert ended
    assert ended > begun


def test_a_write_that_comes_to_nothing_leaves_no_record(memos: ExpiringFS) -> None:
    with pytest.raises((errors.FSError, OSError)):
        memos.upload("a.png", Unreadable())
    assert memos.expiration("a.png") is None


SET_BY_HAND: dict[str, Callable[[ExpiringFS], object]] = {
    "extended": lambda fs: fs.expire("a.png", 500),
    "permanent": lambda fs: fs.expire("a.png", expires=False),
}


@pytest.mark.parametrize("by_hand", SET_BY_HAND)
def test_what_is_set_by_hand_during_a_long_write_holds_from_then_on(
    djfs: Callable[..., None], records: dict[str, Any], by_hand: str
) -> None:
    djfs(type="memory", **records, grace=1, default_ttl=100)
    memos = get_filesystem("memos")
    with memos.open("a.png", "wb") as file:
        SET_BY_HAND[by_hand](memos)
        expected = memos.expiration("a.png")
        file.write(b"more")
    assert memos.expiration("a.png") == expected


def test_a_long_write_that_fails_leaves_an_extension_as_it_is(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records, grace=1)
    plots = get_filesystem("plots")

    class Extending(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            if left(plots, "a.png") > 400:
                raise OSError(errno.EIO, "the client hung up")
            plots.expire("a.png", 500)
            return b"more"

    plots.expire("a.png", 100)
    with pytest.raises(OSError, match="hung up"):
        plots.upload("a.png", Extending())
    assert left(plots, "a.png") > 400


def test_a_life_longer_than_the_longest_is_refused(memos: ExpiringFS) -> None:
    with pytest.raises(InvalidLifetime, match="max_ttl"):
        memos.expire("a.png", 1_001)
    assert memos.expiration("a.png") is None


def test_other_namespaces_have_no_default_life(memos: ExpiringFS) -> None:
    others = get_filesystem("others")
    others.writebytes("a.png", b"picture")
    assert others.expiration("a.png") is None


def test_an_entry_for_a_prefix_is_none_for_the_directory_itself(memos: ExpiringFS) -> None:
    above = get_filesystem("memos")
    above.makedirs("of/today", recreate=True)
    for name in "a.png", "of/today/b.png":
        above.writebytes(name, b"picture")
    assert above.expiration("a.png") is None
    assert above.expiration("of/today/b.png") == memos.expiration("b.png")
    assert memos.expiration("b.png")


# -- addresses


@pytest.mark.parametrize("name", ODD)
def test_an_address_on_disk_is_quoted(djfs: Callable[..., None], tmp_path: Path, name: str) -> None:
    from urllib.parse import unquote

    djfs(type="osfs", directory_root=tmp_path, url_root="//cdn.example/files/")
    address = get_filesystem("plots/today").get_url(name, timeout=5)
    assert unquote(address) == f"//cdn.example/files/plots/today/{name}"
    assert not set(address) & set(" ?#\"'<>")


def test_an_address_on_disk_needs_no_record_store(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path, url_root="/m", redis_url=f"redis://{HOST}:1")
    assert get_filesystem("plots").get_url("a.png") == "/m/plots/a.png"


@pytest.fixture
def bucket(
    djfs: Callable[..., None], s3_endpoint: str, request: pytest.FixtureRequest
) -> ExpiringFS:
    from tests.conftest import BUCKET, KEYS

    djfs(
        type="s3fs", bucket=BUCKET, endpoint_url=s3_endpoint, prefix=request.node.name[:99], **KEYS
    )
    return get_filesystem("plots")


def life_of(address: str) -> int:
    from urllib.parse import parse_qs, urlsplit

    return int(parse_qs(urlsplit(address).query)["X-Amz-Expires"][0])


def test_an_address_on_s3_brings_back_the_file(bucket: ExpiringFS) -> None:
    bucket.writebytes("d/a b.png", b"picture")
    with urlopen(bucket.get_url("d/a b.png")) as answer:
        assert answer.read() == b"picture"


def test_an_address_on_s3_never_outlives_the_file(bucket: ExpiringFS) -> None:
    assert life_of(bucket.get_url("a.png", 30)) == 30
    assert life_of(bucket.get_url("a.png")) == 3_600
    bucket.expire("a.png", 100)
    assert life_of(bucket.get_url("a.png", 30)) == 30
    assert 90 <= life_of(bucket.get_url("a.png", 500)) <= 100
    assert 90 <= life_of(bucket.get_url("a.png")) <= 100
    bucket.expire("a.png", days=30)
    assert life_of(bucket.get_url("a.png")) == 604_800
    bucket.expire("a.png", 0)
    assert life_of(bucket.get_url("a.png")) == 1


@pytest.mark.parametrize("timeout", [-1, 0.5, math.nan, "60", "", False, True], ids=str)
def test_a_bad_timeout_is_one_error(bucket: ExpiringFS, timeout: Any) -> None:
    with pytest.raises(InvalidLifetime):
        bucket.get_url("a.png", timeout)


def test_a_bad_timeout_is_an_error_also_where_addresses_last(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path, url_root="/files/")
    with pytest.raises(InvalidLifetime):
        get_filesystem("plots").get_url("a.png", 0.5)


@pytest.mark.parametrize("timeout", [604_801, 36_000_000])
def test_a_timeout_beyond_what_s3_signs_is_cut_with_a_warning(
    bucket: ExpiringFS, timeout: int
) -> None:
    with pytest.warns(UserWarning, match="longer than 604800 s") as told:
        assert life_of(bucket.get_url("a.png", timeout)) == 604_800
    assert [warning.filename for warning in told] == [__file__]


def test_no_timeout_is_the_default_one(bucket: ExpiringFS) -> None:
    assert life_of(bucket.get_url("a.png", timeout=None)) == 3_600
    assert life_of(bucket.makedir("d").get_url("a.png", None)) == 3_600


# -- the record store is away


def test_what_redis_knows_nothing_of_goes_on_while_it_is_away(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path, url_root="/m", redis_url=f"redis://{HOST}:1")
    tmp_path.joinpath("plots").mkdir()
    tmp_path.joinpath("plots/a.png").write_bytes(b"picture")
    plots = get_filesystem("plots")
    assert plots.readbytes("a.png") == b"picture"
    assert plots.open("a.png", "rb").read() == b"picture"
    assert plots.listdir("/") == ["a.png"]
    assert plots.getinfo("a.png").name == "a.png"
    assert plots.get_url("a.png") == "/m/plots/a.png"
    assert plots.makedirs("d/e").listdir("/") == []


def test_what_redis_must_know_of_is_an_error_of_files_and_of_the_system(
    bucket: ExpiringFS, djfs: Callable[..., None], settings: Any
) -> None:
    bucket.writebytes("a.png", b"picture")
    djfs(**{**settings.DJFS, "redis_url": f"redis://{HOST}:1"})
    plots = get_filesystem("plots")
    calls: list[Callable[[], Any]] = [
        lambda: plots.writebytes("a.png", b""),
        lambda: plots.open("a.png", "wb"),
        lambda: plots.remove("a.png"),
        lambda: plots.move("a.png", "b.png"),
        lambda: plots.get_url("a.png"),
    ]
    for call in calls:
        with pytest.raises(errors.FSError) as raised:
            call()
        assert isinstance(raised.value, OSError)
    assert plots.readbytes("a.png") == b"picture"


@pytest.mark.parametrize("kind", [BackendUnavailable, FileBusy, RecordStoreUnavailable])
def test_the_message_of_an_error_stands_as_it_is_also_in_another_process(
    kind: type[errors.FSError],
) -> None:
    error = pickle.loads(pickle.dumps(kind("refused: {00}")))
    assert type(error) is kind
    assert str(error) == "refused: {00}"
    assert repr(error) == f"{kind.__name__}('refused: {{00}}')"


def test_a_redis_that_is_away_is_one_error(djfs: Callable[..., None]) -> None:
    djfs(type="memory", redis_url=f"redis://:secret@{HOST}:1/0")
    plots = get_filesystem("plots")
    calls: list[Callable[[], Any]] = [
        lambda: plots.expire("a.png", 5),
        lambda: plots.writebytes("a.png", b""),
        lambda: plots.expiration("a.png"),
        expire_objects,
    ]
    for call in calls:
        with pytest.raises(RecordStoreUnavailable, match=f"{HOST}:1/0") as raised:
            call()
        assert "secret" not in str(raised.value)
    assert not plots.exists("a.png")


def test_a_redis_that_hangs_is_one_error_within_five_seconds(djfs: Callable[..., None]) -> None:
    with socket.create_server((HOST, 0)) as silent:
        djfs(type="memory", redis_url=f"redis://{HOST}:{silent.getsockname()[1]}/0")

        def seconds() -> float:
            started = time.monotonic()
            with pytest.raises(DjpyfsError):
                get_filesystem("plots").expire("a.png", 5)
            return time.monotonic() - started

        assert any(seconds() < 5 for _ in range(3))  # a busy machine may hold up some


def test_deadlines_are_aware(plots: ExpiringFS) -> None:
    plots.expire("a.png", 5)
    deadline = plots.expiration("a.png")
    assert deadline
    assert deadline.utcoffset() == timedelta(0)


# -- between two filesystems


@pytest.mark.parametrize(
    "elsewhere",
    [
        lambda: get_filesystem("plots"),
        lambda: get_filesystem("others"),
        lambda: get_filesystem("plots").makedir("d", recreate=True),
    ],
    ids="twice another sub".split(),
)
def test_a_move_between_two_filesystems_carries_the_deadline(
    plots: ExpiringFS, elsewhere: Callable[[], Any]
) -> None:
    target = elsewhere()
    for name in "a.png", "b.png", "kept.png":
        plots.writebytes(name, b"picture")
    plots.expire_many(["a.png", "b.png"], 30)
    deadline = plots.expiration("a.png")
    fs.move.move_file(plots, "a.png", target, "moved.png")
    assert (plots.expiration("a.png"), target.expiration("moved.png")) == (None, deadline)
    fs.move.move_file(plots, "kept.png", target, "kept too.png")
    assert target.expiration("kept too.png") is None
    fs.copy.copy_file(plots, "b.png", target, "copy.png")
    assert target.expiration("copy.png") is None


def test_the_move_of_a_directory_to_another_filesystem_carries_the_deadlines(
    plots: ExpiringFS,
) -> None:
    plots.makedir("d")
    plots.writebytes("d/a.png", b"picture")
    plots.expire("d/a.png", 30)
    deadline = plots.expiration("d/a.png")
    other = get_filesystem("others")
    fs.move.move_dir(plots, "d", other, "e")
    assert other.expiration("e/a.png") == deadline
    assert not plots.exists("d/a.png")


def test_two_that_move_a_file_to_and_fro_keep_its_deadline(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records)
    plots = get_filesystem("plots")
    plots.writebytes("x", b"picture")
    plots.expire("x", 300)
    deadline = plots.expiration("x")

    def move(names: tuple[str, str]) -> None:
        for _ in range(50):
            with suppress(errors.ResourceNotFound, errors.DestinationExists):
                plots.move(*names)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(move, [("x", "y"), ("y", "x")]))
    [name] = plots.listdir("/")
    assert plots.expiration(name) == deadline


class NotingMoves(MemoryFS):
    """Notes whether there is a file where another one moves to."""

    replaced: ClassVar[list[bool]] = []

    def move(self, src_path: str, dst_path: str, *options: Any) -> None:
        self.replaced.append(self.exists(dst_path))
        super().move(src_path, dst_path, *options)  # type: ignore[no-untyped-call]


class NotingBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return NotingMoves()


def test_what_a_permanent_file_replaces_is_gone_before_it_moves(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_filesystem.NotingBackend", **records)
    NotingMoves.replaced.clear()
    plots = get_filesystem("plots")
    overdue(plots, "a.png")
    plots.writebytes("b.png", b"permanent")
    plots.move("b.png", "a.png", overwrite=True)
    assert NotingMoves.replaced == [False]


class FullDisk(MemoryFS):
    """Has no room for what is written."""

    def openbin(self, *arguments: Any, **options: Any) -> Any:
        class Full(WholeOrNot, io.BytesIO):
            def write(self, data: Any) -> int:
                with self._broken_by_error():
                    raise OSError(errno.ENOSPC, "No space left on device")

        return Full()


class FullBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return FullDisk()


def test_a_file_that_is_closed_after_a_write_has_failed_starts_no_new_life(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_filesystem.FullBackend", **records)
    plots = get_filesystem("plots")
    plots.expire("a.png", 0)
    deadline = plots.expiration("a.png")
    file = plots.open("a.png", "wb")
    with pytest.raises(OSError, match="No space left"):
        file.write(b"picture")
    file.close()
    assert plots.expiration("a.png") == deadline


class PlainBackend(MemoryBackend):
    """Opens files as PyFilesystem has them, which cannot be discarded."""

    def make_filesystem(self, namespace: str) -> FS:
        return MemoryFS()


def test_a_back_end_without_discard_keeps_what_was_written_and_its_deadline(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_filesystem.PlainBackend", default_ttl=300, **records)
    plots = get_filesystem("plots")
    with suppress(ZeroDivisionError), plots.open("a.txt", "w") as file:
        file.write("half")
        raise ZeroDivisionError
    assert plots.readtext("a.txt") == "half"
    assert plots.expiration("a.txt")


@pytest.mark.parametrize("seconds", [None, 300])
def test_a_move_onto_the_same_file_under_its_other_name_changes_nothing(
    djfs: Callable[..., None],
    place: dict[str, Any],
    records: dict[str, Any],
    seconds: float | None,
) -> None:
    djfs(**place, **records)
    inner, outer = get_filesystem("x/y"), get_filesystem("x")
    inner.writebytes("f", b"picture")
    if seconds:
        inner.expire("f", seconds)
    deadline = inner.expiration("f")
    for source, path, target, name in (
        (inner, "f", outer, "y/f"),
        (outer, "y/f", outer.opendir("y"), "f"),
        (inner, "f", get_filesystem("x/y"), "f"),
    ):
        fs.move.move_file(source, path, target, name)
        assert inner.readbytes("f") == b"picture"
        assert inner.expiration("f") == deadline


def test_two_that_move_a_file_to_and_fro_between_filesystems_do_not_lose_it(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records)
    there, back, other = (get_filesystem("plots") for _ in range(3))
    there.writebytes("x", b"picture")
    there.expire("x", 300)
    with there.lock(), back.lock():  # as fs.move does it
        fs.copy.copy_file(there, "x", other, "y")
        fs.copy.copy_file(back, "y", other, "x")
        back.remove("y")
        with pytest.raises(errors.OperationFailed, match="its copy is gone"):
            there.remove("x")
    assert other.listdir("/") == ["x"]
    assert other.expiration("x")


class Forgetful(MemoryFS):
    """Empties Redis when it is asked for a file."""

    def isfile(self, path: str) -> bool:
        settings = conf.current()
        with closing(redis.Redis.from_url(settings.redis_url)) as client:
            client.delete(*client.scan_iter(f"{settings.key_prefix}:*"), "none")
        return super().isfile(path)


class ForgetfulBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return Forgetful()


def test_a_move_whose_claim_is_over_moves_nothing(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    backend = "tests.test_filesystem.ForgetfulBackend"
    djfs(type=backend, redis_url=redis_server.local_url, key_prefix=uuid.uuid4().hex)
    source, target = get_filesystem("a"), get_filesystem("b")
    source.writebytes("f", b"picture")
    source.expire("f", 300)
    with pytest.raises(FileBusy, match="lost its claim"):
        fs.move.move_file(source, "f", target, "f")
    assert source.readbytes("f") == b"picture"


def test_one_slow_write_keeps_no_other_from_the_filesystem(plots: ExpiringFS) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, *size: Any) -> bytes:
            begun.set()
            assert go_on.wait(60)
            return super().read(*size)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(plots.writefile, "slow", Slow(b"picture"))
        assert begun.wait(60)
        plots.writefile("quick", io.BytesIO(b"picture"))
        plots.touch("touched")
        go_on.set()
        slow.result(60)
    assert sorted(plots.listdir("/")) == ["quick", "slow", "touched"]


@pytest.mark.parametrize("place", ["osfs", "memory"], indirect=True)
def test_what_a_child_drops_its_parent_still_writes(plots: ExpiringFS) -> None:
    file = plots.open("a.png", "wb")
    file.write(b"picture")
    file.flush()
    child = os.fork()
    if not child:
        file.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert not plots.exists("a.png")
    file.close()
    assert plots.readbytes("a.png") == b"picture"


# -- one file under two names


def test_a_file_has_one_deadline_by_whatever_name_it_is_called(
    djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]
) -> None:
    djfs(**place, **records)
    inner, outer = get_filesystem("x/y"), get_filesystem("x")
    inner.writebytes("f", b"picture")
    inner.expire("f", 0)
    outer.expire("y/f", 3_600)
    assert expire_objects().deleted == 0
    assert inner.expiration("f") == outer.expiration("y/f") == outer.opendir("y").expiration("f")
    outer.move("y/f", "y/g")
    assert inner.expiration("g")
    inner.remove("g")
    assert outer.expiration("y/g") is None
