"""What projects have for their own tests: isolation, and a time that moves."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import IsolatedAsyncioTestCase, TestCase, result, suite

import freezegun
import pytest
import time_machine
from asgiref.sync import sync_to_async
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client, SimpleTestCase, override_settings
from django.urls import include, path

from djpyfs import ConfigurationError, InvalidLifetime, conf, expire_objects, get_filesystem
from djpyfs.cache import ExpiringCache
from djpyfs.expirations import store_for
from djpyfs.testing import IsolatedFiles, advance, expire_now, isolated
from tests.conftest import counted

urlpatterns = [path("files/", include("djpyfs.urls"))]

LONG_AGO, FAR_AHEAD = datetime(2001, 5, 1, tzinfo=UTC), datetime(2041, 5, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def written(name: str, seconds: float | None) -> Any:
    plots = get_filesystem("plots")
    plots.writebytes(name, b"picture")
    if seconds is not None:
        plots.expire(name, seconds)
    return plots


# -- isolation


def test_a_block_has_files_and_records_of_its_own_and_leaves_nothing(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    written("mine", 60)
    with isolated():
        assert get_filesystem("plots").listdir("/") == []
        assert counted().tracked == 0
        written("theirs", 60)
        with isolated():
            assert get_filesystem("plots").listdir("/") == []
        assert get_filesystem("plots").listdir("/") == ["theirs"]
    with isolated():
        assert get_filesystem("plots").listdir("/") == []
    assert get_filesystem("plots").listdir("/") == ["mine"]
    assert counted().tracked == 1
    assert not list(tmp_path.rglob("theirs"))


def test_a_block_is_refused_while_another_thread_is_in_one(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    written("real", 1000)

    def in_a_block() -> list[str]:
        with isolated():
            return list(get_filesystem("plots").listdir("/"))

    with ThreadPoolExecutor(1) as another:
        with isolated():
            written("mine", 60)
            with pytest.raises(
                ConfigurationError, match="another thread or task is in such a block"
            ):
                another.submit(in_a_block).result()
            assert another.submit(get_filesystem("plots").listdir, "/").result() == ["mine"]
            with isolated():
                assert get_filesystem("plots").listdir("/") == []
        assert get_filesystem("plots").listdir("/") == ["real"]
        assert another.submit(in_a_block).result() == []


def test_what_overrides_the_settings_in_a_block_leads_to_no_real_files(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    real = {"type": "osfs", "directory_root": tmp_path, "redis_url": "memory://"}
    djfs(**real)
    written("real", 1000)
    with isolated(), override_settings(DJFS={**real, "default_ttl": 50}):
        written("mine", 60)
        get_filesystem("plots").writebytes("new", b"")
        assert get_filesystem("plots").expiration("new")
        assert list(tmp_path.rglob("mine")) == []
        assert expire_now().deleted == 2
    assert get_filesystem("plots").listdir("/") == ["real"]


def test_a_temporary_file_in_whose_block_the_time_is_moved_keeps_a_deadline() -> None:
    with isolated():
        plots = get_filesystem("plots")
        with plots.temporary_file(seconds=10) as file:
            file.write(b"picture")
            advance(600)
            expire_objects()
        assert plots.expiration(file.name)
        advance(11)
        assert expire_objects().deleted == 1


def test_a_block_is_refused_while_another_task_is_in_one(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)

    async def in_a_block() -> None:
        with isolated():
            await asyncio.sleep(0)

    async def both() -> list[object]:
        return [*await asyncio.gather(in_a_block(), in_a_block(), return_exceptions=True)]

    first, second = asyncio.run(both())
    assert first is None
    assert isinstance(second, ConfigurationError)
    asyncio.run(in_a_block())


def test_of_threads_that_open_blocks_at_once_each_sees_its_own_or_an_error(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    written("real", 1000)

    def in_a_block(number: int) -> bool:
        try:
            with isolated():
                written(f"{number}", 60)
                return bool(get_filesystem("plots").listdir("/") == [f"{number}"])
        except ConfigurationError:
            return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(in_a_block, range(200)))
    assert get_filesystem("plots").listdir("/") == ["real"]


def test_what_a_block_held_in_memory_is_freed() -> None:
    with isolated():
        store = weakref.ref(store_for(conf.current()))
        written("a", 60)
        expire_objects()
    gc.collect()
    assert store() is None


def test_a_block_keeps_the_lifetimes_and_the_policies(djfs: Callable[..., None]) -> None:
    own = {"type": "s3fs", "bucket": "none", "default_ttl": 10}
    djfs(type="osfs", directory_root="/none", max_ttl=600, namespaces={"memos": own})
    with isolated(), pytest.raises(InvalidLifetime, match="max_ttl"):
        get_filesystem("plots").expire("a", 601)
    with isolated():
        memos = get_filesystem("memos")
        memos.writebytes("a", b"")
        assert memos.expiration("a") is not None
    with isolated(max_ttl=None):
        get_filesystem("plots").expire("a", 601)


def test_storages_and_caches_are_in_the_block_too(settings: Any) -> None:
    settings.STORAGES = {
        "default": {
            "BACKEND": "djpyfs.storage.ExpiringStorage",
            "OPTIONS": {"namespace": "uploads"},
        }
    }
    for _ in range(2):
        with isolated():
            assert default_storage.save("a.txt", ContentFile(b"upload")) == "a.txt"
            assert ExpiringCache("memos", {}).add("a", 1)


def test_a_block_does_not_hide_that_the_settings_are_wrong(djfs: Callable[..., None]) -> None:
    djfs(leese=5)
    djfs(shards=0)
    with pytest.raises(ConfigurationError, match="shards"), isolated():
        pass


# -- the time


@pytest.mark.usefixtures("isolated_files")
def test_time_moves_for_records_and_for_what_a_sweep_deletes() -> None:
    plots = written("a", 60)
    written("b", None)
    advance(59)
    assert expire_objects().deleted == 0
    advance(timedelta(seconds=1))
    assert expire_objects().deleted == 1
    assert plots.listdir("/") == ["b"]


@pytest.mark.usefixtures("isolated_files")
def test_time_moves_for_signed_links(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    address = written("a", 600).get_url("a", timeout=60)
    assert Client().get(address).status_code == 200
    advance(60)
    assert Client().get(address).status_code == 404


def test_the_time_at_which_a_file_was_written_moves_too() -> None:
    with isolated(default_ttl=60, max_ttl=600, renew_on_read=True):
        advance(3_600)
        plots = written("a", 30)
        before = plots.expiration("a")
        plots.readbytes("a")
        assert plots.expiration("a") > before


def test_time_is_back_when_the_block_ends() -> None:
    with isolated():
        before = written("a", 60).expiration("a")
        with isolated():
            advance(3_600)
            assert written("a", 60).expiration("a") >= before + 60 * MINUTE
        assert written("b", 60).expiration("b") < before + MINUTE


@pytest.mark.usefixtures("isolated_files")
def test_a_write_outlasts_whatever_time_passes() -> None:
    plots = written("a", 60)
    with plots.openbin("a", "w") as file:
        advance(timedelta(days=300))
        assert expire_objects().deleted == 0
        file.write(b"another")
    assert plots.readbytes("a") == b"another"


@pytest.mark.usefixtures("isolated_files")
def test_everything_with_a_deadline_expires_now_and_nothing_else() -> None:
    plots = written("soon", 1)
    written("late", 1_000_000)
    written("never", None)
    written("kept", None).expire("kept", expires=False)
    assert expire_now().deleted == 2
    assert set(plots.listdir("/")) == {"never", "kept"}
    assert written("late", 60).exists("late")
    assert expire_objects().deleted == 0


def test_expire_now_works_as_if_the_time_had_come() -> None:
    with isolated(hide_expired=True):
        plots = written("a", 60)
        with plots.openbin("a", "w") as file:
            assert expire_now().deleted == 0
            assert not plots.exists("a")
            file.write(b"another")
        assert plots.readbytes("a") == b"another"


@pytest.mark.parametrize("call", [expire_now, lambda: advance(1)])
def test_the_time_of_real_files_does_not_move(
    djfs: Callable[..., None], call: Callable[[], object]
) -> None:
    djfs(type="memory")
    plots = written("a", 60)
    with pytest.raises(ConfigurationError, match=r"testing\.isolated"):
        call()
    assert plots.exists("a")


@pytest.mark.usefixtures("isolated_files")
@pytest.mark.parametrize("seconds", [-1, "60", None])
def test_time_moves_forward_and_by_a_number(seconds: Any) -> None:
    with pytest.raises(InvalidLifetime):
        advance(seconds)


# -- what else moves the time


@contextmanager
def by_freezegun(moment: datetime) -> Iterator[Callable[[timedelta], object]]:
    with freezegun.freeze_time(moment) as frozen:
        yield frozen.tick


@contextmanager
def by_time_machine(moment: datetime) -> Iterator[Callable[[timedelta], object]]:
    with time_machine.travel(moment, tick=False) as traveler:
        yield traveler.shift


frozen_by = pytest.mark.parametrize("frozen", [by_freezegun, by_time_machine])
at_each = pytest.mark.parametrize("moment", [LONG_AGO, FAR_AHEAD])


@frozen_by
@at_each
@pytest.mark.usefixtures("isolated_files")
def test_deadlines_are_in_the_time_that_a_library_says(frozen: Any, moment: datetime) -> None:
    with frozen(moment) as moves:
        plots = written("a", 60)
        assert plots.expiration("a") == moment + MINUTE
        moves(MINUTE - timedelta(seconds=1))
        assert expire_objects().deleted == 0
        moves(timedelta(seconds=1))
        assert expire_objects().deleted == 1


@frozen_by
@at_each
def test_freezing_applies_to_nested_blocks_and_older_records_too(
    frozen: Any, moment: datetime
) -> None:
    with isolated():
        plots = written("a", 60)
        with frozen(moment):
            assert expire_objects().deleted == int(moment is FAR_AHEAD)
            assert written("b", 60).expiration("b") == moment + MINUTE
            with isolated():
                assert written("c", 60).expiration("c") == moment + MINUTE
        assert plots.exists("a") is (moment is LONG_AGO)


@frozen_by
@pytest.mark.usefixtures("isolated_files")
def test_advance_adds_to_the_time_of_the_library(frozen: Any) -> None:
    with frozen(FAR_AHEAD):
        advance(MINUTE)
        assert written("a", 60).expiration("a") == FAR_AHEAD + 2 * MINUTE


@frozen_by
@at_each
@pytest.mark.usefixtures("isolated_files")
def test_threads_wait_for_each_other_while_the_time_stands_still(
    frozen: Any, moment: datetime
) -> None:
    with frozen(moment), ThreadPoolExecutor(8) as threads:
        plots = get_filesystem("plots")

        def write(number: int) -> None:
            plots.writebytes("a", b"%d" % number)
            plots.move("a", f"b{number}") if number % 2 else plots.remove("a")

        for attempt in [threads.submit(write, number) for number in range(40)]:
            attempt.exception(60)
        written("c", 0)
        assert expire_objects().deleted == 1


# -- in the two kinds of tests


class TestEachByItself(IsolatedFiles, TestCase):
    """Each test sees only what it has written itself, and nothing of others or of its class."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        written("of the class", 60)

    def test_one(self) -> None:
        assert written("one", 60).listdir("/") == ["one"]

    def test_two(self) -> None:
        assert written("two", 60).listdir("/") == ["two"]
        advance(60)


def test_an_async_test_opens_blocks_in_that_of_its_class() -> None:
    class Case(IsolatedFiles, SimpleTestCase):
        async def test(self) -> None:
            await _open_blocks()

    assert _passes(Case("test"))


def test_a_case_of_asyncio_has_files_of_its_own() -> None:
    class Case(IsolatedFiles, IsolatedAsyncioTestCase):
        async def test(self) -> None:
            await _open_blocks()

    assert _passes(Case("test"))


async def _open_blocks() -> None:
    with isolated():
        assert await sync_to_async(_names_in_a_block)() == []


def _names_in_a_block() -> list[str]:
    with isolated():
        return list(get_filesystem("plots").listdir("/"))


def _passes(case: TestCase) -> bool:
    told = result.TestResult()
    suite.TestSuite([case]).run(told)
    assert not told.errors + told.failures
    return told.testsRun == 1
