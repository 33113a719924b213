"""The filesystem in an event loop, which it must not block."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from djpyfs import (
    ConfigurationError,
    RecordStoreUnavailable,
    aexpire_objects,
    expire_objects,
    get_filesystem,
)
from djpyfs.filesystem import ExpiringFS
from tests.conftest import counted
from tests.faults.proxy import Proxy
from tests.filesystem.steps import left
from tests.servers import HOST, RedisServer, wait_for


@pytest.fixture(autouse=True)
def _guarded(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.test_links"
    monkeypatch.delenv("DJANGO_ALLOW_ASYNC_UNSAFE", raising=False)


async def publish(fs: Any) -> str:
    async with fs.temporary_file(".png", seconds=300) as f:
        f.write(b"picture")
    return str(f.name)


def test_async_views_have_methods_that_do_not_block(plots: ExpiringFS) -> None:
    async def view(fs: Any) -> None:
        await fs.aexpire("a.png", 300)
        await fs.aexpire_many(["b.png"], seconds=300)
        assert await fs.aexpiration("a.png") == await fs.aexpiration("/a.png") is not None
        await fs.aexpire_at("a.png", datetime.now(UTC) + timedelta(seconds=50))
        url = await fs.aget_url("a.png", 60)
        assert url.startswith(("/files/", "/f/", "http"))
        assert list(await fs.aget_urls(["a.png", "b.png"], 60)) == ["a.png", "b.png"]
        with suppress(ConfigurationError):  # of URLs that the backend gives out
            await fs.arevoke_urls("a.png")

    filesystems: list[Any] = [plots, plots.makedir("d")]
    for fs in filesystems:
        asyncio.run(view(fs))
        assert left(fs, "b.png") == pytest.approx(300, abs=30)


def test_a_temporary_file_is_opened_and_stored_in_a_thread(plots: ExpiringFS) -> None:
    filesystems: list[Any] = [plots, plots.makedir("d")]
    for fs in filesystems:
        name = asyncio.run(publish(fs))
        assert fs.readbytes(name) == b"picture"
        assert left(fs, name) == pytest.approx(300, abs=30)


def test_an_async_block_that_raises_leaves_neither_file_nor_record(plots: ExpiringFS) -> None:
    async def raising() -> None:
        async with plots.temporary_file(seconds=300) as f:
            f.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(raising())
    assert plots.listdir("/") == []
    assert counted().tracked == 0


def test_a_task_that_is_cancelled_while_its_file_is_opened_leaves_neither_file_nor_record(
    djfs: Callable[..., None], place: dict[str, Any], redis_server: RedisServer
) -> None:
    proxy, prefix = Proxy(redis_server.port), f"test-{uuid.uuid4().hex}"
    djfs(**place, redis_url=proxy.url, key_prefix=prefix)
    fs = get_filesystem("plots")
    fs.expire("a.png", 0)
    expire_objects()

    def is_recorded() -> bool:
        with redis_server.client() as client:
            return any(key.endswith(b":due") for key in client.scan_iter(f"{prefix}*"))

    async def view() -> None:
        publishing = asyncio.create_task(publish(fs))
        proxy.silent = True
        await asyncio.to_thread(wait_for, is_recorded)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        proxy.silent = False

    try:
        asyncio.run(view())
        wait_for(lambda: not is_recorded())
        assert fs.listdir("/") == []
    finally:
        proxy.stop()


def test_an_async_sweep_deletes(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 0)
    assert asyncio.run(aexpire_objects()).deleted == 1


BLOCKING: dict[str, Callable[[Any], object]] = {
    "open": lambda fs: fs.open("a.png", "wb"),
    "read": lambda fs: fs.readbytes("a.png"),
    "list": lambda fs: fs.listdir("/"),
    "remove": lambda fs: fs.remove("a.png"),
    "expire": lambda fs: fs.expire("a.png", 300),
    "expire_at": lambda fs: fs.expire_at("a.png", datetime.now(UTC)),
    "expire_many": lambda fs: fs.expire_many(["a.png"], 300),
    "expiration": lambda fs: fs.expiration("a.png"),
    "get_url": lambda fs: fs.get_url("a.png"),
    "get_urls": lambda fs: fs.get_urls(["a.png"]),
    "revoke_urls": lambda fs: fs.revoke_urls("a.png"),
    "temporary_file": lambda fs: fs.temporary_file(seconds=300).__enter__(),
    "sweep": lambda fs: expire_objects(),
}


@pytest.mark.parametrize("name", BLOCKING)
def test_a_blocking_call_is_refused_in_an_event_loop(
    djfs: Callable[..., None], tmp_path: Path, name: str
) -> None:
    djfs(type="osfs", directory_root=tmp_path)

    async def view(fs: Any) -> None:
        BLOCKING[name](fs)

    for fs in get_filesystem("plots"), get_filesystem("plots").makedir("d"):
        with pytest.raises(SynchronousOnlyOperation, match="sync_to_async"):
            asyncio.run(view(fs))
    assert counted().tracked == 0


def test_a_setting_allows_blocking_in_an_event_loop(
    djfs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    djfs(type="memory")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

    async def view() -> None:
        get_filesystem("plots").expire("a.png", 300)

    asyncio.run(view())
    assert counted().tracked == 1


def test_others_are_served_while_redis_hangs(djfs: Callable[..., None]) -> None:
    async def serve(hanging: socket.socket) -> bool:
        waiting = asyncio.ensure_future(get_filesystem("plots").aexpire("a.png", 300))
        for _ in range(50):
            await asyncio.sleep(0.001)
        still_waits = not waiting.done()
        hanging.close()
        with pytest.raises(RecordStoreUnavailable):
            await waiting
        return still_waits

    with socket.create_server((HOST, 0)) as server:  # which answers nobody
        djfs(type="memory", redis_url=f"redis://{HOST}:{server.getsockname()[1]}/0")
        assert asyncio.run(serve(server))


def test_a_child_of_fork_has_threads_of_its_own(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    asyncio.run(get_filesystem("plots").aexpire("a.png", 300))
    child = os.fork()
    if not child:
        signal.alarm(60)
        asyncio.run(get_filesystem("plots").aexpire("b.png", 300))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
