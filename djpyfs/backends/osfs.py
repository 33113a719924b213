"""Files on a local or mounted disk, served from ``url_root`` by the web server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, cast
from urllib.parse import quote

from django.core.checks import CheckMessage, Error, Warning
from fs.base import FS
from fs.errors import NoURL

from ..conf import flag
from ..errors import BackendUnavailable, ConfigurationError
from ..names import Entry
from . import Backend, Lease, Outcome, place_id, size_told
from .deletion import delete_below
from .disk_files import DiskFileSystem
from .tree import Descent


class DiskBackend(Backend):
    """Keeps each namespace in a directory of its own below ``directory_root``."""

    options = frozenset("directory_root url_root follow_symlinks accel_redirect x_sendfile".split())
    deletions_at_once: ClassVar[int] = 16  # for network disks
    leaves_parts: ClassVar[bool] = False
    reads_parts: ClassVar[bool] = True
    late = 0.0  # who deletes holds the directory and looks at the file

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        root = options.get("directory_root")
        path = os.fspath(root) if isinstance(root, str | os.PathLike) else ""
        if not path or "\0" in path:
            raise ConfigurationError(
                f"DJFS['directory_root'] is {root!r}: give it the directory for the files"
            )
        url_root = options.get("url_root")
        if url_root is not None and not isinstance(url_root, str):
            raise ConfigurationError(f"DJFS['url_root'] is {url_root!r}: give it a str")
        self.root = os.path.abspath(path)
        follow = flag("follow_symlinks", options.get("follow_symlinks", False))
        self._descent = Descent(self.root, follow)
        self.url_root = url_root
        self._x_sendfile = flag("x_sendfile", options.get("x_sendfile", False))
        self._accel_redirect = _location(options)

    def make_filesystem(self, namespace: str) -> FS:
        """Return the filesystem of a namespace, whose directory is made by the first write."""
        return DiskFileSystem(self._descent, namespace)

    def remove_all(self, namespace: str, paths: Sequence[str]) -> None:
        """Remove files, directory by directory."""
        cast(DiskFileSystem, self.open(namespace)).remove_all(paths)

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Return the permanent URL below ``url_root``, which cannot carry another file name."""
        if self.url_root is None or download_as is not None:
            raise NoURL(path, "download")
        return f"{self.url_root.rstrip('/')}/{quote(f'{namespace}/{path}')}"

    def handover(self, namespace: str, path: str) -> dict[str, str]:
        """Name the file to nginx, by its location, or to Apache and lighttpd, by its path."""
        name = quote(f"/{namespace}/{path}")
        if self._accel_redirect is not None:
            return {"X-Accel-Redirect": self._accel_redirect + name}
        return {"X-Sendfile": quote(self.root) + name} if self._x_sendfile else {}

    def size(self, entry: Entry) -> int | None:
        """Return a file's size in bytes, 0 if it is missing; None if a link leads to it."""
        return size_told(lambda: self._descent.lstat("/".join(entry)))

    def roots(self) -> Sequence[str]:
        """Return the directory."""
        return [self.root]

    def checks(self) -> list[CheckMessage]:
        """Report a directory that cannot be written, and a ``url_root`` that is a path."""
        found: list[CheckMessage] = []
        parent = _nearest_existing(self.root)
        if not (os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)):
            found.append(
                Error(
                    f"DJFS['directory_root'] is {self.root!r}, which cannot be written",
                    hint="Give the user of this process permission to write there.",
                    id="djpyfs.E002",
                )
            )
        url_root = self.url_root
        if url_root and (os.path.isdir(url_root) or os.path.abspath(url_root) == self.root):
            found.append(
                Warning(
                    f"DJFS['url_root'] is {self.url_root!r}, which is a directory on this machine",
                    hint="It is the URL at which the web server serves directory_root.",
                    id="djpyfs.W002",
                )
            )
        return found

    def parts(self, entries: Sequence[Entry]) -> Sequence[Sequence[Entry]]:
        """Give each directory to one thread: the system lets only one at a time change it."""
        size = -(-len(entries) // self.deletions_at_once)
        directories: dict[str, list[Entry]] = {}
        for entry in entries:
            directories.setdefault(entry.namespace, []).append(entry)
        parts: list[list[Entry]] = []
        for group in directories.values():
            if parts and len(parts[-1]) < size:
                parts[-1] += group
            else:
                parts.append(group)
        return parts

    def tidy(self) -> None:
        """Remove the unfinished files of writers that died."""
        with suppress(OSError), self._descent.opened() as root:
            self._descent.tidy(root)

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        """Delete files directory by directory, and prune those that become empty.

        Files written since the claim was asked for are not attempted. Raises `BackendUnavailable`
        if the root is not the `place` that it was, or cannot be written.
        """
        return delete_below(self._descent, entries, lease)

    def mark(self) -> int | None:
        """Return the time in ns by the clock that dates what is written there."""
        return self._descent.mark()

    def place(self, make: bool = False) -> str:
        """Return the identity of the root; with ``make``, make it if it is not there."""
        return place_id("disk", self._descent.place(make))

    def is_there(self) -> bool:
        """Return whether the root holds its id."""
        try:
            self._descent.place()
        except BackendUnavailable:
            return False
        return True

    def answers(self) -> bool:
        """Return whether the root is there, and can be written."""
        try:
            with self._descent.opened() as root:
                self._descent.confirm(root)
                self._descent.clock(root)
        except (BackendUnavailable, OSError):
            return False
        return True

    def fence(self, entry: Entry) -> None:
        """Wait until nobody is about to delete a file in its directory. Raises `FileBusy`."""
        self._descent.fence("/".join(entry))


def _nearest_existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _location(options: Mapping[str, Any]) -> str | None:
    location = options.get("accel_redirect")
    if location is None:
        return None
    if not isinstance(location, str) or not location.startswith("/"):
        raise ConfigurationError(
            f"DJFS['accel_redirect'] is {location!r}: give it an internal location of nginx, "
            "such as '/protected/'"
        )
    return location.rstrip("/")
