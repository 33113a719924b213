"""The S3 backend by itself, over HTTP: against moto's server, and against servers in trouble."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import unittest
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import boto3
import pytest
from fs import errors
from fs.test import FSTestCases
from redis.connection import Connection

from djpyfs import expire_objects, get_filesystem
from djpyfs.backends import is_away
from djpyfs.backends.s3 import S3Backend
from djpyfs.errors import BackendUnavailable, ConfigurationError, InvalidLifetime, NotAnswered
from djpyfs.inspection import preview
from djpyfs.names import Entry
from djpyfs.testing import advance, isolated
from djpyfs_tasks.tasks import delete_expired
from tests.conftest import KEYS
from tests.endless import Endless
from tests.servers import HOST, PATIENCE, InThread, Moto, RedisServer

CREDENTIALS = {"aws_access_key_id": "access-key", "aws_secret_access_key": "secret-key"}
ODD_NAMES = [
    "two words.png",
    " leading and trailing ",
    "plus+and%2Fper%cent.png",
    "quo'te\".png",
    "<b>&amp;</b>.html",
    "what?is#this;a=b&c=d",
    "zoë–☃–\N{GRINNING FACE}.png",
    "e\N{COMBINING ACUTE ACCENT}",
    "$HOME/~/{0}",
    "dots..in...it",
    "[x]:@!*()|^`",
]


@pytest.fixture(scope="session")
def s3_endpoint(moto: Moto) -> str:
    return moto.url


@pytest.fixture
def make_backend(s3_endpoint: str) -> Iterator[Callable[..., S3Backend]]:
    made: list[S3Backend] = []

    def make(**options: Any) -> S3Backend:
        made.append(S3Backend({"endpoint_url": s3_endpoint, **CREDENTIALS, **options}))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture(scope="session")
def admin(s3_endpoint: str) -> Any:
    """A plain boto3 client, to look behind the backend."""
    session = boto3.Session("admin", "admin", region_name="us-east-1")
    return session.client("s3", endpoint_url=s3_endpoint)


@pytest.fixture(scope="session")
def bucket(admin: Any) -> str:
    name = f"bucket-{uuid.uuid4()}"
    admin.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def backend(s3_endpoint: str, bucket: str) -> Iterator[S3Backend]:
    """One for all tests, because making a client takes a tenth of a second."""
    options = {"endpoint_url": s3_endpoint, "bucket": bucket, "prefix": "media"}
    with closing(S3Backend({**options, **CREDENTIALS})) as made:
        yield made


@pytest.fixture(scope="session")
def strict_backend(s3_endpoint: str, bucket: str) -> Iterator[S3Backend]:
    options = {"endpoint_url": s3_endpoint, "bucket": bucket, "strict": True}
    with closing(S3Backend({**options, **CREDENTIALS})) as made:
        yield made


@pytest.fixture
def namespace() -> str:
    return f"plots/{uuid.uuid4()}"


@pytest.fixture
def files(backend: S3Backend, namespace: str) -> Any:
    return backend.open(namespace)


@pytest.fixture
def keys_in(admin: Any, bucket: str) -> Callable[[str], set[str]]:
    """The keys below ``media/`` and a namespace."""

    def keys(namespace: str) -> set[str]:
        answer = admin.list_objects_v2(Bucket=bucket, Prefix=f"media/{namespace}/")
        return {item["Key"] for item in answer.get("Contents", ())}

    return keys


class FixedLease(Endless):
    """A lease with the given seconds left, one value per question, the last forever."""

    def __init__(self, *seconds: float) -> None:
        self._seconds = list(seconds)

    def remaining(self) -> float:
        return self._seconds.pop(0) if len(self._seconds) > 1 else self._seconds[0]


LONG = FixedLease(3600)


@pytest.mark.long
class TestStrictFileSystem(FSTestCases, unittest.TestCase):
    """Every test of PyFilesystem's own suite, without what `get_filesystem` adds."""

    assertRaisesRegexp = unittest.TestCase.assertRaisesRegex  # noqa: N815  # gone since 3.12

    @pytest.fixture(autouse=True)
    def _place(self, strict_backend: S3Backend, namespace: str) -> None:
        self.backend, self.namespace = strict_backend, namespace

    def make_fs(self) -> Any:
        return self.backend.make_filesystem(self.namespace)


def write_through_open(files: Any) -> None:
    with files.open("sub/new.png", "wb") as file:
        file.write(b"one")
        file.write(b"two")


def append(files: Any) -> None:
    with files.open("sub/a.png", "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("expected", "action"),
    [
        pytest.param(expected, action, id=name)
        for name, expected, action in [
            ("writebytes", "PUT", lambda files: files.writebytes("sub/new.png", b"x")),
            ("writetext", "PUT", lambda files: files.writetext("sub/new.txt", "x")),
            ("upload", "PUT", lambda files: files.upload("sub/new.png", io.BytesIO(b"x"))),
            ("open-wb", "PUT", write_through_open),
            ("append", "GET PUT", append),
            ("readbytes", "GET", lambda files: files.readbytes("sub/a.png")),
            ("readtext", "HEAD GET", lambda files: files.readtext("sub/a.png")),
            ("exists", "HEAD", lambda files: files.exists("sub/a.png")),
            ("exists-not", "HEAD LIST", lambda files: files.exists("sub/none.png")),
            ("isfile", "HEAD", lambda files: files.isfile("sub/a.png")),
            ("isdir", "LIST", lambda files: files.isdir("sub")),
            ("getinfo", "HEAD", lambda files: files.getinfo("sub/a.png", ["details"])),
            ("listdir", "LIST", lambda files: files.listdir("sub")),
            ("scandir", "LIST", lambda files: list(files.scandir("sub", ["details"]))),
            ("remove", "DELETE", lambda files: files.remove("sub/a.png")),
            ("copy", "PUT", lambda files: files.copy("sub/a.png", "b.png", overwrite=True)),
            ("move", "PUT DELETE", lambda files: files.move("sub/a.png", "b.png", overwrite=True)),
            ("removetree", "LIST POST", lambda files: files.removetree("sub")),
        ]
    ],
)
def test_an_action_costs_no_more_requests_than_it_must(
    moto: Moto, files: Any, expected: str, action: Callable[[Any], object]
) -> None:
    files.writebytes("sub/a.png", b"picture")
    assert moto.requests_of(lambda: action(files)) == expected.split()


