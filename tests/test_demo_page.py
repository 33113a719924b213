"""The page of the demo in a real Chromium, with everything behind it running."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    FilePayload,
    Page,
    StorageState,
    ViewportSize,
    expect,
)

from demo.browser import Browser as Client
from djpyfs import expire_objects, get_filesystem
from tests.chromium import running_chromium
from tests.demo_process import Demo, running_demo
from tests.servers import wait_for

GONE_WITHIN = 60_000  # ms: a short life, the sweep's interval, and a machine that is busy
PHONE: ViewportSize = {"width": 320, "height": 640}
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


@pytest.fixture(scope="module")
def shared(chromium: Browser) -> Iterator[BrowserContext]:
    """A window that stays open: a new one costs Chromium more than the page in it."""
    with chromium.new_context() as context:
        context.new_page()
        yield context


@pytest.fixture
def window(shared: BrowserContext) -> Iterator[BrowserContext]:
    """A window in which a test opens pages, and leaves nothing."""
    yield shared
    shared.set_offline(False)
    shared.clear_permissions()
    for page in shared.pages[1:]:
        page.close()


@pytest.fixture
def page(window: BrowserContext, address: str, errors: list[str]) -> Page:
    def note(message: ConsoleMessage) -> None:
        if "/pictures/" not in message.location["url"]:  # which may go while it is being loaded
            errors.append(message.text)

    page = window.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.evaluate(LISTEN)
    expect(page.locator("#plots .card").first).to_be_visible()  # it draws one if there is none
    return page


@pytest.fixture
def cut_short(demo: Demo, djfs: Callable[..., None]) -> Callable[[str, str], None]:
    """End the life of a file in a second: when it has been looked at, however long that took."""
    djfs(type="osfs", directory_root=demo.directory / "files", redis_url=demo.redis_url)
    return lambda namespace, name: get_filesystem(namespace).expire(name, 1)


def hear(page: Page, news: str) -> None:
    """Wait until the page has said something; by now it may speak of other files."""
    page.wait_for_function("news => heard.some((text) => text.includes(news))", arg=news)


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus, no more than once around the page."""
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
    """Return the name that the file has in its namespace."""
    tab_to(page, "#upload-seconds")
    page.keyboard.type(life)
    tab_to(page, "#upload-file")
    file: FilePayload = {"name": name, "mimeType": "text/plain", "buffer": content}
    with page.expect_response("**/uploads/end") as answer:
        page.set_input_files("#upload-file", file)
    return str(answer.value.json()["name"])


def test_an_upload_is_listed_with_its_link_and_vanishes_in_time_without_a_reload(
    page: Page, errors: list[str], cut_short: Callable[[str, str], None]
) -> None:
    page.evaluate("window.sameDocument = true")
    name = upload_by_keyboard(page, "notes.txt", b"to be gone soon", life="1 min")
    assert re.fullmatch(r"notes-[0-9a-f]{32}\.txt", name)
    row = page.locator(f"[data-name='{name}']")
    expect(row.get_by_role("timer")).to_have_text(re.compile(r"^(1:00|\d\d? s|\d\.\d s)$"))
    hear(page, "notes.txt uploaded. It lives for 60 seconds.")
    expect(page.locator("#sending")).to_be_empty()
    with page.expect_popup() as popup:
        row.get_by_role("link", name="notes.txt", exact=True).press("Enter")
    expect(popup.value.locator("body")).to_have_text("to be gone soon")

    cut_short("uploads", name)
    expect(row).to_have_count(0, timeout=GONE_WITHIN)
    hear(page, "notes.txt was deleted")
    assert page.request.get(popup.value.url).status == 404
    assert page.evaluate("window.sameDocument")
    assert errors == []


def drop(page: Page, *files: Path) -> None:
    """Drop files from the desktop on the drop zone."""
    zone = page.locator(".drop")
    zone.scroll_into_view_if_needed()
    box = zone.bounding_box()
    assert box
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": list(map(str, files)), "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for type_ in "dragEnter", "dragOver", "drop":
        session.send("Input.dispatchDragEvent", {"type": type_, **at, "data": data})


