"""A store that allows so many requests a second, which a backlog and the site share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import quantiles
from threading import Lock
from typing import Any

import boto3
import pytest
from botocore.config import Config

from djpyfs import get_filesystem
from tests.conftest import KEYS
from tests.faults.conftest import Measured
from tests.servers import HOST, InThread, RedisServer, running_redis
from tests.services import Service

ALLOWED = 3_500  # keys a second, as S3 has it for a prefix
ANSWERS_AFTER = 0.02  # s
SITE = 100  # requests a second
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
OF_KEY = b"<Error><Key>%b</Key><Code>SlowDown</Code><Message>no</Message></Error>"


class ThrottledStore(InThread):
    """Stores nothing, and counts: each key of a batch is a request."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._left, self._at = float(ALLOWED), time.monotonic()
        #: How many keys were deleted, and how many deletions and requests of the site refused.
        self.deleted = self.refused = self.refused_site = 0
        self.start(ThreadingHTTPServer((HOST, 0), self._handler()))

    def _allow(self, wanted: int) -> int:
        with self._lock:
            now = time.monotonic()
            self._left = min(ALLOWED, self._left + (now - self._at) * ALLOWED)
            self._at = now
            allowed = min(wanted, int(self._left))
            self._left -= allowed
            return allowed

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                allowed = store._allow(1)
                store.refused_site += not allowed
                self._answer(200 if allowed else 503, b"" if allowed else BUSY)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                keys = [part.partition(b"</Key>")[0] for part in body.split(b"<Key>")[1:]]
                allowed = store._allow(len(keys))
                store.deleted += allowed
                store.refused += len(keys) - allowed
                errors = b"".join(OF_KEY % key for key in keys[allowed:])
                self._answer(200, b"<DeleteResult>" + errors + b"</DeleteResult>")

            def do_DELETE(self) -> None:
                allowed = store._allow(1)
                store.deleted += allowed
                store.refused += not allowed
                self._answer(204 if allowed else 503, b"" if allowed else BUSY)

            def _answer(self, code: int, body: bytes) -> None:
                time.sleep(ANSWERS_AFTER)
                self.send_response(code)
                if code != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def store() -> Iterator[ThrottledStore]:
    made = ThrottledStore()
    yield made
    made.stop()


class Site:
    """Stores a picture every now and then, and knows how long that took."""

    def __init__(self, store: ThrottledStore) -> None:
        config = Config(max_pool_connections=50, retries={"mode": "standard"})
        session = boto3.Session("tests", "tests", region_name=KEYS["region"])
        self._client: Any = session.client("s3", endpoint_url=store.url, config=config)

    def p99(self, goes_on: Callable[[float], bool]) -> tuple[float, int]:
        """Measure as long as that says; return the 99th percentile in s, and the count."""
        took: list[float] = []

        def put(number: int) -> None:
            start = time.perf_counter()
            self._client.put_object(Bucket="pictures", Key=f"site/{number}", Body=b"picture")
            took.append(time.perf_counter() - start)

        with ThreadPoolExecutor(40) as pool:
            start, number = time.monotonic(), 0
            while goes_on(time.monotonic() - start):
                pool.submit(put, number)
                number += 1
                time.sleep(max(0.0, start + number / SITE - time.monotonic()))
        return quantiles(took, n=100)[98], len(took)


@pytest.mark.parametrize(
    "rate",
    [pytest.param(2_500, marks=pytest.mark.long), None],
    ids=["with a rate", "without one"],
)
@pytest.mark.fault(
    "1,000,000 overdue files in a store that allows 3,500 requests a second",
    "the site's own requests: p99 ≤ 1.5 times as long as before, 1 % refused at most",
)
def test_a_backlog_leaves_the_store_to_the_site(
    djfs: Callable[..., None],
    tmp_path: Path,
    redis: RedisServer,
    store: ThrottledStore,
    rate: int | None,
    full: bool,
    measured: Measured,
) -> None:
    count = 1_000_000 if full else 6_000
    place = {"type": "s3fs", "bucket": "pictures", "endpoint_url": store.url, **KEYS}
    service = Service(tmp_path, redis, **place, deletions_per_second=rate)
    djfs(**service.djfs)
    files = get_filesystem("plots")
    site = Site(store)
    site.p99(lambda passed: passed < 0.5)  # opens connections
    with service.process("worker"):
        service.wait_for_workers()
        alone, _ = site.p99(lambda passed: passed < (30 if full else 1))
        before = store.refused_site
        for first in range(0, count, 10_000):
            files.expire_many([f"{n:07}" for n in range(first, min(count, first + 10_000))], 0)
        start = time.monotonic()
        beside, asked = site.p99(lambda passed: store.deleted < count and passed < 1_500)
        took = time.monotonic() - start
        refused = (store.refused_site - before) / asked
    service.close()
    measured(
        f"rate {rate}: {store.deleted / took:.0f} deleted a second, "
        f"{store.refused} deletions refused; the site: p99 {alone * 1e3:.0f} ms alone, "
        f"{beside * 1e3:.0f} ms beside them, {refused:.2%} of {asked} refused"
    )
    assert store.deleted >= count
    assert refused <= 0.01
    if full:  # on a machine with nothing else to do
        assert beside <= 1.5 * alone
    if rate:
        assert store.refused == 0
