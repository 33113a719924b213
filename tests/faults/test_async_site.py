"""Views under uvicorn, while the Redis or the store of some of them hangs."""

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

from tests.conftest import BUCKET, KEYS
from tests.faults.conftest import Measured
from tests.faults.proxy import Proxy
from tests.servers import HOST, RedisServer, free_port, wait_for
from tests.services import running

SITE = "tests.faults.async_site"
HUNG = 20  # views at a time that wait for what hangs
ASKS = {"Redis": "address", "the store": "picture"}  # what hangs, and the view that asks for it


@pytest.fixture
def proxies(redis_server: RedisServer, s3_endpoint: str) -> Iterator[dict[str, Proxy]]:
    ports = {"Redis": redis_server.port, "the store": int(s3_endpoint.rpartition(":")[2])}
    proxies = {name: Proxy(port) for name, port in ports.items()}
    yield proxies
    for proxy in proxies.values():
        proxy.stop()


@pytest.fixture
def get(proxies: dict[str, Proxy], tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Ask a site whose records and pictures are behind the proxies; returns the status."""
    port = free_port()
    store = f"http://{HOST}:{proxies['the store'].port}"
    djfs = {
        "directory_root": str(tmp_path / "files"),
        "redis_url": proxies["Redis"].url,
        "namespaces": {
            "pictures": {"type": "s3fs", "bucket": BUCKET, "endpoint_url": store, **KEYS}
        },
    }
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


@pytest.mark.fault(
    "Redis or the store hangs: views beside those that wait for it, under uvicorn",
    "p99 < 50 ms, or no more than twice as long as before",
)
@pytest.mark.long(
    but=[
        "test_a_hang_stops_no_view_that_does_not_need_what_hangs[Redis-thread]",
        "test_a_hang_stops_no_view_that_does_not_need_what_hangs[the store-unrelated]",
    ]
)
@pytest.mark.parametrize("view", ["unrelated", "thread"])
@pytest.mark.parametrize("hanging", ASKS)
def test_a_hang_stops_no_view_that_does_not_need_what_hangs(
    proxies: dict[str, Proxy],
    get: Callable[[str], int],
    hanging: str,
    view: str,
    full: bool,
    measured: Measured,
) -> None:
    assert get(ASKS[hanging]) == 200

    def visit(goes_on: Callable[[], bool]) -> list[float]:
        took = []
        end = time.monotonic() + (20 if full else 2)
        while goes_on() and time.monotonic() < end:
            began = time.monotonic()
            assert get(view) == 200
            took.append(time.monotonic() - began)
        return took

    before = quantiles(visit(lambda: True), n=100)[98] if full else 0
    proxies[hanging].silent = True
    with ThreadPoolExecutor(HUNG) as visitors:
        hung = [visitors.submit(get, ASKS[hanging]) for _ in range(HUNG)]
        took = visit(lambda: not any(one.done() for one in hung))
        proxies[hanging].silent = False
        assert {one.result() for one in hung} <= {200, 503}
    p50, p99 = (quantiles(took, n=100)[n - 1] for n in (50, 99))
    assert not full or p99 < max(0.05, 2 * before)
    assert p50 < 0.5  # which a busy machine keeps
    measured(
        f"{hanging}, {view}: {len(took):,} requests, p50 {p50 * 1e3:.1f} ms, "
        f"p99 {p99 * 1e3:.1f} ms ({before * 1e3:.1f} ms before)"
    )
