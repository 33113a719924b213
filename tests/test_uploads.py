"""Addresses to which a browser sends a file: to S3 itself, elsewhere to the view."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import shutil
import tracemalloc
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from django.http import JsonResponse
from django.test import AsyncClient, Client
from django.urls import include, path
from fs import errors
from werkzeug.formparser import parse_form_data

from djpyfs import (
    ConfigurationError,
    InvalidLifetime,
    InvalidLimit,
    InvalidName,
    conf,
    expire_objects,
    get_filesystem,
)
from djpyfs.expirations import total
from djpyfs.filesystem import ExpiringFS
from djpyfs.late_uploads import late_uploads
from djpyfs.links import UploadLink, upload_address
from djpyfs.places import places_here
from djpyfs.uploads import UploadTarget
from tests.conftest import BUCKET, KEYS, counted, create_bucket
from tests.filesystem.steps import left
from tests.servers import Moto, running_redis, wait_for
from tests.test_storage_backend import on_disk

urlpatterns = [path("f/", include("djpyfs.urls"))]
LARGEST = 5 * 2**30  # what S3 takes in one piece
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _included(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]


@pytest.fixture(params=["memory", "osfs"])
def here(request: pytest.FixtureRequest, djfs: Callable[..., None], tmp_path: Path) -> ExpiringFS:
    """A filesystem whose uploads go through the site."""
    places: dict[str, dict[str, Any]] = {
        "memory": {"type": "memory"},
        "osfs": {"type": "osfs", "directory_root": tmp_path / "files"},
    }
    djfs(**places[request.param])
    return get_filesystem("plots")


def send(target: UploadTarget, content: bytes, type_: str = "") -> int:
    """Send a file as a browser does, using only the target; return the status."""
    if target.method == "POST":
        file = ("C:\\fakepath\\${filename}", content, type_ or "application/octet-stream")
        return urllib3.request("POST", target.url, fields={**target.fields, "file": file}).status
    type_ = type_ or target.headers.get("Content-Type", "application/octet-stream")
    answer = Client(enforce_csrf_checks=True).put(target.url, content, content_type=type_)
    return int(answer.status_code)


def test_an_upload_is_stored_under_its_path_with_the_deadline_recorded_at_once(
    plots: ExpiringFS,
) -> None:
    target = plots.get_upload_url(".png", prefix="me-", seconds=300, max_bytes=1_000)
    assert target.path.startswith("me-")
    assert target.path.endswith(".png")
    assert len(target.path) >= len("me-.png") + 32
    assert left(plots, target.path) == pytest.approx(300, abs=30)
    assert plots.listdir("/") == []
    assert send(target, b"picture") in (201, 204)
    assert plots.readbytes(target.path) == b"picture"
    assert left(plots, target.path) == pytest.approx(300, abs=30)
    assert (target.until - datetime.now(UTC)).total_seconds() == pytest.approx(300, abs=30)


def test_an_abandoned_upload_leaves_nothing(plots: ExpiringFS) -> None:
    plots.get_upload_url(seconds=1, max_bytes=1_000)
    assert counted().tracked >= 1
    wait_for(lambda: expire_objects().failed == counted().tracked == 0)
    assert plots.listdir("/") == []


def test_a_target_can_be_sent_as_json(plots: ExpiringFS) -> None:
    target = plots.get_upload_url(".txt", seconds=timedelta(minutes=1), max_bytes=10)
    told = json.loads(JsonResponse(target._asdict()).content)
    assert told["url"] == target.url
    assert told["fields"] == target.fields
    assert datetime.fromisoformat(told["until"]) == pytest.approx(
        target.until, abs=timedelta(milliseconds=1)
    )


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"seconds": 0}, InvalidLifetime),
        ({"seconds": None}, InvalidLifetime),
        ({"seconds": -1}, InvalidLifetime),
        ({"max_bytes": 0}, InvalidLimit),
        ({"max_bytes": True}, InvalidLimit),
        ({"max_bytes": "1"}, InvalidLimit),
        ({"content_types": "image/png"}, InvalidLimit),
        ({"content_types": []}, InvalidLimit),
        ({"content_types": ["png"]}, InvalidLimit),
        ({"content_types": ["image/*, text/html"]}, InvalidLimit),
        ({"suffix": "/../x"}, InvalidName),
        ({"prefix": 1}, InvalidName),
    ],
)
def test_bad_input_is_refused_before_anything_is_recorded(
    plots: ExpiringFS, how: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        plots.get_upload_url(**{"seconds": 300, "max_bytes": 10, **how})
    assert counted().tracked == 0


def test_a_lifetime_beyond_the_policy_is_refused(
    djfs: Callable[..., None], place: dict[str, Any]
) -> None:
    djfs(**place, max_ttl=60)
    with pytest.raises(InvalidLifetime, match="max_ttl"):
        get_filesystem("plots").get_upload_url(seconds=61, max_bytes=10)


def test_async_views_get_a_target_too(plots: ExpiringFS) -> None:
    target = asyncio.run(plots.aget_upload_url(".png", seconds=300, max_bytes=10))
    assert plots.expiration(target.path)


def test_a_directory_has_its_own_targets_even_after_a_sweep_removed_it(
    plots: ExpiringFS,
) -> None:
    below = plots.makedirs("a/b")
    target = below.get_upload_url(".txt", seconds=300, max_bytes=10)
    assert "/" not in target.path
    plots.removetree("a")
    below.expire(target.path, 300)
    assert send(target, b"x") in (201, 204)
    assert below.readbytes(target.path) == b"x"


# -- through the site


def put(target: UploadTarget, content: Any = b"", **environ: Any) -> int:
    answer: Any = Client().generic("PUT", target.url, content, **environ)
    return int(answer.status_code)


def chunked(body: Any) -> dict[str, Any]:
    """A request without a length, as Gunicorn hands it on."""
    return {
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_LENGTH": "",
        "wsgi.input": body,
        "wsgi.input_terminated": True,
    }


def test_a_body_that_is_too_long_is_refused_before_a_byte_of_it_is_read(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)

    class Unread(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("it was read")

    unread = Unread()
    assert put(target, **{"wsgi.input": unread, "CONTENT_LENGTH": "11"}) == 413
    assert here.listdir("/") == []
    assert put(target, b"ten bytes!") == 201


def test_a_body_without_a_length_is_counted_and_not_stored_if_it_is_too_long(
    here: ExpiringFS,
) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=100_000)
    endless = io.BytesIO(bytes(MIB))
    assert put(target, **chunked(endless)) == 413
    assert endless.tell() < MIB
    assert here.listdir("/") == []
    assert put(target, **chunked(io.BytesIO(bytes(100_000)))) == 201
    assert here.getsize(target.path) == 100_000


def test_a_server_that_does_not_say_where_a_body_ends_is_not_read_from(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)
    assert put(target, **{**chunked(io.BytesIO(b"x")), "wsgi.input_terminated": False}) == 411
    assert put(target, CONTENT_LENGTH="") == 411


class _Breaking(io.BytesIO):
    def read(self, *_: Any) -> bytes:
        raise ConnectionResetError


ELSEWHERE = {
    "opener": {"type": "opener", "url": "mem://"},
    # Its own path: a whole process shares what fsspec keeps in memory.
    "fsspec": {"type": "fsspec", "url": f"memory://{uuid.uuid4().hex}"},
    "storage": {"type": "storage"},
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_other_backends_store_a_whole_file_or_nothing(
    djfs: Callable[..., None], settings: Any, tmp_path: Path, kind: str
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    djfs(**ELSEWHERE[kind])
    files = get_filesystem("plots")
    target = files.get_upload_url(".txt", seconds=300, max_bytes=100_000)
    too_long = put(target, **chunked(io.BytesIO(bytes(MIB))))
    half = put(target, **{"wsgi.input": io.BytesIO(b"half"), "CONTENT_LENGTH": "8"})
    assert (too_long, half) == (413, 400)
    assert files.listdir("/") == []
    assert put(target, b"complete") == 201
    assert files.readbytes(target.path) == b"complete"
    assert left(files, target.path) == pytest.approx(300, abs=30)


@pytest.mark.parametrize("kind", ["osfs", "opener", "fsspec", "storage"])
def test_an_upload_that_could_not_be_stored_can_be_repeated_once(
    djfs: Callable[..., None],
    records: dict[str, Any],
    settings: Any,
    tmp_path: Path,
    kind: str,
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    options: dict[str, dict[str, Any]] = {
        "osfs": {"directory_root": tmp_path},
        "opener": {"url": f"osfs://{tmp_path}"},
        "fsspec": {"url": f"file://{tmp_path}"},
        "storage": {},
    }
    djfs(type=kind, **records, **options[kind])
    files = get_filesystem("plots")
    target = files.get_upload_url(seconds=300, max_bytes=10)
    in_the_way = tmp_path / "plots" / target.path / "directory"

    class Obstructing(io.BytesIO):
        def read(self, *size: Any) -> bytes:
            in_the_way.mkdir(parents=True, exist_ok=True)
            return super().read(*size)

    assert put(target, **{"wsgi.input": Obstructing(b"first"), "CONTENT_LENGTH": "5"}) == 503
    shutil.rmtree(in_the_way.parent)
    assert [put(target, content) for content in (b"second", b"third")] == [201, 409]
    assert files.readbytes(target.path) == b"second"


@pytest.mark.parametrize("body", [io.BytesIO(b"half"), _Breaking()], ids=["ends", "breaks"])
def test_an_upload_that_breaks_off_leaves_nothing_and_can_be_repeated(
    here: ExpiringFS, body: io.BytesIO
) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)
    assert put(target, **{"wsgi.input": body, "CONTENT_LENGTH": "8"}) == 400
    assert here.listdir("/") == []
    assert put(target, b"complete") == 201


def test_an_address_takes_one_file_even_after_that_has_gone(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)
    assert [put(target, b"one"), put(target, b"two")] == [201, 409]
    assert here.readbytes(target.path) == b"one"
    here.remove(target.path)
    assert put(target, b"three") == 409
    assert here.listdir("/") == []


def test_of_two_uploads_at_once_the_first_to_end_is_kept(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)

    class Overtaken(io.BytesIO):
        def read(self, *size: Any) -> bytes:
            if not self.tell():
                assert put(target, b"first") == 201
            return super().read(*size)

    slow = Overtaken(b"second")
    assert put(target, **{"wsgi.input": slow, "CONTENT_LENGTH": "6"}) == 409
    assert here.readbytes(target.path) == b"first"


def test_what_the_site_receives_lives_for_the_grace_at_least(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=5, max_bytes=10)
    assert left(here, target.path) <= 5
    assert send(target, b"picture") == 201
    assert left(here, target.path) == pytest.approx(60, abs=20)


def test_an_upload_whose_record_is_gone_has_a_deadline_all_the_same(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)
    here.writebytes(target.path, b"")
    here.remove(target.path)
    assert here.expiration(target.path) is None
    assert put(target, b"late") == 201
    assert left(here, target.path) == pytest.approx(300, abs=30)


@pytest.mark.parametrize(
    ("signed", "now", "life"),
    [
        ({"max_ttl": 90.5}, {"max_ttl": 90.5}, 90.5),
        ({}, {"max_ttl": 60}, 60),
        ({}, {"min_ttl": 120}, 120),
        ({}, {"max_ttl": 60, "namespaces": {"plots/long": {"max_ttl": 600}}}, 90.5),
    ],
)
def test_an_upload_is_taken_whatever_lifetimes_are_allowed_when_it_comes_and_lives_within_them(
    disk: ExpiringFS, settings: Any, signed: dict[str, Any], now: dict[str, Any], life: float
) -> None:
    site = settings.DJFS
    settings.DJFS = {**site, **signed}
    files = get_filesystem(disk.namespace).makedir("long")
    target = files.get_upload_url(seconds=90.5, max_bytes=10)
    files.writebytes(target.path, b"")
    files.remove(target.path)
    settings.DJFS = {**site, **now}
    assert put(target, b"late") == 201
    assert left(files, target.path) == pytest.approx(life, abs=10)


def test_an_upload_made_permanent_before_it_arrives_stays_permanent(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)
    here.expire(target.path, expires=False)
    assert put(target, b"kept") == 201
    assert here.expiration(target.path) is None


def test_every_bad_address_is_a_404(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)
    here.writebytes("picture.png", b"")
    download = get_signed(here, "picture.png")
    others = [
        target.url[:-1] + ("A" if target.url[-1] != "A" else "B"),
        target.url.replace("/upload/", "/"),
        download.replace("/f/", "/f/upload/"),
        "/f/upload/a/b",
        upload_address(UploadLink("plots", "../x", 2**52, 300, 10, (), "no ticket")),
    ]
    statuses = [Client().put(url, b"x").status_code for url in others]
    assert statuses == [404] * 5
    assert Client().get(target.url.replace("/upload/", "/")).status_code == 404
    here.revoke_urls(target.path)
    assert put(target, b"x") == 404


def get_signed(files: ExpiringFS, name: str) -> str:
    return files.get_url(name, max_downloads=9)


def test_an_address_ends_with_its_time(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=1, max_bytes=10)
    here.expire(target.path, 300)
    wait_for(lambda: put(target, b"too long for it") == 404)
    assert here.listdir("/") == []


def test_an_upload_that_begins_in_time_is_stored_even_if_its_address_ends_meanwhile(
    here: ExpiringFS,
) -> None:
    target = here.get_upload_url(seconds=1, max_bytes=10)

    class Slow(io.BytesIO):
        def read(self, *size: Any) -> bytes:
            if not self.tell():
                wait_for(lambda: put(target, b"too long for it") == 404)
            return super().read(*size)

    assert put(target, **{"wsgi.input": Slow(b"slow"), "CONTENT_LENGTH": "4"}) == 201
    assert here.readbytes(target.path) == b"slow"
    assert put(target, b"late") == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_nothing_but_put_is_allowed(here: ExpiringFS, method: str) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)
    answer: Any = Client().generic(method, target.url, b"x")
    assert (answer.status_code, answer["Allow"]) == (405, "PUT")


def test_no_refusal_is_logged_with_the_address(
    here: ExpiringFS, caplog: pytest.LogCaptureFixture
) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)
    assert put(target, b"eleven bytes") == 413
    assert put(target._replace(url=f"{target.url}A"), b"x") == 404
    assert not any("/upload/" in record.getMessage() for record in caplog.records)


def test_a_type_that_was_not_asked_for_is_refused(here: ExpiringFS) -> None:
    types = ["image/png", "image/jpeg"]
    target = here.get_upload_url(seconds=300, max_bytes=10, content_types=types)
    assert target.headers == {}
    assert put(target, b"x", content_type="text/html") == 415
    assert put(target, b"x", content_type="image/jpeg") == 201
    target = here.get_upload_url(".png", seconds=300, max_bytes=10, content_types=types)
    assert target.headers == {"Content-Type": "image/png"}
    assert put(target, b"x", content_type="image/jpeg") == 415


def test_an_upload_passes_through_in_constant_memory(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    files = get_filesystem("plots")
    target = files.get_upload_url(seconds=300, max_bytes=64 * MIB)
    put(files.get_upload_url(seconds=300, max_bytes=9), b"warm")
    with (tmp_path / "sent").open("wb") as sparse:
        sparse.truncate(64 * MIB)
    with (tmp_path / "sent").open("rb") as body:
        tracemalloc.start()
        try:
            assert put(target, **{"wsgi.input": body, "CONTENT_LENGTH": str(64 * MIB)}) == 201
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert files.getsize(target.path) == 64 * MIB
    assert peak < MIB


def test_the_view_answers_under_asgi_too(here: ExpiringFS) -> None:
    target = here.get_upload_url(seconds=300, max_bytes=10)

    async def put_twice() -> list[int]:
        answers: list[Any] = [await AsyncClient().put(target.url, b"x") for _ in range(2)]
        return [answer.status_code for answer in answers]

    assert asyncio.run(put_twice()) == [201, 409]


def test_a_redis_that_is_away_is_503(
    djfs: Callable[..., None], tmp_path: Path, settings: Any
) -> None:
    with running_redis() as server:
        djfs(type="osfs", directory_root=tmp_path, redis_url=server.url)
        target = get_filesystem("plots").get_upload_url(seconds=300, max_bytes=10)
    answer: Any = Client().put(target.url, b"x")
    assert answer.status_code == 503
    assert answer["Retry-After"]


def test_without_the_urls_the_error_says_what_to_include(
    djfs: Callable[..., None], settings: Any
) -> None:
    settings.ROOT_URLCONF = "tests.own_app"
    djfs(type="memory")
    settings.ROOT_URLCONF = None
    with pytest.raises(errors.NoURL, match=r"include djpyfs\.urls"):
        get_filesystem("plots").get_upload_url(seconds=300, max_bytes=10)
    assert counted().tracked == 0


# -- straight to S3


class Policed(Moto):
    """An S3 endpoint that takes a form only if its policy is signed, and allows it."""

    def __init__(self) -> None:
        super().__init__()
        create_bucket(self.url)

    def _answer(self, environ: Any, start_response: Any) -> Any:
        type_ = environ.get("CONTENT_TYPE", "")
        if environ["REQUEST_METHOD"] == "POST" and type_.startswith("multipart/form-data"):
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            _, form, files = parse_form_data(
                {**environ, "wsgi.input": io.BytesIO(body)}, lambda *_, **__: io.BytesIO()
            )
            (content,) = [file.read() for file in files.values()]
            if not _is_allowed(form.to_dict(), content, environ["PATH_INFO"].strip("/")):
                start_response("403 Forbidden", [("Content-Type", "application/xml")])
                return [b"<Error><Code>AccessDenied</Code></Error>"]
            environ["wsgi.input"] = io.BytesIO(body)
        return super()._answer(environ, start_response)


def _is_allowed(form: Mapping[str, str], content: bytes, bucket: str) -> bool:
    """Judge a form as S3 documents it: its signature, its time, and each condition."""
    key = f"AWS4{KEYS['aws_secret_access_key']}".encode()
    for part in form["x-amz-credential"].split("/")[1:]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, form["policy"].encode(), hashlib.sha256).hexdigest()
    policy = json.loads(base64.b64decode(form["policy"]))
    told, unsaid = {**form, "bucket": bucket}, {*form} - {"policy", "x-amz-signature"}
    for condition in policy["conditions"]:
        if isinstance(condition, dict):
            ((name, value),) = condition.items()
            unsaid.discard(name)
            if told.get(name) != value:
                return False
        elif condition[0] == "content-length-range":
            if not condition[1] <= len(content) <= condition[2]:
                return False
        else:
            raise AssertionError(condition)
    lives = datetime.fromisoformat(policy["expiration"]) > datetime.now(UTC)
    return signature == form["x-amz-signature"] and lives and not unsaid


@pytest.fixture(scope="module")
def policed() -> Iterator[Policed]:
    server = Policed()
    yield server
    server.stop()


@pytest.fixture
def bucket(djfs: Callable[..., None], policed: Policed) -> Callable[..., ExpiringFS]:
    def make(**options: Any) -> ExpiringFS:
        own = {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": policed.url}
        djfs(**{"type": "s3fs", **own, **KEYS, **options})
        return get_filesystem("plots")

    return make


def test_s3_takes_what_the_policy_allows_and_nothing_else(
    bucket: Callable[..., ExpiringFS],
) -> None:
    files = bucket()
    target = files.get_upload_url(".png", seconds=300, max_bytes=10, content_types=["image/png"])
    wrong = {
        "too long": (target, b"eleven bytes"),
        "another key": (target._replace(fields={**target.fields, "key": "plots/x"}), b"x"),
        "another type": (
            target._replace(fields={**target.fields, "Content-Type": "text/html"}),
            b"x",
        ),
        "another word": (target._replace(fields={**target.fields, "acl": "public-read"}), b"x"),
        "no type": (
            target._replace(fields={k: v for k, v in target.fields.items() if k != "Content-Type"}),
            b"x",
        ),
    }
    assert {why: send(*it) for why, it in wrong.items()} == dict.fromkeys(wrong, 403)
    assert files.listdir("/") == []
    assert send(target, b"ten bytes!") == 204
    assert files.readbytes(target.path) == b"ten bytes!"


def test_a_form_for_s3_ends_with_its_time(bucket: Callable[..., ExpiringFS]) -> None:
    target = bucket().get_upload_url(seconds=1, max_bytes=10)
    wait_for(lambda: send(target, b"x") == 403)


def test_a_form_for_s3_lives_for_a_week_at_most_and_its_file_for_longer(
    bucket: Callable[..., ExpiringFS],
) -> None:
    files = bucket()
    target = files.get_upload_url(seconds=timedelta(days=30), max_bytes=10)
    assert (target.until - datetime.now(UTC)).total_seconds() == pytest.approx(604_800, abs=30)
    assert left(files, target.path) == pytest.approx(30 * 86_400, abs=30)


def test_a_form_for_s3_binds_the_type_that_the_name_stands_for(
    bucket: Callable[..., ExpiringFS],
) -> None:
    files = bucket()
    types = ["image/png", "image/jpeg"]
    told = {
        suffix: files.get_upload_url(suffix, seconds=60, max_bytes=9, content_types=asked)
        for suffix, asked in {".jpg": types, ".png": None, ".gz": None, ".x": types[:1]}.items()
    }
    assert {suffix: target.fields["Content-Type"] for suffix, target in told.items()} == {
        ".jpg": "image/jpeg",
        ".png": "image/png",
        ".gz": "application/octet-stream",
        ".x": "image/png",
    }


@pytest.mark.parametrize(
    ("how", "error", "cure"),
    [
        ({"max_bytes": LARGEST + 1}, InvalidLimit, str(LARGEST)),
        ({"content_types": ["image/png", "text/html"]}, InvalidLimit, "give a suffix"),
        ({"suffix": "-${filename}"}, InvalidName, "would replace"),
    ],
    ids=["bytes", "types", "name"],
)
def test_a_limit_that_s3_cannot_bind_is_refused(
    bucket: Callable[..., ExpiringFS], how: dict[str, Any], error: type[Exception], cure: str
) -> None:
    files = bucket()
    with pytest.raises(error, match=cure):
        files.get_upload_url(**{"seconds": 300, "max_bytes": LARGEST, **how})
    assert counted().tracked == 0


def test_a_form_for_s3_includes_the_upload_args(bucket: Callable[..., ExpiringFS]) -> None:
    args = {"ACL": "private", "CacheControl": "no-store", "Metadata": {"by": "tests"}}
    files = bucket(upload_args=args)
    target = files.get_upload_url(".png", seconds=300, max_bytes=10)
    assert (
        target.fields.items()
        >= {
            "acl": "private",
            "Cache-Control": "no-store",
            "x-amz-meta-by": "tests",
        }.items()
    )
    assert send(target, b"x") == 204
    with pytest.raises(ConfigurationError, match="'Tagging'"):
        bucket(upload_args={"Tagging": "a=b"}).get_upload_url(seconds=300, max_bytes=10)


def test_a_form_for_amazon_is_signed_for_the_region_of_the_bucket(
    djfs: Callable[..., None],
) -> None:
    djfs(type="s3fs", bucket="my-bucket", **{**KEYS, "region": "eu-central-1"})
    target = get_filesystem("plots").get_upload_url(seconds=300, max_bytes=10)
    assert target.url == "https://my-bucket.s3.eu-central-1.amazonaws.com/"
    assert target.fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"
    assert "/eu-central-1/s3/" in target.fields["x-amz-credential"]


# -- what comes to S3 after its address has ended


def test_an_upload_that_arrives_after_its_record_has_gone_is_still_deleted(
    on_s3: Callable[..., ExpiringFS],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("djpyfs.late_uploads.STALL", 1)
    files = on_s3()  # which does not look at the time, as S3 does not after the first byte
    slow, extended, permanent = (files.get_upload_url(seconds=1, max_bytes=9) for _ in range(3))
    files.expire(extended.path, 300)
    files.expire(permanent.path, expires=False)
    wait_for(lambda: expire_objects().failed == 0 and counted().tracked == 1)
    for target in slow, extended, permanent:
        assert send(target, b"late") == 204
    assert files.isfile(slow.path)
    wait_for(lambda: expire_objects().failed == 0 and not files.isfile(slow.path))
    wait_for(lambda: expire_objects().missing == 0)  # it has seen to all three
    assert files.isfile(extended.path)
    assert files.isfile(permanent.path)


def test_an_upload_to_an_address_whose_file_was_removed_is_still_deleted(
    on_s3: Callable[..., ExpiringFS],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("djpyfs.late_uploads.STALL", 0)
    files = on_s3()
    target = files.get_upload_url(seconds=1, max_bytes=9)
    send(target, b"one")
    files.remove(target.path)
    send(target, b"two")
    assert files.expiration(target.path) is None
    wait_for(lambda: expire_objects().failed == 0 and not files.isfile(target.path))


def test_what_the_site_has_written_where_a_browser_might_have_sent_a_file_stays(
    on_s3: Callable[..., ExpiringFS],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("djpyfs.late_uploads.STALL", 0)
    files = on_s3()
    again, moved_in, copied_in, other = (
        files.get_upload_url(seconds=2, max_bytes=9) for _ in range(4)
    )
    for target in again, moved_in, copied_in, other:
        assert send(target, b"sent") == 204
        files.expire(target.path, expires=target is not other, seconds=0)
    assert expire_objects().deleted == 3
    files.writebytes(again.path, b"written")
    files.copy(other.path, copied_in.path)
    files.move(other.path, moved_in.path)
    wait_for(lambda: expire_objects().failed == 0 and not counted_uploads())
    written = sorted(target.path for target in (again, moved_in, copied_in))
    assert sorted(files.listdir("/")) == written
    assert not any(map(files.expiration, written))


def counted_uploads() -> int:
    """How many addresses sweeps still have to look at."""
    places = late_uploads(conf.current(), places_here(conf.current()))
    return total(place.records.counts() for place in places).tracked
