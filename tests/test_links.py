"""Signed links: what they carry, what the view answers, and what goes over the wire."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import socket
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from django.test import AsyncClient, Client
from django.urls import include, path
from django.utils.http import http_date
from fs import errors
from fs.base import FS
from fs.mode import Mode

from djpyfs import (
    ConfigurationError,
    InvalidLifetime,
    InvalidLimit,
    InvalidName,
    expire_objects,
    get_filesystem,
)
from djpyfs.backends import Backend
from djpyfs.backends.disk_files import DiskFileSystem
from djpyfs.backends.memory import MemoryBackend, MemoryFiles
from djpyfs.backends.osfs import DiskBackend
from djpyfs.filesystem import ExpiringFS
from djpyfs.links import Link, read, sign
from tests.chromium import running_chromium
from tests.conftest import BUCKET, KEYS
from tests.pages import examples
from tests.servers import (
    HOST,
    PATIENCE,
    RedisServer,
    running_nginx,
    running_redis,
    running_site,
    scripts_run,
    wait_for,
)
from tests.test_storage_backend import on_disk

urlpatterns = [path("f/", include("djpyfs.urls"))]

CONTENT = bytes(range(256)) * 4
SIZE = len(CONTENT)


@pytest.fixture(autouse=True)
def _included(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


@pytest.fixture(params=["memory", "osfs", "signed_urls", "s3fs"])
def linked(request: pytest.FixtureRequest, djfs: Callable[..., None], tmp_path: Path) -> ExpiringFS:
    """A filesystem on each backend whose files have no address of their own, or must not."""
    disk = {"type": "osfs", "directory_root": tmp_path / "files"}
    places: dict[str, dict[str, Any]] = {
        "memory": {"type": "memory"},
        "osfs": disk,
        "signed_urls": {**disk, "url_root": "/files/", "signed_urls": True},
    }
    if request.param == "s3fs":
        own = {"prefix": uuid.uuid4().hex, "endpoint_url": request.getfixturevalue("s3_endpoint")}
        places["s3fs"] = {"type": "s3fs", "bucket": BUCKET, "signed_urls": True, **own, **KEYS}
    djfs(**places[request.param])
    return _with_picture()


@pytest.fixture
def memory(djfs: Callable[..., None]) -> ExpiringFS:
    djfs(type="memory")
    return _with_picture()


def _with_picture() -> ExpiringFS:
    files = get_filesystem("plots/today")
    files.writebytes("a.png", CONTENT)
    return files


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(method: str, url: str, **headers: str) -> Answer:
    """Request ``url`` with headers whose names have underscores here, and read to the end."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    response: Any = Client().generic(method, url, headers=fields)
    with closing(response):
        body = b"".join(response.streaming_content) if response.streaming else response.content
        return Answer(response.status_code, dict(response.items()), body)


def get(url: str, **headers: str) -> Answer:
    return ask("GET", url, **headers)


# -- links under control


def revocable(djfs: Callable[..., None], records: dict[str, Any]) -> ExpiringFS:
    djfs(type="memory", **records)
    return _with_picture()


