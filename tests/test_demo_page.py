"""The page of the demo in a real Chromium, with everything behind it running."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.demo_process import running_demo
from tests.servers import installed

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GONE_WITHIN = 15_000  # ms: a life of 3 s, the sweep's interval, and a machine that is busy
PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = installed(*CHROMIUM_NAMES)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_demo(tmp_path_factory.mktemp("demo") / "output") as demo:
        yield demo.page


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def page(chromium: Browser, address: str, errors: list[str]) -> Iterator[Page]:
    page = chromium.new_page()
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    page.close()


def tab_to(page: Page, selector: str) -> None:
    for _ in range(30):
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
    page: Page, errors: list[str]
) -> None:
    page.evaluate("window.sameDocument = true")
    name = draw_by_keyboard(page, seconds=3)
    card = page.locator(f"[data-name='{name}']")
    expect(card).to_contain_text("Damped oscillation")
    expect(card.locator("img")).to_have_js_property("naturalWidth", 800)
    expect(page.get_by_role("status")).to_have_text(
        "Damped oscillation drawn. It lives for 3 seconds."
    )
    picture = page.request.get(card.locator("img").evaluate("img => img.src"))
    assert picture.body().startswith(b"\x89PNG")

    expect(card).to_have_count(0, timeout=GONE_WITHIN)
    expect(page.get_by_role("status")).to_contain_text("Damped oscillation was deleted")
    expect(page.locator("#sweeps tr").first).to_contain_text("s ago")
    assert page.request.get(picture.url).status == 404
    assert page.evaluate("window.sameDocument")
    assert errors == []


def test_focus_moves_to_the_heading_when_the_card_that_has_it_vanishes(page: Page) -> None:
    name = draw_by_keyboard(page, seconds=3)
    page.locator(f"[data-name='{name}'] a").focus()
    expect(page.locator("#alive-title")).to_be_focused(timeout=GONE_WITHIN)


def test_a_picture_is_on_every_page_that_is_open(page: Page, chromium: Browser) -> None:
    other = chromium.new_page()
    other.goto(page.url)
    name = draw_by_keyboard(page, seconds=8)
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
    page.get_by_role("button", name="Draw it").click()
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
    draw_by_keyboard(page, seconds=4)
    expect(page.locator(".card").first).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    ink = page.locator("h1").evaluate("element => getComputedStyle(element).color")
    assert (min(map(int, ink[4:-1].split(","))) > 128) == (scheme == "dark")
    page.close()