def test_files_that_are_dropped_are_sent_each_by_itself(page: Page, tmp_path: Path) -> None:
    files = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for file in files:
        file.write_text(file.name)
    drop(page, *files)
    for file in files:
        row = page.locator("#uploads li", has_text=file.name)
        expect(row).to_have_count(1)
        answer = page.request.get(row.locator(".name").evaluate("link => link.href"))
        assert answer.text() == file.name


def test_an_upload_shows_how_far_it_is_and_leaves_nothing_when_it_is_cancelled(
    page: Page, tmp_path: Path, demo: Demo
) -> None:
    session = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 300_000}
    with (tmp_path / "large.bin").open("wb") as large:
        large.truncate(40_000_000)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", slow)
    drop(page, tmp_path / "large.bin")
    row = page.locator("#sending li")
    progress = row.get_by_role("progressbar", name="large.bin")
    page.wait_for_function("bar => 0 < bar.value && bar.value < 1", arg=progress.element_handle())
    row.get_by_role("button", name="Cancel large.bin").press("Enter")
    expect(row).to_have_count(0)
    expect(page.locator("#upload-file")).to_be_focused()
    hear(page, "large.bin was cancelled: nothing of it is kept.")
    assert "large.bin" not in page.locator("#uploads").inner_text()
    assert not list((demo.directory / "files" / "uploads").glob("large-*"))
    wait_for(lambda: not _unfinished(demo))


def _unfinished(demo: Demo) -> list[Path]:
    return list((demo.directory / "files").glob(".djpyfs/writes/*"))


def test_gunicorn_hands_on_bodies_that_have_no_length_or_break_off(
    address: str, demo: Demo
) -> None:
    visitor = Client(address)
    visitor.get("/")
    form = {"upload-file": "a.txt", "upload-size": "4", "upload-seconds": "60"}
    target = json.loads(visitor.post("/uploads/begin", form).body)
    host = urlsplit(address).netloc

    def put(body: Any, **headers: str) -> int:
        with closing(HTTPConnection(host, timeout=30)) as connection:
            connection.request("PUT", target["url"], body, headers)
            return connection.getresponse().status

    assert put(None, **{"Content-Length": str(2**40)}) == 413
    assert put(iter([*[bytes(2**20)] * 50, b"x"])) == 413  # chunk by chunk
    with closing(HTTPConnection(host, timeout=30)) as connection:
        connection.request("PUT", target["url"], b"ha", {"Content-Length": "4"})
    wait_for(lambda: not _unfinished(demo))
    assert not (demo.directory / "files" / "uploads" / target["path"]).exists()
    assert put(iter([b"wh", b"ole"])) == 201
    assert (demo.directory / "files" / "uploads" / target["path"]).read_bytes() == b"whole"
    assert put(b"once more") == 409


def test_a_failed_upload_says_so_beside_its_name(page: Page) -> None:
    page.route("**/files/upload/**", lambda route: route.abort())
    page.set_input_files(
        "#upload-file", {"name": "lost.txt", "mimeType": "text/plain", "buffer": b"x"}
    )
    row = page.locator("#sending li", has_text="lost.txt")
    expect(row.locator(".error")).to_have_text("It did not arrive. Please try again.")
    row.get_by_role("button", name="Close lost.txt").press("Enter")
    expect(row).to_have_count(0)


def test_on_s3_the_browser_sends_the_file_to_the_store_itself(
    chromium: Browser, tmp_path: Path
) -> None:
    with running_demo(tmp_path / "output", None, "--s3") as demo:
        page, sent = chromium.new_page(), []
        page.on("request", lambda request: sent.append((request.method, request.url)))
        page.goto(demo.page)
        name = upload_by_keyboard(page, "notes.txt", b"straight to the store")
        (to_store,) = [
            url
            for method, url in sent
            if method == "POST" and "/uploads/" not in url and "/plots" not in url
        ]
        assert to_store.endswith("/djpyfs-demo")
        row = page.locator(f"[data-name='{name}']")
        answer = page.request.get(row.locator(".name").evaluate("link => link.href"))
        assert answer.text() == "straight to the store"
        page.close()