def test_revoked_links_are_dead_for_good_and_new_ones_work(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    files = revocable(djfs, records)
    files.writebytes("b.png", CONTENT)
    dead = [files.get_url("a.png"), files.get_url("a.png", max_downloads=9)]
    others = [files.get_url("b.png"), get_filesystem("plots").get_url("today/b.png")]
    get_filesystem("plots").revoke_urls("today/a.png")
    working = [files.get_url("a.png"), files.get_url("a.png", max_downloads=9), *others]
    assert [get(url).status for url in dead] == [404, 404]
    assert [get(url).status for url in working] == [200] * 4
    files.remove("a.png")
    files.writebytes("a.png", b"another")
    assert [get(url).status for url in dead] == [404, 404]
    files.opendir("/").revoke_urls("a.png")
    assert [get(url).status for url in working] == [404, 404, 200, 200]


@pytest.mark.parametrize("place", ["osfs", "s3fs"], indirect=True)
def test_addresses_of_the_backend_itself_cannot_be_revoked(
    djfs: Callable[..., None], place: dict[str, Any]
) -> None:
    djfs(**place)
    with pytest.raises(ConfigurationError, match="signed_urls"):
        get_filesystem("plots").revoke_urls("a.png")


def test_many_addresses_take_one_round_trip(djfs: Callable[..., None]) -> None:
    names = [f"{number}.png" for number in range(100)]
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
        files = _with_picture()
        files.expire_many(names, 300)
        files.get_urls(names)
        before = scripts_run(server)
        urls = files.get_urls(names, timedelta(seconds=60))
        assert scripts_run(server) - before == 1
    assert list(urls) == names
    assert len(set(urls.values())) == 100


def test_each_name_gets_the_address_that_get_url_gives(linked: ExpiringFS) -> None:
    linked.writebytes("b.png", b"other")
    urls = linked.get_urls(["/a.png", "b.png", "a.png"])
    assert [get(url).body for url in urls.values()] == [CONTENT, b"other", CONTENT]
    assert list(urls) == ["/a.png", "b.png", "a.png"]
    above = get_filesystem("plots").opendir("today")
    assert get(above.get_urls(["b.png"])["b.png"]).body == b"other"
    assert linked.get_urls([]) == {}
    with pytest.raises(TypeError, match="list of names"):
        linked.get_urls("a.png")


# -- the address


def test_a_file_without_an_address_of_its_own_gets_a_signed_one(linked: ExpiringFS) -> None:
    response = get(linked.get_url("a.png"))
    assert response.status == 200
    assert response.body == CONTENT
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Content-Disposition"] == 'inline; filename="a.png"'


@pytest.mark.parametrize(
    "place", [{"type": "storage"}, {"type": "opener", "url": "mem://"}], ids=str
)
def test_links_and_hiding_work_on_every_backend(
    djfs: Callable[..., None], settings: Any, place: dict[str, Any]
) -> None:
    settings.STORAGES = {"default": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
    djfs(**place, signed_urls=True, hide_expired=True)
    files = _with_picture()
    url = files.get_url("a.png")
    assert get(url, range="bytes=1-3").body == CONTENT[1:4]
    files.expire("a.png", 0)
    assert get(url).status == 404
    assert not files.exists("a.png")
    assert get(files.get_url("a.png")).status == 404


def test_without_the_urls_the_error_says_what_to_include(memory: ExpiringFS, settings: Any) -> None:
    del settings.ROOT_URLCONF
    with pytest.raises(errors.NoURL, match=r"include djpyfs\.urls"):
        memory.get_url("a.png")
    assert not memory.hasurl("a.png")


@pytest.mark.parametrize(
    "name", ["ä b.png", "100%.png", "a?b#c.png", "'\".png", "文" * 80 + ".png"]
)
def test_any_name_comes_back_through_its_link(memory: ExpiringFS, name: str) -> None:
    memory.writebytes(name, b"odd")
    assert get(memory.get_url(name)).body == b"odd"


def test_a_sub_filesystem_gives_the_same_links(memory: ExpiringFS) -> None:
    below = memory.makedir("below")
    below.writebytes("b.txt", b"below")
    response = get(below.get_url("b.txt", 60, download_as="c.txt"))
    assert response.body == b"below"
    assert response.headers["Content-Disposition"] == 'attachment; filename="c.txt"'


@pytest.mark.parametrize("timeout", [-1, 0.5, "60", True], ids=str)
def test_a_bad_timeout_of_a_signed_link_is_refused(memory: ExpiringFS, timeout: Any) -> None:
    with pytest.raises(InvalidLifetime):
        memory.get_url("a.png", timeout)


# -- whom it lets in


def test_a_link_ends_with_its_time_and_never_after_its_file(
    memory: ExpiringFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, short, long = (memory.get_url("a.png", seconds) for seconds in (1, 100, 600))
    memory.expire("a.png", 300)
    for url, most in (short, 100), (long, 300), (memory.get_url("a.png", 999), 300):
        kind, _, seconds = get(url).headers["Cache-Control"].rpartition("=")
        assert kind == "private, max-age"
        assert most - 60 < int(seconds) <= most
    wait_for(lambda: get(ended).status == 404, what="the end of the link")
    assert get(long).status == 200


def test_every_bad_link_gets_the_same_404(linked: ExpiringFS) -> None:
    names = "overdue swept removed directory".split()
    urls = {name: linked.get_url(name) for name in [*names, "missing"]}
    linked.makedir("directory")
    for name in names[:3]:
        linked.writebytes(name, b"x")
    linked.remove("removed")
    linked.expire("swept", 0)
    expire_objects()
    linked.expire("overdue", 0)
    ended = linked.get_url("a.png", 1)
    wait_for(lambda: get(ended).status == 404)
    forged = [urls["missing"] + "x", "/f/x", "/f/a:b", "/f/a/b", "/f/%00", "/f/.a:b"]
    answers = [get(url) for url in [*urls.values(), ended, *forged]]
    assert answers == [answers[0]] * len(answers)
    assert answers[0].status == 404
    assert linked.exists("overdue")


@pytest.mark.parametrize("hold", [False, True])
def test_a_file_that_is_overdue_gets_a_link_that_is_over(
    djfs: Callable[..., None], records: dict[str, Any], hold: bool
) -> None:
    djfs(type="memory", namespaces={"plots": {"hold": hold}}, **records)
    files = _with_picture()
    files.expire("a.png", 0)
    for swept in False, True:
        assert get(files.get_url("a.png")).status == 404
        assert get(files.get_url("a.png", 60, max_downloads=1)).status == 404
        assert swept or expire_objects().deleted == (not hold)
    assert files.exists("a.png") == hold


def test_a_person_gets_a_page_that_says_that_a_link_is_dead(
    memory: ExpiringFS, settings: Any, tmp_path: Path
) -> None:
    over = memory.get_url("a.png", 60, max_downloads=1)
    get(over)
    memory.expire("a.png", 0)
    urls = [over, memory.get_url("a.png"), "/f/forged"]
    answers = [get(url, **BROWSER) for url in urls]
    assert answers == [answers[0]] * len(urls)
    assert (answers[0].status, answers[0].headers["Cache-Control"]) == (404, "no-store")
    assert b"<h1>This link does not work</h1>" in answers[0].body
    for anything in {}, {"Accept": "*/*"}, {"Accept": "image/avif,image/*,*/*;q=0.8"}:
        assert get("/f/forged", **anything).body == b"Not found\n"
    (tmp_path / "djpyfs").mkdir()
    (tmp_path / "djpyfs" / "dead_link.html").write_text("Sorry")
    engine = "django.template.backends.django.DjangoTemplates"
    settings.TEMPLATES = [{"BACKEND": engine, "DIRS": [tmp_path], "APP_DIRS": True}]
    assert get("/f/forged", **BROWSER).body == b"Sorry"


def test_a_redis_that_is_away_is_503(memory: ExpiringFS, djfs: Callable[..., None]) -> None:
    url = memory.get_url("a.png")
    djfs(type="memory", redis_url=f"redis://{HOST}:1/0")
    response = get(url)
    assert response.status == 503
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("limits", [{}, {"max_downloads": 1}])
def test_a_directory_that_is_not_there_is_503_and_stays_so(
    djfs: Callable[..., None], tmp_path: Path, limits: dict[str, Any]
) -> None:
    djfs(type="osfs", directory_root=tmp_path / "files")
    url = _with_picture().get_url("a.png", **limits)
    (tmp_path / "files").rename(tmp_path / "unmounted")
    assert get(url).status == 503
    assert os.listdir(tmp_path) == ["unmounted"]
    (tmp_path / "unmounted").rename(tmp_path / "files")
    assert get(url).status == 200


def test_nothing_but_get_and_head_is_allowed(memory: ExpiringFS) -> None:
    response = ask("POST", memory.get_url("a.png"))
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


# -- what a browser may do with it


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((name, "inline") for name in "a.png a.jpg a.txt a.csv a.pdf a.json a.mp4".split()),
        *((name, "attachment") for name in "a.html a.xhtml a.svg a.svgz a.xml a.js a".split()),
        *((name, "attachment") for name in "a.rss a.unknown a.png.gz data:image/png,x".split()),
    ],
)
def test_a_file_that_a_browser_would_run_is_downloaded(
    memory: ExpiringFS, name: str, shown: str
) -> None:
    memory.makedirs("data:image", recreate=True)
    memory.writebytes(name, b"x")
    response = get(memory.get_url(name))
    assert response.headers["Content-Disposition"].startswith(f"{shown}; ")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    sandbox = "sandbox allow-same-origin" if name == "a.mp4" else "sandbox"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith(f"{sandbox}; default-src 'none'")
    assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("report.png", 'attachment; filename="report.png"'),
        ('a "b".png', 'attachment; filename="a \\"b\\".png"'),
        ("größe.png", "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.png"),
    ],
)
def test_a_download_is_saved_under_the_name_that_is_asked_for(
    linked: ExpiringFS, name: str, header: str
) -> None:
    response = get(linked.get_url("a.png", download_as=name))
    assert response.headers["Content-Disposition"] == header
    assert response.headers["Content-Type"] == "image/png"


