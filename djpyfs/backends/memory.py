"""Files in this process: for a project's own tests, and for trying things out."""

from __future__ import annotations

from threading import Lock

from fs.base import FS
from fs.errors import NoURL, ResourceNotFound
from fs.memoryfs import MemoryFS

from ..names import Entry
from . import Backend


class MemoryBackend(Backend):
    """Keeps each namespace in a `MemoryFS` that lives as long as the process."""

    shared = False

    def __init__(self, options: object) -> None:
        super().__init__({})
        self._filesystems: dict[str, MemoryFS] = {}
        self._lock = Lock()

    def make_filesystem(self, namespace: str) -> FS:
        """Return the namespace's one filesystem: a second would not have its files."""
        with self._lock:
            return self._filesystems.setdefault(namespace, MemoryFS())

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Raise `NoURL`: no browser can reach into this process."""
        raise NoURL(path, "download")

    def size(self, entry: Entry) -> int:
        """Return a file's size in bytes, 0 without it."""
        try:
            return self.open(entry.namespace).getsize(entry.path)
        except ResourceNotFound:
            return 0
