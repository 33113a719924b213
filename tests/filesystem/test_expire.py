"""Deadlines and names, as the filesystem takes them, on every backend with every record store."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fs import errors

from djpyfs import FileBusy, InvalidLifetime, expire_objects, get_filesystem
from djpyfs.filesystem import ExpiringFS
from djpyfs.names import Entry
from tests.conftest import records_here
from tests.filesystem.steps import ODD, left, overdue
from tests.servers import wait_for


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
def test_a_bad_lifetime_is_one_error_and_stores_nothing(
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


def test_a_missing_lifetime_is_an_error_that_says_what_to_write(plots: ExpiringFS) -> None:
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


def test_a_deadline_given_as_a_datetime_soon_says_that_a_dead_sweeper_may_still_act(
    bucket: ExpiringFS,
) -> None:
    overdue(bucket, "a.png")
    assert records_here().claim_one(Entry("plots", "a.png").member).token
    began = time.monotonic()
    with pytest.raises(FileBusy, match="died"):
        bucket.expire_at("a.png", datetime.now(UTC) + timedelta(minutes=5))
    assert time.monotonic() - began < 15  # where the claim lasts twice as long
    assert left(bucket, "a.png") < 1


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


def test_a_directory_is_closed_with_the_filesystem_that_it_was_opened_from(
    plots: ExpiringFS,
) -> None:
    below = plots.makedir("d").makedir("e")
    with plots.opendir("d/e") as other:
        other.writebytes("a.png", b"picture")
    assert below.readbytes("a.png") == b"picture"
    plots.close()
    with pytest.raises(errors.FilesystemClosed):
        below.readbytes("a.png")
    with pytest.raises(errors.FilesystemClosed):
        below.expire("a.png", 5)


def test_an_error_names_a_file_as_the_directory_was_asked_for_it(plots: ExpiringFS) -> None:
    below = plots.makedir("d")
    with pytest.raises(errors.ResourceNotFound) as raised:
        below.readbytes("missing.png")
    assert raised.value.path == "missing.png"


def test_deadlines_are_aware(plots: ExpiringFS) -> None:
    plots.expire("a.png", 5)
    deadline = plots.expiration("a.png")
    assert deadline
    assert deadline.utcoffset() == timedelta(0)


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
