"""Calls that must cost next to nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from django.test import override_settings

from djpyfs import get_filesystem
from tests.bench.goals import Goal, tell
from tests.bench.turns import seconds

CALLS = 1_000  # per round
ROUNDS = 50
# The built-in modules through which Python reaches the outside.
OUTSIDE = ("posix", "io", "_io", "select", "_socket", "_ssl", "_posixsubprocess", "_sqlite3")


def goals() -> Iterator[Goal]:
    """Measure `get_filesystem` for a namespace that is open already."""
    tell("Getting a filesystem again")
    with TemporaryDirectory(prefix="djpyfs-bench-") as directory:
        djfs = {"type": "osfs", "directory_root": directory, "redis_url": "redis://127.0.0.1:1/0"}
        with override_settings(DJFS=djfs):
            get_filesystem("plots")
            took = median(seconds(_get_filesystems) for _ in range(ROUNDS)) / CALLS
            reached = _reaches_outside(lambda: get_filesystem("plots"))
    assert _reaches_outside(lambda: os.stat(".")) == ["posix.stat"]
    yield Goal(
        "get_filesystem() again",
        ", ".join(reached),
        took * 1e6,
        most=20,
        unit="µs",
        besides="no I/O",
        besides_holds=not reached,
    )


def _get_filesystems() -> None:
    for _ in range(CALLS):
        get_filesystem("plots")


def _reaches_outside(call: Callable[[], object]) -> list[str]:
    """Name the built-in functions that ``call`` ends in and that may do I/O."""
    found = []

    def note(frame: object, event: str, function: Any) -> None:
        if event == "c_call":
            module = function.__module__ or type(function.__self__).__module__
            if module in OUTSIDE:
                found.append(f"{module}.{function.__name__}")

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found
