"""URLs on disk and on S3, and when they end."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from djpyfs import InvalidLifetime, get_filesystem
from djpyfs.filesystem import ExpiringFS
from tests.filesystem.steps import ODD
from tests.servers import HOST


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


def test_a_bad_timeout_is_an_error_even_if_urls_are_permanent(
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


def test_no_timeout_stands_for_the_default_one(bucket: ExpiringFS) -> None:
    assert life_of(bucket.get_url("a.png", timeout=None)) == 3_600
    assert life_of(bucket.makedir("d").get_url("a.png", None)) == 3_600
