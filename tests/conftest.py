"""What every test may ask for: settings for each backend and record store, and real servers."""

from __future__ import annotations

import functools
import gc
import os
import unittest
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import botocore.hooks
import botocore.session
import pytest
import redis.utils
from botocore.hooks import EventAliaser
from django.utils import translation

import djpyfs  # noqa: F401  PyFilesystem can be imported from here on
from djpyfs import conf, get_filesystem
from djpyfs.backends import backend_for
from djpyfs.expirations import Counts, Expirations, total
from djpyfs.filesystem import ExpiringFS
from djpyfs.places import records_for, records_known
from tests.pythons import build_wheel
from tests.servers import (
    BigObject,
    Moto,
    RedisCluster,
    RedisServer,
    SentinelSet,
    running_moto,
    running_postgres,
    running_redis,
    running_set,
)

pytest_plugins = ["djpyfs.pytest_plugin"]

# fs.test calls it by the name that Python 3.12 dropped.
unittest.TestCase.assertRaisesRegexp = unittest.TestCase.assertRaisesRegex  # type: ignore[attr-defined]

# Two libraries compute the same for each client, and each test makes its own clients: caching that
# saves 110 ms on S3, and 6 ms on Redis. Botocore inspects its own 150 handlers, which costs 7 ms.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)
_hooks: Any = botocore.hooks
_hooks.accepts_kwargs = lambda _: True
_events: Any = EventAliaser
_events._alias_event_name = staticmethod(functools.cache(_events(None)._alias_event_name))
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)

BUCKET = "djpyfs"
BY_DEFAULT = Path(conf.DEFAULTS["directory_root"])
NEVER = 3_600.0  # s: before that no server takes over from one that is merely slow
# fixture of the server, shards, replicas that confirm each change
RECORDS = {
    "redis": ("redis_server", 1, 0),
    "redis-sharded": ("redis_server", 3, 0),
    "sentinel": ("sentinels", 1, 1),
    "cluster": ("redis_cluster", 5, 1),
}
# The pairs that sites and their tests have; None is for tests of one of the two.
PAIRS = {("osfs", "redis"), ("s3fs", "redis"), ("memory", "memory"), None}
# Modules with a test of more than ten seconds, or with servers that take as long to start.
LONGEST = """
    test_demo_page test_services test_demo test_packaging faults/test_writers test_redis_access
    faults/test_culprits faults/test_punctual faults/test_model faults/test_workers
    faults/test_throttling faults/test_clocks test_unreadable_shards faults/test_owners test_sweep
    test_upload_guide faults/test_hostile_content
""".split()
KEYS = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests", "region": "us-east-1"}


def records_here(namespace: str = "plots") -> Expirations:
    """Return the records of the files that a namespace has now."""
    return records_for(namespace)


def files_beneath(namespace: str = "plots") -> Any:
    """Return the files of a namespace as its backend has them, without the rules of djpyfs."""
    return backend_for(conf.current(), namespace).open(namespace)


def counted() -> Counts:
    """Count the records of all places."""
    return total(records.counts() for records in records_known(conf.current()).records)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="what takes long, in its full form")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests, except those that their mark allows, and unusual pairs to --full."""
    if not config.getoption("full"):
        left = {item for item in items if _takes_long(item) or _pair(item) not in PAIRS}
        config.hook.pytest_deselected(items=[*left])
        items[:] = [item for item in items if item not in left]
    if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
        items[:] = _dealt(items, int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


def _dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Have each worker begin with some of the longest modules.

    Each gets an equal share of the list, and takes from the end of another's when its own is done.
    So nobody waits for a long test in the end, and no module has its servers started by several.
    """
    hands: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for number, module in enumerate(LONGEST):
        path = f"tests/{module}.py::"
        hands[number % workers] += [item for item in items if item.nodeid.startswith(path)]
    held = {item for hand in hands for item in hand}
    rest = iter([item for item in items if item not in held])
    dealt: list[pytest.Item] = []
    for left, hand in zip(range(workers, 0, -1), hands, strict=True):
        share = (len(items) - len(dealt)) // left
        dealt += [*hand, *islice(rest, max(0, share - len(hand)))]
    return [*dealt, *rest]


