"""Reading from S3: how many requests, how many bytes, and of which state of a file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import pytest
from fs import errors

from djpyfs.errors import FileReplaced
from djpyfs.filesystem import ExpiringFS
from tests.servers import BigObject, Moto, wait_for

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CONTENT = os.urandom(MIB) + bytes(MIB)


@pytest.fixture
def files(on_s3: Callable[..., ExpiringFS]) -> ExpiringFS:
    found = on_s3()
    found.writebytes("a.bin", CONTENT)
    return found


@pytest.fixture
def far(on_s3: Callable[..., ExpiringFS], big: BigObject) -> ExpiringFS:
    return on_s3(endpoint_url=big.url)


def test_a_file_is_read_whose_length_something_in_front_of_the_store_hides(
    big: BigObject, far: ExpiringFS
) -> None:
    big.hides_length = True
    with far.openbin("big.bin") as file:
        file.seek(-10, 2)
        assert len(file.read()) == 10


@pytest.mark.parametrize("position", [0, 17, GIB // 2, GIB - 512])
def test_a_kilobyte_of_a_gibibyte_is_two_requests_and_a_quarter_of_a_mebibyte(
    big: BigObject, far: ExpiringFS, position: int
) -> None:
    with far.open("a.bin", "rb") as file:
        file.seek(position)
        assert len(file.read(1024)) == min(1024, GIB - position)
    assert big.requests == ["HEAD", "GET"]
    assert big.sent <= 256 * KIB


@pytest.mark.parametrize(
    ("chunk", "requests"), [(4 * KIB, ["HEAD", "GET", "GET"]), (64 * KIB, ["HEAD", "GET"])]
)
def test_a_file_that_is_read_from_end_to_end_is_fetched_once(
    big: BigObject, far: ExpiringFS, chunk: int, requests: list[str]
) -> None:
    big.size = 64 * MIB
    with far.open("a.bin", "rb") as file:
        assert sum(map(len, iter(lambda: file.read(chunk), b""))) == big.size
    assert big.requests == requests
    wait_for(lambda: big.sent == big.size)  # the store counts after it has sent


def test_a_file_that_is_read_at_once_is_one_stream(big: BigObject, far: ExpiringFS) -> None:
    big.size = 64 * MIB
    with far.open("a.bin", "rb") as file:
        assert len(file.read()) == big.size
    assert big.requests == ["HEAD", "GET"]


def test_a_store_that_hangs_up_on_a_slow_reader_is_asked_for_the_rest(
    big: BigObject, far: ExpiringFS
) -> None:
    big.size, big.patience = 4 * MIB, MIB + 17
    with far.open("a.bin", "rb") as file:
        assert sum(map(len, iter(lambda: file.read(1000), b""))) == big.size
    wait_for(lambda: big.sent == big.size)  # the store counts after it has sent


def test_a_store_without_ranges_is_an_error(big: BigObject, far: ExpiringFS) -> None:
    big.ranges = False
    with far.open("a.bin", "rb") as file:
        file.seek(MIB)
        with pytest.raises(errors.OperationFailed, match="range"):
            file.read(1)


def test_a_store_that_always_hangs_up_raises_an_error_of_the_filesystem(
    big: BigObject, far: ExpiringFS
) -> None:
    big.patience = 0
    with (
        far.open("a.bin", "rb") as file,
        pytest.raises(errors.FSError),
    ):
        file.read(1)


# -- a real store


def copied(file: BinaryIO, size: int) -> bytes:
    return b"".join(iter(lambda: file.read(size), b""))


@pytest.mark.parametrize("size", [1, 1000, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 2 * MIB])
def test_a_file_comes_back_whole_however_it_is_read(
    moto: Moto, files: ExpiringFS, size: int
) -> None:
    contents = CONTENT[:size]
    files.writebytes("a.bin", contents)
    for chunk in 1 if size < 10 else 997, 64 * KIB, MIB, -1:
        moto.requests.clear()
        with files.openbin("a.bin") as file:
            assert (file.read() if chunk == -1 else copied(file, chunk)) == contents
        gets = 2 if chunk == 997 and size > 256 * KIB else 1
        assert moto.requests == ["HEAD", *["GET"] * gets]


def test_an_empty_file_can_be_opened(files: ExpiringFS) -> None:
    files.writebytes("empty", b"")
    with files.open("empty", "rb") as file:
        assert file.seek(0, io.SEEK_END) == 0
        assert (file.read(1), file.read()) == (b"", b"")


def test_seeking_back_and_forth_reads_what_is_there(files: ExpiringFS) -> None:
    with files.open("a.bin", "rb") as file:
        for position in 0, MIB, 300 * KIB, MIB - 5, 2 * MIB - 10, 2 * MIB, 5 * MIB, 100, 3:
            assert file.seek(position) == position
            assert file.read(300 * KIB) == CONTENT[position : position + 300 * KIB]
            assert file.tell() == max(position, min(position + 300 * KIB, 2 * MIB))
        assert file.seek(-7, io.SEEK_END) == 2 * MIB - 7
        assert file.seek(-3, io.SEEK_CUR) == 2 * MIB - 10
        assert file.read() == CONTENT[-10:]


def test_one_member_of_an_archive_does_not_fetch_the_others(moto: Moto, files: ExpiringFS) -> None:
    with files.open("a.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for number in range(8):
            archive.writestr(f"{number}", os.urandom(MIB))
    before = moto.promised
    with files.open("a.zip", "rb") as file, zipfile.ZipFile(file) as archive:
        assert len(archive.read("5")) == MIB
    assert moto.promised - before < 5 * MIB


@pytest.mark.parametrize("contents", [CONTENT[::-1], b"short", b""])
def test_two_versions_of_a_file_are_never_spliced(files: ExpiringFS, contents: bytes) -> None:
    with files.open("a.bin", "rb") as file:
        assert file.read(1000) == CONTENT[:1000]
        files.writebytes("a.bin", contents)
        with pytest.raises(FileReplaced):
            file.read()
    assert files.readbytes("a.bin") == contents


def test_a_file_that_is_removed_meanwhile_is_not_found(files: ExpiringFS) -> None:
    with files.open("a.bin", "rb") as file:
        file.read(1000)
        files.remove("a.bin")
        with pytest.raises(errors.ResourceNotFound):
            file.read()
