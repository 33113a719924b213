"""Writers that are killed, at each call by which they could have changed anything outside."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import pytest
from django.core.files.base import ContentFile
from fs.path import dirname

from djpyfs import get_filesystem
from djpyfs.filesystem import ExpiringFS
from djpyfs.storage import ExpiringStorage
from tests.faults.conftest import Measured
from tests.faults.processes import Actor
from tests.servers import PATIENCE, RedisServer

OUTSIDE = {"posix", "_io", "_posixsubprocess"}  # modules whose functions are system calls
HARMLESS = frozenset(
    """fspath getpid stat lstat fstat scandir listdir access urandom fileno isatty tell seek read
    readinto readline readable writable seekable recv recv_into gettimeout settimeout getsockopt
    setsockopt connect text_encoding""".split()
)


class Steps:
    """A profiler that kills its process just before the n-th step that others could notice."""

    def __init__(self, fatal: int) -> None:
        self.taken, self._fatal = 0, fatal

    def __call__(self, frame: object, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ not in HARMLESS and _acts(function.__self__):
            self.taken += 1
            if self.taken == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)


def _acts(on: object) -> bool:
    if isinstance(on, socket.socket):
        return True
    if isinstance(on, io.BytesIO | io.StringIO):
        return False
    # Files of the interpreter; what is written in Python ends in one of these, or in a socket.
    return type(on).__module__ == "_io" or getattr(on, "__name__", "") in OUTSIDE


class Story(NamedTuple):
    """What a writer does, and the files that it finds."""

    act: Callable[[ExpiringFS], object]
    expiring: Collection[str] = ()
    permanent: Collection[str] = ()
    given_up: Collection[str] = ()  # permanent, and to be replaced by a file with a deadline


def write_in_pieces(fs: ExpiringFS, mode: str = "wb") -> None:
    with fs.open("a", mode) as file:
        file.write(b"some ")
        file.flush()
        file.write(b"more")


def write_in_directory(fs: ExpiringFS) -> None:
    fs.makedirs("d/e", recreate=True)
    fs.writebytes("d/e/a", b"new")


def save_in_storage(fs: ExpiringFS) -> None:
    ExpiringStorage(fs.namespace).save("d/a", ContentFile(b"new"))


# In a namespace with a default_ttl.
TEMPORARY = {
    "write": Story(write_in_pieces),
    "rewrite": Story(write_in_pieces, expiring=["a"]),
    "append": Story(lambda fs: write_in_pieces(fs, "ab"), expiring=["a"]),
    "writebytes": Story(lambda fs: fs.writebytes("a", b"new")),
    "upload": Story(lambda fs: fs.upload("a", io.BytesIO(b"new"))),
    "in a directory": Story(write_in_directory),
    "storage": Story(save_in_storage),
    "copy": Story(lambda fs: fs.copy("a", "b"), expiring=["a"]),
    "move": Story(lambda fs: fs.move("a", "b"), expiring=["a"]),
    "replace": Story(lambda fs: fs.move("a", "b", overwrite=True), expiring=["a", "b"]),
    "movedir": Story(lambda fs: fs.movedir("d", "f", create=True), expiring=["d/a", "d/e/b"]),
    "remove": Story(lambda fs: fs.remove("a"), expiring=["a"]),
}
# In one without.
LASTING = {
    "rewrite": Story(write_in_pieces, permanent=["a"]),
    "append": Story(lambda fs: write_in_pieces(fs, "ab"), permanent=["a"]),
    "writebytes": Story(lambda fs: fs.writebytes("a", b"new"), permanent=["a"]),
    "move": Story(lambda fs: fs.move("a", "b"), permanent=["a"]),
    "move what expires": Story(lambda fs: fs.move("a", "b"), expiring=["a"], permanent=["c"]),
    "replace what expires": Story(
        lambda fs: fs.move("a", "b", overwrite=True), expiring=["b"], permanent=["a"]
    ),
    "replace": Story(lambda fs: fs.move("a", "b", overwrite=True), permanent=["a", "b"]),
    "replace by what expires": Story(
        lambda fs: fs.move("a", "b", overwrite=True), expiring=["a"], given_up=["b"]
    ),
}


class Stage:
    """Where stories are played, each in its own namespace. No other thread may run."""

    def __init__(self, stride: int) -> None:
        self._stride = stride
        self.kills = 0
        self.harm: list[str] = []

    def tell(self, kind: str, title: str, story: Story) -> None:
        """Kill the writer at every step in turn, or at each of a stride; none at step 0."""
        set_up(get_filesystem(f"{kind}/{title}/0"), story)
        steps = act(f"{kind}/{title}/0", story, fatal=0)
        self._note_harm(kind, title, story, 0)
        for step in range(1, steps + 1, self._stride):
            set_up(get_filesystem(f"{kind}/{title}/{step}"), story)
            self.kills += is_killed(f"{kind}/{title}/{step}", story, step)
            self._note_harm(kind, title, story, step)

    def _note_harm(self, kind: str, title: str, story: Story, step: int) -> None:
        harm = harm_in(f"{kind}/{title}/{step}", kind, story)
        self.harm += [f"{kind} {title}, step {step}: {what}" for what in harm]


def tell_all(stride: int, part: str) -> tuple[int, list[str]]:
    """Play the stories whose title has that part; return how many writers died, and the harm."""
    stage = Stage(stride)
    for kind, stories in ("temporary", TEMPORARY), ("lasting", LASTING):
        for title, story in stories.items():
            if part in title:
                stage.tell(kind, title, story)
    return stage.kills, stage.harm


def is_killed(namespace: str, story: Story, step: int) -> bool:
    writer = os.fork()
    if not writer:
        act(namespace, story, step)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(writer, 0)[1])


def act(namespace: str, story: Story, fatal: int) -> int:
    """Act in a story up to the fatal step; return how many steps there were."""
    fs, steps = get_filesystem(namespace), Steps(fatal)
    fs.exists("something")  # connects
    fs.expiration("something")
    sys.setprofile(steps)
    story.act(fs)
    sys.setprofile(None)
    return steps.taken


def set_up(fs: ExpiringFS, story: Story) -> None:
    contents = dict.fromkeys(story.expiring, b"expiring")
    contents |= dict.fromkeys([*story.permanent, *story.given_up], b"permanent")
    for name, content in contents.items():
        fs.makedirs(dirname(name), recreate=True)
        fs.writebytes(name, content)
        fs.expire(name, seconds=600, expires=name in story.expiring)


def harm_in(namespace: str, kind: str, story: Story) -> list[str]:
    fs = get_filesystem(namespace)
    found = {path.lstrip("/"): fs.readbytes(path) for path in fs.walk.files()}
    kept = {name for name in found if fs.expiration(name) is None}
    for_ever = kept if kind == "temporary" else {n for n in kept if found[n] == b"expiring"}
    doomed = {n for n in found.keys() - kept - set(story.given_up) if found[n] == b"permanent"}
    harm = [f"{name!r} has no record" for name in for_ever]
    harm += [f"{name!r} was permanent and has a deadline" for name in doomed]
    if story.permanent and not kept:
        harm.append("the permanent file is gone")
    return harm


@pytest.mark.fault(
    "a writer killed at every step (register, write, close, rename)",
    "no file without a record where a default_ttl applies, no permanent file lost",
)
@pytest.mark.parametrize(
    ("place", "short"), [("osfs", (5, "")), ("s3fs", (4, "replace what"))], indirect=["place"]
)
def test_a_writer_killed_at_any_step_leaves_no_file_forever_and_loses_no_permanent_one(
    place: dict[str, Any],
    redis_server: RedisServer,
    short: tuple[int, str],
    full: bool,
    measured: Measured,
) -> None:
    records = {"redis_url": redis_server.url, "key_prefix": f"test-{uuid.uuid4().hex}"}
    settings = {**place, **records, "namespaces": {"temporary/*": {"default_ttl": 600}}}
    teller = Actor(settings, tell_all, *((1, "") if full else short))
    try:
        kills, harm = teller.result(timeout=1_200 if full else 2 * PATIENCE)
    finally:
        teller.kill()
    assert harm == []
    assert kills >= (100 if full else 3)
    measured(f"{place['type']}: {kills} writers killed, {len(harm)} files without record or lost")
