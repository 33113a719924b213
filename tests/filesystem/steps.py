"""Steps that the tests of the filesystem share."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fs.copy
import fs.move
from fs.memoryfs import MemoryFS

from djpyfs.filesystem import ExpiringFS


class Unreadable(io.BytesIO):
    """An upload that breaks off."""

    def read(self, *_: Any) -> bytes:
        raise OSError(errno.EIO, "the client hung up")


def left(filesystem: ExpiringFS, path: str) -> float:
    """Return the seconds that a file has left."""
    deadline = filesystem.expiration(path)
    assert deadline is not None, f"{path} has no deadline"
    return (deadline - datetime.now(UTC)).total_seconds()


def overdue(filesystem: ExpiringFS, path: str) -> None:
    """Write a file that is due at once."""
    filesystem.writebytes(path, b"old")
    filesystem.expire(path, 0)


ODD = [
    "a b.png",
    "100%.png",
    "$HOME.png",
    "~x",
    "what?.png",
    "a#b.png",
    "quote'\".png",
    "é+&<>;.png",
]


WRITES: dict[str, Callable[[ExpiringFS, str], object]] = {
    "writebytes": lambda fs, path: fs.writebytes(path, b"new"),
    "writetext": lambda fs, path: fs.writetext(path, "new"),
    "appendbytes": lambda fs, path: fs.appendbytes(path, b"new"),
    "upload": lambda fs, path: fs.upload(path, io.BytesIO(b"new")),
    "writefile": lambda fs, path: fs.writefile(path, io.BytesIO(b"new")),
    "open": lambda fs, path: fs.open(path, "w").close(),
    "openbin r+": lambda fs, path: fs.openbin(path, "r+").close(),
    "create": lambda fs, path: fs.create(path, wipe=True),
    "copy": lambda fs, path: fs.copy("other", path, overwrite=True),
    "fs.copy.copy_file": lambda fs, path: fs_copy(fs, path),
    "through a sub-filesystem": lambda fs, path: fs.opendir("/").writebytes(path, b"new"),
}


def fs_copy(filesystem: ExpiringFS, path: str) -> None:
    with MemoryFS() as memory:
        memory.writebytes("a", b"new")
        fs.copy.copy_file(memory, "a", filesystem, path)
