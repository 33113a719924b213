"""The page of the demo in a real Chromium, with everything behind it running."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    FilePayload,
    Page,
    StorageState,
    ViewportSize,
    expect,
)

from djpyfs import expire_objects, get_filesystem
from tests.chromium import running_chromium
from tests.demo_process import Demo, running_demo

GONE_WITHIN = 60_000  # ms: a short life, the sweep's interval, and a machine that is busy
PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
LISTEN = """
    window.heard = [];
    const status = document.querySelector("[role=status]");
    new MutationObserver(() => heard.push(status.textContent)).observe(status, {childList: true});
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("demo") / "output") as demo:
        yield demo


@pytest.fixture(scope="module")
def address(demo: Demo) -> str:
    return demo.page


@pytest.fixture(scope="module")
def logged_in(chromium: Browser, demo: Demo) -> StorageState:
    """The cookies of a browser in which the user of the admin has logged in."""
    page = chromium.new_page()
    page.goto(demo.admin)
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(demo.password)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Deadlines and sweeps")).to_be_visible()
    state = page.context.storage_state()
    page.context.close()
    return state


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def page(chromium: Browser, address: str, errors: list[str]) -> Iterator[Page]:
    def note(message: ConsoleMessage) -> None:
        if "/pictures/" not in message.location["url"]:  # which may go while it is being loaded
            errors.append(message.text)

    page = chromium.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.evaluate(LISTEN)
    yield page
    page.close()


@pytest.fixture
def cut_short(demo: Demo, djfs: Callable[..., None]) -> Callable[[str, str], None]:
    """End the life of a file in a second: when it has been looked at, however long that took."""
    djfs(type="osfs", directory_root=demo.directory / "files", redis_url=demo.redis_url)
    return lambda namespace, name: get_filesystem(namespace).expire(name, 1)


