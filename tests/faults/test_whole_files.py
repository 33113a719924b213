"""Writes on disk that appear whole or not at all, and disks that are told apart."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from fs.errors import FileExists

from djpyfs.backends import Backend, Outcome
from djpyfs.backends.osfs import DiskBackend
from djpyfs.backends.storage import StorageBackend
from djpyfs.errors import BackendUnavailable, FileBusy
from djpyfs.names import Entry
from tests.endless import Endless
from tests.faults.conftest import Measured
from tests.faults.processes import Actor
from tests.faults.test_disk import ROOT, mounted, with_failing_calls
from tests.servers import wait_for

OLD, NEW = b"o" * 200_000, b"n" * 100_000


@pytest.fixture
def backend(tmp_path: Path) -> DiskBackend:
    return DiskBackend({"directory_root": tmp_path / "files"})


@pytest.fixture
def files(backend: DiskBackend) -> Any:
    files = backend.open("plots")
    files.writebytes("a", OLD)
    return files


def unfinished(backend: DiskBackend) -> list[str]:
    return os.listdir(Path(backend.root, ".djpyfs", "writes"))


def delete(backend: DiskBackend, *paths: str) -> Outcome:
    return backend.delete([Entry("plots", path) for path in paths], Endless())


# -- whole or not there


def test_nothing_shows_until_a_file_is_closed(files: Any) -> None:
    for mode, whole in ("w", NEW), ("a", OLD + NEW), ("r+", NEW + OLD[len(NEW) :]):
        files.writebytes("a", OLD)
        with files.openbin("a", mode) as file:
            file.write(NEW)
            file.flush()
            assert files.readbytes("a") == OLD
        assert files.readbytes("a") == whole


@pytest.mark.parametrize("mode", ["w", "a", "r+"])
def test_a_discarded_write_leaves_the_old_contents(
    files: Any, backend: DiskBackend, mode: str
) -> None:
    with files.openbin("a", mode) as file:
        file.write(NEW)
        file.discard()
    assert files.readbytes("a") == OLD
    assert unfinished(backend) == []


def test_a_file_keeps_its_permissions(files: Any, tmp_path: Path) -> None:
    path = tmp_path / "files" / "plots" / "a"
    path.chmod(0o666)  # which a umask would not leave
    files.writebytes("a", NEW)
    assert path.stat().st_mode & 0o777 == 0o666


def overwrite(root: str, times: int) -> None:
    files = DiskBackend({"directory_root": root}).open("plots")
    for number in range(times):
        files.writebytes("a", (OLD, NEW)[number % 2])


@pytest.mark.fault("readers during 10,000 overwrites by two writers", "whole files only")
def test_readers_find_whole_files_while_others_overwrite_them(
    files: Any, backend: DiskBackend, full: bool, measured: Measured
) -> None:
    times = 5_000 if full else 100
    writers = [Actor({}, overwrite, backend.root, times) for _ in range(2)]
    done, seen = Event(), 0

    def read() -> int:
        count = 0
        while not done.is_set():
            assert files.readbytes("a") in (OLD, NEW)
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for writer in writers:
                writer.result(timeout=300)
        finally:
            done.set()
        seen = sum(reader.result() for reader in readers)
    for writer in writers:
        writer.kill()
    assert seen
    measured(f"{2 * times:,} overwrites, {seen:,} whole files read, 0 torn")


def test_of_many_that_create_one_file_exclusively_one_succeeds(files: Any) -> None:
    start = Barrier(20)

    def save(number: int) -> int | None:
        try:
            with files.openbin("new", "x") as file:
                file.write(b"%d" % number)
                start.wait()
        except FileExists:
            return None
        return number

    with ThreadPoolExecutor(20) as pool:
        [saved] = [n for n in pool.map(save, range(20)) if n is not None]
    assert files.readbytes("new") == b"%d" % saved
    with pytest.raises(FileExists):
        files.openbin("new", "x")


# -- writers that die


def write_for_ever(root: str) -> None:
    files = DiskBackend({"directory_root": root}).open("plots")
    while True:
        with files.openbin("a", "w") as file:
            file.write(NEW)
            file.flush()


@pytest.mark.fault("200 writers killed at random moments", "the next sweep leaves nothing of them")
def test_a_sweep_leaves_nothing_behind_of_writers_that_died(
    files: Any, backend: DiskBackend, full: bool, measured: Measured
) -> None:
    with files.openbin("mine", "w") as mine:
        count, left = (200 if full else 3), 0
        for _ in range(count):
            writer = Actor({}, write_for_ever, backend.root)
            wait_for(lambda left=left: len(unfinished(backend)) > left + 1)  # type: ignore[misc]
            writer.kill()
            left = len(unfinished(backend)) - 1
        backend.tidy()
        assert len(unfinished(backend)) == 1, "what is being written is not touched"
        mine.write(NEW)
    assert files.readbytes("mine") == NEW
    assert unfinished(backend) == []
    measured(f"{count} killed, {left} files left behind, 0 after the sweep")


# -- other devices


@pytest.fixture
def other_device(files: Any, tmp_path: Path) -> Any:
    directory = tmp_path / "files" / "plots" / "mounted"
    directory.mkdir()
    with mounted(directory) as is_one:
        if not is_one:
            pytest.skip("no disk can be mounted here")
        yield directory


def test_a_file_on_a_disk_below_the_root_is_whole_or_not_there(
    files: Any, backend: DiskBackend, other_device: Path
) -> None:
    files.writebytes("mounted/b", b"old")
    with files.openbin("mounted/b", "a") as file:
        file.write(b" and new")
        assert files.listdir("mounted") == ["b"]
        assert [info.name for info in files.scandir("mounted")] == ["b"]
        assert len(os.listdir(other_device)) == 2
        backend.tidy()
        assert len(os.listdir(other_device)) == 2
    assert files.readbytes("mounted/b") == b"old and new"
    assert (os.listdir(other_device), unfinished(backend)) == (["b"], [])


def write_below_and_die(root: str, child_drops_it: bool) -> None:
    files = DiskBackend({"directory_root": root}).open("plots")
    file = files.openbin("mounted/b", "w")
    file.write(b"half")
    if child_drops_it:
        child = os.fork()
        if not child:
            file.close()
        else:
            os.waitpid(child, 0)
    os._exit(0)


@pytest.mark.parametrize("child_drops_it", [False, True])
def test_a_sweep_leaves_nothing_behind_on_another_disk_of_writers_that_died(
    files: Any, backend: DiskBackend, other_device: Path, child_drops_it: bool
) -> None:
    writer = os.fork()
    if not writer:
        write_below_and_die(backend.root, child_drops_it)
    os.waitpid(writer, 0)
    assert len(os.listdir(other_device)) == 1
    backend.tidy()
    assert (os.listdir(other_device), unfinished(backend)) == ([], [])


# -- deletions that freeze

SWEEP = """
import sys
import djpyfs  # before fs
from django.conf import settings
from tests.faults.test_whole_files import storages_at
root = sys.argv[1]
settings.configure(DJFS={}, STORAGES=storages_at(root))
from djpyfs.backends.osfs import DiskBackend
from djpyfs.backends.storage import StorageBackend
from djpyfs.names import Entry
from tests.endless import Endless
backend = StorageBackend({}) if sys.argv[2] == "storage" else DiskBackend({"directory_root": root})
backend.delete([Entry("plots", "a")], Endless())
"""


@pytest.fixture(params=["osfs", "storage"])
def locking(request: pytest.FixtureRequest, backend: DiskBackend, settings: Any) -> Backend:
    """A backend whose deletions hold the directory: on disk, by itself and as a storage."""
    if request.param == "osfs":
        return backend
    settings.STORAGES = storages_at(backend.root)
    return StorageBackend({})


def storages_at(root: str) -> dict[str, Any]:
    storage = "django.core.files.storage.FileSystemStorage"
    return {"default": {"BACKEND": storage, "OPTIONS": {"location": root}}}


@pytest.mark.fault("a sweeper frozen between look and unlink", "no newer file is taken")
def test_no_newer_file_is_taken_by_a_sweeper_that_is_frozen_before_it_deletes(
    backend: DiskBackend, locking: Backend, measured: Measured
) -> None:
    seconds, files = 8, locking.open("plots")
    command = with_failing_calls(f"unlinkat:delay_enter={seconds}000000:when=1")
    entry = Entry("plots", "a")
    for name in "ab":
        files.writebytes(name, NEW)
    kind = "osfs" if locking is backend else "storage"
    sweep = [sys.executable, "-c", SWEEP, backend.root, kind]
    frozen = subprocess.Popen([*command, *sweep], cwd=ROOT)
    wait_for(lambda: is_held(f"{backend.root}/plots"))
    with ThreadPoolExecutor() as pool:
        acts = [
            pool.submit(locking.fence, entry),
            pool.submit(files.writebytes, "a", NEW),
            pool.submit(files.move, "b", "a", overwrite=True),
        ]
        for act in acts:
            with pytest.raises(FileBusy):
                act.result()
    assert unfinished(backend) == []
    assert frozen.wait(60) == 0
    locking.fence(entry)
    files.writebytes("a", NEW)
    assert files.readbytes("a") == NEW
    measured(f"frozen for {seconds} s: FileBusy, and no newer file taken")


DELETE_OFTEN = """
import os, sys
import djpyfs  # before fs
from djpyfs.backends.osfs import DiskBackend
from djpyfs.errors import BackendUnavailable
from djpyfs.names import Entry
from tests.endless import Endless
backend = DiskBackend({"directory_root": sys.argv[1]})
for _ in range(3):
    try:
        backend.delete([Entry("plots", "a")], Endless())
    except BackendUnavailable:
        print(len(os.listdir("/proc/self/fd")))
