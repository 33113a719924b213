"""The record stores that each test of a verb runs on: in the process and in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from djpyfs import conf, expirations
from djpyfs.expirations import Expirations, ExpirationStore, store_for
from tests.conftest import record_settings
from tests.faults.proxy import Proxy
from tests.records.steps import LEASE, SHORT, At
from tests.servers import RedisServer


@pytest.fixture(params=["memory", "redis", "redis-sharded", "cluster"])
def records(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The record stores of the other tests, and one that spreads its records."""
    return record_settings(request)


@pytest.fixture
def all_records(djfs: Callable[..., None], records: dict[str, Any]) -> ExpirationStore:
    djfs(type="memory", **records)
    return store_for(conf.current())


@pytest.fixture
def at(all_records: ExpirationStore) -> At:
    """Return the records of a place, for somebody with such a lease and such a fence."""

    def at(place: str = "here", lease: int = LEASE, **options: Any) -> Expirations:
        return all_records.at(place, lease, **options)

    return at


@pytest.fixture
def store(at: At) -> Expirations:
    return at()


@pytest.fixture
def dying(at: At) -> Expirations:
    """The records as a process sees them whose leases nobody extends."""
    return at(lease=SHORT)


@pytest.fixture
def redis_store(djfs: Callable[..., None], redis_server: RedisServer) -> Expirations:
    djfs(type="memory", redis_url=redis_server.url, key_prefix=f"once-{time.monotonic_ns()}")
    return store_for(conf.current()).at("here", LEASE)


@pytest.fixture
def losing(redis_server: RedisServer, djfs: Callable[..., None]) -> Iterator[tuple[Any, Proxy]]:
    """The records behind a proxy that may lose a reply; the call is repeated then."""
    proxy = Proxy(redis_server.port)
    djfs(type="memory", redis_url=proxy.url, key_prefix=f"lost-{time.monotonic_ns()}")
    store = store_for(conf.current()).at("here", LEASE)
    store.counts()
    yield store, proxy
    expirations.close_all()
    proxy.stop()