def test_a_static_url_carries_no_name_so_a_signed_one_does(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path, url_root="/files/")
    files = _with_picture()
    assert files.get_url("a.png") == "/files/plots/today/a.png"
    assert get(files.get_url("a.png", download_as="b.png")).body == CONTENT


def test_s3_itself_sends_the_name(djfs: Callable[..., None], s3_endpoint: str) -> None:
    djfs(type="s3fs", bucket=BUCKET, endpoint_url=s3_endpoint, prefix="links", **KEYS)
    url = _with_picture().get_url("a.png", 60, download_as="größe.png")
    wanted = "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.png"
    assert parse_qs(urlsplit(url).query)["response-content-disposition"] == [wanted]
    with urlopen(url) as response:
        assert response.headers["Content-Disposition"] == wanted
        assert response.read() == CONTENT


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".", "a\nb", "a\\b", "x" * 256, 5], ids=ascii)
def test_a_bad_name_for_a_download_is_refused(memory: ExpiringFS, name: Any) -> None:
    with pytest.raises(InvalidName):
        memory.get_url("a.png", download_as=name)


# -- ranges and conditions


@pytest.mark.parametrize(
    ("asked", "first", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("Bytes=1000-", 1000, SIZE),
        ("bytes=-24", 1000, SIZE),
        ("bytes=0-99999", 0, SIZE),
        ("bytes=-99999", 0, SIZE),
    ],
)
def test_a_range_is_answered_with_206(
    linked: ExpiringFS, asked: str, first: int, stop: int
) -> None:
    response = get(linked.get_url("a.png"), Range=asked)
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {first}-{stop - 1}/{SIZE}"
    assert response.headers["Content-Length"] == str(stop - first)
    assert response.body == CONTENT[first:stop]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0", "bytes=5000-6000"])
