"""No secret in anything that djpyfs says: errors of each kind, looked through for a mark."""

from __future__ import annotations

import base64
import io
import json
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.files.storage import Storage
from django.core.management import call_command
from django.test import Client
from django.views.debug import SafeExceptionReporterFilter
from redis import Redis

from djpyfs import conf, expire_objects, get_filesystem, links
from djpyfs.backends import backend_for
from djpyfs.expirations import store_for
from tests.conftest import BUCKET, KEYS
from tests.pages import examples
from tests.servers import HOST, free_port, running_redis
from tests.services import run_client

MARK = "sesame"
KEY_ID, KEY, TOKEN = f"AKIA{MARK}", f"{MARK}/key", f"{MARK}-token"
S3 = {
    "type": "s3fs",
    "bucket": BUCKET,
    "region": "us-east-1",
    "aws_access_key_id": KEY_ID,
    "aws_secret_access_key": KEY,
    "aws_session_token": TOKEN,
}
REDIS = f"redis://user:{MARK}@{HOST}:1/0"

WRONG: dict[str, dict[str, Any]] = {
    "unquoted password": {**S3, "redis_url": f"redis://:{MARK}/secret@{HOST}:6379/0"},
    "unquoted password of Sentinels": {**S3, "redis_url": f"redis+sentinel://:{MARK}/x@{HOST}:1/m"},
    "no scheme": {**S3, "redis_url": f"{MARK}@{HOST}"},
    "other scheme": {**S3, "redis_url": f"{MARK}://{HOST}"},
    "bad option": {**S3, "redis_url": f"{REDIS}?socket_timeout={MARK}"},
    "bytes": {**S3, "redis_url": REDIS.encode()},
    "no dict of namespaces": {**S3, "redis_url": REDIS, "namespaces": [S3]},
    "no dict of a namespace": {**S3, "redis_url": REDIS, "namespaces": {"a": [S3]}},
    "bad namespace": {**S3, "redis_url": REDIS, "namespaces": {"../a": S3}},
    "bad option of a namespace": {
        **S3,
        "redis_url": REDIS,
        "namespaces": {"a": {"redis_url": REDIS}},
    },
    "unknown key": {**S3, "redis_url": REDIS, "aws_secret_key": KEY},
    "half of a key pair": {**S3, "aws_access_key_id": ""},
    "no bucket": {**S3, "bucket": ""},
    "user in the endpoint": {**S3, "endpoint_url": f"http://me:{MARK}@{HOST}:1"},
    "bad endpoint": {**S3, "endpoint_url": f"{MARK}@{HOST}"},
    "bad arguments": {**S3, "upload_args": {"SSECustomerKeys": MARK}},
    "unknown protocol": {"type": "opener", "url": f"nosuch://me:{MARK}@{HOST}/"},
    "no protocol": {"type": "opener", "url": f"me:{MARK}@{HOST}/"},
    "unreadable address": {"type": "opener", "url": f"ftp://me:{MARK}@{HOST}/\n"},
    "no address": {"type": "opener", "url": [f"ftp://me:{MARK}@{HOST}/"]},
    "server away": {"type": "opener", "url": f"ftp://me:{MARK}@{HOST}:1/"},
    "bad port": {"type": "opener", "url": f"ftp://me:{MARK}@{HOST}:port/"},
    "no archive": {"type": "opener", "url": f"zip:///nonexistent/a.zip?{MARK}"},
    "endpoint away": {**S3, "endpoint_url": f"http://{HOST}:1"},
    "Redis away": {"type": "memory", "redis_url": REDIS},
    "TLS and away": {"type": "memory", "redis_url": REDIS.replace("redis:", "rediss:")},
    "Sentinels away": {"type": "memory", "redis_url": f"redis+sentinel://:{MARK}@{HOST}:1/m"},
    "Cluster away": {"type": "memory", "redis_url": f"redis+cluster://:{MARK}@{HOST}:1"},
}
SLOW = ("Sentinels away", "Cluster away")


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture, settings: Any) -> Iterator[Callable[..., None]]:
    """Call it with what was said; it searches that, and in the end the logs."""

    def look_through(*texts: object) -> None:
        for text in texts:
            if isinstance(text, BaseException):
                assert MARK not in "".join(traceback.format_exception(text))
                assert MARK not in repr(text)
            assert MARK not in str(text)

    caplog.set_level(logging.DEBUG, "djpyfs")
    caplog.set_level(logging.DEBUG, "django")
    settings.SECRET_KEY = f"{MARK}, said the signer"
    settings.ROOT_URLCONF = "tests.faults.urls"
    yield look_through
    look_through(caplog.text, *map(vars, caplog.records))