def test_a_one_time_link_is_made_by_keyboard_and_works_once(page: Page) -> None:
    name = upload_by_keyboard(page, "secret.txt", b"for you alone")
    row = page.locator(f"[data-name='{name}']")
    links = row.get_by_role("link", name="Open once to secret.txt")
    for number in range(2):  # as many as one wants
        row.get_by_role("button", name="One-time link to secret.txt").press("Enter")
        expect(links.nth(number)).to_be_focused()
        hear(page, "A link to secret.txt that works once is ready.")
    with page.expect_popup() as popup:
        page.keyboard.press("Enter")
    expect(popup.value.locator("body")).to_have_text("for you alone")
    used, left = row.locator(".once-links li").nth(1), row.locator(".once-links li").nth(0)
    expect(used).to_have_class("used")
    expect(used.get_by_role("button")).to_be_disabled()
    expect(left).not_to_have_class("used")
    assert page.request.get(popup.value.url).status == 404


def test_links_to_be_passed_on_are_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.bring_to_front()  # no other page may write to the clipboard
    name = upload_by_keyboard(page, "shared.txt", b"for all of you")
    row = page.locator(f"[data-name='{name}']")
    row.get_by_role("button", name="One-time link to shared.txt").press("Enter")
    for button in "Copy link to shared.txt", "Copy to shared.txt":
        row.get_by_role("button", name=button).press("Enter")
        hear(page, "The link is copied.")
        url = page.evaluate("navigator.clipboard.readText()")
        assert page.request.get(url).text() == "for all of you"


def test_links_that_are_revoked_lead_nowhere_and_every_open_page_has_the_new_one(
    page: Page, errors: list[str]
) -> None:
    name = upload_by_keyboard(page, "secret.txt", b"for some of you")
    other = page.context.new_page()
    other.goto(page.url)
    rows = [it.locator(f"[data-name='{name}']") for it in (page, other)]
    links = [row.get_by_role("link", name="secret.txt", exact=True) for row in rows]
    old = [link.evaluate("link => link.href") for link in links]
    row = rows[0]
    row.get_by_role("button", name="One-time link to secret.txt").press("Enter")
    once = row.get_by_role("link", name="Open once to secret.txt")
    old.append(once.evaluate("link => link.href"))

    revoke = row.get_by_role("button", name="Revoke links to secret.txt")
    revoke.press("Enter")
    hear(page, "The links to secret.txt that were given out no longer work. It has a new one.")
    expect(revoke).to_be_focused()
    expect(once).to_have_count(0)
    assert [page.request.get(url).status for url in old] == [404, 404, 404]
    for link in links:
        expect(link).not_to_have_js_property("href", old[0])
        new = link.evaluate("link => link.href")
        assert page.request.get(new).text() == "for some of you"
    assert errors == []


def test_a_file_whose_row_is_deleted_stays_on_the_page_until_it_goes_by_itself(
    page: Page, errors: list[str]
) -> None:
    name = upload_by_keyboard(page, "draft.txt", b"of no use", life="5 min")
    other = page.context.new_page()
    other.goto(page.url)
    rows = [it.locator(f"[data-name='{name}']") for it in (page, other)]
    expect(rows[1].get_by_role("button", name="Delete row of draft.txt")).to_be_visible()

    rows[0].get_by_role("button", name="Delete row of draft.txt").press("Enter")
    hear(page, "The row of draft.txt is deleted. Its file goes by itself.")
    link = rows[0].get_by_role("link", name="draft.txt", exact=True)
    expect(link).to_be_focused()
    assert page.request.get(link.evaluate("link => link.href")).text() == "of no use"
    for row in rows:
        expect(row).to_contain_text("Its row is deleted: the file goes by itself.")
        expect(row.get_by_role("button")).to_have_text(["Copy link to draft.txt"])
        expect(row.get_by_role("timer")).to_have_text(re.compile(r"^(10 s|\d\.\d s|sweep due)$"))
    for row in rows:
        expect(row).to_have_count(0, timeout=GONE_WITHIN)
    hear(page, "draft.txt was deleted")
    assert errors == []


