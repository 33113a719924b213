"""A real Chromium, without its background work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from playwright.sync_api import Browser, expect, sync_playwright

from tests.servers import installed

expect.set_options(timeout=60_000)  # ms

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The lists below an address bar that nobody sees: they cost each window more than its page.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",
]


@contextmanager
def running_chromium() -> Iterator[Browser]:
    executable = installed(*NAMES)
    # Its own event loop runs in this thread, but waits for nothing of Django's.
    unsafe = patch.dict(os.environ, DJANGO_ALLOW_ASYNC_UNSAFE="1")
    with unsafe, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()
