"""Files that are written again, and writes that fail, last, or overlap."""

from __future__ import annotations

import errno
import gc
import io
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS
from fs.tempfs import TempFS

from djpyfs import expire_objects, get_filesystem
from djpyfs.backends import Backend
from djpyfs.backends.memory import MemoryBackend
from djpyfs.backends.spool import WholeOrNot
from djpyfs.errors import WriteLost
from djpyfs.filesystem import ExpiringFS
from tests.conftest import files_beneath
from tests.filesystem.steps import WRITES, Unreadable, left, overdue
from tests.servers import wait_for


def test_a_rewrite_keeps_the_deadline(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 100)
    deadline = plots.expiration("a.png")
    with plots.open("a.png", "wb") as file:
        file.write(b"new")
    assert plots.expiration("a.png") == deadline


@pytest.mark.parametrize("write", WRITES)
def test_writing_to_an_expired_path_starts_a_new_life(plots: ExpiringFS, write: str) -> None:
    plots.writebytes("other", b"other")
    overdue(plots, "a.png")
    WRITES[write](plots, "a.png")
    assert expire_objects().deleted == 0
    assert plots.exists("a.png")
    assert plots.expiration("a.png") is None


@pytest.mark.parametrize("write", WRITES)
def test_a_file_written_shortly_before_its_deadline_lives_for_the_grace(
    plots: ExpiringFS, write: str
) -> None:
    plots.writebytes("other", b"other")
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 30)
    WRITES[write](plots, "a.png")
    assert 31 < left(plots, "a.png") < 61


class PartFS(MemoryFS):
    """Its disk is full after two bytes."""

    def upload(self, path: str, file: Any, *_: Any, **__: Any) -> None:
        self.writebytes(path, file.read(2))
        raise errors.InsufficientStorage(path)


class PartBackend(Backend):
    """A backend of somebody's own, which says nothing of parts."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._files = PartFS()

    def make_filesystem(self, namespace: str) -> FS:
        return self._files

    def url(self, *_: Any) -> str:
        raise errors.NoURL("", "download")


def test_a_part_that_a_failed_write_leaves_on_a_backend_of_ones_own_has_a_deadline(
    djfs: Callable[..., None],
) -> None:
    djfs(type=f"{__name__}.PartBackend", default_ttl=60)
    plots = get_filesystem("plots")
    with pytest.raises(errors.InsufficientStorage):
        plots.upload("a", io.BytesIO(b"picture"))
    assert plots.readbytes("a") == b"pi"
    assert plots.expiration("a")


class CopyingBackend(PartBackend):
    """A backend of somebody's own, on a filesystem that copies into a directory."""

    def make_filesystem(self, namespace: str) -> FS:
        return TempFS()


def test_on_a_backend_of_ones_own_nothing_is_copied_into_a_directory_without_a_record(
    djfs: Callable[..., None],
) -> None:
    djfs(type=f"{__name__}.CopyingBackend")
    plots = get_filesystem("plots")
    plots.writebytes("a", b"picture")
    plots.makedir("d")
    with pytest.raises(errors.FileExpected):
        plots.copy("a", "d", overwrite=True)
    assert plots.listdir("d") == []


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
    grace = 4  # and so for how long this process may stand still
    djfs(**place, **records, grace=grace)
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 1)
    end = time.monotonic() + 1 + grace
    with plots.open("a.png", "wb") as file:
        file.write(b"picture")
        while time.monotonic() < end:  # without another call of the file
            assert expire_objects().deleted == 0
            time.sleep(0.2)
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


@pytest.mark.parametrize("call", ["writetext", "settext"])
@pytest.mark.filterwarnings("ignore:settext")
def test_a_text_that_cannot_be_encoded_changes_nothing(plots: ExpiringFS, call: str) -> None:
    plots.writetext("a.txt", "old")
    plots.expire("a.txt", 100)
    before = plots.expiration("a.txt")
    for name in "a.txt", "b.txt":
        with pytest.raises(UnicodeEncodeError):
            getattr(plots, call)(name, "caf\xe9", encoding="ascii")
    assert plots.readtext("a.txt") == "old"
    assert plots.expiration("a.txt") == before
    assert plots.listdir("/") == ["a.txt"]
    getattr(plots, call)("a.txt", "caf\xe9", encoding="utf-16")
    assert plots.readtext("a.txt", encoding="utf-16") == "caf\xe9"


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
    plots.expire("a.png", 1)
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
    monkeypatch.setattr(files_beneath(), "isfile", lambda path: False)
    with pytest.raises(WriteLost, match=r"a\.png"):
        file.close()


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
    djfs(type="tests.filesystem.test_rewrites.FullBackend", **records)
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


def test_a_backend_without_discard_keeps_what_was_written_and_its_deadline(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.filesystem.test_rewrites.PlainBackend", default_ttl=300, **records)
    plots = get_filesystem("plots")
    with suppress(ZeroDivisionError), plots.open("a.txt", "w") as file:
        file.write("half")
        raise ZeroDivisionError
    assert plots.readtext("a.txt") == "half"
    assert plots.expiration("a.txt")


def test_one_slow_write_does_not_block_the_filesystem(plots: ExpiringFS) -> None:
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


@pytest.mark.parametrize("how", ["closes", "forgets"])
def test_a_file_that_a_child_process_drops_is_still_written_by_its_parent(
    plots: ExpiringFS, how: str
) -> None:
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 0)
    file = plots.open("a.png", "wb")
    file.write(b"half a ")
    file.flush()
    child = os.fork()
    if not child:
        if how == "closes":
            file.close()
        cycle: list[Any] = [file]
        cycle.append(cycle)
        del file, cycle
        gc.collect()  # closes what the file is made of in any order
        os._exit(0)
    os.waitpid(child, 0)
    expire_objects()
    assert plots.readbytes("a.png") == b"old"
    file.write(b"picture")
    file.close()
    assert plots.readbytes("a.png") == b"half a picture"
