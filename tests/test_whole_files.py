"""Files that appear as a whole, on the back-ends that keep a copy of what is being written."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any, BinaryIO, cast

import pytest
from fs import errors
from fs.base import FS

from djpyfs import conf, get_filesystem
from djpyfs.backends import backend_for, close_all
from djpyfs.backends.memory import MemoryBackend
from djpyfs.names import Entry
from tests.endless import Endless
from tests.test_opener import Ftp
from tests.test_storage_backend import IN_MEMORY, on_disk

WRITERS = 20


@pytest.fixture(scope="module")
def ftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftp]:
    server = Ftp(tmp_path_factory.mktemp("ftp"))
    server.start()
    try:
        yield server
    finally:
        close_all()  # while there is somebody to say good-bye to
        server.stop()


@pytest.fixture(
    params=["memory", "mem://", "temp://", "osfs://", "ftp://", "storage", "storage-on-disk"]
)
def place(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> dict[str, Any]:
    """The part of DJFS that says where files are kept."""
    settings.STORAGES = on_disk(tmp_path) if request.param == "storage-on-disk" else IN_MEMORY
    if request.param == "ftp://":
        return {"type": "opener", "url": request.getfixturevalue("ftp").url}
    if request.param == "osfs://":
        return {"type": "opener", "url": f"osfs://{tmp_path}"}
    if request.param.endswith("://"):
        return {"type": "opener", "url": request.param}
    return {"type": request.param.partition("-")[0]}


@pytest.fixture
def namespace(djfs: Callable[..., None], place: dict[str, Any]) -> str:
    djfs(**place)
    return f"plots/{uuid.uuid4().hex}"


def opened(namespace: str) -> FS:
    """What the back-end itself has of a namespace, without records."""
    return backend_for(conf.current(), namespace).open(namespace)


@pytest.fixture
def files(namespace: str) -> FS:
    return opened(namespace)


def begun(files: FS, name: str, mode: str) -> Any:
    """A file in which something was written, still open."""
    file: Any = files.openbin(name, mode)
    file.write(b"half")
    return file


@pytest.mark.parametrize("mode", ["w", "a", "x"])
def test_a_new_file_is_not_there_before_it_is_closed(files: FS, mode: str) -> None:
    with begun(files, "a", mode):
        assert files.listdir("/") == []
        assert not files.exists("a")
    assert files.readbytes("a") == b"half"


@pytest.mark.parametrize("mode", ["w", "a", "r+"])
def test_the_old_contents_are_there_until_a_file_is_closed(files: FS, mode: str) -> None:
    files.writebytes("a", b"the old contents")
    with begun(files, "a", mode):
        assert files.readbytes("a") == b"the old contents"
    assert b"half" in files.readbytes("a")


@pytest.mark.parametrize("mode", ["w", "a", "r+"])
def test_what_is_discarded_leaves_what_was_there(files: FS, mode: str) -> None:
    files.writebytes("a", b"the old contents")
    with begun(files, "a", mode) as file:
        file.discard()
    assert files.readbytes("a") == b"the old contents"


@pytest.mark.parametrize("mode", ["w", "a", "x"])
def test_a_new_file_that_is_discarded_leaves_nothing(files: FS, mode: str) -> None:
    with begun(files, "a", mode) as file:
        file.discard()
    assert files.listdir("/") == []


def test_a_write_that_failed_is_not_stored(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    files = opened(f"plots/{uuid.uuid4().hex}")
    files.writebytes("a", b"the old contents")
    file = begun(files, "a", "w")
    with pytest.raises(TypeError):
        file.write("not bytes")
    file.close()
    assert files.readbytes("a") == b"the old contents"


class BrokenSource(io.BytesIO):
    """Fails after a little."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ValueError("the source is broken")
        return super().read(4)


def test_an_upload_whose_source_fails_leaves_the_old_contents(files: FS) -> None:
    files.writebytes("a", b"the old contents")
    for name in "a", "b":
        with pytest.raises(ValueError, match="broken"):
            files.upload(name, BrokenSource(b"half and more"))
    assert files.readbytes("a") == b"the old contents"
    assert files.listdir("/") == ["a"]


def test_a_file_for_which_somebody_was_faster_is_not_stored(files: FS) -> None:
    file = begun(files, "a", "x")
    files.writebytes("a", b"theirs")
    with pytest.raises(errors.FileExists):
        file.close()
    assert files.readbytes("a") == b"theirs"
    assert files.listdir("/") == ["a"]
    with pytest.raises(errors.FileExists):
        files.openbin("a", "x")


def test_of_many_exclusive_writers_one_wins(files: FS) -> None:
    start = Barrier(WRITERS)

    def write(number: int) -> bool:
        file = files.openbin("a", "x")
        file.write(b"%d" % number)
        start.wait(60)
        try:
            file.close()
        except errors.FileExists:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as threads:
        won = [n for n, result in enumerate(threads.map(write, range(WRITERS))) if result]
    assert files.readbytes("a") == b"%d" % won[0]
    assert len(won) == 1
    assert files.listdir("/") == ["a"]


class SlowSource(io.BytesIO):
    """Waits in the middle, until it is told to go on."""

    def __init__(self) -> None:
        super().__init__(b"first second")
        self.is_waiting, self.go_on = Event(), Event()

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() and not self.go_on.is_set():
            self.is_waiting.set()
            self.go_on.wait(60)
        return super().read(6)


def test_nobody_sees_what_is_half_uploaded_nor_waits_for_it(files: FS) -> None:
    files.writebytes("a", b"the old contents")
    source = SlowSource()
    with ThreadPoolExecutor(1) as threads:
        upload = threads.submit(files.upload, "a", cast(BinaryIO, source))
        assert source.is_waiting.wait(60)
        assert files.readbytes("a") == b"the old contents"
        source.go_on.set()
        upload.result(60)
    assert files.readbytes("a") == b"first second"


# -- namespaces nest


def test_a_file_is_the_same_through_a_namespace_and_through_the_one_above_it(
    namespace: str,
) -> None:
    above, below = get_filesystem(namespace), get_filesystem(f"{namespace}/d")
    below.writebytes("a", b"from below")
    assert above.readbytes("d/a") == b"from below"
    assert above.opendir("d").readbytes("a") == b"from below"
    above.writebytes("d/a", b"from above")
    assert below.readbytes("a") == b"from above"


def test_an_empty_directory_is_the_same_through_both(namespace: str) -> None:
    above, below = get_filesystem(namespace), get_filesystem(f"{namespace}/d")
    below.writebytes("a", b"")
    above.makedirs("d/e")
    below.makedir("f")
    assert below.isdir("e")
    assert above.isdir("d/f")
    assert set(above.listdir("d")) == {"a", "e", "f"}
    above.removedir("d/f")
    assert not below.exists("f")


class Nowhere(MemoryBackend):
    """Has no directory of any namespace."""

    def has(self, namespace: str) -> bool:
        return False

    def make_filesystem(self, namespace: str) -> FS:
        raise AssertionError("a directory was made")


def test_a_deletion_opens_no_namespace_that_is_not_there() -> None:
    outcome = Nowhere({}).delete([Entry("plots/d", "a")], Endless())
    assert len(outcome.missing) == 1


def test_a_namespace_is_there_again_after_it_was_removed_from_above(
    djfs: Callable[..., None],
) -> None:
    djfs(type="memory")
    above, below = get_filesystem("removed"), get_filesystem("removed/d")
    below.writebytes("a", b"picture")
    above.removetree("d")
    below.writebytes("a", b"another")
    assert above.readbytes("d/a") == b"another"
