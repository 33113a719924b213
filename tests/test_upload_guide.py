"""The guide to uploads from a browser: its example, as it stands there, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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
from tests.pages import examples
from tests.servers import Moto, running_site
from tests.test_commands import djpyfs
from tests.test_filesystem import left
from tests.test_lifecycle import Bucket
from tests.test_temporary_files import fetch

GUIDE = "guides/browser-uploads.md"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100_000)


def page(request: HttpRequest) -> HttpResponse:
    """The form and the script of the guide."""
    (form,), (script,) = examples(GUIDE, "html"), examples(GUIDE, "javascript")
    html = f"<!doctype html><link rel=icon href=data:,>{form}<script type=module>{script}</script>"
    context = Context({"csrf_token": get_token(request)})
    return HttpResponse(Engine().from_string(html).render(context))


@pytest.fixture
def site(settings: Any) -> Any:
    """A module with the views and the addresses of the guide."""
    site: Any = ModuleType("site")
    views, addresses = examples(GUIDE)[:2]
    exec(compile(views, GUIDE, "exec"), site.__dict__)
    names = {**site.__dict__, "path": path, "include": include}
    exec(compile(addresses, GUIDE, "exec"), names)
    site.urlpatterns = [*names["urlpatterns"], path("", page)]
    settings.ROOT_URLCONF = site
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    settings.MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
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
    """Keep files in a new bucket to which pages of one origin send some."""
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


def test_a_page_that_the_bucket_was_not_told_of_is_shut_out(
    djfs: Callable[..., None], moto: Moto, opened: Page
) -> None:
    on_s3(djfs, moto, "https://www.example.com")
    choose(opened)
    expect(opened.locator("output")).to_have_text("not reached")
    assert get_filesystem("pictures").listdir("/") == []