@pytest.mark.parametrize(
    ("expected", "action"),
    [
        ("PUT", lambda files: files.writebytes("sub/new.png", b"x")),
        ("PUT", write_through_open),
        ("GET", lambda files: files.readbytes("sub/a.png")),
        ("HEAD", lambda files: files.exists("sub/a.png")),
        ("LIST", lambda files: files.isdir("sub")),
        ("DELETE", lambda files: files.remove("sub/a.png")),
        ("", lambda files: files.get_url("sub/a.png")),
    ],
    ids="writebytes open readbytes exists isdir remove get_url".split(),
)
def test_an_action_costs_the_same_through_get_filesystem(
    moto: Moto,
    djfs: Callable[..., None],
    bucket: str,
    expected: str,
    action: Callable[[Any], object],
) -> None:
    djfs(type="s3fs", bucket=bucket, endpoint_url=moto.url, **CREDENTIALS)
    plots = get_filesystem("plots")
    plots.writebytes("sub/a.png", b"picture")
    plots.expire("sub/a.png", 100)
    assert moto.requests_of(lambda: action(plots)) == expected.split()


def test_opening_a_namespace_makes_no_request_and_no_client(
    moto: Moto, make_backend: Callable[..., S3Backend]
) -> None:
    backend = make_backend(bucket="some-bucket")
    assert moto.requests_of(lambda: backend.open("plots")) == []
    assert backend.open("plots") is backend.open("plots")
    assert backend._for_files._client is None


def test_directories_are_implied_by_the_keys_below_them(files: Any) -> None:
    files.writebytes("a/b/c.png", b"picture")
    assert files.exists("a")
    assert files.isdir("a/b")
    assert not files.isfile("a/b")
    assert files.getinfo("a/b").is_dir
    assert files.getinfo("a/b").name == "b"
    assert files.listdir("") == ["a"]
    assert files.listdir("a/") == ["b"]
    assert [info.is_dir for info in files.scandir("a")] == [True]
    assert files.opendir("a").readbytes("b/c.png") == b"picture"
    assert files.getinfo("a/b/c.png").is_file
    with pytest.raises(errors.DirectoryNotEmpty):
        files.removedir("a")
    files.remove("a/b/c.png")
    assert not files.exists("a")


def test_a_directory_that_was_made_stays_when_it_is_empty(files: Any) -> None:
    files.makedir("a").writebytes("b.png", b"picture")
    files.remove("a/b.png")
    assert files.isdir("a")
    assert files.isempty("a")
    files.removedir("a")
    assert not files.exists("a")


def test_namespaces_that_begin_alike_do_not_see_each_other(
    backend: S3Backend, namespace: str
) -> None:
    backend.open(f"{namespace}2").writebytes("a.png", b"2")
    backend.open(namespace).writebytes("a.png", b"1")
    backend.open(namespace).removetree("/")
    assert backend.open(namespace).listdir("") == []
    assert backend.open(f"{namespace}2").readbytes("a.png") == b"2"


def test_a_file_may_be_named_from_any_directory_above_it(
    backend: S3Backend, namespace: str
) -> None:
    backend.open(f"{namespace}/a").writebytes("b/c.png", b"picture")
    assert backend.open(namespace).opendir("a/b").readbytes("c.png") == b"picture"
    for place, name in [("", "a/b/1"), ("/a", "b/2"), ("/a/b", "3")]:
        backend.open(namespace).writebytes(f"a/b/{name[-1]}", b"x")
        entry = Entry(f"{namespace}{place}", name)
        assert backend.delete([entry], LONG).deleted == [entry]
    due = [Entry(namespace, "a/b/c.png"), Entry(f"{namespace}/a/b", "d.png")]
    assert backend.delete(due, LONG).deleted == due
    assert not backend.open(namespace).exists("a")


def test_a_listing_tells_size_and_time_of_each_file(files: Any) -> None:
    files.writebytes("a.png", b"picture")
    (listed,) = files.scandir("", namespaces=["details"])
    assert listed.raw == files.getinfo("a.png", namespaces=["details"]).raw
    assert listed.size == len(b"picture")


def test_big_files_go_up_in_parts_and_come_back_whole(moto: Moto, files: Any) -> None:
    contents = os.urandom(1024) * (9 * 1024)
    sent = moto.requests_of(lambda: files.writebytes("big", contents))
    assert sorted(sent) == ["POST", "POST", "PUT", "PUT"]
    assert files.readbytes("big") == contents