def pytest_collection_finish() -> None:
    """Spare the garbage collector the tests: looking through them takes it half a second."""
    gc.freeze()


def _takes_long(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("long")
    return mark is not None and item.name not in mark.kwargs.get("but", ())


def _pair(item: pytest.Item) -> tuple[str, str] | None:
    """Where its files and its records are, if it is run with each of both."""
    own = item.callspec.params if hasattr(item, "callspec") else {}
    return (own["place"], own["records"]) if {"place", "records"} <= own.keys() else None


@pytest.fixture(autouse=True)
def in_the_language_of_the_site() -> Iterator[None]:
    """Forget the language of the last visitor, which stays active in the thread."""
    yield
    translation.deactivate()


@pytest.fixture(autouse=True)
def nothing_where_the_defaults_say(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail a test whose site has no settings, and so keeps files in the checkout."""
    left = pytestconfig.rootpath / BY_DEFAULT.parts[0]
    was_there = left.exists()
    yield
    assert was_there or not left.exists(), "a test that ran just now needs a DJFS of its own"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    with running_set(RedisCluster, NEVER) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres() -> Iterator[dict[str, Any]]:
    """The settings of a PostgreSQL, for Django."""
    with running_postgres() as settings:
        yield settings


@pytest.fixture(scope="session")
def sentinels() -> Iterator[SentinelSet]:
    with running_set(SentinelSet, NEVER) as sentinels:
        yield sentinels


def create_bucket(endpoint: str) -> None:
    region, key, secret = KEYS["region"], KEYS["aws_access_key_id"], KEYS["aws_secret_access_key"]
    session = boto3.Session(key, secret, region_name=region)
    session.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with running_moto() as endpoint:
        create_bucket(endpoint)
        yield endpoint


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    server = Moto()
    create_bucket(server.url)
    yield server
    server.stop()


@pytest.fixture
def on_s3(djfs: Callable[..., None], moto: Moto) -> Callable[..., ExpiringFS]:
    """Make a filesystem on an S3 endpoint that counts the requests, or on another one."""

    def make(**options: Any) -> ExpiringFS:
        own = {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": moto.url}
        djfs(**{"type": "s3fs", **own, **KEYS, **options})
        return get_filesystem("plots")

    return make


@pytest.fixture
def big() -> Iterator[BigObject]:
    store = BigObject(1 << 30)
    yield store
    store.stop()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(params=["memory", "redis"])
def records(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The part of DJFS that says where records are kept; no other test uses its keys."""
    return record_settings(request)


def record_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the settings of the record store that is the parameter of a fixture."""
    own = {"key_prefix": f"test-{uuid.uuid4().hex}"}
    if request.param == "memory":
        return {**own, "redis_url": "memory://"}
    fixture, shards, replicas = RECORDS[request.param]
    url = request.getfixturevalue(fixture).url
    return {**own, "redis_url": url, "shards": shards, "wait_replicas": replicas}


@pytest.fixture(params=["osfs", "memory", "s3fs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The part of DJFS that says where files are kept; no other test uses that place."""
    if request.param == "osfs":
        return {"type": "osfs", "directory_root": tmp_path / "files", "url_root": "/files/"}
    if request.param == "s3fs":
        endpoint = request.getfixturevalue("s3_endpoint")
        own = {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": endpoint}
        return {"type": "s3fs", **own, **KEYS}
    return {"type": "memory"}


@pytest.fixture
def djfs(settings: Any) -> Callable[..., None]:
    """Set ``DJFS`` for one test, with records in memory unless it says otherwise."""

    def set_(**values: Any) -> None:
        settings.DJFS = {"redis_url": "memory://", **values}

    return set_


@pytest.fixture
def plots(djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]) -> ExpiringFS:
    """A filesystem on every backend, with every record store."""
    djfs(**place, **records)
    return get_filesystem("plots")


@pytest.fixture
def disk(djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer) -> ExpiringFS:
    """A filesystem on disk with its records in Redis, for tests of just that pair."""
    djfs(
        type="osfs",
        directory_root=tmp_path / "files",
        url_root="/files/",
        redis_url=redis_server.url,
        key_prefix=f"test-{uuid.uuid4().hex}",
    )
    return get_filesystem("plots")
