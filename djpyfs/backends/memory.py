"""Files in this process: for a project's own tests, and for trying things out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from secrets import token_hex
from typing import Any, BinaryIO, ClassVar

from fs import errors
from fs.base import FS
from fs.info import Info
from fs.memoryfs import MemoryFS
from fs.mode import Mode
from fs.path import dirname
from fs.subfs import SubFS

from .. import clock
from ..conf import SECOND
from ..names import RESERVED, Entry
from . import Backend, place_id
from .spool import SpoolingFS


class MemoryBackend(Backend):
    """Keeps each namespace in a directory of a `MemoryFS` that lives as long as the process."""

    shared = False
    leaves_parts: ClassVar[bool] = False
    late = 0.0  # who freezes with this process cannot meet newer files

    def __init__(self, options: object) -> None:
        super().__init__({})
        self._files = MemoryFiles()
        self._id = token_hex()

    def make_filesystem(self, namespace: str) -> FS:
        """Return the directory of a namespace, which is made if need be."""
        try:
            self._files.makedirs(namespace, recreate=True)
        except errors.FSError as error:
            raise errors.CreateFailed(exc=error) from error
        return _Namespace(self._files, namespace)

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Raise `NoURL`: no browser can reach into this process."""
        raise errors.NoURL(path, "download")

    def size(self, entry: Entry) -> int:
        """Return a file's size in bytes, 0 without it."""
        files, path = self.reach(entry)
        try:
            return files.getsize(path)
        except errors.ResourceNotFound:
            return 0

    def place(self, make: bool = False) -> str:
        """Return an identity that no other process has, not even a child: its files are others."""
        return place_id(self._id, str(os.getpid()))


class MemoryFiles(SpoolingFS, MemoryFS):
    """A `MemoryFS` in which a file appears as a whole; readers of the old one keep it."""

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file; what is written appears when it is closed."""
        if Mode(mode).writing:
            return super().openbin(path, mode, buffering, **options)
        return MemoryFS.openbin(self, path, mode, buffering, **options)

    def store(self, path: str, file: BinaryIO, exclusive: bool = False) -> None:
        """Replace an old file by a new one, at the same moment for all threads."""
        unfinished = f"/{RESERVED}"
        with self._lock:
            if not self.isdir(dirname(self.validatepath(path))):
                raise errors.ResourceNotFound(path)
            if self.isdir(path):
                raise errors.FileExpected(path)
            if exclusive and self.exists(path):
                raise errors.FileExists(path)
            with MemoryFS.openbin(self, unfinished, "w") as new:
                shutil.copyfileobj(file, new)
            self.setinfo(unfinished, {"details": {"modified": clock.now() / SECOND}})
            self.move(unfinished, path, overwrite=True)  # type: ignore[no-untyped-call]

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """Describe what a directory holds; unlike the base class, hold no lock while it is read."""
        return iter(list(super().scandir(path, namespaces, page)))


class _Namespace(SubFS[MemoryFiles]):
    """A namespace's directory, which is made again if it was removed from above."""

    def delegate_path(self, path: str) -> tuple[MemoryFiles, str]:
        files, below = super().delegate_path(path)
        if not files.isdir(self._sub_dir):
            files.makedirs(self._sub_dir, recreate=True)
        return files, below
