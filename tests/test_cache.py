"""The cache for large values; tests/test_django_suite.py has Django's own tests of caches."""

from __future__ import annotations

import asyncio
import os
import pickle
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.core.exceptions import SynchronousOnlyOperation

from djpyfs import InvalidLifetime, InvalidName, expirations, expire_objects, get_filesystem
from djpyfs.cache import SUFFIX, ExpiringCache
from djpyfs.testing import advance, isolated
from tests.servers import HOST, Moto, free_port, wait_for

THREADS = 20


def cache_of(namespace: str, **params: Any) -> ExpiringCache:
    return ExpiringCache(namespace, params)


@pytest.fixture
def memos(djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]) -> Any:
    """A cache on every backend, with every record store."""
    djfs(**place, **records)
    return cache_of(f"memos/{uuid.uuid4().hex}")


@pytest.fixture
def alone() -> Iterator[ExpiringCache]:
    """A cache in memory, with a time that can be moved."""
    with isolated():
        yield cache_of("memos")


def names_in(namespace: str) -> list[str]:
    return [name for name in get_filesystem(namespace).listdir("/") if name.endswith(SUFFIX)]


# -- on every backend


def test_a_value_is_there_for_every_machine_until_it_is_deleted(memos: ExpiringCache) -> None:
    value = {"a picture": b"\0" * 100_000, "none": None}
    memos.set("a", value, 100)
    another = cache_of(memos.namespace)
    assert another.get("a") == value
    assert another.get_many(["a", "b"]) == {"a": value}
    assert another.delete("a")
    assert memos.get("a", "gone") == "gone"
    assert not memos.delete("a")


def test_an_empty_cache_finds_nothing_and_may_be_cleared(memos: ExpiringCache) -> None:
    assert memos.get("a", "none") == "none"
    assert memos.get_many([]) == {}
    assert not memos.has_key("a")
    memos.clear()
    memos.set_many({"a": 1, "b": 2})
    memos.clear()
    assert memos.get_many("ab") == {}
    assert names_in(memos.namespace) == []


def test_an_expired_value_is_gone_and_a_sweep_deletes_its_file(
    memos: ExpiringCache,
) -> None:
    memos.set("a", "short", 0.3)
    memos.set("b", "long", 100)
    wait_for(lambda: not memos.has_key("a"), what="the end of a value")
    assert memos.get_many(["a", "b"]) == {"b": "long"}
    expire_objects()
    assert len(names_in(memos.namespace)) == 1


def adding_at_once(memos: ExpiringCache) -> int:
    """Add a value from many threads; return how many did."""
    start = Barrier(THREADS)

    def add(number: int) -> bool:
        start.wait(60)
        return cache_of(memos.namespace).add("a", number)

    with ThreadPoolExecutor(THREADS) as threads:
        return sum(threads.map(add, range(THREADS)))


def test_of_many_who_add_a_value_one_succeeds(memos: ExpiringCache) -> None:
    assert adding_at_once(memos) == 1
    assert memos.has_key("a")


def test_of_many_who_add_an_expired_value_one_succeeds(memos: ExpiringCache) -> None:
    memos.set("a", "old", 0.2)
    wait_for(lambda: not memos.has_key("a"), what="the end of a value")
    assert adding_at_once(memos) == 1
    assert memos.get("a") in range(THREADS)


def test_the_values_that_expire_soonest_make_room(memos: ExpiringCache) -> None:
    small = cache_of(memos.namespace, OPTIONS={"MAX_ENTRIES": 6, "CULL_FREQUENCY": 2})
    small.set("endless", 0, None)
    for seconds in 500, 100, 400, 200, 300:
        small.set(str(seconds), seconds, seconds)
    small.set("new", 0, 50)
    assert {*small.get_many(["endless", "500", "400", "300", "200", "100", "new"])} == (
        {"endless", "500", "400", "new"}
    )
    assert len(names_in(memos.namespace)) == 4


def test_reading_makes_no_place(djfs: Callable[..., None], tmp_path: Path) -> None:
    djfs(type="osfs", directory_root=tmp_path / "files")
    memos = cache_of("memos")
    found = memos.has_key("a"), memos.touch("a"), memos.get("a"), memos.get_many("a")
    assert not any(found)
    assert os.listdir(tmp_path) == []


# -- how long values live


def test_expired_values_make_room_before_all_others(alone: ExpiringCache) -> None:
    small = cache_of("memos", OPTIONS={"MAX_ENTRIES": 4})
    small.set_many({"a": 1, "b": 2}, 10)
    small.set_many({"c": 3, "d": 4}, 100)
    advance(10)
    small.set("e", 5)
    assert small.get_many("abcde") == {"c": 3, "d": 4, "e": 5}


def test_a_value_without_a_timeout_has_none_until_it_is_given_one(alone: ExpiringCache) -> None:
    alone.set("a", 1, None)
    alone.set("b", 2, 10)
    assert alone.touch("b", None)
    advance(1_000_000)
    assert alone.get_many("ab") == {"a": 1, "b": 2}
    assert alone.touch("a", 10)
    alone.set("b", 3, 10)
    advance(10)
    assert alone.get_many("ab") == {}
    assert not alone.touch("a", 10)
    assert expire_objects().deleted == 2


