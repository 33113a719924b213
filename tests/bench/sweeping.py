"""A separate process that sweeps, or unlinks bare files, on command.

Each line that it reads is a number of seconds since the epoch at which to begin, or a JSON list of
paths to unlink; for each it prints what it took, and how much it has grown since the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple

from tests.pythons import ROOT


class Took(NamedTuple):
    """What a process reports of its work."""

    seconds: float
    files: int
    resident: int  # bytes


class Process:
    """A process that waits for its turn."""

    def __init__(self, djfs: dict[str, Any], environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.sweeping", json.dumps(djfs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environ},
        )
        self.ended()

    def begin(self, paths: Sequence[str] = ()) -> None:
        """Let it sweep, or unlink ``paths``."""
        assert self._process.stdin
        print(json.dumps(paths), file=self._process.stdin, flush=True)

    def ended(self) -> Took:
        """Wait until it is through."""
        assert self._process.stdout
        return Took(*json.loads(self._process.stdout.readline()))

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def processes(count: int, djfs: dict[str, Any], **environ: str) -> Iterator[list[Process]]:
    """Start some processes."""
    started = [Process(djfs, environ) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.end()


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _unlink(paths: Sequence[str]) -> int:
    for path in paths:
        os.unlink(path)
    return len(paths)


def _main() -> None:
    import django
    from django.conf import settings

    settings.configure(DJFS=json.loads(sys.argv[1]), USE_TZ=True)
    django.setup()
    from djpyfs import expire_objects, get_filesystem

    get_filesystem("users").expire("nothing", 0)
    expire_objects()  # makes the connections
    print(json.dumps(Took(0, 0, _resident())), flush=True)
    for line in sys.stdin:
        paths = json.loads(line)
        started = perf_counter()
        done = _unlink(paths) if paths else int(expire_objects().deleted)
        print(json.dumps(Took(perf_counter() - started, done, _resident())), flush=True)


if __name__ == "__main__":
    _main()