def test_a_file_that_a_browser_would_run_is_downloaded(page: Page, address: str) -> None:
    script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    names = [upload_by_keyboard(page, name, script) for name in ("page.html", "drawing.svg")]
    links = [page.locator(f"[data-name='{name}'] .name") for name in names]
    for url in [link.evaluate("link => link.href") for link in links]:
        with page.expect_download(), pytest.raises(Error):  # it leads to no page
            page.goto(url)
    for name in names:  # nor does the site hand it out as one of its pictures
        assert page.request.get(f"{address}pictures/uploads/{name}").status == 404


def test_an_upload_that_is_too_large_says_so_beside_its_field(page: Page, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(50 * 2**20 + 1)
    page.set_input_files("#upload-file", large.name)
    expect(page.locator(".error:visible")).to_have_text(["Choose a file of at most 50 MB"])
    expect(page.locator("#upload-file")).to_be_focused()
    expect(page.locator("#upload-file")).to_have_accessible_description(re.compile("50 MB$"))
    expect(page.locator("#sending li")).to_have_count(0)


def test_focus_moves_to_the_heading_when_the_card_that_has_it_vanishes(
    page: Page, cut_short: Callable[[str, str], None]
) -> None:
    name = draw_by_keyboard(page, seconds=60)
    page.locator(f"[data-name='{name}'] a").focus()
    cut_short("plots", name)
    expect(page.locator("#plots-title")).to_be_focused(timeout=GONE_WITHIN)


def test_a_picture_is_on_every_page_that_is_open(page: Page) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    name = draw_by_keyboard(page, seconds=30)
    expect(other.locator(f"[data-name='{name}'] img")).to_have_js_property("naturalWidth", 800)


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
    wrong.press("1")  # it may be right now
    expect(page.locator(".error:visible")).to_have_count(0)
    after = page.request.get(f"{page.url}state").json()["plots"]
    assert {plot["name"] for plot in after} <= {plot["name"] for plot in before}


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_the_page_fits_its_window_and_follows_the_color_scheme(
    window: BrowserContext, address: str, scheme: Literal["light", "dark"], size: ViewportSize
) -> None:
    page = window.new_page()
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    picture = draw_by_keyboard(page, seconds=30)
    expect(page.locator(f"[data-name='{picture}']")).to_be_in_viewport()
    upload = upload_by_keyboard(page, f"{'long' * 30}.txt", b"x")
    expect(page.locator(f"[data-name='{upload}']")).to_be_in_viewport()
    zone, pictures = page.locator(".drop").bounding_box(), page.locator("#plots").bounding_box()
    assert zone
    assert pictures
    assert zone["y"] < pictures["y"] + pictures["height"]  # beside the pictures, or above them
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    ink = page.locator("h1").evaluate("element => getComputedStyle(element).color")
    assert (min(map(int, ink[4:-1].split(","))) > 128) == (scheme == "dark")


def test_the_page_says_when_it_is_blind_and_never_that_nothing_is_there(
    page: Page, demo: Demo
) -> None:
    [redis] = [pid for pid, command in demo.processes().items() if "-server 127.0.0.1" in command]
    banner = page.locator("#away")
    os.kill(redis, signal.SIGSTOP)
    try:
        expect(page.get_by_role("alert")).to_have_text("Cannot reach the record store (Redis).")
        expect(banner).to_contain_text(re.compile(r"Last seen \d+ s ago"))
        expect(page.locator("#plots-count")).to_have_text("–")
        expect(page.locator("#plots-empty")).to_be_hidden()
    finally:
        os.kill(redis, signal.SIGCONT)
    expect(banner).to_be_hidden()
    expect(page.locator("#plots-count")).to_have_text(re.compile(r"\d"))
    page.context.set_offline(True)
    expect(page.get_by_role("alert")).to_have_text("Cannot reach this site.")
    page.get_by_role("button", name="Draw it").press("Enter")
    expect(page.locator("#order .error:visible")).to_contain_text("That did not work.")
    page.context.set_offline(False)
    expect(banner).to_be_hidden()
    expect(page.locator(".error:visible")).to_have_count(0)


def test_the_page_does_not_say_nothing_before_it_knows(
    window: BrowserContext, address: str
) -> None:
    page = window.new_page()
    page.route("**/state", lambda _: None)  # no answer comes
    page.goto(address)
    expect(page.get_by_text("Loading the pictures")).to_be_visible()
    expect(page.locator("#plots-empty")).to_be_hidden()
    expect(page.locator("#plots-count")).to_have_text("–")


def test_a_visitor_finds_a_picture_beside_the_code_that_publishes_it(page: Page) -> None:
    newest = page.locator("#newest")
    expect(newest).to_have_js_property("naturalWidth", 800)
    expect(page.locator("#newest-left")).to_have_text(re.compile("^(Deleted in|Due)"))
    page.get_by_role("button", name="5 min", exact=True).press("Enter")
    expect(page.locator("pre")).to_contain_text("seconds=300")
    name = draw_by_keyboard(page, seconds=60)
    expect(newest).to_have_attribute("src", re.compile(name))


def test_without_javascript_a_picture_opens_by_itself(chromium: Browser, address: str) -> None:
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address)
        page.get_by_label("Seconds to live").fill("2")
        page.get_by_role("button", name="Draw it").press("Enter")
        expect(page.get_by_text("Use a whole number, 3 to 600")).to_be_visible()
        page.goto(address)
        page.get_by_label("Seconds to live").fill("60")
        with page.expect_response("**/pictures/plots/sine-60s-*") as answer:
            page.get_by_role("button", name="Draw it").press("Enter")
        assert answer.value.headers["content-type"] == "image/png"


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "forced colors": {"color_scheme": "light", "forced_colors": "active"},
    "print": {"forced_colors": "none", "media": "print"},
    "phone": {"media": "screen"},
}
GRAVE = {"serious", "critical"}