def test_a_range_behind_the_end_is_416(linked: ExpiringFS, asked: str) -> None:
    response = get(linked.get_url("a.png"), Range=asked)
    assert response.status == 416
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked", ["bytes=9-1", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4"]
)
def test_several_ranges_or_a_bad_one_bring_the_whole_file(memory: ExpiringFS, asked: str) -> None:
    response = get(memory.get_url("a.png"), Range=asked)
    assert response.status == 200
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.body == CONTENT


def test_if_range_asks_for_the_same_version(memory: ExpiringFS) -> None:
    url = memory.get_url("a.png")
    just_now = time.time() + 60  # and not so long ago that its second has passed, however slowly
    memory.setinfo("a.png", {"details": {"modified": just_now}})
    etag = get(url).headers["ETag"]
    assert get(url, Range="bytes=0-1", If_Range=etag).status == 206
    for other in '"other"', f"W/{etag}", "yesterday", get(url).headers["Last-Modified"]:
        assert get(url, Range="bytes=0-1", If_Range=other).status == 200
    memory.setinfo("a.png", {"details": {"modified": 1_000_000_000}})
    date = get(url).headers["Last-Modified"]
    assert date == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert get(url, Range="bytes=0-1", If_Range=date).status == 206


def test_a_file_that_the_client_has_is_not_sent_again(linked: ExpiringFS) -> None:
    url = linked.get_url("a.png", 60)
    first = get(url)
    for condition in (
        {"If_None_Match": first.headers["ETag"]},
        {"If_Modified_Since": first.headers["Last-Modified"]},
    ):
        response = get(url, **condition, Range="bytes=0-1")
        assert response.status == 304
        assert response.headers["ETag"] == first.headers["ETag"]
        assert response.headers["Cache-Control"].startswith("private, max-age=")
        assert response.body == b""
    linked.writebytes("a.png", CONTENT + b"more")
    assert get(url, If_None_Match=first.headers["ETag"]).status == 200
    assert get(url, If_Match=first.headers["ETag"]).status == 412