def tried() -> Iterator[Callable[[], object]]:
    yield lambda: get_filesystem("plots").writebytes("a", b"a")
    yield lambda: get_filesystem("plots").expire("a", 5)
    yield lambda: get_filesystem("plots").readbytes("a")
    yield lambda: get_filesystem("plots").get_url("a", download_as="b")
    yield lambda: get_filesystem("plots").getinfo("a")
    yield lambda: get_filesystem("plots").listdir("/")
    yield lambda: get_filesystem("plots").remove("a")
    yield expire_objects
    yield lambda: call_command("djpyfs", "status", stdout=io.StringIO())
    yield lambda: call_command("djpyfs", "audit", "plots", stdout=io.StringIO())
    yield lambda: call_command("djpyfs", "lifecycle", stdout=io.StringIO())


def raised_by(calls: Iterable[Callable[[], object]]) -> Iterator[Exception]:
    for call in calls:
        try:
            call()
        except Exception as error:
            yield error


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.long] * (what in SLOW)) for what in WRONG]
)
def test_no_error_shows_a_secret(
    what: str,
    settings: Any,
    told: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    settings.DJFS = {"redis_url": "memory://", **WRONG[what]}
    raised = list(raised_by(tried()))
    assert raised
    told(*raised)
    for message in run_checks(include_deployment_checks=True):
        told(message, repr(message), message.hint)


def test_a_redis_that_refuses_the_password_keeps_it(
    settings: Any, told: Callable[..., None]
) -> None:
    with running_redis(requirepass="another") as server:
        settings.DJFS = {"type": "memory", "redis_url": f"redis://:{MARK}@{HOST}:{server.port}/0"}
        raised = list(raised_by(tried()))
    assert raised
    told(*raised)


def test_nothing_that_can_be_shown_shows_a_secret(settings: Any, told: Callable[..., None]) -> None:
    ftp = {"type": "opener", "url": f"ftp://me:{MARK}@{HOST}:1/"}
    settings.DJFS = {**S3, "redis_url": REDIS, "namespaces": {"ftp": ftp}}
    read = conf.current()
    policies = [read.policy, *read.namespaces.values()]
    for policy in policies:
        told(policy, policy.placement, repr(policy), repr(policy.placement))
    told(read, repr(read), get_filesystem("plots"), repr(get_filesystem("plots")))
    for namespace in "plots", "ftp":
        backend = backend_for(read, namespace)
        told(backend, repr(backend), repr(backend.checks()))
    files = backend_for(read, "plots").open("plots")
    told(files, repr(files), store_for(read), repr(store_for(read)))


def test_the_error_reports_of_django_show_no_secret_with_the_filter_of_the_docs(
    settings: Any, told: Callable[..., None]
) -> None:
    ftp = {"type": "opener", "url": f"ftp://me:{MARK}@{HOST}/"}
    settings.DJFS = {**S3, "redis_url": REDIS, "namespaces": {"ftp": ftp}}
    settings.CELERY_BROKER_URL = settings.CELERY_RESULT_BACKEND = REDIS
    assert MARK in str(SafeExceptionReporterFilter().get_safe_settings())
    *_, code = examples("guides/operating.md")
    names: dict[str, Any] = {}
    exec(code, names)
    shown = names["HidesAddresses"]().get_safe_settings()
    told(shown)
    assert shown["ROOT_URLCONF"] == settings.ROOT_URLCONF


# -- the broker

SENT = """
from celery.beat import Scheduler
from djpyfs import get_filesystem
from djpyfs_tasks import app
plots = get_filesystem("plots")
print(plots.get_url("a"), plots.get_url("a", max_downloads=1))
plots.expire("a", 60)
beat = Scheduler(app)
[tick] = beat.schedule.values()
beat.apply_async(tick)
"""


def read(message: bytes) -> tuple[Any, str]:
    """Return what a message of Celery says, and all of it as its reader sees it."""
    envelope = json.loads(message)
    body = base64.b64decode(envelope.pop("body")).decode()
    return json.loads(body), f"{envelope} {body}"


def test_no_message_to_the_broker_holds_a_secret(told: Callable[..., None]) -> None:
    with running_redis(requirepass=MARK) as server:
        url = f"redis://:{MARK}@{HOST}:{server.port}/0"
        settings = {
            "DJFS": {**S3, "redis_url": url, "one_shot": True},
            "SECRET_KEY": f"{MARK}, said the signer",
            "ROOT_URLCONF": "tests.faults.urls",
        }
        with Redis.from_url(url) as broker, broker.pubsub(ignore_subscribe_messages=True) as events:
            events.psubscribe("*")
            events.get_message(timeout=5)
            environ = {"DJANGO_SETTINGS_MODULE": "tests.service_settings"}
            addresses = run_client(SENT, {**environ, "SETTINGS": json.dumps(settings)}).split()
            [one_shot] = map(read, broker.lrange("djpyfs.one_shot", 0, -1))
            [tick] = map(read, broker.lrange("djpyfs.sweep", 0, -1))
            published = []
            while event := events.get_message(timeout=0.1):
                published.append(read(event["data"]))
    assert one_shot[0][:2] == [["plots", ["a"]], {}]
    assert tick[0][:2] == [[], {}]
    assert len(addresses) == 2
    for _, whole in one_shot, tick, *published:
        told(whole)
        for address in addresses:
            assert address[-20:] not in whole  # the end of the signature


# -- signed addresses


@pytest.mark.parametrize("redis_url", ["memory://", REDIS])
def test_no_log_shows_a_signed_url(
    redis_url: str, settings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DJFS = {"type": "osfs", "directory_root": tmp_path / "files"}
    settings.DJFS = {**settings.DJFS, "redis_url": "memory://"}
    get_filesystem("plots").writebytes("there", b"a")
    urls = [get_filesystem("plots").get_url(name) for name in ("there", "missing")]
    urls.append(forged := urls[0] + "x")
    settings.DJFS = {**settings.DJFS, "redis_url": redis_url}
    client = Client()
    for url in urls:
        statuses = set()
        for method in "GET", "POST":
            for headers in {}, {"Range": "bytes=9-"}, {"If-Match": '"other"'}:
                with closing(client.generic(method, url, headers=headers)) as answer:
                    statuses.add(answer.status_code)
        assert 405 in statuses or url == forged
        assert url.removeprefix("/f/")[:20] not in caplog.text
        assert {404, 412, 503} & statuses


def test_a_backend_that_fails_is_a_503_without_the_address(
    settings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DJFS = {**S3, "redis_url": "memory://", "endpoint_url": f"http://{HOST}:{free_port()}"}
    url = links.address(links.Link("plots", "a", 2**60))
    answer = Client().get(url)
    assert (answer.status_code, answer.content) == (503, b"Try again later\n")
    assert url not in caplog.text
    assert "a signed link was not answered" in caplog.text


class BrokenStorage(Storage):
    """Raises an unforeseen error."""

    def exists(self, name: str) -> bool:
        raise ZeroDivisionError


def test_a_storage_that_raises_its_own_error_is_a_503_too(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.STORAGES = {"default": {"BACKEND": f"{__name__}.BrokenStorage"}}
    settings.DJFS = {"type": "storage", "redis_url": "memory://"}
    url = links.address(links.Link("plots", "a", 2**60))
    assert Client().get(url).status_code == 503
    assert url not in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_no_error_of_s3_shows_the_signed_url(
    settings: Any, s3_endpoint: str, told: Callable[..., None]
) -> None:
    settings.DJFS = {**S3, **KEYS, "redis_url": "memory://", "endpoint_url": s3_endpoint}
    settings.DJFS = {**settings.DJFS, "bucket": "no-such-bucket"}
    for error in raised_by(tried()):
        told(error)
        assert "Signature" not in "".join(traceback.format_exception(error))
