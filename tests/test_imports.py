"""Imports run one way, and each driver is imported in one room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# A room imports from the rooms before it. djpyfs/__init__.py is the front door, and comes late.
ROOMS = [
    "_pkg_resources",
    "errors",
    "names",
    "registry",
    "threads",
    "conf",
    "clock",
    "expirations",
    "backends",
    "places",
    "lifetimes",
    "owners",
    "late_uploads",
    "leases",
    "pool",
    "writes",
    "signals",
    "namespaces",
    # The filesystem hands signed links out, and a link is no more than names and a signature:
    # so it comes before. The view that answers it reads files, and comes after.
    "links",
    "addresses",
    "uploads",
    "moves",
    # To create a file where one has expired, that one is deleted first, as a sweep does.
    "outages",
    "gates",
    "sweeper",
    "filesystem",
    "storage",
    "cache",
    "metrics",
    "metrics_urls",
    "pages",
    "views",
    "receiving",
    "urls",
    "inspection",
    "resharding",
    "charts",
    "phrases",
    "models",
    "migrations",
    "admin",
    "takeover",
    "audit",
    "lifecycle",
    "cors",
    "djpyfs",
    "management",
    "checks",
    "__init__",
    "testing",
    "conformance",
    "pytest_plugin",
    "intact",  # asks whether the front door belongs to djpyfs
    "apps",
]
DRIVERS = {
    "prometheus_client": "djpyfs/metrics.py",
    "redis": "djpyfs/expirations/",
    "boto3": "djpyfs/backends/s3/",
    "botocore": "djpyfs/backends/s3/",
    "fs_s3fs": "djpyfs/backends/s3/",
    "s3transfer": "djpyfs/backends/s3/",
    "limits": "djpyfs/expirations/",
    "celery": "djpyfs_tasks/",
    "kombu": "djpyfs_tasks/",
    "fsspec": "djpyfs/backends/fsspec.py",
    "pytest": "djpyfs/pytest_plugin.py",
}


class Import(NamedTuple):
    importer: str  # a file, from the root of the repository
    imported: str  # a module, or a name in one


def imports_in(file: Path) -> Iterator[Import]:
    """Everything that ``file`` imports, wherever in it, by absolute names."""
    importer = file.relative_to(ROOT).as_posix()
    package = ".".join(file.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (Import(importer, f"{module}.{alias.name}") for alias in node.names)


@cache
def imports_of(package: str) -> list[Import]:
    return [found for file in sorted(ROOT.glob(f"{package}/**/*.py")) for found in imports_in(file)]


def room_of(module: str) -> str:
    """The room of djpyfs in which ``module`` lives; what the front door exports is there."""
    name = module.split(".")[1] if "." in module else "__init__"
    return name if name in ROOMS else "__init__"


def library() -> list[Import]:
    return imports_of("djpyfs")


def tasks() -> list[Import]:
    return imports_of("djpyfs_tasks")


def test_every_room_of_the_library_has_its_place_in_the_order() -> None:
    rooms = {path.stem for path in (ROOT / "djpyfs").iterdir() if path.suffix == ".py"}
    rooms |= {path.parent.name for path in (ROOT / "djpyfs").glob("*/__init__.py")}
    assert rooms <= set(ROOMS)


def test_a_room_imports_only_from_the_rooms_before_it() -> None:
    backwards = []
    for importer, imported in library():
        room = Path(importer).relative_to("djpyfs").parts[0].removesuffix(".py")
        inside = imported.split(".")[0] == "djpyfs" and room_of(imported) != room
        if inside and ROOMS.index(room_of(imported)) > ROOMS.index(room):
            backwards.append(f"{importer} imports {imported}")
    assert backwards == []


def test_the_library_never_imports_what_is_built_on_it() -> None:
    above = ("djpyfs_tasks", "demo", "tests")
    assert [found for found in library() if found.imported.split(".")[0] in above] == []
    assert [found for found in tasks() if found.imported.split(".")[0] in above[1:]] == []


@pytest.mark.parametrize(("driver", "room"), DRIVERS.items())
def test_a_driver_is_imported_in_its_own_room_alone(driver: str, room: str) -> None:
    importers = {
        found.importer for found in library() + tasks() if found.imported.split(".")[0] == driver
    }
    assert {importer for importer in importers if not importer.startswith(room)} == set()


def test_no_module_is_called_utils_or_helpers() -> None:
    modules = [Path(importer).stem for importer, _ in library() + tasks()]
    assert {"utils", "helpers", "base", "common", "misc"}.isdisjoint(modules)
