"""Files on a local or mounted disk, served from ``url_root`` by the web server."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast
from urllib.parse import quote

from django.core.checks import CheckMessage, Error, Warning
from fs.base import FS
from fs.errors import NoURL

from ..errors import ConfigurationError
from ..names import Entry
from . import Backend, Lease, Outcome, reason, size_told
from .tree import Descent, DiskFileSystem


class DiskBackend(Backend):
    """Keeps each namespace in a directory of its own below ``directory_root``."""

    options = frozenset("directory_root url_root follow_symlinks accel_redirect x_sendfile".split())

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        root = options.get("directory_root")
        if not isinstance(root, str | os.PathLike) or not os.fspath(root):
            raise ConfigurationError(
                f"DJFS['directory_root'] is {root!r}: give it the directory for the files"
            )
        url_root = options.get("url_root")
        if url_root is not None and not isinstance(url_root, str):
            raise ConfigurationError(f"DJFS['url_root'] is {url_root!r}: give it a str")
        self.root = os.path.abspath(cast(str, os.fspath(root)))
        self._descent = Descent(self.root, _flag(options, "follow_symlinks"))
        self.url_root = url_root
        self._x_sendfile = _flag(options, "x_sendfile")
        self._accel_redirect = _location(options)

    def make_filesystem(self, namespace: str) -> FS:
        """Return the filesystem of a namespace, whose directory is made if need be."""
        return DiskFileSystem(self._descent, namespace)

    def has(self, namespace: str) -> bool:
        """Tell whether the directory of a namespace is there."""
        try:
            self._descent.lstat(namespace)
        except OSError as error:
            return not isinstance(error, FileNotFoundError)  # of all else `open` tells
        return True

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Return the permanent address below ``url_root``, which can carry no file name."""
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
        """Return a file's size in bytes, 0 without it; None where a link leads to it."""
        return size_told(lambda: self._descent.lstat("/".join(entry)))

    def roots(self) -> Sequence[str]:
        """Return the directory."""
        return [self.root]

    def checks(self) -> list[CheckMessage]:
        """Tell of a directory that cannot be written, and of a ``url_root`` that is a path."""
        found: list[CheckMessage] = []
        parent = _nearest_existing(self.root)
        if not (os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)):
            found.append(
                Error(
                    f"DJFS['directory_root'] is {self.root!r}, which cannot be written",
                    hint="Give the user of this process the right to write there.",
                    id="djpyfs.E002",
                )
            )
        url_root = self.url_root
        if url_root and (os.path.isdir(url_root) or os.path.abspath(url_root) == self.root):
            found.append(
                Warning(
                    f"DJFS['url_root'] is {self.url_root!r}, which is a directory on this machine",
                    hint="It is the address at which the web server serves directory_root.",
                    id="djpyfs.W002",
                )
            )
        return found

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        """Delete files directory by directory, and prune those that become empty.

        A root that cannot be opened, or holds nothing at all, is one whose disk is not mounted.
        """
        try:
            with self._descent.opened() as root:
                return _Deletion(self._descent, root, lease).run(entries)
        except OSError as error:
            return Outcome(away=[(entry, reason(error)) for entry in entries])


def _nearest_existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _flag(options: Mapping[str, Any], key: str) -> bool:
    value = options.get(key, False)
    if not isinstance(value, bool):
        raise ConfigurationError(f"DJFS[{key!r}] is {value!r}: use True or False")
    return value


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


class _Deletion:
    """One batch that is deleted below a root that is open."""

    def __init__(self, descent: Descent, root: int, lease: Lease) -> None:
        self._descent = descent
        self._root = root
        self._lease = lease
        self._outcome = Outcome()

    def run(self, entries: Sequence[Entry]) -> Outcome:
        groups: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            groups.setdefault((entry.namespace, entry.path.rpartition("/")[0]), []).append(entry)
        for (namespace, directory), group in groups.items():
            if self._lease.remaining() <= 0:
                break
            self._delete_in(namespace, directory, group)
        return self._outcome

    def _delete_in(self, namespace: str, directory: str, group: list[Entry]) -> None:
        below = directory.split("/") if directory else []
        with ExitStack() as opened:
            try:
                ways = self._descent.ways(opened, self._root, [*namespace.split("/"), *below])
            except FileNotFoundError:
                self._are_missing(group)
            except OSError as error:
                self._stay(group, error)
            else:
                self._unlink(ways[-1], group)
                _prune(ways, below)

    def _unlink(self, directory: int, group: list[Entry]) -> None:
        for entry in group:
            if self._lease.remaining() <= 0:
                return
            try:
                os.unlink(entry.path.rpartition("/")[2], dir_fd=directory)
            except FileNotFoundError:
                self._outcome.missing.append(entry)
            except OSError as error:
                self._stay([entry], error)
            else:
                self._outcome.deleted.append(entry)

    def _are_missing(self, entries: Sequence[Entry]) -> None:
        if _is_empty(self._root):
            why = "directory_root is empty: is its disk mounted?"
            self._outcome.away += [(entry, why) for entry in entries]
        else:
            self._outcome.missing += entries

    def _stay(self, entries: Sequence[Entry], error: OSError) -> None:
        told = self._outcome.away if _is_away(self._root, error) else self._outcome.failed
        told += [(entry, reason(error)) for entry in entries]


def _is_away(root: int, error: OSError) -> bool:
    """Tell whether it is the whole disk that fails, and not what ``error`` was about."""
    try:
        flags = os.fstatvfs(root).f_flag
    except OSError:
        return True
    return error.errno == errno.EROFS and bool(flags & os.ST_RDONLY)


def _is_empty(directory: int) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def _prune(ways: list[int], below: list[str]) -> None:
    """Remove the deepest directories of a namespace, as long as they are empty."""
    for name in reversed(below):
        ways = ways[:-1]
        try:
            os.rmdir(name, dir_fd=ways[-1])
        except OSError:  # not empty: somebody needs it
            return