@pytest.fixture(scope="module")
def axe() -> str:
    """The script that looks for barriers to accessibility."""
    if not find_spec("axe_playwright_python"):
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing("no axe-playwright-python here: pip install it")
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()


def test_axe_finds_nothing_serious_in_any_look_with_errors_shown_and_while_the_page_is_blind(
    page: Page, axe: str
) -> None:
    page.emulate_media(reduced_motion="reduce")
    name = upload_by_keyboard(page, "seen.txt", b"x")
    row = page.locator(f"[data-name='{name}']")
    row.get_by_role("button", name="One-time link to seen.txt").press("Enter")
    expect(row.get_by_role("link", name="Open once to seen.txt")).to_be_focused()
    page.get_by_label("Seconds to live").fill("0")
    page.get_by_role("button", name="Draw it").press("Enter")
    expect(page.locator("#order .error:visible")).to_have_count(1)
    page.context.set_offline(True)
    expect(page.locator("#away")).to_be_visible()
    page.evaluate(axe)
    for look, media in LOOKS.items():
        page.emulate_media(**media)
        page.set_viewport_size(PHONE if look == "phone" else DESKTOP)
        found = page.evaluate("axe.run()")
        assert len(found["passes"]) > 10
        assert [
            (look, it["id"], [node["html"] for node in it["nodes"]])
            for it in found["violations"]
            if it["impact"] in GRAVE
        ] == []
    page.context.set_offline(False)


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (DESKTOP, "dark")])
def test_the_admin_page_shows_the_numbers_fits_and_follows_the_color_scheme(
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
    while not (report and report.set_aside):  # or the demo's own worker was faster
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
        expect(page.get_by_text("Forgotten; the files stay: plots/bad")).to_be_visible()
        expect(page.get_by_text("No file that was set aside was found.")).to_be_visible()
        assert page.get_by_label("File name contains").input_value() == "bad"
        assert wrong == []