"""


def test_a_deletion_that_breaks_off_because_its_disk_is_away_leaves_no_directory_open(
    files: Any, backend: DiskBackend
) -> None:
    files.writebytes("b", NEW)  # so that the directory stays
    command = with_failing_calls("flock:error=ESTALE:when=2+2")  # every time it is given back
    delete_often = [sys.executable, "-c", DELETE_OFTEN, backend.root]
    done = subprocess.run([*command, *delete_often], cwd=ROOT, capture_output=True, check=True)
    first, *others = done.stdout.split()
    assert others == [first, first]


def is_held(directory: str) -> bool:
    opened = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False


@pytest.fixture(params=["new", "known"])
def used_backend(request: pytest.FixtureRequest, files: Any, backend: DiskBackend) -> DiskBackend:
    """A backend that has deleted in this directory already, or has not."""
    if request.param == "known":
        learn(files, backend)
    return backend


def learn(files: Any, backend: DiskBackend) -> None:
    """Let a backend learn that the disk dates its directories."""
    files.writebytes("early", NEW)
    time.sleep(0.02)  # longer than a tick of the clock that dates files
    delete(backend, "early")


def test_each_file_is_looked_at_if_its_directory_cannot_be_held(
    files: Any, backend: DiskBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(files, backend)

    def has_no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    class Meanwhile(Endless):
        """A lease that is asked before each file, when another process writes the second."""

        asked = 0

        def remaining(self) -> float:
            self.asked += 1
            if self.asked == 3:
                time.sleep(0.02)  # longer than a tick of the clock that dates files
                files.writebytes("written", NEW)
            return 1

    monkeypatch.setattr(fcntl, "flock", has_no_locks)
    outcome = backend.delete([Entry("plots", "a"), Entry("plots", "written")], Meanwhile())
    assert outcome == Outcome(deleted=[Entry("plots", "a")])
    assert files.readbytes("written") == NEW


def test_a_file_written_since_a_batch_began_is_not_attempted(
    files: Any, used_backend: DiskBackend
) -> None:
    class Meanwhile(Endless):
        """A lease that is asked before each file, when another process writes one of them."""

        def remaining(self) -> float:
            if not files.exists("written"):
                time.sleep(0.02)  # longer than a tick of the clock that dates files
                files.writebytes("written", NEW)
            return 1

    outcome = used_backend.delete([Entry("plots", "a"), Entry("plots", "written")], Meanwhile())
    assert outcome == Outcome(deleted=[Entry("plots", "a")])
    assert files.readbytes("written") == NEW


def test_a_file_written_between_a_claim_and_its_batch_is_not_attempted(
    files: Any, used_backend: DiskBackend
) -> None:
    time.sleep(0.02)  # longer than a tick of the clock that dates files
    lease = Endless()
    lease.mark = used_backend.mark()
    time.sleep(0.02)
    files.writebytes("written", NEW)
    outcome = used_backend.delete([Entry("plots", "a"), Entry("plots", "written")], lease)
    assert outcome == Outcome(deleted=[Entry("plots", "a")])
    assert files.readbytes("written") == NEW


# -- which disk it is


def test_a_root_is_one_place_under_every_path_and_no_other_root_is_that_place(
    backend: DiskBackend, tmp_path: Path
) -> None:
    here = backend.place(make=True)
    (tmp_path / "link").symlink_to(tmp_path / "files")
    assert DiskBackend({"directory_root": tmp_path / "link"}).place() == here
    assert DiskBackend({"directory_root": tmp_path / "other"}).place(make=True) != here


def test_reading_makes_no_place(backend: DiskBackend) -> None:
    with pytest.raises(BackendUnavailable):
        backend.place()
    with pytest.raises(BackendUnavailable, match="directory_root is away"):
        delete(backend, "a")
    assert backend.open("plots").listdir("/") == []
    assert not backend.answers()
    assert not os.path.exists(backend.root)


def test_a_directory_can_be_made_in_a_root_that_is_not_there_yet(backend: DiskBackend) -> None:
    backend.open("").makedir("plots")
    assert sorted(os.listdir(backend.root)) == [".djpyfs", "plots"]


def test_many_processes_that_make_one_place_at_once_agree(tmp_path: Path) -> None:
    for round_ in range(5):
        start, root = Barrier(8), tmp_path / str(round_)

        def make(_: int, start: Barrier = start, root: Path = root) -> str:
            backend = DiskBackend({"directory_root": root})
            start.wait()
            return backend.place(make=True)

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(make, range(8)))) == 1


def test_nothing_is_deleted_if_another_disk_is_mounted_in_place_of_one(
    files: Any, backend: DiskBackend, tmp_path: Path
) -> None:
    before = backend.place()
    (tmp_path / "files").rename(tmp_path / "unmounted")
    DiskBackend({"directory_root": tmp_path / "files"}).open("plots").writebytes("a", NEW)
    with pytest.raises(BackendUnavailable):
        delete(backend, "a")
    assert backend.open("plots").readbytes("a") == NEW
    assert backend.place() != before


def test_nothing_is_written_below_the_mount_point_of_a_disk_that_is_no_longer_mounted(
    tmp_path: Path,
) -> None:
    root = tmp_path / "mounted"
    root.mkdir()
    backend = DiskBackend({"directory_root": root})
    with mounted(root) as is_one:
        if not is_one:
            pytest.skip("no disk can be mounted here")
        backend.open("plots").writebytes("a", b"old")
    for act in (
        lambda: backend.open("plots").writebytes("a", b"new"),
        lambda: backend.place(make=True),
        lambda: backend.place(),
        lambda: delete(backend, "a"),
    ):
        with pytest.raises(BackendUnavailable, match="mount its disk again"):
            act()
    assert os.listdir(root) == []
