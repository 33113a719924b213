"""Blocks of Open edX, with djpyfs in the place of openedx-django-pyfs that they require."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BUCKET, KEYS
from tests.pythons import ROOT, Environment, run
from tests.servers import RedisServer

BLOCKS = ("XBlock[django]", "xblock-sdk", "recommender-xblock", "bleach")  # the last wants the last
OVERRIDE = "openedx-django-pyfs ; sys_platform == 'never'"
SITE = """
[project]
name = "site"
version = "0"
requires-python = ">=3.11"
dependencies = {dependencies}

[tool.uv]
override-dependencies = ["{override}"]

[tool.uv.sources]
djpyfs = {{ path = "{wheel}" }}
"""


class Site:
    """Plays the blocks with files in one place."""

    def __init__(self, place: Path, **djfs: Any) -> None:
        self.place = place
        self.djfs = djfs

    def play(self, python: Path) -> str:
        djfs = json.dumps({**self.djfs, "key_prefix": uuid.uuid4().hex})
        database = self.place / f"{uuid.uuid4().hex}.sqlite3"
        return run(python, "-I", ROOT / "tests" / "openedx_site.py", djfs, database)


@pytest.fixture(params=["osfs", "s3fs"])
def site(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> Site:
    if request.param == "osfs":
        place = {"directory_root": str(tmp_path / "files"), "url_root": "/static/djpyfs"}
    else:
        endpoint = request.getfixturevalue("s3_endpoint")
        place = {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": endpoint, **KEYS}
    return Site(tmp_path, type=request.param, redis_url=redis_server.url, **place)


@pytest.fixture(scope="module")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment = Environment(tmp_path_factory.mktemp("uv") / "environment")
    environment.install("uv")
    return environment.python.with_name("uv")


@pytest.fixture(scope="module")
def beside(uv: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with both distributions, djpyfs installed once more by pip."""
    environment = Environment(tmp_path_factory.mktemp("beside") / "environment")
    run(uv, "pip", "install", "--python", environment.python, wheel, *BLOCKS)
    environment.pip("install", "--force-reinstall", "--no-deps", wheel)
    assert environment.version_of("openedx-django-pyfs")
    return environment.python


@pytest.fixture(scope="module")
def instead(uv: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with djpyfs alone, as uv makes it if told to leave the other out."""
    project = tmp_path_factory.mktemp("instead")
    dependencies = json.dumps(["djpyfs", *BLOCKS])
    (project / "pyproject.toml").write_text(
        SITE.format(dependencies=dependencies, wheel=wheel, override=OVERRIDE)
    )
    run(uv, "sync", "--project", project, "--python", sys.executable)
    return project / ".venv" / "bin" / "python"


@pytest.fixture(scope="module")
def overridden(uv: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as `uv pip install` makes it."""
    here = tmp_path_factory.mktemp("overridden")
    (here / "overrides.txt").write_text(OVERRIDE)
    environment = Environment(here / "environment")
    into = ("--python", environment.python, "--overrides", here / "overrides.txt")
    run(uv, "pip", "install", *into, wheel, *BLOCKS)
    return environment.python


@pytest.mark.long
@pytest.mark.parametrize("installed", ["beside", "instead", "overridden"])
def test_blocks_keep_files_and_let_them_expire(
    site: Site, installed: str, request: pytest.FixtureRequest
) -> None:
    assert site.play(request.getfixturevalue(installed)) == ""