def test_head_answers_as_get_without_the_body(linked: ExpiringFS) -> None:
    url = linked.get_url("a.png", 60)
    head, whole = ask("HEAD", url, Range="bytes=0-1"), get(url)
    assert (head.status, head.body) == (200, b"")
    assert head.headers.keys() == whole.headers.keys()
    for name in "Content-Length", "Content-Type", "Content-Disposition", "ETag", "Last-Modified":
        assert head.headers[name] == whole.headers[name]


def test_an_empty_file_is_sent(linked: ExpiringFS) -> None:
    linked.writebytes("empty.txt", b"")
    assert get(linked.get_url("empty.txt"))[::2] == (200, b"")
    assert get(linked.get_url("empty.txt"), Range="bytes=0-").status == 416


def test_a_part_is_not_compressed(memory: ExpiringFS, settings: Any) -> None:
    settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware"]
    response = get(memory.get_url("a.png"), Range="bytes=0-499", Accept_Encoding="gzip")
    assert response.body == CONTENT[:500]


# -- a limited number of downloads


@pytest.fixture
def limited(djfs: Callable[..., None], records: dict[str, Any]) -> ExpiringFS:
    djfs(type="memory", **records)
    return _with_picture()


def test_a_limited_link_works_so_many_times(limited: ExpiringFS) -> None:
    url = limited.get_url("a.png", 60, max_downloads=2)
    other = limited.get_url("a.png", 60, max_downloads=1)
    first = get(url)
    assert (first.body, first.headers["Cache-Control"]) == (CONTENT, "no-store")
    assert [get(url).status for _ in range(3)] == [200, 404, 404]
    assert get(url) == get("/f/forged")
    assert get(other).body == CONTENT


def test_of_fifty_at_a_time_exactly_one_gets_the_file(limited: ExpiringFS) -> None:
    url = limited.get_url("a.png", 60, max_downloads=1)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(get, [url] * 50))
    assert [answer.body for answer in answers if answer.status == 200] == [CONTENT]
    assert {answer.status for answer in answers} == {200, 404}


def test_only_get_counts_and_always_brings_the_whole_file(limited: ExpiringFS) -> None:
    url = limited.get_url("a.png", 60, max_downloads=1)
    assert [ask("HEAD", url).status for _ in range(3)] == [200] * 3
    assert get(url, If_Match='"x"').status == 412
    answer = get(url, Range="bytes=0-1", If_None_Match='"x"', If_Modified_Since=http_date())
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["Accept-Ranges"] == "none"
    assert "ETag" not in answer.headers
    assert ask("HEAD", url).status == get(url, If_Match='"x"').status == 404


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
        {"X_Moz": "prefetch"},
        *(
            {"User_Agent": agent}
            for agent in (
                "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
                "facebookexternalhit/1.1 Facebot Twitterbot/1.0",
                "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
                "WhatsApp/2.23.20.0",
                "facebookcatalog/1.0",
                "Viber/20.1.0.3 CFNetwork/1410.0.3 Darwin/22.6.0",
                "Mozilla/5.0 (Windows NT 5.1; rv:11.0) (via ggpht.com GoogleImageProxy)",
            )
        ),
    ],
    ids=lambda headers: next(iter(headers.values())).split("/")[0],
)
def test_only_a_request_by_a_person_uses_a_link_up(
    memory: ExpiringFS, headers: dict[str, str]
) -> None:
    url = memory.get_url("a.png", 60, max_downloads=1)
    for _ in range(3):
        answer = get(url, **headers)
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        assert b'<form method="post">' in answer.body
    assert get(memory.get_url("a.png"), **headers).body == CONTENT
    assert get(url).body == CONTENT
    assert get(url, **headers).status == 404


