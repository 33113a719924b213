"""Every example of the documentation runs, in the order of its page.

A block of Python is executed. What it sets in capitals is a Django setting from then on, its
``urlpatterns`` are the URLs of the site, and a function whose first parameter is ``request`` is a
view, which is called when the page has ended, as is a function named ``test_…``. Shell commands are
checked by the parser of the command; only those of the quick start are carried out, by another
test.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import shutil
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping
from configparser import ConfigParser
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import yaml
from asgiref.sync import async_to_sync
from celery import Celery
from click import Context
from django.core.checks import run_checks
from django.core.management import get_commands, load_command_class
from django.db import models
from django.db.migrations.writer import MigrationWriter
from django.http import JsonResponse
from django.shortcuts import redirect
from django.template import Engine
from django.test import RequestFactory
from django.test.utils import isolate_apps
from django.urls import URLPattern, URLResolver, clear_url_caches, include, path
from django.utils import timezone
from django.utils.module_loading import import_string

from djpyfs import expire_objects, get_filesystem
from djpyfs.cache import ExpiringCache
from djpyfs.filesystem import ExpiringFS
from djpyfs.storage import ExpiringStorage
from djpyfs.sweeper import recent_sweeps
from djpyfs.testing import advance, isolated
from djpyfs_tasks import beat_schedule
from tests.conftest import BUCKET, KEYS
from tests.pages import PAGES, ROOT, Example, examples_on
from tests.servers import RedisServer, running_nginx

QUICK_START = ROOT / "docs" / "quickstart.md"
REDIS = "redis://127.0.0.1:6379/0"
LIBRARIES = {"static": "django.templatetags.static"}
ELSEWHERE = {"docker", "git", "redis", "sudo", "cd", "curl", "gunicorn", "nginx"}  # not ours to try


class Site:
    """Where the examples of one page run."""

    def __init__(self, settings: Any, redis_url: str, s3: Callable[[], str], files: Path) -> None:
        self._settings = settings
        self._records = {"redis_url": redis_url, "key_prefix": f"test-{uuid.uuid4().hex}"}
        self._s3 = s3
        self._files = files
        # Below an application, so that it may have models.
        self.module = ModuleType("djpyfs.example")
        self.urlpatterns: list[URLPattern | URLResolver] = []
        self.module.urlpatterns = self.urlpatterns  # type: ignore[attr-defined]
        settings.ROOT_URLCONF = self.module
        settings.DJFS = self._here(
            "DJFS", {"type": "osfs", "directory_root": files, "url_root": "/"}
        )

    def run(self, example: Example) -> None:
        """Execute a block of Python, and take up what it says of the site."""
        code = example.code.replace("/srv/files", str(self._files))
        names = vars(self.module)
        exec(compile("\n" * example.line + code, example.page, "exec"), names)
        told = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        for name in told & names.keys():
            if name.isupper():
                setattr(self._settings, name, self._here(name, names[name]))
        if "DJFS" in told:
            assert run_checks(tags=["djpyfs"]) == []
        clear_url_caches()

    def visit(self) -> None:
        """Call each view and each test that the page has shown, and write migrations."""
        for found in list(vars(self.module).values()):
            if isinstance(found, type) and issubclass(found, models.Model):
                for field in found._meta.fields:
                    MigrationWriter.serialize(field)
            if not (inspect.isfunction(found) and found.__globals__ is vars(self.module)):
                continue
            if next(iter(inspect.signature(found).parameters), "") == "request":
                view = async_to_sync(found) if inspect.iscoroutinefunction(found) else found
                assert view(RequestFactory().get("/")).status_code < 500
            elif found.__name__.startswith("test_"):
                found()

    def _here(self, name: str, value: Any) -> Any:
        """Lead a setting to the servers of the tests."""
        if name == "INSTALLED_APPS":
            return list(dict.fromkeys([*self._settings.INSTALLED_APPS, *value]))
        if name != "DJFS":
            return value
        own = self._place(value)
        names = own.get("namespaces", {}).items()
        own["namespaces"] = {name: self._place(policy) for name, policy in names}
        return {**own, **self._records} if own.get("redis_url", REDIS) == REDIS else own

    def _place(self, options: Mapping[str, Any]) -> dict[str, Any]:
        if options.get("type") != "s3fs":
            return dict(options)
        own = {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": self._s3()}
        return {**options, **own, **KEYS}


@pytest.fixture
def site(
    request: pytest.FixtureRequest, settings: Any, redis_server: RedisServer, tmp_path: Path
) -> Iterator[Site]:
    def s3() -> str:
        return str(request.getfixturevalue("s3_endpoint"))

    with isolate_apps("djpyfs"):
        yield Site(settings, redis_server.url, s3, tmp_path / "files")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_run(page: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = list(examples_on(page))
    if page == QUICK_START:
        return  # see test_quickstart
    if any(it.language == "python" for it in found):
        site = request.getfixturevalue("site")
    for example in found:
        if example.language == "python":
            site.run(example)
        else:
            TRIED[example.language](example.code, tmp_path)
    if "site" in locals():
        site.visit()


WITH_EXAMPLES = [
    get_filesystem,
    expire_objects,
    ExpiringFS.expire,
    ExpiringFS.expire_at,
    ExpiringFS.expire_many,
    ExpiringFS.get_upload_url,
    ExpiringFS.get_url,
    ExpiringFS.get_urls,
    ExpiringFS.set_default_life,
    ExpiringFS.temporary_file,
    ExpiringCache,
    ExpiringStorage,
    beat_schedule,
    isolated,
    recent_sweeps,
]


@pytest.mark.parametrize("public", WITH_EXAMPLES, ids=lambda public: public.__qualname__)
def test_the_examples_in_docstrings_run(public: Callable[..., Any], site: Site) -> None:
    from matplotlib.figure import Figure  # here, like Celery's command: each takes long to load

    text = inspect.getdoc(public) or ""
    examples = re.findall(r"::\n\n((?:    .*\n|\n)+)", f"{text}\n")
    site.module.__dict__.update(
        {
            "advance": advance,
            "app": Celery(set_as_current=False),
            "expire_objects": expire_objects,
            "figure": Figure(),
            "models": models,
            "fs": get_filesystem("plots"),
            "get_filesystem": get_filesystem,
            "JsonResponse": JsonResponse,
            "redirect": redirect,
            "timedelta": timedelta,
            "timezone": timezone,
            public.__name__: public,
        }
    )
    site.urlpatterns.append(path("links/", include("djpyfs.urls")))
    source = Path(inspect.getsourcefile(public) or "")
    assert examples
    for code in examples:
        site.run(Example(source, 1, "python", dedent(code), ""))


# -- what is not Python


def parse_shell(code: str, _: Path) -> None:
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:  # the environment of the command
            words.pop(0)
        if words:
            command, *arguments = words
            COMMANDS.get(command, _elsewhere)(command, arguments)


def parse_session(code: str, here: Path) -> None:
    typed = [line[2:] for line in code.splitlines() if line.startswith("$ ")]
    parse_shell("\n".join(typed), here)


def _elsewhere(command: str, _: list[str]) -> None:
    assert command in ELSEWHERE, f"{command}: nothing tries it"


def _python(_: str, arguments: list[str]) -> None:
    assert arguments.pop(0) == "manage.py"
    _manage("manage.py", arguments)


def _manage(_: str, arguments: list[str]) -> None:
    name, *others = arguments
    command = load_command_class(get_commands()[name], name)
    command.create_parser("manage.py", name).parse_args(others)


def _celery(_: str, arguments: list[str]) -> None:
    from celery.bin.base import CLIContext
    from celery.bin.celery import celery

    option, app, name, *others = arguments
    assert (option, app) in {("-A", "djpyfs_tasks"), ("-A", "mysite")}  # ours, the reader's
    about = CLIContext(import_string("djpyfs_tasks.app"), no_color=True, workdir=None)
    above = Context(celery, obj=about)
    if (command := celery.commands.get(name)) is not None:
        command.make_context(name, others, parent=above).close()


def _pytest(_: str, arguments: list[str]) -> None:
    module, name, *others = arguments
    assert (module, name) == ("-m", "pytest")
    assert all((ROOT / word).exists() for word in others if "/" in word)


def _pip(_: str, arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in arguments:
        if word.startswith("djpyfs["):
            assert word[7:-1] in project["optional-dependencies"]


def _make(_: str, arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        assert "=" in word or f"\n{word}:" in makefile


COMMANDS: dict[str, Callable[[str, list[str]], None]] = {
    "python": _python,
    ".venv/bin/python": _pytest,
    "manage.py": _manage,
    "celery": _celery,
    "pip": _pip,
    "make": _make,
}


def start_nginx(code: str, here: Path) -> None:
    if shutil.which("nginx", path="/usr/sbin:/usr/bin"):
        with running_nginx(here / uuid.uuid4().hex, code):
            pass


def leave(code: str, _: Path) -> None:
    """Try nothing: it shows output, or another test tries it."""


TRIED: dict[str, Callable[[str, Path], object]] = {
    "sh": parse_shell,
    "console": parse_session,
    "json": lambda code, _: json.loads(code),
    "toml": lambda code, _: tomllib.loads(code),
    "yaml": lambda code, _: yaml.safe_load(code),
    "nginx": start_nginx,
    "apache": leave,
    "html": lambda code, _: Engine(libraries=LIBRARIES).from_string(code),
    "javascript": leave,
    "ini": lambda code, _: ConfigParser().read_string(code),
    "text": leave,
}
