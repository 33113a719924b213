"""``make pictures``: photographs the demo, the admin page and Flower for the documentation.

Each is a real page of a demo that runs, seen by Chromium, in ``docs/pictures``.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.chromium import running_chromium
from tests.demo_process import Demo, running_demo
from tests.pages import DOCS
from tests.servers import wait_for

PICTURES = DOCS / "pictures"
DRAWN = 4
COLORS = 128  # enough for pages, and half the bytes


def new_page(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": 1120, "height": 700}, color_scheme="light")
    page.goto(url)
    return page


def demo_page(browser: Browser, demo: Demo) -> Page:
    page = new_page(browser, demo.page)
    kinds = page.locator("label.kind")
    draw = page.get_by_role("button", name=re.compile("^Draw"))
    for number in range(DRAWN):
        kinds.nth(number % kinds.count()).click()
        draw.click()
        expect(page.locator("main img")).to_have_count(number + 1)
    return page


def admin_page(browser: Browser, demo: Demo) -> Page:
    page = new_page(browser, demo.admin)
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(demo.password)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Deadlines and sweeps").first.click()
    return page


def flower_page(browser: Browser, demo: Demo) -> Page:
    with new_page(browser, demo.page) as page:
        flower = page.get_by_role("link", name=re.compile("Flower")).first.get_attribute("href")
    page = new_page(browser, f"{flower}/tasks")
    found = page.get_by_text(re.compile("'deleted': [1-9]")).first
    wait_for(lambda: page.reload() and found.is_visible(), what="a sweep that deleted a file")
    return page


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    pages = {"demo": demo_page, "admin": admin_page, "flower": flower_page}
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_demo(Path(scratch, "output")) as demo,
        running_chromium() as browser,
    ):
        for name, visit in pages.items():
            picture = PICTURES / f"{name}.png"
            page = visit(browser, demo)
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=picture)
            Image.open(picture).quantize(COLORS).save(picture, optimize=True)
            print(f"{picture.relative_to(DOCS.parent)}: {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
