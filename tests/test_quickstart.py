"""The quick start, done as the page says, with a real site and a real worker."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from djpyfs import get_filesystem
from tests.pages import DOCS, Example, examples_on
from tests.servers import HOST, PATIENCE, RedisServer, free_port, wait_for
from tests.services import CHECKOUT, started

# There is an environment with the package already; `tests/test_packaging.py` makes such ones.
DONE = ("python3 -m venv", ". .venv", ". ../.venv", "pip install", "cd ", "export ")


class Reader:
    """Somebody who does what the page says, in a directory that is empty at first."""

    def __init__(self, home: Path, redis_url: str, stack: ExitStack) -> None:
        self.home = home
        self.site = f"{HOST}:{free_port()}"
        self.printed: list[str] = []
        self._redis_url = redis_url
        self._stack = stack

    @property
    def project(self) -> Path:
        return self.home / "mysite"

    def follow(self, example: Example) -> None:
        """Write the file that the page names, or type what it shows."""
        if example.language == "python":
            code = example.code.replace("redis://127.0.0.1:6379/0", self._redis_url)
            [name] = re.findall(r"`([\w/]+\.py)`", example.before)
            how = "a" if example.before.startswith("Add to") else "w"
            with (self.project / name).open(how) as file:
                file.write(code.replace("seconds=20", "seconds=600"))  # of a busy machine
        elif example.language == "sh":
            for line in example.code.splitlines():
                if not line.startswith(DONE):
                    self._type(line.split())

    def _type(self, command: list[str]) -> None:
        own = {
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PYTHONPATH": f"{CHECKOUT}:{self.project}",
        }
        place = self.project if self.project.exists() else self.home
        log = self.home / f"{len(self.printed)}.log"
        if command[-1] == "runserver":
            command = [*command, self.site, "--noreload"]
        with ExitStack() as stack:
            process = stack.enter_context(started(command, own, log, place))
            if command[0] == "celery" or "runserver" in command:  # it stays
                self._stack.push(stack.pop_all())
            else:
                assert process.wait(PATIENCE) == 0, log.read_text()
        self.printed.append(log.read_text())

    def open_site(self) -> str:
        """Return where the first page leads to."""
        with urlopen(f"http://{self.site}/") as answer:
            assert answer.headers["Content-Type"] == "image/png"
            url: str = answer.url
            return url


def is_gone(url: str) -> bool:
    try:
        urlopen(url).close()
    except HTTPError as error:
        return error.code == 404
    return False


def answers(reader: Reader) -> bool:
    try:
        return bool(reader.open_site())
    except OSError:
        return False


def test_the_quick_start_ends_with_a_file_that_goes(
    djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer
) -> None:
    redis_url = redis_server.url.replace("/0", "/7")
    with ExitStack() as stack:
        reader = Reader(tmp_path, redis_url, stack)
        *steps, show = [it for it in examples_on(DOCS / "quickstart.md") if it.language != "text"]
        for step in steps:
            reader.follow(step)
        wait_for(lambda: answers(reader), what="the site")
        link = reader.open_site()
        reader.follow(show)
        shown = re.findall(r"in .+ +plots +([0-9a-f]{32}\.png)", reader.printed[-1])
        files = reader.project / "files" / "plots"
        assert set(os.listdir(files)) == set(shown)
        # Now its 20 seconds are over.
        djfs(type="osfs", directory_root=files.parent, redis_url=redis_url)
        get_filesystem("plots").expire_many(shown, 0)
        wait_for(lambda: is_gone(link) and not files.exists(), what="the end of the pictures")
