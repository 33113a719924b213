"""Signed links to files on S3: what they fetch, which ETag they have, and where they redirect."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from django.test import Client
from django.urls import include, path

from djpyfs import get_filesystem
from djpyfs.errors import ConfigurationError
from djpyfs.filesystem import ExpiringFS
from tests.conftest import create_bucket
from tests.servers import BigObject, Moto, wait_for
from tests.test_links import ask, get

MIB = 1 << 20
CONTENT = os.urandom(MIB) + bytes(MIB)

urlpatterns = [path("f/", include("djpyfs.urls"))]


@pytest.fixture(autouse=True)
def _included(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


@pytest.fixture
def files(on_s3: Callable[..., ExpiringFS]) -> ExpiringFS:
    return with_a_file(on_s3(signed_urls=True))


def with_a_file(files: ExpiringFS) -> ExpiringFS:
    files.writebytes("a.bin", CONTENT)
    return files


def test_a_link_fetches_the_range_that_is_asked_for_and_no_more(
    moto: Moto, files: ExpiringFS
) -> None:
    url = files.get_url("a.bin")
    for asked, part in [
        ("bytes=0-1", CONTENT[:2]),
        (f"bytes={MIB}-{MIB + 299_999}", CONTENT[MIB : MIB + 300_000]),
        ("bytes=-10", CONTENT[-10:]),
        ("bytes=0-", CONTENT),
    ]:
        moto.requests.clear()
        moto.promised = 0
        assert get(url, range=asked).body == part
        assert moto.requests == ["HEAD", "GET"]
        assert moto.promised == len(part)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", {}, 200),
        ("GET", {"range": "bytes=9999999-"}, 416),
        ("GET", {"if_none_match": "*"}, 304),
        ("GET", {"if_match": '"other"'}, 412),
    ],
)
def test_an_answer_without_a_body_fetches_nothing(
    moto: Moto, files: ExpiringFS, method: str, headers: dict[str, str], status: int
) -> None:
    url = files.get_url("a.bin")
    moto.requests.clear()
    assert ask(method, url, **headers).status == status
    assert moto.requests == ["HEAD"]


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_sixty_slow_readers_of_eight_megabytes_take_little_memory(
    big: BigObject, on_s3: Callable[..., ExpiringFS]
) -> None:
    big.size = 8 * MIB
    url = on_s3(signed_urls=True, endpoint_url=big.url).get_url("a.bin")
    before = resident()
    with ExitStack() as stack:
        for _ in range(60):
            response: Any = Client().get(url)
            stack.callback(response.close)
            assert next(iter(response.streaming_content))
        assert resident() - before < 100 * MIB


def put_in_the_same_second(
    files: ExpiringFS, one: bytes, other: bytes, between: Callable[[], Any]
) -> Any:
    """Write a file twice within one second of the store's clock; return what was asked between."""
    while True:
        files.writebytes("a.bin", one)
        first, found = files.getinfo("a.bin", ["details"]).modified, between()
        files.writebytes("a.bin", other)
        if files.getinfo("a.bin", ["details"]).modified == first:
            return found


def test_the_etag_distinguishes_two_files_of_one_size_and_second(files: ExpiringFS) -> None:
    url = files.get_url("a.bin")
    old, new = b"1" * 1000, b"2" * 1000
    first = put_in_the_same_second(files, old, new, lambda: get(url))
    assert first.body == old
    etag, date = first.headers["ETag"], first.headers["Last-Modified"]
    assert get(url, If_None_Match=etag).body == new
    assert get(url, If_None_Match=etag, If_Modified_Since=date).body == new
    assert get(url, If_Match=etag).status == 412
    # Until the date counts as a strong validator.
    written: Any = files.getinfo("a.bin", ["details"]).get("details", "modified")
    wait_for(lambda: time.time() > written + 2, what="the end of the second")
    for stale in etag, date:
        resumed = get(url, Range="bytes=500-", If_Range=stale)
        assert (resumed.status, resumed.body) == (200, new)
    etag = resumed.headers["ETag"]
    assert get(url, Range="bytes=500-", If_Range=etag).status == 206
    assert get(url, If_None_Match=etag).status == 304


