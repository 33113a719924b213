"""Views under uvicorn, while the Redis of some of them hangs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles

import pytest

from tests.faults.conftest import Measured
from tests.faults.proxy import Proxy
from tests.servers import HOST, RedisServer, free_port, wait_for
from tests.services import running

SITE = "tests.faults.async_site"
HUNG = 20  # views at a time that wait for Redis


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(redis_server.port)
    yield proxy
    proxy.stop()


@pytest.fixture
def get(proxy: Proxy, tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Ask a site whose records are behind the proxy; returns the status."""
    port = free_port()
    djfs = {"type": "osfs", "directory_root": str(tmp_path / "files"), "redis_url": proxy.url}
    settings = {"DJFS": djfs, "ROOT_URLCONF": SITE, "ALLOWED_HOSTS": [HOST]}
    command = ["uvicorn", "--host", HOST, "--port", str(port), f"{SITE}:application"]
    environ = {
        "DJANGO_SETTINGS_MODULE": "tests.service_settings",
        "SETTINGS": json.dumps(settings),
    }

    def get(view: str) -> int:
        with closing(HTTPConnection(HOST, port, timeout=60)) as connection:
            connection.request("GET", f"/{view}")
            return connection.getresponse().status

    def answers() -> bool:
        with suppress(OSError):
            return get("unrelated") == 200
        return False

    with running(command, environ, tmp_path / "uvicorn.log"):
        wait_for(answers, what="the site")
        yield get


@pytest.mark.fault("Redis hangs: views beside those that wait for it, under uvicorn", "p99 < 50 ms")
@pytest.mark.parametrize("view", ["unrelated", "thread"])
def test_a_redis_that_hangs_stops_no_view_that_does_not_ask_it(
    proxy: Proxy, get: Callable[[str], int], view: str, full: bool, measured: Measured
) -> None:
    assert get("address") == 200
    proxy.silent = True
    took = []
    with ThreadPoolExecutor(HUNG) as visitors:
        hung = [visitors.submit(get, "address") for _ in range(HUNG)]
        while not any(one.done() for one in hung):
            began = time.monotonic()
            assert get(view) == 200
            took.append(time.monotonic() - began)
        assert {one.result() for one in hung} == {503}
    p50, p99 = (quantiles(took, n=100)[n - 1] for n in (50, 99))
    assert not full or p99 < 0.05
    assert p50 < 0.5  # which a busy machine keeps
    measured(f"{view}: {len(took):,} requests, p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