def test_an_open_file_changes_only_what_was_written_to(files: Any) -> None:
    files.writebytes("a", b"0123456789")
    with files.open("a", "r+b") as file:
        file.seek(3)
        file.write(b"x")
    assert files.readbytes("a") == b"012x456789"
    with files.open("a", "a+b") as file:
        file.seek(0)
        file.write(b"end")
        file.seek(0)
        assert file.read() == b"012x456789end"


def test_an_upload_whose_source_fails_leaves_the_old_file(files: Any) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError("the disk is gone")
            return super().read(3)

    files.writebytes("a", b"old")
    with pytest.raises(OSError, match="the disk is gone"):
        files.upload("a", Broken(b"new contents"))
    assert files.readbytes("a") == b"old"


def test_an_uploaded_file_object_stays_open(files: Any) -> None:
    source = io.BytesIO(b"picture")
    files.upload("a", source)
    assert not source.closed


@pytest.mark.parametrize("name", ["b.png", "./a.png", "sub/../a.png"])
def test_moving_never_loses_a_file_even_onto_itself(files: Any, name: str) -> None:
    files.writebytes("a.png", b"picture")
    files.move("a.png", name, overwrite=True, preserve_time=True)
    assert files.readbytes(name) == b"picture"
    assert len(files.listdir("")) == 1


def test_a_copy_keeps_its_type_and_has_the_upload_args(
    make_backend: Callable[..., S3Backend], bucket: str, admin: Any
) -> None:
    backend = make_backend(bucket=bucket, upload_args={"StorageClass": "STANDARD_IA"})
    backend.open("n").writebytes("a.png", b"picture")
    backend.open("n").copy("a.png", "b")
    head = admin.head_object(Bucket=bucket, Key="n/b")
    assert (head["ContentType"], head["StorageClass"]) == ("image/png", "STANDARD_IA")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "image/png"),
        ("a.csv.gz", "application/octet-stream"),
        ("no extension", "application/octet-stream"),
        ("data:x,y.png", "image/png"),
    ],
)
def test_a_file_has_the_type_of_its_stored_bytes(files: Any, name: str, expected: str) -> None:
    files.writebytes(name, b"x")
    assert files.getinfo(name, ["s3"]).get("s3", "content_type") == expected


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_come_back_byte_for_byte(
    backend: S3Backend, keys_in: Callable[[str], set[str]], name: str
) -> None:
    namespace = f"odd & {name}"
    files = backend.open(namespace)
    files.writebytes(name, name.encode())
    assert keys_in(namespace) == {f"media/{namespace}/{name}"}
    assert list(files.walk.files()) == [f"/{name}"]
    assert files.readbytes(name) == name.encode()
    with urllib.request.urlopen(backend.url(namespace, name, 60)) as response:
        assert response.read() == name.encode()
    entry = Entry(namespace, name)
    assert backend.delete([entry], LONG).deleted == [entry]
    assert keys_in(namespace) == set()


def test_one_request_deletes_a_thousand_files_of_as_many_namespaces(
    moto: Moto, backend: S3Backend, namespace: str, keys_in: Callable[[str], set[str]]
) -> None:
    due = [Entry(f"{namespace}/{number}", "a b.png") for number in range(2002)]
    for entry in (*due[:3], due[-1]):
        backend.open(entry.namespace).writebytes(entry.path, b"x")
    backend.open(namespace).writebytes("stays", b"x")
    moto.requests.clear()
    outcome = backend.delete(due, LONG)
    assert moto.requests == ["POST", "POST", "POST"]
    assert (outcome.deleted, outcome.missing, outcome.failed) == (due, [], [])
    assert keys_in(namespace) == {f"media/{namespace}/stays"}


def test_a_one_shot_for_many_files_deletes_them_with_one_request(
    djfs: Callable[..., None], bucket: str, moto: Moto
) -> None:
    djfs(type="s3fs", bucket=bucket, endpoint_url=moto.url, **CREDENTIALS)
    plots, names = get_filesystem("many"), [str(number) for number in range(20)]
    for name in names:
        plots.writebytes(name, b"")
    plots.expire_many(names, 0)
    assert moto.requests_of(lambda: delete_expired("many", names)) == ["POST"]
    assert not plots.listdir("/")


