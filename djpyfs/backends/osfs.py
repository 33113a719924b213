"""Files on a local or mounted disk, served from ``url_root`` by the web server."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote

from django.core.checks import CheckMessage, Error, Warning
from fs.base import FS
from fs.errors import CreateFailed, NoURL, ResourceNotFound
from fs.info import Info
from fs.osfs import OSFS
from fs.path import abspath, dirname, normpath
from fs.permissions import Permissions

from ..errors import ConfigurationError
from ..names import Entry
from . import Backend, Lease, Outcome, reason, size_on_disk

T = TypeVar("T")

DIRECTORIES_REMEMBERED = 10_000
# How often a sweep may take a directory away from under one and the same write.
PRUNINGS_WITHSTOOD = 100


class DiskFileSystem(OSFS):
    """A namespace's directory, in which a sweep may prune what has become empty.

    A directory that this process has made, or that was there when a write began, is made again
    where the write finds it pruned.
    """

    def __init__(self, root: str) -> None:
        try:
            # OSFS looks first and makes then, between which another process may have made it.
            os.makedirs(root, exist_ok=True)
        except OSError as error:
            raise CreateFailed(exc=error) from error
        super().__init__(root, expand_vars=False)
        self._made = {"/"}

    def makedir(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> Any:
        """Make a directory, and remember it."""
        make = super().makedir
        made = self._despite_pruning(path, lambda: make(path, permissions, recreate))
        self._remember(path)
        return made

    def makedirs(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> Any:
        """Make a directory and those above it, and remember it, whoever has made it."""
        for _ in range(PRUNINGS_WITHSTOOD):
            with suppress(ResourceNotFound):
                made = super().makedirs(path, permissions, recreate)
                self._remember(path)
                return made
        return super().makedirs(path, permissions, recreate)

    def removedir(self, path: str) -> None:
        """Remove an empty directory, and forget it."""
        super().removedir(path)
        self._made.discard(abspath(normpath(path)))

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file; a write finds the directory that was there when it began."""
        open_ = super().openbin
        if "r" in mode:
            return open_(path, mode, buffering, **options)
        return self._despite_pruning(path, lambda: open_(path, mode, buffering, **options))

    # So that each way to write ends in `openbin`, or in `copy`.
    open = FS.open  # type: ignore[assignment]  # without line_buffering, which nothing uses

    def copy(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Copy a file into a directory that was there when the copy began."""
        if not self.exists(src_path):  # which must not look like a pruned directory
            raise ResourceNotFound(src_path)
        copy = super().copy
        self._despite_pruning(dst_path, lambda: copy(src_path, dst_path, overwrite, preserve_time))

    def listdir(self, path: str) -> list[str]:
        """List a directory."""
        self._keep_root(path)
        return super().listdir(path)

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """List a directory with what is known of each entry."""
        self._keep_root(path)
        return super().scandir(path, namespaces, page)

    def _remember(self, path: str) -> None:
        if len(self._made) >= DIRECTORIES_REMEMBERED:
            self._made = {"/"}
        self._made.add(abspath(normpath(path)))

    def _keep_root(self, path: str) -> None:
        # The filesystem is shared for as long as the process lives; somebody may clear the disk.
        if abspath(normpath(path)) == "/":
            os.makedirs(self._root_path, exist_ok=True)

    def _despite_pruning(self, path: str, write: Callable[[], T]) -> T:
        parent = dirname(abspath(normpath(path)))
        was_there = parent in self._made or self.isdir(parent)
        for _ in range(PRUNINGS_WITHSTOOD if was_there else 0):
            try:
                return write()
            except ResourceNotFound:
                # Another writer may have made it again by now: whether it is there tells nothing.
                os.makedirs(self._to_sys_path(parent), exist_ok=True)
        return write()


class DiskBackend(Backend):
    """Keeps each namespace in a directory of its own below ``directory_root``."""

    options = frozenset("directory_root url_root accel_redirect x_sendfile".split())

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
        self.url_root = url_root
        self._x_sendfile = _flag(options, "x_sendfile")
        self._accel_redirect = _location(options)
        self.roots = [self.root]

    def make_filesystem(self, namespace: str) -> FS:
        """Return the filesystem of a namespace, whose directory is made if need be."""
        return DiskFileSystem(os.path.join(self.root, namespace))

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
        """Return a file's size in bytes, 0 without it."""
        return size_on_disk(os.path.join(self.root, *entry))

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
        if self.url_root and os.path.isdir(self.url_root):
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
            with _opened(self.root, None) as root:
                return _delete_below(root, entries, lease)
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


def _delete_below(root: int, entries: Sequence[Entry], lease: Lease) -> Outcome:
    outcome = Outcome()
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.namespace, entry.path.rpartition("/")[0]), []).append(entry)
    for (namespace, directory), group in groups.items():
        if lease.remaining() <= 0:
            break
        _delete_in(root, namespace, directory, group, lease, outcome)
    return outcome


def _delete_in(
    root: int, namespace: str, directory: str, group: list[Entry], lease: Lease, outcome: Outcome
) -> None:
    below = directory.split("/") if directory else []
    with ExitStack() as opened:
        try:
            ways = _descend(opened, root, [*namespace.split("/"), *below])
        except FileNotFoundError:
            if _is_empty(root):
                why = "directory_root is empty: is its disk mounted?"
                outcome.away += [(entry, why) for entry in group]
            else:
                outcome.missing += group
        except OSError as error:
            _stays(root, group, error, outcome)
        else:
            _unlink(ways, group, lease, outcome)
            _prune(ways, below)


def _stays(root: int, entries: Sequence[Entry], error: OSError, outcome: Outcome) -> None:
    told = outcome.away if _is_away(root, error) else outcome.failed
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


@contextmanager
def _opened(name: str, parent: int | None) -> Iterator[int]:
    # Only the root itself may be a link: below it, one could lead anywhere.
    follow = 0 if parent is None else os.O_NOFOLLOW
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | follow, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _descend(opened: ExitStack, root: int, names: list[str]) -> list[int]:
    """Open one directory after the other; return all of their descriptors."""
    ways = [root]
    for name in names:
        ways.append(opened.enter_context(_opened(name, ways[-1])))
    return ways


def _unlink(ways: list[int], group: list[Entry], lease: Lease, outcome: Outcome) -> None:
    for entry in group:
        if lease.remaining() <= 0:
            return
        try:
            os.unlink(entry.path.rpartition("/")[2], dir_fd=ways[-1])
        except FileNotFoundError:
            outcome.missing.append(entry)
        except OSError as error:
            _stays(ways[0], [entry], error, outcome)
        else:
            outcome.deleted.append(entry)


def _prune(ways: list[int], below: list[str]) -> None:
    """Remove the deepest directories of a namespace, as long as they are empty."""
    for name in reversed(below):
        ways = ways[:-1]
        try:
            os.rmdir(name, dir_fd=ways[-1])
        except OSError:  # not empty: somebody needs it
            return
