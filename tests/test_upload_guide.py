"""The guide to uploads from a browser: its example, as it stands there, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.template import Context, Engine
from django.urls import include, path
from playwright.sync_api import Browser, Page, expect

from djpyfs import get_filesystem
from djpyfs.filesystem import ExpiringFS
from tests.chromium import running_chromium
from tests.conftest import KEYS
from tests.filesystem.steps import left
from tests.pages import examples
from tests.servers import HOST, InThread, Moto, running_site
from tests.test_commands import djpyfs
from tests.test_lifecycle import Bucket
from tests.test_temporary_files import fetch

GUIDE = "guides/browser-uploads.md"
MOST = "20_000_000"  # bytes, as the guide says
MIB, GIB = 1 << 20, 1 << 30
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100_000)


class Counted:
    """Counts what passes through the site: bodies of requests, and answers except files."""

    passed = 0

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response: HttpResponse = self._get_response(request)
        answered = 0 if response.streaming else len(response.content)
        Counted.passed += int(request.META.get("CONTENT_LENGTH") or 0) + answered
        return response


def page(request: HttpRequest) -> HttpResponse:
    """The template of the guide."""
    (template,) = examples(GUIDE, "html")
    engine = Engine(libraries={"static": "django.templatetags.static"})
    html = f"<!doctype html><link rel=icon href=data:,>{template}"
    context = Context({"csrf_token": get_token(request)})
    return HttpResponse(engine.from_string(html).render(context))


def script(request: HttpRequest) -> HttpResponse:
    (code,) = examples(GUIDE, "javascript")
    return HttpResponse(code, "text/javascript")


@pytest.fixture
def site(request: pytest.FixtureRequest, settings: Any) -> Any:
    """A module with the views and the addresses of the guide."""
    site: Any = ModuleType("site")
    views, addresses = examples(GUIDE)[:2]
    views = views.replace(MOST, str(getattr(request, "param", MOST)))
    exec(compile(views, GUIDE, "exec"), site.__dict__)
    names = {**site.__dict__, "path": path, "include": include}
    exec(compile(addresses, GUIDE, "exec"), names)
    static = [path("", page), path("static/upload.js", script)]
    site.urlpatterns = [*static, *names["urlpatterns"]]
    settings.ROOT_URLCONF, settings.STATIC_URL = site, "/static/"
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    settings.MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware", f"{__name__}.Counted"]
    return site


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def address(site: Any) -> Iterator[str]:
    with running_site() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=["osfs", "s3fs"])
def pictures(
    request: pytest.FixtureRequest, djfs: Callable[..., None], tmp_path: Path, address: str
) -> ExpiringFS:
    if request.param == "osfs":
        djfs(type="osfs", directory_root=tmp_path)
    else:
        on_s3(djfs, request.getfixturevalue("moto"), address)
    return get_filesystem("pictures")


def on_s3(djfs: Callable[..., None], moto: Moto, origin: str) -> None:
    """Keep files in a new bucket to which pages of one origin may send files."""
    djfs(**Bucket(moto.url).place, upload_origins=[origin])
    djpyfs("cors", "--apply")


@pytest.fixture
def opened(chromium: Browser, address: str) -> Iterator[Page]:
    page = chromium.new_page()
    page.goto(address)
    yield page
    page.close()


def choose(page: Page, type_: str = "image/png", content: bytes = PICTURE) -> None:
    page.set_input_files(
        "input[type=file]", {"name": "me.png", "mimeType": type_, "buffer": content}
    )


def test_the_example_of_the_guide_sends_a_picture_and_keeps_it_for_a_day(
    pictures: ExpiringFS, opened: Page
) -> None:
    choose(opened)
    output = opened.locator("output")
    expect(output).to_have_text(re.compile("/"))
    assert fetch(output.inner_text()) == PICTURE
    (name,) = pictures.listdir("/")
    assert left(pictures, name) == pytest.approx(86_400, abs=60)
    expect(opened.locator("progress")).to_have_js_property("value", 1)


def test_the_example_of_the_guide_says_what_is_wrong(
    pictures: ExpiringFS, opened: Page, tmp_path: Path
) -> None:
    choose(opened, "text/html")
    expect(opened.locator("output")).to_have_text("Choose a PNG or a JPEG")
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(20_000_001)
    opened.set_input_files("input[type=file]", large.name)
    expect(opened.locator("output")).to_have_text("Choose a smaller file")
    forged = opened.request.post(
        f"{opened.url}uploads/done",
        form={
            "csrfmiddlewaretoken": opened.locator("[name=csrfmiddlewaretoken]").input_value(),
            "receipt": "a.png:forged",
        },
    )
    assert forged.status == 400
    assert pictures.listdir("/") == []


def test_a_page_of_another_origin_is_shut_out(
    djfs: Callable[..., None], moto: Moto, opened: Page
) -> None:
    on_s3(djfs, moto, "https://www.example.com")
    choose(opened)
    expect(opened.locator("output")).to_have_text("The store cannot be reached")
    assert get_filesystem("pictures").listdir("/") == []


class Sink(InThread):
    """A store that takes forms from any page, keeps nothing, and counts what comes."""

    def __init__(self) -> None:
        self.received = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_OPTIONS(self) -> None:
                self._answer(200)

            def do_POST(self) -> None:
                left = int(self.headers["Content-Length"])
                while left:
                    piece = len(self.rfile.read(min(left, 1 << 20)))
                    sink.received += piece
                    left -= piece
                self._answer(204)

            def do_HEAD(self) -> None:
                self._answer(200)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Access-Control-Allow-Methods", "POST")
                self.send_header("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.start(ThreadingHTTPServer((HOST, 0), Handler))


@pytest.fixture
def sink() -> Iterator[Sink]:
    store = Sink()
    yield store
    store.stop()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("site", [GIB], indirect=True)
def test_of_a_gibibyte_sent_to_s3_less_than_a_mebibyte_passes_through_the_site(
    djfs: Callable[..., None], sink: Sink, opened: Page, tmp_path: Path
) -> None:
    djfs(type="s3fs", bucket="any", endpoint_url=sink.url, **KEYS)
    before = Counted.passed
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(GIB)
    opened.set_input_files("input[type=file]", large.name)
    expect(opened.locator("output")).to_have_text(re.compile("X-Amz"), timeout=300_000)
    assert sink.received > GIB
    passed = Counted.passed - before
    print(f"{passed:,} bytes passed through the site, {sink.received:,} went to the store")
    assert passed < MIB
