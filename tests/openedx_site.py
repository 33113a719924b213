"""Plays with blocks of Open edX in xblock-sdk's workbench, in an environment that holds these.

Arguments: DJFS as JSON, the path of a SQLite file. It raises if anything does not work.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import urlopen

import django
import workbench.settings
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client, override_settings

DJFS, database = json.loads(sys.argv[1]), sys.argv[2]
theirs = {name: value for name, value in vars(workbench.settings).items() if name.isupper()}
ours = {
    "DJFS": DJFS,
    "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
    "INSTALLED_APPS": [*theirs["INSTALLED_APPS"], "djpyfs_tasks"],
    "LOGGING": {"version": 1, "loggers": {"django.request": {"level": "ERROR"}}},
}
settings.configure(**theirs | ours)
django.setup()
call_command("check", fail_level="WARNING", stdout=StringIO())
call_command("migrate", run_syncdb=True, verbosity=0)

from web_fragments.fragment import Fragment  # noqa: E402
from workbench.runtime import WorkbenchRuntime  # noqa: E402
from workbench.scenarios import add_xml_scenario, get_scenarios  # noqa: E402
from xblock.core import XBlock  # noqa: E402
from xblock.fields import Scope  # noqa: E402
from xblock.reference.plugins import Filesystem  # noqa: E402

from djpyfs import djpyfs  # noqa: E402

PNG = bytes.fromhex("89504e470d0a1a0a")
browser = Client()


@XBlock.needs("fs")
class PlotBlock(XBlock):  # type: ignore[misc]  # which has no types
    """Draws one picture for good and one for the moment, and shows both."""

    fs = Filesystem(help="pictures", scope=Scope.user_state)

    def student_view(self, _context: object) -> Any:
        for name in "kept.png", "passing.png":
            with self.fs.open(name, "wb") as file:
                file.write(PNG + name.encode())
        self.fs.expire("passing.png", seconds=0, days=0)
        return Fragment(f"<img src='{self.fs.get_url('kept.png', timeout=600)}'>")


def page(scenario: str) -> str:
    response = browser.get(f"/scenario/{scenario}/")
    assert response.status_code == 200
    return response.content.decode()


def usages(scenario: str, type_: str) -> Iterator[str]:
    runtime = WorkbenchRuntime("student_1")
    for usage in runtime.get_block(get_scenarios()[scenario].usage_id).children:
        if runtime.get_block(usage).scope_ids.block_type == type_:
            yield usage


def handle(usage: str, handler: str, data: Any, status: int = 200) -> Any:
    how: Any = {} if "file" in data else {"content_type": "application/json"}
    response = browser.post(f"/handler/{usage}/{handler}/?student=student_1", data, **how)
    assert response.status_code == status, response.content
    return response.json()


def fetch(address: str) -> bytes:
    """What a browser gets; on disk, from where the web server would take it."""
    if DJFS["type"] == "osfs":
        name = address.removeprefix(DJFS["url_root"])
        return Path(DJFS["directory_root"] + unquote(name)).read_bytes()
    with urlopen(address) as answer:
        return bytes(answer.read())


def try_votes() -> None:
    """The sample block of the workbench with a field of files."""
    shown = re.search(r'"uparrow": ("[^"]*")', page("filethumbs.0"))
    assert shown
    assert fetch(json.loads(shown[1])).startswith(PNG)
    usage = next(usages("filethumbs.0", "filethumbs"))
    assert handle(usage, "vote", {"voteType": "up"}) == {"up": 1, "down": 0}
    assert handle(usage, "vote", {"voteType": "up"}) == {"up": 2, "down": 0}


def screenshot() -> dict[str, SimpleUploadedFile]:
    return {"file": SimpleUploadedFile("a.png", PNG + b"screenshot", "image/png")}


def try_uploads() -> None:
    """RecommenderXBlock, which keeps screenshots."""
    page("recommender.0")
    usage = next(usages("recommender.0", "recommender"))
    name = handle(usage, "upload_screenshot", screenshot())["file_name"]
    resource = {"url": "https://www.example.org/b", "title": "b", "descriptionText": "c"}
    added = handle(usage, "add_resource", {**resource, "description": name})
    assert fetch(added["description"]) == PNG + b"screenshot"
    page("recommender.0")


def try_an_upload_without_redis() -> None:
    """RecommenderXBlock reports what it catches as an IOError."""
    usage = next(usages("recommender.0", "recommender"))
    with override_settings(DJFS={**DJFS, "redis_url": "redis://127.0.0.1:1"}):
        told = handle(usage, "upload_screenshot", screenshot(), status=404)
    assert told == {"error": "The configuration of pyfs is not properly set"}


@XBlock.register_temp_plugin(PlotBlock, "plot")  # type: ignore[untyped-decorator]
def try_deadlines() -> None:
    """A block that lets files expire, which are really gone then."""
    add_xml_scenario("plot", "a plot", "<vertical_demo><plot/></vertical_demo>")
    shown = re.search("<img src='(.*?)'>", page("plot"))
    assert shown
    assert fetch(shown[1].replace("&amp;", "&")) == PNG + b"kept.png"
    block = WorkbenchRuntime("student_1").get_block(next(usages("plot", "plot")))
    assert sorted(block.fs.listdir("/")) == ["kept.png", "passing.png"]
    assert djpyfs.expire_objects().deleted == 1
    assert block.fs.listdir("/") == ["kept.png"]


try_votes()
try_uploads()
try_an_upload_without_redis()
try_deadlines()
