"""New files that are published in one call, on every backend with every record store."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from django.test import Client
from django.urls import include, path

from djpyfs import InvalidLifetime, InvalidName, expire_objects, get_filesystem
from djpyfs.filesystem import ExpiringFS
from djpyfs.writes import LONGEST_NEGLIGIBLE
from tests.conftest import counted
from tests.filesystem.steps import left
from tests.servers import running_redis, scripts_run, wait_for

urlpatterns = [path("f/", include("djpyfs.urls"))]


@pytest.fixture(autouse=True)
def _included(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


def fetch(url: str) -> bytes:
    """Return what a signed or presigned address leads to."""
    if url.startswith("http"):
        with urlopen(url) as answer:
            return bytes(answer.read())
    response: Any = Client().get(url)
    with closing(response):
        assert response.status_code == 200
        return b"".join(response.streaming_content)


def test_a_temporary_file_has_its_deadline_first_and_appears_when_its_block_ends(
    plots: ExpiringFS,
) -> None:
    with plots.temporary_file(".png", prefix="sine-", seconds=300) as f:
        assert left(plots, f.name) == pytest.approx(300, abs=30)
        f.write(b"pic")
        assert plots.listdir("/") == []
        f.write(b"ture")
    assert plots.listdir("/") == [f.name]
    assert plots.readbytes(f.name) == b"picture"
    assert left(plots, f.name) == pytest.approx(300, abs=30)


def test_a_file_that_expired_in_its_block_lives_from_the_end_of_the_block(
    plots: ExpiringFS,
) -> None:
    with plots.temporary_file(seconds=300) as f:
        plots.expire(f.name, 0)
        expire_objects()
    assert plots.exists(f.name)
    assert 0 < left(plots, f.name) <= 300


@pytest.mark.parametrize("bad", [{"encoding": "nope"}, {"newline": "nope"}, {"buffering": "x"}])
def test_a_bad_mode_leaves_the_file_as_it_is(plots: ExpiringFS, bad: dict[str, Any]) -> None:
    plots.writebytes("kept", b"precious")
    for name in "kept", "new":
        with pytest.raises((LookupError, ValueError, TypeError)):
            plots.open(name, "w", **bad)
    with pytest.raises(LookupError), plots.temporary_file(seconds=9, mode="w", encoding="nope"):
        pass
    assert plots.listdir("/") == ["kept"]
    assert plots.readbytes("kept") == b"precious"


@pytest.mark.parametrize(("mode", "half"), [("wb", b"half"), ("w", "half")])
def test_a_block_that_raises_leaves_neither_file_nor_record(
    plots: ExpiringFS, mode: str, half: str | bytes
) -> None:
    file = plots.temporary_file(seconds=300, mode=mode)
    with pytest.raises(KeyError), file as f:
        write_half(f, half)
    assert not hasattr(f, "url")
    assert plots.listdir("/") == []
    assert counted().tracked == 0


def write_half(file: Any, half: str | bytes) -> None:
    file.write(half)
    raise KeyError(half)


def test_a_file_of_length_zero_is_published_too(plots: ExpiringFS) -> None:
    with plots.temporary_file(seconds=300) as f:
        pass
    assert plots.readbytes(f.name) == b""


def test_an_expired_temporary_file_is_swept(plots: ExpiringFS) -> None:
    with plots.temporary_file(".png", seconds=timedelta(milliseconds=1)) as f:
        f.write(b"picture")
    wait_for(lambda: expire_objects().deleted == 1)
    assert not plots.exists(f.name)


def test_a_block_may_last_longer_than_the_life(plots: ExpiringFS) -> None:
    with plots.temporary_file(".png", seconds=0.001) as f:
        time.sleep(0.002)
        report = expire_objects()
        assert (report.deleted, report.missing) == (0, 0)
        f.write(b"picture")
    assert plots.readbytes(f.name) == b"picture"


def test_nobody_can_guess_the_name(memory: ExpiringFS) -> None:
    names = []
    for _ in range(2):
        with memory.temporary_file(".png", prefix="sine-", seconds=300) as f:
            names.append(f.name)
    one, other = (int(name.removeprefix("sine-").removesuffix(".png"), 16) for name in names)
    assert one.bit_length() > 96
    assert (one ^ other).bit_length() > 96


def test_text_has_an_encoding(plots: ExpiringFS) -> None:
    with plots.temporary_file(".txt", seconds=300, mode="w", encoding="latin-1") as f:
        f.write("zoë\n")
    assert plots.readbytes(f.name) == "zoë\n".encode("latin-1")


@pytest.mark.parametrize("place", ["memory", "s3fs"], indirect=True)
def test_its_url_leads_to_it(plots: ExpiringFS) -> None:
    with plots.temporary_file(".bin", seconds=300) as f:
        f.write(b"picture")
        with pytest.raises(AttributeError, match="before it is closed"):
            f.url  # noqa: B018
    assert fetch(f.url) == b"picture"


def test_its_name_is_relative_to_its_directory(plots: ExpiringFS) -> None:
    inner = plots.makedirs("d/e")
    with inner.temporary_file(".png", seconds=300) as f:
        f.write(b"picture")
    assert inner.listdir("/") == [f.name]
    assert inner.readbytes(f.name) == b"picture"
    with plots.opendir("d").opendir("e").temporary_file(seconds=300) as g:
        pass
    assert plots.isfile(f"d/e/{g.name}")


@pytest.mark.parametrize(("hours", "told"), [(100, 1), (0.001, 2)])
def test_the_deadline_is_recorded_in_one_round_trip_and_moved_in_another_if_that_matters(
    djfs: Callable[..., None], tmp_path: Path, hours: float, told: int
) -> None:
    with running_redis() as server:
        djfs(type="osfs", directory_root=tmp_path, signed_urls=True, redis_url=server.url)
        fs, life = get_filesystem("plots"), timedelta(hours=hours)
        with fs.temporary_file(".png", seconds=life):
            """Connects, and loads the scripts."""
        least = 3
        for _ in range(20):  # on a busy machine any block may take a while
            before = scripts_run(server)
            with fs.temporary_file(".png", seconds=life) as f:
                assert scripts_run(server) - before == 1
                f.write(b"picture")
            assert f.url.startswith("/f/")
            least = min(least, scripts_run(server) - before)
        assert least == told


def test_the_life_begins_at_the_end_of_a_block_that_takes_a_while(plots: ExpiringFS) -> None:
    with plots.temporary_file(".png", seconds=300) as f:
        begun = plots.expiration(f.name)
        assert begun
        time.sleep(LONGEST_NEGLIGIBLE)  # it is what the clock says that is tested
    ended = plots.expiration(f.name)
    assert ended
    assert ended - begun >= timedelta(seconds=LONGEST_NEGLIGIBLE)


def test_a_deadline_set_in_the_block_stays(plots: ExpiringFS) -> None:
    for seconds in 300, 1:  # the end of the block is reported for the second alone
        with plots.temporary_file(".png", seconds=seconds) as f:
            plots.expire(f.name, expires=False)
        assert plots.expiration(f.name) is None
        with plots.temporary_file(".png", seconds=seconds) as f:
            plots.expire(f.name, days=1)
        assert left(plots, f.name) == pytest.approx(86_400, abs=30)


def test_a_block_may_outlast_every_lease(
    djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]
) -> None:
    grace = 3  # and so for how long this process may stand still
    djfs(**place, **records, grace=grace)
    plots = get_filesystem("plots")
    end = time.monotonic() + 1.2 * grace
    with plots.temporary_file(".png", seconds=1) as f:
        f.write(b"picture")
        while time.monotonic() < end:  # without another call of the file
            assert expire_objects().missing == 0
            time.sleep(0.2)
        assert counted().tracked == 1
    assert plots.readbytes(f.name) == b"picture"
    assert left(plots, f.name) <= 1
    wait_for(lambda: expire_objects().deleted == 1)


@pytest.fixture
def memory(djfs: Callable[..., None]) -> ExpiringFS:
    djfs(type="memory", namespaces={"memos": {"default_ttl": 60, "max_ttl": 600}})
    return get_filesystem("plots")


def test_without_a_lifetime_it_has_the_default_one_or_raises(
    memory: ExpiringFS,
) -> None:
    memos = get_filesystem("memos")
    with memos.temporary_file() as f:
        pass
    assert left(memos, f.name) == pytest.approx(60, abs=30)
    with pytest.raises(InvalidLifetime, match="write seconds=300"):
        memory.temporary_file(".png")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"seconds": -1}, InvalidLifetime),
        ({"seconds": 601}, InvalidLifetime),
        ({"days": timedelta(1)}, InvalidLifetime),
        ({"suffix": "/a"}, InvalidName),
        ({"prefix": "../"}, InvalidName),
        ({"prefix": "a/"}, InvalidName),
        ({"suffix": "\n"}, InvalidName),
        ({"suffix": None}, InvalidName),
        ({"suffix": "a" * 250}, InvalidName),
        ({"mode": "rb"}, ValueError),
        ({"mode": "q"}, ValueError),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_written(
    memory: ExpiringFS, arguments: dict[str, Any], error: type[Exception]
) -> None:
    memos = get_filesystem("memos")
    with pytest.raises(error):
        memos.temporary_file(**arguments)
    assert memos.listdir("/") == []
    assert counted().tracked == 0