def test_a_dry_run_counts_the_requests_of_the_sweep(
    djfs: Callable[..., None],
    bucket: str,
    moto: Moto,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[None] = []
    sweeper = threading.current_thread()  # besides, a thread may extend the leases of a slow sweep

    def send(self: Any, *arguments: Any, **how: Any) -> Any:
        if threading.current_thread() is sweeper:
            sent.append(None)
        return send_packed_command(self, *arguments, **how)

    send_packed_command: Any = Connection.send_packed_command
    place = {"type": "s3fs", "bucket": bucket, "endpoint_url": moto.url, **CREDENTIALS}
    djfs(**place, redis_url=redis_server.url, key_prefix="dry-run", shards=2, batch_size=20)
    get_filesystem("plots").expire_many([str(number) for number in range(70)], 0)
    moto.requests.clear()
    found = preview()
    assert (moto.requests, found.unmeasured) == ([], 70)
    monkeypatch.setattr(Connection, "send_packed_command", send)
    assert expire_objects().deleted == 70
    # A machine that is busy asks for more to do before the last batch is done.
    assert found.requests.files == len(moto.requests) == 4
    assert found.requests.records <= len(sent) <= 2 * found.requests.records


@pytest.mark.parametrize("seconds", [-1, 0])
def test_nothing_is_deleted_under_a_lease_that_has_ended(
    moto: Moto, backend: S3Backend, seconds: float
) -> None:
    backend.open("n").writebytes("a", b"x")
    moto.requests.clear()
    outcome = backend.delete([Entry("n", "a")], FixedLease(seconds))
    assert (outcome.deleted, outcome.missing, outcome.failed) == ([], [], [])
    assert moto.requests == []


def test_a_lease_that_runs_short_leaves_the_later_batches(backend: S3Backend) -> None:
    due = [Entry("n", str(number)) for number in range(2500)]
    outcome = backend.delete(due, FixedLease(2, 1, 0))
    assert outcome.deleted == due[:2000]
    assert outcome.failed == []


# What S3 says of a file that it has, or has stored.
KNOWN = {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
DROP = 0  # instead of a status: the connection is closed without an answer


class Store(InThread):
    """A server whose answers a test decides: ``answer(method, path, body)``.

    It returns the status, the body, and headers if it likes.
    """

    def __init__(self, answer: Callable[[str, str, bytes], tuple[Any, ...]]) -> None:
        self.requests: list[str] = []
        self.headers = Message()  # of the last request

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps connections open, as S3 does

            def handle_any(handler) -> None:  # noqa: N805
                body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
                self.requests.append(handler.command)
                self.headers = handler.headers
                status, text, *headers = answer(handler.command, handler.path, body)
                if status == DROP:
                    handler.close_connection = True
                    return
                handler.send_response(status)
                handler.send_header("Content-Length", str(len(text.encode())))
                if 300 <= status < 400:
                    handler.send_header("Location", f"https://store.example{handler.path}")
                for name, value in chain.from_iterable(it.items() for it in headers):
                    handler.send_header(name, value)
                handler.end_headers()
                if handler.command != "HEAD":
                    handler.wfile.write(text.encode())

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(handler, format: str, *args: Any) -> None:  # noqa: N805
                pass

        self.start(ThreadingHTTPServer((HOST, 0), Handler))


def error_document(code: str, message: str = "no") -> str:
    return f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"


def delete_result(**codes_by_key: str) -> str:
    told = "".join(
        f"<Error><Key>{escape(key)}</Key><Code>{code}</Code><Message>no\nway</Message></Error>"
        for key, code in codes_by_key.items()
    )
    return f"<DeleteResult>{told}</DeleteResult>"


@pytest.fixture
def start_store(
    make_backend: Callable[..., S3Backend],
) -> Iterator[Callable[..., tuple[Store, S3Backend]]]:
    stores: list[Store] = []

    def start(answer: Callable[[str, str, bytes], tuple[Any, ...]]) -> tuple[Store, S3Backend]:
        stores.append(Store(answer))
        return stores[-1], make_backend(bucket="some-bucket", endpoint_url=stores[-1].url)

    yield start
    for store in stores:
        store.stop()


def entries(*paths: str) -> list[Entry]:
    return [Entry("n", path) for path in paths]


def test_each_key_of_a_batch_is_settled_on_its_own(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    refusals = {"n/a&b": "AccessDenied", "n/c": "NoSuchKey"}
    refusals |= {"n/d": "InternalError", "n/e": "SlowDown"}
    _, backend = start_store(lambda *_: (200, delete_result(**refusals)))
    outcome = backend.delete(entries("1", "a&b", "c", "d", "e", "2"), LONG)
    assert outcome.deleted == entries("1", "2")
    assert outcome.missing == entries("c")
    assert outcome.failed == [(Entry("n", "a&b"), "AccessDenied: no way")]
    assert outcome.away == [
        (Entry("n", "d"), "InternalError: no way"),
        (Entry("n", "e"), "SlowDown: no way"),
    ]


def test_a_batch_fails_if_it_is_unclear_which_keys_were_refused(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    _, backend = start_store(lambda *_: (200, delete_result(other="AccessDenied")))
    outcome = backend.delete(entries("a", "b"), LONG)
    assert outcome.deleted == []
    assert [entry for entry, _ in outcome.failed] == entries("a", "b")


@pytest.mark.parametrize(
    ("due", "requests"), [("a", ["DELETE", "DELETE"]), ("ab", ["POST", "DELETE"])]
)
@pytest.mark.parametrize(
    ("status", "code"), [(403, "SignatureDoesNotMatch"), (500, "InternalError"), (503, "503")]
)
def test_a_store_that_refuses_everything_fails_no_entry(
    start_store: Callable[..., tuple[Store, S3Backend]],
    due: str,
    requests: list[str],
    status: int,
    code: str,
) -> None:
    store, backend = start_store(lambda *_: (status, error_document(code, "one\nmore\nline")))
    outcome = backend.delete(entries(*due), LONG)
    assert [entry for entry, _ in outcome.away] == entries(*due)
    assert outcome.failed == []
    for _, reason in outcome.away:
        assert code in reason
        assert "\n" not in reason
        assert "-key" not in reason
    assert store.requests == requests


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_in_front_of_the_store_is_told_with_its_cure_and_fails_no_entry(
    start_store: Callable[..., tuple[Store, S3Backend]], status: int
) -> None:
    _, backend = start_store(lambda *_: (status, "<html>Moved</html>"))
    cure = "'endpoint_url' redirects to 'https://store.example': name that address"
    for call in ("isfile", "readbytes", "remove"):
        with pytest.raises(errors.RemoteConnectionError, match=cure):
            getattr(backend.open("n"), call)("a.png")
    outcome = backend.delete(entries("a", "b"), LONG)
    assert [(entry, cure in why) for entry, why in outcome.away] == [
        (entry, True) for entry in entries("a", "b")
    ]


@pytest.mark.parametrize("status", [403, 500, 503])
def test_while_a_store_refuses_everything_sweeps_put_off_the_look_for_late_uploads(
    start_store: Callable[..., tuple[Store, S3Backend]], status: int
) -> None:
    store, _ = start_store(lambda *_: (status, error_document("Refused")))
    own = {"bucket": "some-bucket", "endpoint_url": store.url, **KEYS}
    with isolated(type="s3fs", max_attempts=1, **own):
        get_filesystem("plots").get_upload_url(seconds=60, max_bytes=9)
        advance(10_000)
        report = expire_objects()
    assert (report.postponed, report.set_aside) == (2, 0)


def test_the_look_for_a_late_upload_that_may_not_be_looked_at_is_never_given_up(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    store, _ = start_store(lambda method, *_: (403 if method == "HEAD" else 204, ""))
    own = {"bucket": "some-bucket", "endpoint_url": store.url, **KEYS}
    with isolated(type="s3fs", max_attempts=2, **own):
        get_filesystem("plots").get_upload_url(seconds=60, max_bytes=9)
        advance(10_000)
        assert expire_objects().retried == 1
        for _ in range(3):
            advance(3_600)
            report = expire_objects()
            assert (report.retried, report.set_aside) == (1, 0)


@pytest.mark.parametrize(
    ("status", "document"),
    [(503, error_document("SlowDown")), (429, "<html>Too many requests</html>")],
)
def test_a_store_that_asks_for_fewer_requests_gets_no_more_of_them(
    start_store: Callable[..., tuple[Store, S3Backend]], status: int, document: str
) -> None:
    store, backend = start_store(lambda *_: (status, document))
    due = entries(*map(str, range(2500)))
    outcome = backend.delete(due, LONG)
    assert [entry for entry, _ in outcome.away] == due
    assert store.requests == ["POST"]


@pytest.mark.parametrize("status", [403, 500, 503])
def test_one_culprit_does_not_keep_the_rest_of_its_batch(
    start_store: Callable[..., tuple[Store, S3Backend]], status: int
) -> None:
    def answer(method: str, path: str, body: bytes) -> tuple[int, str]:
        if path.endswith("/n/culprit") or b"<Key>n/culprit</Key>" in body:
            return status, error_document("Unfair")
        return (200, delete_result()) if method == "POST" else (204, "")

    store, backend = start_store(answer)
    others = entries(*map(str, range(999)))
    due = [*others[:700], Entry("n", "culprit"), *others[700:]]
    outcome = backend.delete(due, LONG)
    assert sorted(outcome.deleted) == sorted(others)
    [(culprit, why)] = outcome.failed
    assert culprit.path == "culprit"
    assert "Unfair" in why
    assert len(store.requests) <= 32  # a thousand is halved ten times


@pytest.mark.parametrize("status", [DROP, 502, 504])
@pytest.mark.parametrize("due", ["a", "ab"])
def test_a_deletion_that_was_not_answered_may_still_act_and_is_not_repeated(
    start_store: Callable[..., tuple[Store, S3Backend]], status: int, due: str
) -> None:
    store, backend = start_store(lambda *_: (status, ""))
    outcome = backend.delete(entries(*due), LONG)
    assert [entry for entry, _ in outcome.unanswered] == entries(*due)
    assert (outcome.deleted, outcome.failed, outcome.away) == ([], [], [])
    assert len(store.requests) == 1


PAGE = "<html><head><title>We are back soon</title></head></html>"


@pytest.mark.parametrize(
    ("due", "page"),
    [
        ("ab", ""),
        ("ab", PAGE),
        ("ab", "<!DOCTYPE html>" + PAGE.replace("</head>", "<br>")),
        ("ab", "<DeleteResult><Error><Key>n/a</Key>"),
        ("a", ""),
        ("a", PAGE),
        ("a", "no mark-up"),
    ],
)
def test_an_answer_that_is_not_from_s3_deletes_nothing(
    start_store: Callable[..., tuple[Store, S3Backend]], due: str, page: str
) -> None:
    _, backend = start_store(lambda *_: (200, page))
    outcome = backend.delete(entries(*due), LONG)
    assert outcome.deleted == []
    assert [entry for entry, _ in outcome.unanswered] == entries(*due)


def test_a_page_from_a_proxy_is_no_file_and_keeps_none(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    store, backend = start_store(lambda *_: (200, PAGE))
    files = backend.open("n")
    for call in (
        lambda: files.isfile("a"),
        lambda: files.readbytes("a"),
        lambda: files.writebytes("a", b"new"),
        lambda: files.copy("a", "b", overwrite=True),
    ):
        with pytest.raises(NotAnswered, match="is no answer to"):
            call()
    assert "DELETE" not in store.requests


def test_a_copy_that_a_proxy_answers_does_not_cost_the_file(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    store, backend = start_store(lambda method, *_: (200, PAGE if method == "PUT" else "", KNOWN))
    with pytest.raises(NotAnswered, match="is no answer to CopyObject"):
        backend.open("n").move("a", "b", overwrite=True)
    assert "DELETE" not in store.requests


@pytest.mark.parametrize("answer", [(DROP, ""), (504, ""), (200, PAGE)])
def test_a_removal_that_was_not_answered_is_sent_once_and_says_so(
    start_store: Callable[..., tuple[Store, S3Backend]], answer: tuple[int, str]
) -> None:
    store, backend = start_store(lambda *_: answer)
    with pytest.raises(NotAnswered) as caught:
        backend.open("n").remove("a")
    assert is_away(caught.value)
    assert store.requests == ["DELETE"]


@pytest.mark.parametrize(
    ("expected", "status", "document"),
    [
        (True, 204, ""),
        (True, 404, error_document("NoSuchKey")),
        (False, 404, error_document("NoSuchBucket")),
        (False, 403, error_document("AccessDenied")),
        (False, 503, ""),
        (False, DROP, ""),
        (False, 200, PAGE),
    ],
)
def test_a_store_answers_if_it_would_delete_an_impossible_file(
    start_store: Callable[..., tuple[Store, S3Backend]],
    expected: bool,
    status: int,
    document: str,
) -> None:
    paths: list[str] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, str]:
        paths.append(f"{method} {path}")
        return status, document

    _, backend = start_store(answer)
    assert backend.answers() is expected
    assert paths == ["DELETE /some-bucket/.djpyfs/probe"]


def test_a_store_that_is_away_fails_no_entry(make_backend: Callable[..., S3Backend]) -> None:
    backend = make_backend(bucket="some-bucket", endpoint_url=refusing_address())
    assert not backend.answers()
    outcome = backend.delete(entries("a", "b"), LONG)
    assert [entry for entry, _ in outcome.away] == entries("a", "b")
    assert (outcome.failed, outcome.unanswered) == ([], [])


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (501, "NotImplemented"),
        (400, "MalformedXML"),
        (400, "MissingContentMD5"),
        (400, "InvalidRequest"),
    ],
)
def test_a_store_without_batches_gets_single_deletions(
    start_store: Callable[..., tuple[Store, S3Backend]], status: int, code: str
) -> None:
    def answer(method: str, path: str, body: bytes) -> tuple[int, str]:
        if method == "POST":
            return status, error_document(code)
        if path.endswith("/gone"):
            return 404, error_document("NoSuchKey")
        if path.endswith("/locked"):
            return 403, error_document("AccessDenied")
        return 204, ""

    store, backend = start_store(answer)
    outcome = backend.delete(entries("a", "gone", "locked", "b"), LONG)
    assert outcome.deleted == entries("a", "b")
    assert outcome.missing == entries("gone")
    assert [entry for entry, _ in outcome.failed] == entries("locked")
    assert store.requests == ["POST", *5 * ["DELETE"]]  # one of them asks whether it answers


def test_single_deletions_end_with_the_lease(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    def answer(method: str, path: str, body: bytes) -> tuple[int, str]:
        return (501, error_document("NotImplemented")) if method == "POST" else (204, "")

    _, backend = start_store(answer)
    outcome = backend.delete(entries("a", "b", "c"), FixedLease(2, 1, 0))
    assert outcome.deleted == entries("a")
    assert (outcome.failed, outcome.away, outcome.unanswered) == ([], [], [])


SIZES = pytest.mark.parametrize("size", [7, 9_000_000], ids=["small", "big"])


@SIZES
def test_of_two_that_create_a_file_at_once_one_succeeds(files: Any, size: int) -> None:
    faster, slower = files.open("a", "xb"), files.open("a", "xb")
    faster.write(b"f" * size)
    slower.write(b"s" * size)
    faster.close()
    with pytest.raises(errors.FileExists):
        slower.close()
    assert files.readbytes("a") == b"f" * size
    with pytest.raises(errors.FileExists):
        files.open("a", "xb")


def test_a_file_that_was_created_in_vain_leaves_no_parts_behind(
    files: Any, admin: Any, bucket: str
) -> None:
    created = files.open("a", "xb")
    created.write(bytes(9_000_000))
    files.writebytes("a", b"x")
    with pytest.raises(errors.FileExists):
        created.close()
    assert "Uploads" not in admin.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
@pytest.mark.parametrize("there", [False, True])
def test_a_store_without_conditional_writes_is_asked_before_a_file_is_created(
    start_store: Callable[..., tuple[Store, S3Backend]], status: int, code: str, there: bool
) -> None:
    def answer(method: str, path: str, body: bytes) -> tuple[Any, ...]:
        if method == "PUT" and "If-None-Match" in store.headers:
            return status, error_document(code)
        missing = method == "HEAD" and not (there and "PUT" in store.requests)
        return 404 if missing else 200, "", KNOWN

    store, backend = start_store(answer)
    file = backend.open("n").openbin("a", "x")
    file.write(b"x")
    if there:
        with pytest.raises(errors.FileExists):
            file.close()
    else:
        file.close()
    assert store.requests == ["HEAD", "PUT", "HEAD", *([] if there else ["PUT"])]


def test_a_file_whose_creation_was_not_answered_is_not_taken_for_that_of_another(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    answers = [(404, ""), (503, error_document("SlowDown")), (412, error_document("Never"))]
    store, backend = start_store(lambda *_: answers.pop(0))
    file = backend.open("n").openbin("a", "x")
    with pytest.raises(errors.OperationFailed):
        file.close()
    assert store.requests == ["HEAD", "PUT"]


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b", "xb"])
def test_a_file_that_was_discarded_is_not_stored(files: Any, mode: str) -> None:
    name = "new" if mode == "xb" else "a"
    files.writebytes("a", b"old")
    with files.openbin(name, mode) as file:
        file.write(b"half of it")
        file.discard()
    assert files.readbytes("a") == b"old"
    assert files.listdir("") == ["a"]


def test_a_view_survives_a_store_that_is_busy_for_a_moment(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    answers: list[Any] = [(503, error_document("SlowDown")), (200, "", KNOWN)]
    store, backend = start_store(lambda *_: answers.pop(0))
    backend.open("n").writebytes("a", b"x")
    assert store.requests == ["PUT", "PUT"]


ACTIONS: list[Callable[[Any], object]] = [
    lambda files: files.remove("a"),
    lambda files: files.writebytes("a", b"x"),
    lambda files: files.readbytes("a"),
    lambda files: files.exists("a"),
    lambda files: files.listdir("a"),
    lambda files: files.copy("a", "b", overwrite=True),
    lambda files: files.removetree("a"),
    lambda files: files.makedir("a"),
    lambda files: files.writebytes("a", bytes(9_000_000)),
]


@pytest.mark.parametrize("action", ACTIONS)
def test_errors_of_the_store_are_errors_of_the_filesystem(
    start_store: Callable[..., tuple[Store, S3Backend]], action: Callable[[Any], object]
) -> None:
    _, backend = start_store(lambda *_: (403, error_document("AccessDenied", "{braces}")))
    with pytest.raises(errors.PermissionDenied) as caught:
        action(backend.open("n"))
    assert str(caught.value)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_error_before_the_first_request_is_one_of_the_filesystem(
    make_backend: Callable[..., S3Backend],
    action: Callable[[Any], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "no region")
    with pytest.raises(errors.OperationFailed, match="InvalidRegion"):
        action(make_backend(bucket="b").open("n"))


def test_a_bucket_that_is_not_there_is_not_a_file_that_is_not_there(
    make_backend: Callable[..., S3Backend],
) -> None:
    files = make_backend(bucket="no-such-bucket").open("n")
    with pytest.raises(errors.OperationFailed, match="NoSuchBucket"):
        files.writebytes("a", b"x")
    with pytest.raises(errors.OperationFailed, match="NoSuchBucket"):
        files.readbytes("a")


def test_a_store_that_is_away_is_a_connection_error(
    make_backend: Callable[..., S3Backend],
) -> None:
    files = make_backend(bucket="some-bucket", endpoint_url=refusing_address()).open("n")
    with pytest.raises(errors.RemoteConnectionError):
        files.remove("a")


def refusing_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_address_is_signed_with_version_4_for_the_life_that_was_asked_for(
    backend: S3Backend,
) -> None:
    query = parse_qs(urlsplit(backend.url("plots", "a.png", 604_800)).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["604800"]


@pytest.mark.parametrize("lifetime", [None, 0, -1, 604_801])
def test_a_life_that_s3_cannot_sign_is_refused(backend: S3Backend, lifetime: int | None) -> None:
    with pytest.raises(InvalidLifetime):
        backend.url("plots", "a.png", lifetime)


@pytest.mark.parametrize(
    ("region", "style", "expected"),
    [
        ("eu-west-1", None, "https://my-bucket.s3.eu-west-1.amazonaws.com/pre/plots/a.png"),
        ("eu-west-1", "virtual", "https://my-bucket.s3.eu-west-1.amazonaws.com/pre/plots/a.png"),
        ("eu-west-1", "path", "https://s3.eu-west-1.amazonaws.com/my-bucket/pre/plots/a.png"),
        ("us-east-1", None, "https://my-bucket.s3.us-east-1.amazonaws.com/pre/plots/a.png"),
    ],
)
def test_an_address_names_the_endpoint_of_the_region(
    make_backend: Callable[..., S3Backend], region: str, style: str | None, expected: str
) -> None:
    backend = make_backend(
        bucket="my-bucket",
        prefix="/pre/",
        region=region,
        endpoint_url=None,
        addressing_style=style,
    )
    url = backend.url("plots", "a.png", 60)
    assert url.split("?")[0] == expected
    assert f"%2F{region}%2Fs3%2F" in url


def test_the_root_has_no_address(files: Any) -> None:
    with pytest.raises(errors.NoURL):
        files.geturl("/")


def test_without_credentials_there_is_no_address(
    make_backend: Callable[..., S3Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    backend = make_backend(bucket="b", aws_access_key_id="", aws_secret_access_key="")
    with pytest.raises(errors.NoURL, match="NoCredentialsError"):
        backend.url("plots", "a.png", 60)


FORK = """
import json, os, sys
import django
from django.conf import settings
settings.configure(DJFS=json.loads(sys.argv[1]))
django.setup()
from djpyfs import expire_objects, get_filesystem
plots = get_filesystem("plots")
plots.readbytes("start")
child = os.fork()
name = "parent" if child else "child"
for number in range(50):
    path = f"{name}/{number}"
    assert plots.readbytes(path).decode().endswith(f"plots/{path}")
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_a_filesystem_that_was_opened_before_a_fork_serves_parent_and_child(
    start_store: Callable[..., tuple[Store, S3Backend]],
) -> None:
    def answer(command: str, path: str, body: bytes) -> tuple[Any, ...]:
        time.sleep(0.5 * path.endswith("/0"))  # so that both wait for an answer at a time
        return 200, path, KNOWN

    store, _ = start_store(answer)
    place = {"type": "s3fs", "bucket": "bucket", "endpoint_url": store.url, **CREDENTIALS}
    command = [sys.executable, "-c", FORK, json.dumps({"redis_url": "memory://", **place})]
    subprocess.run(command, check=True, timeout=PATIENCE)


def test_all_threads_share_one_client(make_backend: Callable[..., S3Backend], bucket: str) -> None:
    backend = make_backend(bucket=bucket)

    def use(number: int) -> int:
        files: Any = backend.open(f"n{number}")
        files.writebytes("a", b"x")
        return id(files.client)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(use, range(32)))) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "bucket"),
        ({"bucket": ""}, "bucket"),
        ({"bucket": "b", "aws_access_key_id": "secret-key"}, "aws_secret_access_key"),
        ({"bucket": "b", "aws_secret_access_key": "secret-key"}, "aws_access_key_id"),
        ({"bucket": "b", "aws_session_token": "secret-key"}, "aws_access_key_id"),
        ({"bucket": "b", "prefix": "../x"}, "prefix"),
        ({"bucket": "b", "prefix": 7}, "prefix"),
        ({"bucket": "b", "addressing_style": "dns"}, "addressing_style"),
        ({"bucket": "b", "upload_args": {"Acl": "private"}}, "upload_args"),
        ({"bucket": "b", "upload_args": {"SSECustomerKey": "k" * 32}}, "upload_args"),
        ({"bucket": "b", "upload_args": "private"}, "upload_args"),
        ({"bucket": "b", "upload_args": 7}, "upload_args"),
        ({"bucket": "b", "endpoint_url": "store:8333"}, "endpoint_url"),
        ({"bucket": "b", "endpoint_url": "https://me:secret-key@store"}, "endpoint_url"),
        ({"bucket": "b", "endpoint_url": "http://"}, "endpoint_url"),
        ({"bucket": "b", "endpoint_url": "http://a store"}, "endpoint_url"),
        ({"bucket": "b", "endpoint_url": "http://[::1"}, "endpoint_url"),
        ({"bucket": "b", "region": 7}, "region"),
        ({"bucket": "b", "aws_access_key_id": 7, "aws_secret_access_key": "k"}, "aws_access_key"),
        ({"bucket": "b", "strict": "no"}, "strict"),
        *(
            ({"bucket": "b", name: wrong}, name)
            for name in ("prefix", "region", "endpoint_url", "addressing_style", "upload_args")
            for wrong in (False, 0, b"")
        ),
        ({"bucket": "b", "upload_origins": 0}, "upload_origins"),
        ({"bucket": "b", "aws_session_token": False}, "aws_session_token"),
    ],
)
def test_an_option_that_does_not_fit_is_named_without_its_secret(
    options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        S3Backend(options)
    assert "secret-key" not in str(caught.value)


@pytest.mark.parametrize("host", ["store:8333", "127.0.0.1", "[::1]:8333", "s3.eu.example.org"])
def test_every_host_that_boto3_takes_may_be_the_endpoint(host: str) -> None:
    url = f"http://{host}/"
    backend = S3Backend({"bucket": "b", "endpoint_url": url, **CREDENTIALS})
    assert backend.url("n", "a", 60).startswith(f"{url}b/n/a")


HERE = {"bucket": "b", "prefix": "a", "region": "eu-west-1", "endpoint_url": "http://store"}
AMAZON = {**HERE, "endpoint_url": None}
CHINA = {**AMAZON, "region": "cn-north-1"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HERE, {**HERE, "endpoint_url": "HTTP://Store:80/"}),
        (HERE, {**HERE, "prefix": "/a/", "aws_access_key_id": "another", "region": None}),
        (
            {**HERE, "endpoint_url": "https://[::1]:443"},
            {**HERE, "endpoint_url": "https://[::1]/"},
        ),
        (AMAZON, {**AMAZON, "endpoint_url": "https://s3.eu-west-1.amazonaws.com"}),
        (AMAZON, {**AMAZON, "region": "us-east-1"}),
        (CHINA, {**AMAZON, "endpoint_url": "https://s3.cn-north-1.amazonaws.com.cn"}),
    ],
)
def test_a_place_is_the_same_however_it_is_written(
    make_backend: Callable[..., S3Backend], one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert make_backend(**one).place() == make_backend(**other).place()


@pytest.mark.parametrize(
    "other",
    [
        {**HERE, "bucket": "c"},
        {**HERE, "prefix": "a/b"},
        {**HERE, "prefix": ""},
        {**HERE, "endpoint_url": "http://store:8333"},
        {**HERE, "endpoint_url": "https://store"},
        {**HERE, "endpoint_url": "http://store/tenant"},
        AMAZON,
        CHINA,
        {**AMAZON, "region": "us-gov-west-1"},
    ],
)
def test_other_files_are_at_another_place(
    make_backend: Callable[..., S3Backend], other: dict[str, Any]
) -> None:
    places = {make_backend(**options).place() for options in (HERE, AMAZON, CHINA, other)}
    assert len(places) == 3 + (other not in (AMAZON, CHINA))


def test_the_endpoint_of_the_store_may_come_from_the_environment(
    make_backend: Callable[..., S3Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", HERE["endpoint_url"])
    assert make_backend(**AMAZON).place() == make_backend(**HERE).place()


def test_without_a_possible_region_there_is_no_place(
    make_backend: Callable[..., S3Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "no region")
    with pytest.raises(BackendUnavailable, match="InvalidRegion"):
        make_backend(bucket="b").place()