def test_the_etag_is_that_of_the_store(files: ExpiringFS) -> None:
    assert get(files.get_url("a.bin")).headers["ETag"] == files.getinfo("a.bin", ["s3"]).get(
        "s3", "e_tag"
    )


class Meddling(Moto):
    """An S3 endpoint that replaces a file between the look at it and its opening."""

    def __init__(self) -> None:
        self.meddle: Callable[[], object] = lambda: None
        super().__init__()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET":
            meddle, self.meddle = self.meddle, lambda: None
            meddle()
        return super()._answer(environ, start_response)


@pytest.mark.parametrize("contents", [CONTENT[::-1], b"short"], ids=["same size", "shorter"])
def test_a_file_that_is_replaced_before_it_is_sent_goes_out_as_it_is_then(
    on_s3: Callable[..., ExpiringFS], contents: bytes
) -> None:
    meddling = Meddling()
    try:
        create_bucket(meddling.url)
        files = with_a_file(on_s3(signed_urls=True, endpoint_url=meddling.url))
        url = files.get_url("a.bin")
        etag = get(url).headers["ETag"]
        meddling.meddle = lambda: files.writebytes("a.bin", contents)
        answer = get(url, Range="bytes=0-99", If_Range=etag)
        assert (answer.status, answer.body) == (200, contents)
        assert answer.headers["ETag"] != etag
    finally:
        meddling.stop()


# -- links that lead on to the store


@pytest.fixture
def led_on(on_s3: Callable[..., ExpiringFS]) -> ExpiringFS:
    return with_a_file(on_s3(signed_urls=True, redirect=True))


def test_a_link_redirects_to_a_url_that_works_for_a_minute(moto: Moto, led_on: ExpiringFS) -> None:
    led_on.writebytes("page.html", b"<script>")
    answer = get(led_on.get_url("page.html", download_as="größe.html"))
    assert (answer.status, answer.body) == (302, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    address = answer.headers["Location"]
    assert address.startswith(moto.url)
    assert parse_qs(urlsplit(address).query)["X-Amz-Expires"] == ["60"]
    with urlopen(address) as response:
        assert response.read() == b"<script>"
        assert response.headers["Content-Type"] == "text/html"
        wanted = "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.html"
        assert response.headers["Content-Disposition"] == wanted


def test_the_url_that_a_link_redirects_to_ends_with_the_file(led_on: ExpiringFS) -> None:
    led_on.expire("a.bin", 30)
    location = get(led_on.get_url("a.bin")).headers["Location"]
    assert 1 <= int(parse_qs(urlsplit(location).query)["X-Amz-Expires"][0]) <= 30


def test_a_link_that_redirects_fetches_no_more_than_a_byte(moto: Moto, led_on: ExpiringFS) -> None:
    url = led_on.get_url("a.bin")
    moto.promised = 0
    assert get(url).status == 302
    head = ask("HEAD", url)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(CONTENT)))
    assert moto.promised <= 1


def test_a_limited_link_that_redirects_counts(led_on: ExpiringFS) -> None:
    url = led_on.get_url("a.bin", max_downloads=2)
    assert ask("HEAD", url).status == 200
    assert get(url).status == 302
    whole = get(url, Range="bytes=0-1")  # of which the store would send two bytes
    assert (whole.status, whole.body) == (200, CONTENT)
    assert get(url).status == 404


def test_a_link_to_a_file_that_is_gone_leads_nowhere(led_on: ExpiringFS) -> None:
    gone = led_on.get_url("gone")
    assert get(gone).status == 404


def test_redirect_is_true_or_false(djfs: Callable[..., None]) -> None:
    djfs(type="s3fs", bucket="b", redirect="yes")
    with pytest.raises(ConfigurationError, match="redirect"):
        get_filesystem("plots")
