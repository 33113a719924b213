"""An S3 that is busy, slow, or refuses single keys: a real endpoint behind a source of trouble."""

from __future__ import annotations

import io
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import boto3
import pytest

from djpyfs import conf, expire_objects, get_filesystem
from djpyfs.backends.s3 import S3Backend
from djpyfs.backends.s3.client import HASTY, ONCE
from djpyfs.errors import NotAnswered
from djpyfs.expirations import store_for
from djpyfs.expirations.pace import FIRST_RATE, Pace
from djpyfs.inspection import files_set_aside, status
from djpyfs.names import Entry
from djpyfs.places import place_for
from tests.conftest import KEYS
from tests.endless import Endless
from tests.faults.conftest import Measured
from tests.faults.processes import names
from tests.faults.proxy import Proxy
from tests.servers import HOST, Moto, RedisServer

BATCHES = 10
KEY = re.compile(rb"<Object><Key>([^<]*)</Key></Object>")
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


STATUS = {"InternalError": 500, "ServiceUnavailable": 503, "SlowDown": 503, "RequestTimeout": 400}


class Trouble(NamedTuple):
    """What goes wrong with the requests that delete, by their number."""

    busy: Callable[[int], bool] = lambda number: False
    silent: Callable[[int], bool] = lambda number: False
    #: What answers in place of the store, or nothing.
    page: Callable[[int], bytes | None] = lambda number: None
    #: Why a key is refused, or nothing.
    refuses: Callable[[int, bytes], str] = lambda number, key: ""
    #: For which keys it is busy, and so for each batch that holds one.
    hot: bytes = b""


