"""What fsspec knows as a backend: over memory, the disk, FTP, and a store of objects."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from unittest import TestCase

import fsspec
import pytest
from fs import errors
from fsspec import register_implementation
from fsspec.asyn import AsyncFileSystem

from djpyfs import ConfigurationError, expire_objects, get_filesystem
from djpyfs.backends import close_all
from djpyfs.backends.fsspec import FsspecBackend
from djpyfs.backends.osfs import DiskBackend
from djpyfs.conformance import BackendTests, WholeFileTests
from tests.servers import HOST, free_port
from tests.test_opener import Ftp, with_a_secret


class TestMemory(BackendTests, WholeFileTests, TestCase):
    djfs = {"type": "fsspec", "url": "memory://files"}


@pytest.mark.long  # it is the backend of disks, as a test below makes sure of
class TestDisk(BackendTests, WholeFileTests, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.djfs = {"type": "fsspec", "url": f"file://{tmp_path}/files"}


class Objects(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An object store, as one behind HTTP looks to fsspec: names with slashes, and no more."""

    protocol = "objects"
    stored: ClassVar[dict[str, tuple[bytes, datetime]]] = {}

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        if name in self.stored:
            return {"name": name, "type": "file", "size": len(self.stored[name][0])}
        if name == "bucket" or any(stored.startswith(f"{name}/") for stored in [*self.stored]):
            return {"name": name, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        name = self._strip_protocol(path)
        if (await self._info(name))["type"] == "file":
            return [await self._info(name)]
        below = [key.removeprefix(f"{name}/") for key in self.stored if key.startswith(f"{name}/")]
        return [await self._info(f"{name}/{one}") for one in {key.split("/")[0] for key in below}]

    async def _put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        self.stored[self._strip_protocol(rpath)] = Path(lpath).read_bytes(), datetime.now(UTC)

    async def _get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        if rpath not in self.stored:
            raise FileNotFoundError(rpath)
        Path(lpath).write_bytes(self.stored[rpath][0])

    async def _rm_file(self, path: str, **_: Any) -> None:
        self.stored.pop(path, None)  # whether it was there is not told

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Do nothing, because there are no directories."""

    def modified(self, path: str) -> datetime:
        return self.stored[path][1]


@pytest.fixture(scope="module")
def ftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftp]:
    server = Ftp(tmp_path_factory.mktemp("ftp"))
    server.start()
    try:
        yield server
    finally:
        close_all()  # while there is somebody to say good-bye to
        server.stop()


@pytest.fixture(scope="module", autouse=True)
def _objects() -> None:
    register_implementation("objects", Objects, clobber=True)


class TestObjects(BackendTests, WholeFileTests, TestCase):
    djfs = {"type": "fsspec", "url": "objects://bucket/files"}


# Tests that FTP might fail: it has one connection and knows few kinds of errors.
SHORT = """copy exists getinfo isdir listdir makedirs openbin_exclusive remove removedir removetree
    files_of_many_namespaces_are_deleted_at_once_and_no_others
    what_is_gone_is_done_and_the_others_are_deleted names_are_taken_as_they_are
    of_many_exclusive_writers_one_wins""".split()


@pytest.mark.long(but=[f"test_{name}" for name in SHORT])
class TestFtp(BackendTests, WholeFileTests, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, ftp: Ftp) -> None:
        self.djfs = {"type": "fsspec", "url": ftp.url}


def test_changes_that_others_make_are_seen(djfs: Callable[..., None]) -> None:
    djfs(type="fsspec", url="memory://files")
    namespace = f"plots/{uuid.uuid4().hex}"
    plots = get_filesystem(namespace)
    plots.writebytes("a", b"ours")
    others = fsspec.filesystem("memory")
    assert others.cat(f"/files/{namespace}/a") == b"ours"
    others.pipe(f"/files/{namespace}/d/b", b"theirs")
    assert set(plots.walk.files()) == {"/a", "/d/b"}
    plots.expire("d/b", 0)
    assert expire_objects().deleted == 1
    assert not others.exists(f"/files/{namespace}/d/b")


def test_no_listing_is_remembered(djfs: Callable[..., None], ftp: Ftp) -> None:
    djfs(type="fsspec", url=ftp.url)
    namespace = f"plots/{uuid.uuid4().hex}"
    plots = get_filesystem(namespace)
    assert plots.listdir("/") == []
    (ftp.directory / namespace / "a").write_bytes(b"theirs")
    assert plots.listdir("/") == ["a"]


def test_an_empty_directory_outlasts_a_connection(
    djfs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djpyfs.backends.opened.CONNECTION_LIFE", 0)
    djfs(type="fsspec", url="objects://bucket/again")
    plots = get_filesystem(f"plots/{uuid.uuid4().hex}")
    plots.makedir("d")
    plots.writebytes("d/a", b"picture")
    assert plots.readbytes("d/a") == b"picture"
    assert plots.listdir("/") == ["d"]


def test_a_directory_by_its_address_is_the_place_that_it_is_as_a_disk(tmp_path: Path) -> None:
    by_address = FsspecBackend.at({"url": f"file://{tmp_path}"})
    assert isinstance(by_address, DiskBackend)
    assert by_address.place(make=True) == DiskBackend({"directory_root": tmp_path}).place()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ftp://ann:old@host/files", "ftp://ann:new@host/files", True),
        ("ftp://ann:old@host/files", "ftp://bob:old@host/files", False),
        ("ftp://ann:old@host/files", "ftp://ann:old@host/others", False),
        ("ftp://ann:old@host/files", "ftp://ann:old@other/files", False),
        ("ftp://ann:old@host/files", "ftp://ann:old@host/files/", True),
        ("ftp://ann:old@host/env=a", "ftp://ann:old@host/env=b", False),
        ("ftp://ann:old@host/a#1", "ftp://ann:old@host/a#2", False),
        ("ftp://ann:old@host/a@b/c", "ftp://ann:old@host/d@b/c", False),
        ("objects://bucket/files", "objects://bucket/files", True),
        ("objects://bucket/dt=1", "objects://bucket/dt=2", False),
        ("objects://bucket/files", "objects://another/files", False),
        ("memory://files", "memory://files", True),
    ],
)
def test_the_place_of_files_is_shown_without_their_password(
    one: str, other: str, same: bool
) -> None:
    places = [FsspecBackend({"url": url}).place() for url in (one, other)]
    assert (places[0] == places[1]) is same


def test_the_place_includes_how_it_is_reached_except_for_secrets() -> None:
    def place(**options: str) -> str:
        return FsspecBackend({"url": "objects://bucket", "storage_options": options}).place()

    assert place(account_name="a", account_key="old") == place(account_name="a", account_key="new")
    assert place(account_name="a") != place(account_name="b")


@with_a_secret
def test_the_root_is_shown_without_secrets(url: str) -> None:
    [root] = FsspecBackend({"url": url.format("sesame")}).roots()
    assert "sesame" not in root


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"DJFS\['url'\] is of type NoneType"),
        ({"url": 5}, "is of type int"),
        ({"url": "ann:sesame@host"}, "names no protocol"),
        ({"url": "ftpx://ann:sesame@host"}, "'ftpx://', which fsspec does not know.*ftp"),
        ({"url": "zip://sesame"}, "'zip://', where fsspec deletes nothing"),
        ({"url": "simplecache::ftp://ann:sesame@host"}, "a chain"),
        ({"url": "s3://sesame"}, "use type 's3fs'"),
        ({"url": "gcs://sesame"}, "'gcs://', for which a package is missing: .*gcsfs"),
        ({"url": "memory://", "storage_options": "sesame"}, "'storage_options'.* is of type str"),
        ({"url": "memory://", "urls": "memory://"}, "did you mean 'url'"),
    ],
    ids=str,
)
def test_a_url_that_cannot_be_opened_is_one_error_without_secrets(
    djfs: Callable[..., None], options: dict[str, Any], message: str
) -> None:
    djfs(type="fsspec", **options)
    with pytest.raises(ConfigurationError, match=message) as raised:
        get_filesystem("plots")
    assert "sesame" not in str(raised.value)


def test_without_the_package_the_error_says_what_to_install(
    djfs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    djfs(type="fsspec", url="memory://")
    with pytest.raises(ConfigurationError, match=r"pip install djpyfs\[fsspec\]"):
        get_filesystem("plots")


def test_an_unreachable_server_is_an_error_without_its_password(djfs: Callable[..., None]) -> None:
    djfs(type="fsspec", url=f"ftp://ann:sesame@{HOST}:{free_port()}")
    with pytest.raises(errors.CreateFailed) as raised:
        get_filesystem("plots")
    assert "sesame" not in str(raised.value)


def test_memory_is_another_place_in_a_child_of_this_process() -> None:
    backend = FsspecBackend({"url": "memory://files"})
    here = backend.place()
    child = os.fork()
    if not child:
        os._exit(backend.place() == here)
    assert os.waitpid(child, 0)[1] == 0
