"""Files that would run in a browser, behind signed links and in a real Chromium."""

from __future__ import annotations

import gzip
import io
import random
import wave
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from playwright.sync_api import Browser, Error, Page

from djpyfs import get_filesystem
from djpyfs.filesystem import ExpiringFS
from tests.chromium import running_chromium
from tests.faults.conftest import Measured
from tests.servers import HOST, running_nginx, running_site

RUN = "document.title='ran';fetch('/canary');new Image().src='/canary'"
HTML = f'<!doctype html><title>.</title><img src=x onerror="{RUN}"><script>{RUN}</script>'
XHTML = f'<html xmlns="http://www.w3.org/1999/xhtml"><head><script>{RUN}</script></head></html>'
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script></svg>'
PDF = f"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS({RUN})>>>>endobj\ntrailer<</Root 1 0 R>>"

FILES: dict[str, bytes] = {
    **{name: HTML.encode() for name in "a.html a.htm a.shtml a.xht HTML a.unknown".split()},
    # a wrong extension
    **{f"html.{type_}": HTML.encode() for type_ in "png txt csv json pdf mp4 zip md".split()},
    **{f"svg.{type_}": SVG.encode() for type_ in "png jpg txt".split()},
    **{name: SVG.encode() for name in ("a.svg", "SVG", "a.svg.png", "a.xml")},
    **{name: XHTML.encode() for name in ("a.xhtml", "b.xml", "a.rss", "a.xsl", "a.mathml")},
    **{f"{name}.gz": gzip.compress(HTML.encode()) for name in ("a.html", "a.txt", "a")},
    "a.svgz": gzip.compress(SVG.encode()),
    **{name: RUN.encode() for name in ("a.js", "a.mjs", "a.json", "a.css")},
    "a.pdf": PDF.encode(),
    "a.mht": b"MIME-Version: 1.0\nContent-Type: text/html\n\n" + HTML.encode(),
    "a.swf": b"FWS" + HTML.encode(),
    "data:text": HTML.encode(),
    "javascript:alert(1)": HTML.encode(),
}
# How a page of the same site might load a file.
PARTS = [
    '<iframe src="{}"></iframe>',
    '<embed src="{}">',
    '<object data="{}"></object>',
    '<img src="{}">',
    '<script src="{}"></script>',
    '<script type="module" src="{}"></script>',
    '<link rel="stylesheet" href="{}">',
]


def around(request: HttpRequest) -> HttpResponse:
    """A page that loads a file in every possible way."""
    return HttpResponse("".join(part.format(request.GET["url"]) for part in PARTS))


urlpatterns = [path("f/", include("djpyfs.urls")), path("around", around)]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def asked(page: Page) -> list[str]:
    """The addresses that the browser has asked for."""
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    return urls


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page()
    yield page
    page.close()


@pytest.fixture
def files(djfs: Callable[..., None], settings: Any, tmp_path: Path) -> ExpiringFS:
    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = [HOST]
    djfs(type="osfs", directory_root=tmp_path / "files", url_root="/static/")
    files = get_filesystem("uploads")
    for name, content in FILES.items():
        files.writebytes(name, content)
    return files


def visit(page: Page, url: str) -> None:
    with suppress(Error):  # which is what a download is
        page.goto(url, wait_until="load")
    assert page.title() != "ran", url
    for frame in page.frames:
        assert frame.title() != "ran", url


@pytest.mark.fault("files that would run, in Chromium", "none runs")
def test_chromium_runs_nothing_behind_a_signed_link(
    files: ExpiringFS,
    djfs: Callable[..., None],
    tmp_path: Path,
    page: Page,
    asked: list[str],
    full: bool,
    measured: Measured,
) -> None:
    names = list(FILES) if full else ["a.html", "a.svg", "a.js", *random.sample(list(FILES), 5)]
    djfs(type="osfs", directory_root=tmp_path / "files")  # no addresses but signed ones
    files = get_filesystem("uploads")
    with running_site() as port:
        site = f"http://{HOST}:{port}"
        for name in names:
            visit(page, site + files.get_url(name))
            visit(page, f"{site}/around?url={files.get_url(name)}")
        assert not [url for url in asked if "canary" in url]
    assert len(asked) > len(names)
    measured(f"{len(names)} files, opened and in pages, none ran")


def second_of_silence() -> bytes:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 1, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(8_000))
    return sound.getvalue()


def test_harmless_files_are_shown_and_played(
    files: ExpiringFS, djfs: Callable[..., None], tmp_path: Path, page: Page
) -> None:
    djfs(type="osfs", directory_root=tmp_path / "files")
    files = get_filesystem("uploads")
    files.writebytes("notes.txt", "Grüße".encode())
    files.writebytes("a.wav", second_of_silence())
    with running_site() as port:
        site = f"http://{HOST}:{port}"
        page.goto(site + files.get_url("notes.txt"))
        assert page.inner_text("pre") == "Grüße"
        page.goto(site + files.get_url("a.wav"))
        page.wait_for_function("document.querySelector('video').duration === 1")
        with page.expect_download(), suppress(Error):  # a player would ask for it twice
            page.goto(site + files.get_url("a.wav", max_downloads=1))


def test_the_same_files_do_run_if_they_are_served_carelessly(
    files: ExpiringFS, tmp_path: Path, page: Page, asked: list[str]
) -> None:
    types = "types { text/html html; image/svg+xml svg; application/xhtml+xml xhtml; }"
    location = f"location /static/ {{ alias {tmp_path}/files/; {types} }}"
    with running_nginx(tmp_path / "nginx", location) as site:
        for name in "a.html", "a.svg", "a.xhtml":
            with page.expect_request("**/canary"):
                page.goto(site + files.get_url(name))