class TroubledMoto(Moto):
    """An S3 endpoint in which deletions meet with trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble = Trouble()
        self.deletions = 0
        self.silence = 0.0

    def _answer(self, environ: Any, start_response: Any) -> Any:
        single = environ["REQUEST_METHOD"] == "DELETE"
        batch = "delete" in parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        if not (single or batch):
            return super()._answer(environ, start_response)
        number, self.deletions = self.deletions, self.deletions + 1
        if (page := self.trouble.page(number)) is not None:
            start_response("200 OK", [("Content-Type", "text/html")])
            return [page]
        if single and (code := self.trouble.refuses(number, environ["PATH_INFO"].encode())):
            start_response(f"{STATUS.get(code, 403)} No", [("Content-Type", "application/xml")])
            return [b"<Error><Code>%b</Code><Message>no</Message></Error>" % code.encode()]
        if single and self._is_hot(environ["PATH_INFO"].encode()):
            return self._slow_down(start_response)
        if self.trouble.silent(number):
            time.sleep(self.silence)
        elif not self.trouble.busy(number):
            delete = super()._answer if single else partial(self._delete, number)
            return delete(environ, start_response)
        return self._slow_down(start_response)

    def _slow_down(self, start_response: Any) -> Any:
        start_response("503 Slow Down", [("Content-Type", "application/xml")])
        return [BUSY]

    def _is_hot(self, key: bytes) -> bool:
        return bool(self.trouble.hot) and key.endswith(self.trouble.hot)

    def _delete(self, number: int, environ: Any, start_response: Any) -> Any:
        asked = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if any(map(self._is_hot, KEY.findall(asked))):
            return self._slow_down(start_response)
        refused = {key: self.trouble.refuses(number, key) for key in KEY.findall(asked)}
        refused = {key: code for key, code in refused.items() if code}
        for key in refused:
            asked = asked.replace(b"<Object><Key>" + key + b"</Key></Object>", b"")
        body = b"<DeleteResult></DeleteResult>"
        if KEY.search(asked):
            environ |= {"wsgi.input": io.BytesIO(asked), "CONTENT_LENGTH": str(len(asked))}
            body = b"".join(super()._answer(environ, lambda *_: None))
        errors = b"".join(
            b"<Error><Key>%b</Key><Code>%b</Code><Message>no</Message></Error>"
            % (key, escape(code).encode())
            for key, code in refused.items()
        )
        body = body.replace(b"</DeleteResult>", errors + b"</DeleteResult>")
        start_response("200 OK", [("Content-Type", "application/xml")])
        return [body]


@pytest.fixture(scope="module")
def troubled() -> Iterator[TroubledMoto]:
    server = TroubledMoto()
    yield server
    server.stop()


@pytest.fixture
def bucket(troubled: TroubledMoto) -> Any:
    session = boto3.Session("tests", "tests", region_name=KEYS["region"])
    resource = session.resource("s3", endpoint_url=troubled.url)
    store = resource.Bucket(f"bucket-{uuid.uuid4()}")
    store.create()
    yield store
    store.meta.client.close()


TROUBLES = {
    "503 on 30 % of calls": Trouble(busy=lambda number: number % 10 in (0, 3, 6)),
    "two time-outs": Trouble(silent=lambda number: number in (0, 4)),
    "10 of a batch in Errors, three times": Trouble(
        refuses=lambda number, key: "InternalError" if key.endswith(b"07") and number < 12 else ""
    ),
    "access denied on one key": Trouble(
        refuses=lambda number, key: "AccessDenied" if key.endswith(b"00042") else ""
    ),
}


def let_pauses_pass(client: Any, prefix: str) -> None:
    """Make postponed files due now, and let claims on unanswered requests lapse."""
    for kind in "retries", "leases":
        for key in client.keys(f"{prefix}:{{00}}:*:{kind}"):
            waiting = client.zrange(key, 0, -1)
            client.zadd(key, dict.fromkeys(waiting, 1), xx=True)


@pytest.fixture
def muted(
    troubled: TroubledMoto, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Proxy, S3Backend]]:
    """A backend whose requests reach the store, and no answer comes back if its proxy is silent."""
    for manners in HASTY, ONCE:
        monkeypatch.setitem(manners, "read_timeout", 1)
    proxy = Proxy(int(troubled.url.rpartition(":")[2]))
    troubled.trouble = Trouble()
    options = {"bucket": bucket.name, "endpoint_url": f"http://{HOST}:{proxy.port}", **KEYS}
    with closing(S3Backend(options)) as backend:
        yield proxy, backend
    proxy.stop()


@pytest.mark.parametrize("due", ["a", "ab"])
def test_a_deletion_whose_answer_is_lost_is_carried_out_and_not_called_deleted(
    muted: tuple[Proxy, S3Backend], bucket: Any, due: str
) -> None:
    proxy, backend = muted
    for name in "abc":
        put(bucket.name, f"plots/{name}")
    proxy.silent = True
    entries = [Entry("plots", name) for name in due]
    outcome = backend.delete(entries, Endless())
    assert [entry for entry, _ in outcome.unanswered] == entries
    assert (outcome.deleted, outcome.failed, outcome.away) == ([], [], [])
    assert not backend.answers()
    left = [f"plots/{name}" for name in "abc" if name not in due]
    assert [item.key for item in bucket.objects.all()] == left


def test_a_removal_whose_answer_is_lost_says_that_it_may_still_come(
    muted: tuple[Proxy, S3Backend], bucket: Any
) -> None:
    proxy, backend = muted
    put(bucket.name, "plots/a")
    proxy.silent = True
    with pytest.raises(NotAnswered):
        backend.open("plots").remove("a")


def test_a_file_whose_creation_got_no_answer_is_not_taken_for_somebody_elses(
    muted: tuple[Proxy, S3Backend], bucket: Any
) -> None:
    proxy, backend = muted
    file = backend.open("plots").openbin("a", "x")
    file.write(b"ours")
    proxy.silent = True
    with pytest.raises(NotAnswered):
        file.close()
    assert bucket.Object("plots/a").get()["Body"].read() == b"ours"


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.fault("S3 in trouble", "0 left after 5 sweeps, only what is refused set aside")
def test_a_sweep_of_an_s3_in_trouble_gets_done(
    djfs: Callable[..., None],
    redis_server: RedisServer,
    troubled: TroubledMoto,
    bucket: Any,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
    measured: Measured,
) -> None:
    size, prefix = 1_000 if full else 50, f"test-{uuid.uuid4().hex}"
    if not full and "time-outs" in trouble:
        monkeypatch.setitem(HASTY, "read_timeout", 1)
    djfs(
        type="s3fs",
        bucket=bucket.name,
        endpoint_url=troubled.url,
        **KEYS,
        redis_url=redis_server.url,
        key_prefix=prefix,
        batch_size=size,
        max_attempts=5,
    )
    files = names("file", BATCHES * size)
    for name in files:
        put(bucket.name, f"plots/{name}")
    get_filesystem("plots").expire_many(files, 0)
    troubled.trouble, troubled.deletions = TROUBLES[trouble], 0
    troubled.silence = 1.2 * HASTY["read_timeout"]

    sweeps = deleted = 0
    with redis_server.client() as client:
        while status().tracked and sweeps < 5:
            deleted += expire_objects().deleted
            sweeps += 1
            let_pauses_pass(client, prefix)

    refused = [name for name in files if trouble.startswith("access") and name.endswith("00042")]
    assert status().tracked == 0
    assert [file.path for file in files_set_aside().files] == refused
    assert [item.key for item in bucket.objects.all()] == [f"plots/{name}" for name in refused]
    assert deleted == len(files) - len(refused)
    unanswered = 2 * size if "time-outs" in trouble else 0  # each of them is tried by itself
    assert troubled.deletions <= 2 * BATCHES + unanswered
    measured(
        f"{trouble}: {sweeps} sweeps, {len(refused)} set aside, "
        f"{troubled.deletions / BATCHES:.1f} requests per batch"
    )


@pytest.fixture
def ten_files(
    djfs: Callable[..., None], redis_server: RedisServer, troubled: TroubledMoto, bucket: Any
) -> Callable[[], None]:
    """Ten files that are due; return a function that makes them retried."""
    prefix = f"test-{uuid.uuid4().hex}"
    djfs(
        type="s3fs",
        bucket=bucket.name,
        endpoint_url=troubled.url,
        **KEYS,
        redis_url=redis_server.url,
        key_prefix=prefix,
        max_attempts=2,
    )
    for number in range(10):
        put(bucket.name, f"plots/{number}")
    get_filesystem("plots").expire_many(map(str, range(10)), 0)
    client = redis_server.client()
    return lambda: let_pauses_pass(client, prefix)


@pytest.mark.parametrize("code", STATUS)
@pytest.mark.parametrize("keys", [b"7", b"0123456789"], ids=["one key", "all keys"])
def test_a_key_for_which_the_store_is_busy_is_postponed_for_as_long_as_it_takes(
    ten_files: Callable[[], None], troubled: TroubledMoto, bucket: Any, code: str, keys: bytes
) -> None:
    troubled.trouble = Trouble(refuses=lambda number, key: code if key[-1] in keys else "")
    reports = []
    for _ in range(4):  # twice as often as an attempt may fail
        reports.append(expire_objects())
        ten_files()
    assert sum(report.deleted for report in reports) == 10 - len(keys)
    assert [report.postponed for report in reports] == [len(keys)] * 4
    assert [report.failed for report in reports] == [0] * 4
    assert status().tracked == len(keys)
    troubled.trouble = Trouble()
    assert expire_objects().deleted == len(keys)
    assert not list(bucket.objects.all())


def test_a_key_for_which_every_batch_is_throttled_holds_up_no_other(
    ten_files: Callable[[], None], troubled: TroubledMoto, bucket: Any
) -> None:
    troubled.trouble = Trouble(hot=b"/7")
    reports = []
    for _ in range(4):  # twice as often as an attempt may fail
        troubled.deletions = 0
        reports.append(expire_objects())
        assert troubled.deletions < 10, "more requests than it takes to halve"
        ten_files()
    assert [report.deleted for report in reports] == [0, 9, 0, 0]
    assert [report.postponed for report in reports] == [10, 1, 1, 1]
    assert [item.key for item in bucket.objects.all()] == ["plots/7"]
    troubled.trouble = Trouble()
    assert expire_objects().deleted == 1


def test_all_workers_slow_down_for_a_store_that_asks_to(
    ten_files: Callable[[], None], troubled: TroubledMoto, pace: Pace
) -> None:
    troubled.trouble = Trouble(refuses=lambda number, key: "SlowDown" if key[-1] in b"67" else "")
    assert expire_objects().deleted == 8
    assert pace.rate() == FIRST_RATE
    troubled.trouble = Trouble()
    ten_files()
    assert expire_objects().deleted == 2


def test_a_store_that_is_busy_for_a_moment_slows_nothing_down(
    ten_files: Callable[[], None], troubled: TroubledMoto, pace: Pace
) -> None:
    troubled.trouble, troubled.deletions = Trouble(busy=lambda number: number == 0), 0
    assert expire_objects().postponed == 10
    ten_files()
    assert expire_objects().deleted == 10
    assert pace.rate() is None


@pytest.fixture
def pace(ten_files: Callable[[], None]) -> Pace:
    settings = conf.current()
    return store_for(settings).pace(place_for(settings, "plots").records.place)


@pytest.mark.parametrize("page", [b"", b"<html><body>Please log in</body></html>"])
def test_a_page_from_a_proxy_deletes_nothing_however_often_it_comes(
    ten_files: Callable[[], None], troubled: TroubledMoto, bucket: Any, page: bytes
) -> None:
    troubled.trouble = Trouble(page=lambda number: page)
    for _ in range(4):
        report = expire_objects()
        assert (report.deleted, report.set_aside) == (0, 0)
        ten_files()
    troubled.trouble = Trouble()
    assert expire_objects().deleted == 10
    assert not list(bucket.objects.all())


def put(bucket: str, key: str) -> None:
    """Put a file there without a request, because moto is in this process."""
    from moto.s3.models import s3_backends

    s3_backends["123456789012"]["aws"].put_object(bucket, key, b"picture")