def test_a_link_that_asks_first_counts_what_its_button_sends(
    limited: ExpiringFS, settings: Any
) -> None:
    settings.MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
    below = limited.makedir("below")
    below.writebytes("a.png", CONTENT)
    url = below.get_url("a.png", 60, download_as="<b>.png", max_downloads=1, confirm=True)
    for method in "GET", "HEAD", "GET":
        answer = ask(method, url)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"&lt;b&gt;.png" in answer.body
    strict = Client(enforce_csrf_checks=True, headers={"Origin": "null"})
    assert b"".join(strict.post(url).streaming_content) == CONTENT  # type: ignore[attr-defined]
    assert [ask(method, url).status for method in ("POST", "GET")] == [404, 404]


def test_a_person_needs_no_javascript_to_press_the_button(
    memory: ExpiringFS, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = [HOST]
    memory.writebytes("a.zip", CONTENT)
    url = memory.get_url("a.zip", 60, download_as="b.zip", max_downloads=1, confirm=True)
    with running_site() as port, running_chromium() as browser:
        page = browser.new_page(java_script_enabled=False)
        page.goto(f"http://{HOST}:{port}{url}")
        with page.expect_download() as download:
            page.get_by_role("button").click()
        assert download.value.path().read_bytes() == CONTENT
        assert download.value.suggested_filename == "b.zip"
        page.reload()
        assert page.title() == "This link does not work"


def test_a_question_makes_sense_only_where_downloads_are_limited(memory: ExpiringFS) -> None:
    with pytest.raises(InvalidLimit, match="max_downloads is not given"):
        memory.get_url("a.png", confirm=True)


class BusyDiskFiles(DiskFileSystem):
    """Finds too many files open at the first two attempts to read one."""

    attempts = 0

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        if not Mode(mode).writing:
            self.attempts += 1
            if self.attempts <= 2:
                raise OSError(errno.EMFILE, "too many open files")
        return super().openbin(path, mode, buffering, **options)


class BusyDisk(DiskBackend):
    def make_filesystem(self, namespace: str) -> BusyDiskFiles:
        return BusyDiskFiles(self._descent, namespace)


@pytest.mark.parametrize("option", [{}, {"accel_redirect": "/protected/"}, {"x_sendfile": True}])
def test_a_file_that_cannot_be_opened_uses_no_link_up(
    djfs: Callable[..., None], tmp_path: Path, option: dict[str, Any]
) -> None:
    djfs(type="tests.test_links.BusyDisk", directory_root=tmp_path, **option)
    url = _with_picture().get_url("a.png", 60, max_downloads=1)
    assert [get(url).status for _ in range(4)] == [503, 503, 200, 404]


class Rewritten(FS):
    """Replaces a file between each look at it and its opening, until no contents are left."""

    replacements: ClassVar[list[bytes]] = []

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        if not Mode(mode).writing and self.replacements:
            self.writebytes(path, self.replacements.pop(0))
        return super().openbin(path, mode, buffering, **options)  # type: ignore[safe-super]


class RewrittenDisk(DiskBackend):
    def make_filesystem(self, namespace: str) -> FS:
        class Files(Rewritten, DiskFileSystem):
            pass

        return Files(self._descent, namespace)


class RewrittenMemory(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        class Files(Rewritten, MemoryFiles):
            pass

        return Files()


@pytest.mark.parametrize("kind", [RewrittenDisk, RewrittenMemory])
@pytest.mark.parametrize(
    "contents",
    [[CONTENT[::-1]], [b"short"], [b"x" * length for length in range(1, 10)]],
    ids=["same size", "shorter", "again and again"],
)
def test_a_file_that_is_replaced_before_it_is_opened_goes_out_whole_with_its_own_validator(
    djfs: Callable[..., None], tmp_path: Path, contents: list[bytes], kind: type[Backend]
) -> None:
    djfs(type=f"{__name__}.{kind.__name__}", directory_root=tmp_path)
    url = _with_picture().get_url("a.png", 60)
    etag = get(url).headers["ETag"]
    Rewritten.replacements[:] = contents
    answer = get(url, Range="bytes=100-", If_Range=etag)
    assert (answer.status, answer.body) == (200, contents[-1])
    assert answer.headers["ETag"] != etag
    assert answer.headers["ETag"] == get(url).headers["ETag"]


def test_a_limited_link_ends_with_its_time_and_its_file(limited: ExpiringFS) -> None:
    short = limited.get_url("a.png", 1, max_downloads=1_000_000)
    wait_for(lambda: get(short).status == 404, what="the end of the link")
    overdue = limited.get_url("a.png", max_downloads=5)
    limited.expire("a.png", 0)
    assert get(overdue).status == 404


def test_a_redis_that_lost_the_count_opens_nothing(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="lost")
    files = _with_picture()
    url = files.makedir("below").get_url("x", 60, max_downloads=1)
    files.writebytes("below/x", b"x")
    client = redis_server.client()
    (key,) = client.scan_iter("lost:{00}:ticket:*")
    assert 0 < client.ttl(key) <= 60
    client.delete(key)
    assert get(url).status == 404
    assert not client.exists(key)


def test_a_limited_link_is_signed_on_every_backend(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", CONTENT)
    url = plots.get_url("a.png", 60, max_downloads=1, download_as="b.png")
    assert url.startswith("/f/")
    assert get(url).headers["Content-Disposition"] == 'attachment; filename="b.png"'
    assert get(url).status == 404


@pytest.mark.parametrize("limit", [0, -1, 1.0, True, "1", 10**10], ids=ascii)
def test_a_bad_limit_is_refused(memory: ExpiringFS, limit: Any) -> None:
    with pytest.raises(InvalidLimit):
        memory.get_url("a.png", max_downloads=limit)


# -- the wire


@pytest.fixture
def large(djfs: Callable[..., None], tmp_path: Path) -> Iterator[str]:
    """The address of a file of 12 MiB, while memory is watched."""
    djfs(type="osfs", directory_root=tmp_path)
    files = get_filesystem("plots")
    with files.openbin("large.bin", "w") as file:
        file.truncate(12 << 20)
    tracemalloc.start()
    yield files.get_url("large.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_large_file_goes_out_in_constant_memory(large: str) -> None:
    response: Any = Client().get(large)
    assert sum(map(len, response.streaming_content)) == 12 << 20
    response.close()


def test_a_large_file_goes_out_in_constant_memory_under_asgi(large: str) -> None:
    async def received() -> int:
        response: Any = await AsyncClient().get(large)
        try:
            return sum([len(chunk) async for chunk in aiter(response)])
        finally:
            response.close()

    assert asyncio.run(received()) == 12 << 20


def test_a_response_that_nobody_reads_leaves_no_file_open(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    url = _with_picture().get_url("a.png")
    file = str(tmp_path / "plots" / "today" / "a.png")
    response = Client().get(url)
    assert file in open_files()
    response.close()
    assert file not in open_files()


def open_files() -> list[str]:
    return [os.path.realpath(f"/dev/fd/{number}") for number in os.listdir("/dev/fd")]


@pytest.fixture(params=["osfs", "storage", "accel_redirect"])
def on_disk_with_no_files(
    request: pytest.FixtureRequest, djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> ExpiringFS:
    """A filesystem in whose directory are a pipe, a socket and, behind a link, a device."""
    options = {"type": "osfs", "directory_root": tmp_path, "follow_symlinks": True}
    if request.param == "storage":
        settings.STORAGES = on_disk(tmp_path)
        options = {"type": "storage"}
    if request.param == "accel_redirect":
        options["accel_redirect"] = "/protected/"
    djfs(**options)
    here = tmp_path / "plots"
    here.mkdir()
    os.mkfifo(here / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(here / "socket"))  # a whole path may be too long
    (here / "device").symlink_to("/dev/zero")
    return get_filesystem("plots")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["pipe", "socket", "device"])
def test_a_pipe_or_a_socket_keeps_nobody_waiting(
    on_disk_with_no_files: ExpiringFS, name: str
) -> None:
    files = on_disk_with_no_files
    for act in (
        lambda: files.open(name),
        lambda: files.open(name, "ab"),
        lambda: files.open(name, "r+b"),
        lambda: files.readbytes(name),
        lambda: files.copy(name, "copy"),
    ):
        with pytest.raises(errors.FileExpected):
            act()
    url = files.get_url(name, max_downloads=1)
    assert [ask(method, url).status for method in ("HEAD", "GET")] == [404, 404]
    assert not files.exists("copy")
    files.remove(name)


@pytest.fixture
def server() -> Iterator[http.client.HTTPConnection]:
    with running_site() as port:
        yield http.client.HTTPConnection(HOST, port, timeout=PATIENCE)


def test_a_download_can_be_resumed_over_http(
    linked: ExpiringFS, server: http.client.HTTPConnection, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = [HOST]
    url = linked.get_url("a.png")

    def fetch(method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        server.request(method, url, headers=headers)
        response = server.getresponse()
        body = response.read()
        server.close()
        return response, body

    head, nothing = fetch("HEAD")
    assert (head.status, head.headers["Content-Length"], nothing) == (200, str(SIZE), b"")
    _, first = fetch(Range="bytes=0-511")
    response, rest = fetch(Range="bytes=512-", **{"If-Range": head.headers["ETag"]})
    assert response.status == 206
    assert first + rest == CONTENT
    response, nothing = fetch(**{"If-None-Match": head.headers["ETag"]})
    assert (response.status, nothing) == (304, b"")


# -- a web server in front that sends the bytes


@pytest.mark.parametrize(
    ("option", "header", "value"),
    [
        ({"accel_redirect": "/protected/"}, "X-Accel-Redirect", "/protected/plots/100%25%20%C3%A4"),
        ({"x_sendfile": True}, "X-Sendfile", "{root}/plots/100%25%20%C3%A4"),
    ],
)
def test_the_bytes_are_left_to_the_web_server(
    djfs: Callable[..., None], tmp_path: Path, option: dict[str, Any], header: str, value: str
) -> None:
    djfs(type="osfs", directory_root=tmp_path, **option)
    files = get_filesystem("plots")
    files.writebytes("100% ä", CONTENT)
    url = files.get_url("100% ä", 60, max_downloads=1)
    for method in "HEAD", "GET":
        answer = ask(method, url)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers[header] == value.format(root=tmp_path)
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["Cache-Control"] == "no-store"
    assert get(url) == get("/f/forged")
    assert get(files.get_url("missing")).status == 404
    for header in "Range", "If_Modified_Since":  # of which a web server might send less
        answer = get(files.get_url("100% ä", max_downloads=1), **{header: "bytes=0-1"})
        assert (answer.status, answer.body) == (200, CONTENT)


def location_in_the_docs(root: Path) -> str:
    location: str
    (location,) = examples("guides/disk.md", "nginx")[1:]
    assert "/srv/files/" in location
    return location.replace("/srv/files/", f"{root}/")


def test_nginx_sends_the_bytes(
    djfs: Callable[..., None],
    tmp_path: Path,
    server: http.client.HTTPConnection,
    settings: Any,
) -> None:
    settings.ALLOWED_HOSTS = [HOST]
    files = tmp_path / "files"
    app = f"location / {{ proxy_pass http://{HOST}:{server.port}; }}"
    djfs(type="osfs", directory_root=files, accel_redirect="/protected/")
    url = _with_picture().get_url("a.png", 60)
    with running_nginx(tmp_path / "nginx", app + location_in_the_docs(files)) as nginx:
        request = Request(nginx + url, headers={"Range": "bytes=10-19"})
        with urlopen(request) as answer:
            assert (answer.status, answer.read()) == (206, CONTENT[10:20])
        once = get_filesystem("plots/today").get_url("a.png", 60, max_downloads=1)
        with urlopen(Request(nginx + once, headers={"Range": "bytes=10-19"})) as whole:
            assert (whole.status, whole.read()) == (200, CONTENT)
        for name, value in get(url).headers.items():
            if name not in ("Content-Length", "X-Accel-Redirect"):
                assert answer.headers[name] == value
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{nginx}/protected/plots/today/a.png")
        # As if the link had come between the view's look at the file and that of nginx.
        djfs(type="osfs", directory_root=files, accel_redirect="/protected/", follow_symlinks=True)
        (files / "plots" / "today" / "a.png").replace(tmp_path / "outside")
        (files / "plots" / "today" / "a.png").symlink_to(tmp_path / "outside")
        assert get(url).status == 200
        with pytest.raises(HTTPError, match="403"):
            urlopen(request)


@pytest.mark.parametrize("link", [Link("plots", "../x", 2**52), Link("../x", "y", 2**52)], ids=str)
def test_a_link_to_an_impossible_name_is_none_although_the_site_signed_it(link: Link) -> None:
    with pytest.raises(InvalidName):
        read(sign(link))
