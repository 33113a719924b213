"""What code written for openedx-django-pyfs relies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.errors import FileExpected

from djpyfs import InvalidLifetime, InvalidName, djpyfs
from tests.conftest import KEYS


@pytest.fixture(params=["osfs", "s3fs", "s3fs with prefix"])
def root(
    request: pytest.FixtureRequest, djfs: Callable[..., None], tmp_path: Path
) -> Iterator[str]:
    """Settings as they were; the address at which a namespace's files must be found."""
    place: dict[str, Any] = {"directory_root": str(tmp_path), "url_root": "/static/djpyfs"}
    if request.param == "osfs":
        djfs(type="osfs", **place)
        yield "/static/djpyfs/"
        return
    endpoint = request.getfixturevalue("s3_endpoint")
    prefix = {"prefix": "some/prefix"} if "prefix" in request.param else {}
    djfs(type="s3fs", bucket="djpyfs", endpoint_url=endpoint, **place, **prefix, **KEYS)
    yield f"{endpoint}/djpyfs/{'some/prefix/' if prefix else ''}"


def test_files_of_two_namespaces_expire_whether_they_exist_or_not(root: str) -> None:
    filesystems = [djpyfs.get_filesystem(name) for name in ("unittest", "unittest_2")]
    for filesystem in filesystems:
        filesystem.makedir("directory")
        for name in "directory/first", "directory/second":
            filesystem.writetext(name, "foo", "utf-8", "strict")
        for name in "directory/first", "directory/second", "directory/never":
            filesystem.expire(name, 0, 0)
    report = djpyfs.expire_objects()
    assert report.deleted + report.missing == 6
    for filesystem in filesystems:
        for name in "directory/first", "directory/second", "directory/never":
            assert not filesystem.exists(name)


def test_a_url_begins_with_the_root_and_needs_no_file(root: str) -> None:
    filesystem = djpyfs.get_filesystem("unittest")
    assert not filesystem.exists("directory/file")
    assert filesystem.get_url("directory/file").startswith(f"{root}unittest/directory/file")
    assert filesystem.get_url("directory/file", timeout=60).startswith(root)


def test_a_region_shows_in_the_address(settings: Any) -> None:
    settings.DJFS = {"type": "s3fs", "bucket": "test-bucket", **KEYS, "region": "me-south-1"}
    settings.DJFS["redis_url"] = "memory://"
    address = djpyfs.get_filesystem("unittest").get_url("file")
    assert "s3.me-south-1.amazonaws.com/" in address
    assert "unittest/file" in address


def test_the_arguments_of_expire_are_the_same(root: str) -> None:
    filesystem = djpyfs.get_filesystem("unittest")
    filesystem.expire("file", 5, days=1, expires=True)
    assert filesystem.expiration("file")
    filesystem.expire("file", seconds=0, expires=False)
    assert filesystem.expiration("file") is None


def test_the_directory_on_disk_is_known(djfs: Callable[..., None], tmp_path: Path) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    filesystem = djpyfs.get_filesystem("unit/test")
    assert filesystem.root_path == str(tmp_path / "unit/test")
    djfs(type="memory")
    assert not hasattr(djpyfs.get_filesystem("unittest"), "root_path")


def test_its_model_is_an_error_that_names_the_cure() -> None:
    with pytest.raises(ImportError, match="import` for the old table"):
        from djpyfs.models import FSExpirations  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from djpyfs.models import Nothing  # noqa: F401


def test_what_differs_on_purpose_has_a_cure_on_disk(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path, url_root="/files")
    with pytest.raises(InvalidName):
        djpyfs.get_filesystem("unit/test/")
    filesystem = djpyfs.get_filesystem("unit/test/".strip("/"))
    assert filesystem.get_url("a.html?b=c") == "/files/unit/test/a.html%3Fb%3Dc"
    assert filesystem.get_url("a.html") + "?b=c" == "/files/unit/test/a.html?b=c"
    with pytest.raises(FileExpected):
        filesystem.get_url("")
    assert filesystem.get_url("a.html").rpartition("/")[0] == "/files/unit/test"
    with pytest.raises(InvalidName):
        filesystem.writebytes("a\\b", b"")
    for wrong in filesystem.expire, filesystem.get_url:
        with pytest.raises(InvalidLifetime):
            wrong("a.html", -1)
    filesystem.makedirs("/", recreate=True)
    assert Path(filesystem.root_path).is_dir()


def test_an_unknown_type_raises_attribute_error(settings: Any) -> None:
    settings.DJFS = {"type": "bogusfs", "directory_root": "x", "url_root": "y"}
    with pytest.raises(AttributeError):
        djpyfs.get_filesystem("unittest")
