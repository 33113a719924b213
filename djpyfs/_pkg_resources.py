"""Makes PyFilesystem importable although setuptools no longer ships ``pkg_resources``.

``fs`` calls ``pkg_resources`` while it is imported, and setuptools dropped that module in
version 82. Importing this module imports ``fs`` with a stand-in in its place, then puts back
what was there before. The stand-in is used even if a real ``pkg_resources`` exists, because
the real one is slow to import and warns about being deprecated.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from types import ModuleType

_NAME = "pkg_resources"
# Everything in `fs` that imports `pkg_resources`; each binds it for good.
_USERS = ("fs", "fs.opener", "fs.opener.registry")


@functools.cache
def _entry_points(group: str) -> EntryPoints:
    """Read them once: each time that is a file for each distribution which is installed."""
    return entry_points(group=group)


class _StandIn(ModuleType):
    """The two functions of ``pkg_resources`` that ``fs`` calls.

    ``fs.opener.registry`` keeps it and looks entry points up whenever an address is opened.
    """

    @staticmethod
    def declare_namespace(package: str) -> None:
        module = sys.modules[package]
        module.__path__ = pkgutil.extend_path(module.__path__, package)

    @staticmethod
    def iter_entry_points(group: str, name: str | None = None) -> Iterator[EntryPoint]:
        found = _entry_points(group)
        return iter(found if name is None else found.select(name=name))


@contextmanager
def _stand_in_place() -> Iterator[None]:
    displaced = {_NAME: sys.modules[_NAME]} if _NAME in sys.modules else {}
    sys.modules[_NAME] = _StandIn(_NAME)
    try:
        yield
    finally:
        del sys.modules[_NAME]
        sys.modules.update(displaced)


def _import_fs() -> None:
    if all(user in sys.modules for user in _USERS):
        return
    with _stand_in_place():
        for user in _USERS:
            importlib.import_module(user)


# Python runs a module's body once, whichever thread comes first, so this needs no lock.
_import_fs()