def hear(page: Page, news: str) -> None:
    """Wait until the page has said something; meanwhile it may have gone on to other files."""
    page.wait_for_function("news => heard.some((text) => text.includes(news))", arg=news)


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus, once round the page and its cards at most."""
    stops = page.locator("a, button, input, select").count() + 30  # and cards that come meanwhile
    for _ in range(stops):
        if page.locator(f"{selector}:focus").count():
            return
        page.keyboard.press("Tab")
    pytest.fail(f"no way to {selector} by the keyboard")


def draw_by_keyboard(page: Page, seconds: int) -> str:
    """Choose the second function and how long it lives; return the name of the picture."""
    tab_to(page, "input[value=sine]")
    page.keyboard.press("ArrowDown")
    tab_to(page, "#seconds")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(str(seconds))
    tab_to(page, "#submit")
    with page.expect_response("**/plots") as answer:
        page.keyboard.press("Enter")
    return str(answer.value.json()["name"])


def test_a_plot_drawn_by_keyboard_is_shown_and_vanishes_in_time_without_a_reload(
    page: Page, errors: list[str], cut_short: Callable[[str, str], None]
) -> None:
    page.evaluate("window.sameDocument = true")
    name = draw_by_keyboard(page, seconds=60)
    card = page.locator(f"[data-name='{name}']")
    expect(card).to_contain_text("Damped oscillation")
    expect(card.locator("img")).to_have_js_property("naturalWidth", 800)
    hear(page, "Damped oscillation drawn. It lives for 60 seconds.")
    picture = page.request.get(card.locator("img").evaluate("img => img.src"))
    assert picture.body().startswith(b"\x89PNG")

    cut_short("plots", name)
    expect(card).to_have_count(0, timeout=GONE_WITHIN)
    hear(page, "Damped oscillation was deleted")
    expect(page.locator("#sweeps tr").first).to_contain_text("s ago")
    assert page.request.get(picture.url).status == 404
    assert page.evaluate("window.sameDocument")
    assert errors == []


def upload_by_keyboard(page: Page, name: str, content: bytes, life: str = "1 min") -> str:
    """Return the name of the file as the page shows it."""
    file: FilePayload = {"name": name, "mimeType": "text/plain", "buffer": content}
    page.set_input_files("#upload-file", file)
    tab_to(page, "#upload-seconds")
    page.keyboard.type(life)
    page.keyboard.press("Tab")
    with page.expect_response("**/uploads") as answer:
        page.keyboard.press("Enter")
    return str(answer.value.json()["name"])


def test_an_upload_is_listed_with_its_link_and_vanishes_in_time_without_a_reload(
    page: Page, errors: list[str], cut_short: Callable[[str, str], None]
) -> None:
    page.evaluate("window.sameDocument = true")
    name = upload_by_keyboard(page, "notes.txt", b"to be gone soon", life="1 min")
    row = page.locator(f"[data-name='{name}']")
    expect(row.get_by_role("timer")).to_have_text(re.compile(r"^(1:00|\d\d? s|\d\.\d s)$"))
    hear(page, f"{name} uploaded. It lives for 60 seconds.")
    expect(page.locator("#upload-file")).to_have_value("")
    with page.expect_popup() as popup:
        row.get_by_role("link", name=name, exact=True).press("Enter")
    expect(popup.value.locator("body")).to_have_text("to be gone soon")

    cut_short("uploads", name)
    expect(row).to_have_count(0, timeout=GONE_WITHIN)
    hear(page, f"{name} was deleted")
    assert page.request.get(popup.value.url).status == 404
    assert page.evaluate("window.sameDocument")
    assert errors == []


def test_a_one_time_link_is_made_by_keyboard_and_works_once(page: Page) -> None:
    name = upload_by_keyboard(page, "secret.txt", b"for you alone")
    row = page.locator(f"[data-name='{name}']")
    row.get_by_role("button", name=f"One-time link to {name}").press("Enter")
    link = row.get_by_role("link", name=f"Open once to {name}")
    expect(link).to_be_focused()
    hear(page, f"A link to {name} that works once is ready.")
    with page.expect_popup() as popup:
        page.keyboard.press("Enter")
    expect(popup.value.locator("body")).to_have_text("for you alone")
    expect(link).to_have_class("used")
    assert page.request.get(popup.value.url).status == 404


def test_what_a_browser_would_run_is_downloaded(page: Page, address: str) -> None:
    script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    names = [upload_by_keyboard(page, name, script) for name in ("page.html", "drawing.svg")]
    links = [page.get_by_role("link", name=name, exact=True) for name in names]
    for url in [link.evaluate("link => link.href") for link in links]:
        with page.expect_download(), pytest.raises(Error):  # it leads to no page
            page.goto(url)
    for name in names:  # nor does the site hand it out as one of its pictures
        assert page.request.get(f"{address}pictures/uploads/{name}").status == 404


@pytest.mark.parametrize(
    ("megabytes", "cure"), [(0, "Choose a file"), (6, "Choose a file of at most 5 MB")]
)
def test_an_upload_that_is_refused_says_why_beside_its_field(
    page: Page, tmp_path: Path, megabytes: int, cure: str
) -> None:
    before = page.request.get(f"{page.url}state").json()["uploads"]
    if megabytes:
        (tmp_path / "file").write_bytes(bytes(megabytes * 2**20))
        page.set_input_files("#upload-file", tmp_path / "file")
    page.get_by_role("button", name="Upload it").press("Enter")
    expect(page.locator(".error:visible")).to_have_text([cure])
    expect(page.get_by_label("File", exact=True)).to_be_focused()
    after = page.request.get(f"{page.url}state").json()["uploads"]
    assert {upload["name"] for upload in after} <= {upload["name"] for upload in before}


def test_focus_moves_to_the_heading_when_the_card_that_has_it_vanishes(
    page: Page, cut_short: Callable[[str, str], None]
) -> None:
    name = draw_by_keyboard(page, seconds=60)
    page.locator(f"[data-name='{name}'] a").focus()
    cut_short("plots", name)
    expect(page.locator("#plots-title")).to_be_focused(timeout=GONE_WITHIN)


def test_a_picture_is_on_every_page_that_is_open(page: Page, chromium: Browser) -> None:
    other = chromium.new_page()
    other.goto(page.url)
    name = draw_by_keyboard(page, seconds=30)
    expect(other.locator(f"[data-name='{name}'] img")).to_have_js_property("naturalWidth", 800)
    other.close()


@pytest.mark.parametrize(
    ("field", "value", "cure"),
    [
        ("Frequency", "-1", "Use 0.1 to 20"),
        ("Amplitude", "much", "Use 0.1 to 10"),
        ("Seconds to live", "601", "Use a whole number, 3 to 600"),
    ],
)
def test_a_bad_value_gets_one_error_beside_its_field_and_nothing_is_written(
    page: Page, field: str, value: str, cure: str
) -> None:
    before = page.request.get(f"{page.url}state").json()["plots"]
    wrong = page.get_by_label(field, exact=True).locator("visible=true")
    wrong.fill(value)
    page.get_by_role("button", name="Draw it").press("Enter")
    expect(page.locator(".error:visible")).to_have_text([cure])
    expect(wrong).to_be_focused()
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(wrong).to_have_accessible_description(re.compile(f"{re.escape(cure)}$"))
    after = page.request.get(f"{page.url}state").json()["plots"]
    assert {plot["name"] for plot in after} <= {plot["name"] for plot in before}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_fits_its_window_and_follows_the_colour_scheme(
    chromium: Browser, address: str, scheme: Literal["light", "dark"], size: ViewportSize
) -> None:
    page = chromium.new_page(viewport=size, color_scheme=scheme)
    page.goto(address)
    picture = draw_by_keyboard(page, seconds=30)
    expect(page.locator(f"[data-name='{picture}']")).to_be_in_viewport()
    upload = upload_by_keyboard(page, f"{'long' * 30}.txt", b"x")
    expect(page.locator(f"[data-name='{upload}']")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    ink = page.locator("h1").evaluate("element => getComputedStyle(element).color")
    assert (min(map(int, ink[4:-1].split(","))) > 128) == (scheme == "dark")
    page.close()


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESKTOP, "dark")])
def test_the_admin_page_shows_the_numbers_fits_and_follows_the_colour_scheme(
    chromium: Browser,
    demo: Demo,
    logged_in: StorageState,
    scheme: Literal["light", "dark"],
    size: ViewportSize,
) -> None:
    with chromium.new_context(
        viewport=size, color_scheme=scheme, storage_state=logged_in
    ) as context:
        page = context.new_page()
        page.goto(demo.page)
        name = upload_by_keyboard(page, "seen.txt", b"x")
        with page.expect_popup() as popup:
            page.get_by_role("link", name="Admin (opens in a new tab)").click()
        admin = popup.value
        tracked = admin.locator("dt", has_text="Tracked").locator("+ dd strong")
        expect(tracked).to_have_text(re.compile("^[1-9]"))
        for chart in admin.locator("figure svg").all():
            expect(chart).to_be_visible()
        assert admin.evaluate("document.documentElement.scrollWidth") == size["width"]
        ink = admin.locator("dd strong").first.evaluate("e => getComputedStyle(e).color")
        assert (min(map(int, ink[4:-1].split(","))) > 128) == (scheme == "dark")
        admin.get_by_label("File name contains").fill(name)
        admin.keyboard.press("Enter")
        expect(admin.get_by_role("heading", name="Files found")).to_be_visible()
        expect(admin.get_by_role("rowheader", name=re.compile(f"{name}$"))).to_be_visible()
        assert admin.evaluate("document.documentElement.scrollWidth") == size["width"]


def test_the_user_of_the_admin_may_see_nothing_else_there(
    chromium: Browser, demo: Demo, logged_in: StorageState
) -> None:
    with chromium.new_context(storage_state=logged_in) as context:
        assert context.request.get(demo.admin).status == 200
        assert context.request.get(f"{demo.page}admin/auth/user/").status == 403


@pytest.fixture
def set_aside(demo: Demo, djfs: Callable[..., None]) -> None:
    """The deletion of ``plots/bad`` has been given up."""
    djfs(type="tests.test_sweep.BrittleBackend", max_attempts=1, redis_url=demo.redis_url)
    files = get_filesystem("plots")
    files.writebytes("bad", b"")
    report = None
    while not (report and report.set_aside):  # else the demo's own worker was faster
        files.expire("bad", 0)
        report = expire_objects()


@pytest.mark.usefixtures("set_aside")
def test_a_file_set_aside_is_forgotten_once_that_is_confirmed(
    chromium: Browser, demo: Demo, logged_in: StorageState
) -> None:
    with chromium.new_context(storage_state=logged_in) as context:
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(demo.admin)
        number = page.locator("dt", has_text="Set aside").locator("+ dd").get_by_role("link")
        number.press("Enter")
        assert page.url.endswith("#djpyfs-set-aside")
        page.get_by_label("File name contains").fill("bad")
        page.keyboard.press("Enter")
        for answer in "No, take me back", "Yes, forget it":
            page.get_by_label("Select all files on this page").press("Space")
            expect(page.get_by_text("1 of 1 selected")).to_be_visible()
            page.get_by_label("Action:").select_option("Forget")
            page.get_by_role("button", name="Go").press("Enter")
            expect(page.get_by_role("heading", name="Are you sure?")).to_be_visible()
            page.get_by_role("button", name=answer).press("Enter")
        expect(page.get_by_text("Forgotten, what is there stays: plots/bad")).to_be_visible()
        expect(page.get_by_text("No file that was set aside was found.")).to_be_visible()
        assert page.get_by_label("File name contains").input_value() == "bad"
        assert wrong == []