def test_a_value_lives_as_long_as_the_last_one_to_set_it_said(alone: ExpiringCache) -> None:
    alone.set("a", 1, 1_000)
    alone.set("a", 2, 5)
    advance(5)
    assert alone.get("a") is None


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_value_without_a_life_is_not_kept(alone: ExpiringCache, timeout: int) -> None:
    alone.set("a", 1)
    alone.set("a", 2, timeout)
    assert alone.get("a") is None
    assert alone.add("b", 1, timeout)
    alone.set("c", 1)
    assert alone.touch("c", timeout)
    assert names_in("memos") == []


def test_a_value_that_has_lost_its_record_is_gone_and_gives_way(alone: ExpiringCache) -> None:
    alone.set("a", "ends", 1_000)
    alone.set("b", "endless", None)
    with expirations.fresh():
        assert alone.get_many("ab") == {"b": "endless"}
        assert not alone.has_key("a")
        assert alone.has_key("b")
        assert alone.add("a", "new", 10)
        assert alone.get("a") == "new"


def test_the_policy_of_the_namespace_applies() -> None:
    with isolated(max_ttl=60):
        memos = cache_of("memos")
        memos.set("a", 1, 60)
        for timeout in 61, None:
            with pytest.raises(InvalidLifetime, match="max_ttl"):
                memos.set("b", 1, timeout)
        assert not memos.has_key("b")
        assert len(names_in("memos")) == 1
    with isolated(max_ttl=60, clamp=True):
        memos.set("a", 1, None)
        advance(60)
        assert not memos.has_key("a")


# -- what else may be there


def test_files_of_others_stay(alone: ExpiringCache) -> None:
    get_filesystem("memos").writebytes("report.pdf", b"theirs")
    alone.set("a", 1)
    alone.clear()
    assert get_filesystem("memos").listdir("/") == ["report.pdf"]


def test_a_value_that_cannot_be_pickled_changes_nothing(alone: ExpiringCache) -> None:
    alone.set("a", 1)
    for method in alone.set, alone.add:
        with pytest.raises((AttributeError, pickle.PicklingError)):
            method("a", lambda: None)
    assert alone.get("a") == 1


def test_files_are_not_counted_for_each_value(on_s3: Callable[..., Any], moto: Moto) -> None:
    on_s3()
    large = cache_of("memos", OPTIONS={"MAX_ENTRIES": 1_000})

    def fill() -> None:
        for number in range(20):
            large.set(f"{number}", number)

    assert moto.requests_of(fill).count("LIST") == 1


def test_files_are_not_counted_for_each_request_under_asgi(
    on_s3: Callable[..., Any], moto: Moto, settings: Any
) -> None:
    on_s3()
    settings.CACHES = {"default": {"BACKEND": "djpyfs.cache.ExpiringCache", "LOCATION": "memos"}}

    async def request(number: int) -> None:
        await caches["default"].aset(f"{number}", number)

    async def serve() -> None:
        for number in range(10):
            await asyncio.create_task(request(number))  # each has caches of its own

    assert moto.requests_of(lambda: asyncio.run(serve())).count("LIST") == 1


def test_a_value_that_others_set_meanwhile_is_looked_at_with_one_request(
    on_s3: Callable[..., Any], moto: Moto
) -> None:
    on_s3()
    memos = cache_of("memos")
    memos.set("a", 1, None)
    assert moto.requests_of(lambda: memos.has_key("a")) == ["GET"]
    assert moto.requests_of(lambda: memos.add("a", 2)) == ["GET"]
    assert not memos.has_key("b")


def test_threads_that_use_one_key_at_once_raise_nothing(on_s3: Callable[..., Any]) -> None:
    on_s3()
    memos = cache_of("memos")
    uses: list[Callable[[], object]] = [
        lambda: memos.set("a", 1, None),
        lambda: memos.set("a", "another", None),
        lambda: memos.add("a", 3, None),
        lambda: memos.touch("a", None),
        lambda: memos.has_key("a"),
        lambda: memos.delete("a"),
    ]
    with ThreadPoolExecutor(4) as threads:
        for used in [threads.submit(use) for use in uses * 10]:
            used.result()


def test_django_finds_it(settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "djpyfs.cache.ExpiringCache", "LOCATION": "memos", "VERSION": 2}
    }
    with isolated():
        caches["default"].set("a", 1)
        assert caches["default"].get("a") == 1
        assert caches["default"].get("a", version=1) is None
        assert caches["default"].incr("a") == 2


def test_a_location_that_is_no_namespace_is_refused() -> None:
    with pytest.raises(InvalidName):
        cache_of("/tmp/cache")


def test_async_views_use_what_does_not_block(alone: ExpiringCache) -> None:
    async def view() -> None:
        await alone.aset("a", 1)
        assert await alone.aget("a") == 1
        with pytest.raises(SynchronousOnlyOperation):
            alone.get("a")

    async_to_sync(view)()


def test_a_blocking_call_is_refused_before_redis_is_asked(djfs: Callable[..., None]) -> None:
    djfs(type="memory", redis_url=f"redis://{HOST}:{free_port()}/0")

    async def view() -> None:
        memos = cache_of("memos")
        for method in memos.get, memos.has_key, memos.delete, memos.touch:
            with pytest.raises(SynchronousOnlyOperation):
                method("a")
        for setter in memos.set, memos.add:
            with pytest.raises(SynchronousOnlyOperation):
                setter("a", 1)

    async_to_sync(view)()
