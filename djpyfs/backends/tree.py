"""The way down from a root on disk: each step starts from the directory above.

A path that is checked first and opened afterwards can be led astray by a link that somebody puts
there in between. Here every directory on the way is opened through the descriptor of the one above
it, by a system call that fails on a link, so there is no such moment. Only the root may be a link.

In the root djpyfs keeps a directory with a random id: it tells this root from every other, and
from the bare mount point of a disk that is not mounted.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from secrets import token_hex
from time import monotonic, sleep
from typing import NamedTuple

from ..errors import BackendUnavailable, ConfigurationError
from ..names import RESERVED
from . import locks, reason
from .unfinished import Unfinished, remove_abandoned, write_all

# How often a sweep may take a directory away from under one and the same write.
PRUNINGS_WITHSTOOD = 100
PLACE, WRITES = "place", "writes"  # in the directory of our own
MADE_LATER = "the first write makes it; if files were there before, mount the disk"
LONGEST_MAKING = 5.0  # s to wait for what another process is making
# With O_PATH, a directory on the way need not be readable.
_A_STEP = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
TO_LIST = os.O_DIRECTORY | os.O_RDONLY
_is_id = re.compile("[0-9a-f]{32}").fullmatch


class _Id(NamedTuple):
    """The id of a root, and the file that it was read from."""

    file: tuple[int, int, int]  # device, inode and when that was written: inodes are reused
    id: str


def _told_apart(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _file_of_id(root: int | None, path: str = f"{RESERVED}/{PLACE}") -> tuple[int, int, int] | None:
    with suppress(OSError):
        return _told_apart(os.lstat(path, dir_fd=root))
    return None


def open_file(name: str, directory: int, flags: int = os.O_NOFOLLOW) -> int:
    """Return a new descriptor of a regular file in an open directory, to read it.

    Raises `OSError`; ENXIO, as the system does for a socket, for everything that is not a regular
    file: opening or reading a pipe may wait forever.
    """
    file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=directory)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.ENXIO, "no regular file", name)


class Descent:
    """The way from ``root`` down; links below it are followed if ``follow`` says so.

    Raises `ConfigurationError` if this process takes names of files for other bytes than UTF-8.
    """

    def __init__(self, root: str, follow: bool = False) -> None:
        # To a sweep in ISO-8859-1, "ü.png" would be gone. ASCII cannot spell it, and fails.
        if (encoding := sys.getfilesystemencoding()) not in ("utf-8", "ascii"):
            raise ConfigurationError(
                f"this process encodes the names of files as {encoding}, and others as UTF-8: "
                "set PYTHONUTF8=1 for it"
            )
        self.root = root
        self.follow = follow
        self.no_follow = 0 if follow else os.O_NOFOLLOW
        self._seen: _Id | None = None
        #: The devices here on which the time of a directory is known to change with its entries.
        self.dating: set[int] = set()
        self._path_of_id = os.path.join(root, RESERVED, PLACE)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the root, so that it can be listed."""
        root = os.open(self.root, TO_LIST)
        try:
            yield root
        finally:
            os.close(root)

    @contextmanager
    def to_write(self) -> Iterator[int]:
        """Open the root, with its id; make both if they are missing.

        Raises `OSError`, and `BackendUnavailable` if the root's disk is no longer mounted.
        """
        try:
            root = os.open(self.root, TO_LIST)
        except FileNotFoundError:
            os.makedirs(self.root, exist_ok=True)
            root = os.open(self.root, TO_LIST)
        try:
            self._ensure_id(root)
            yield root
        finally:
            os.close(root)

    # -- which root it is

    def place(self, make: bool = False) -> str:
        """Return the random id of the root; with ``make``, make the root and its id if need be.

        Raises `BackendUnavailable` if there is none, as at the mount point of a disk that is not
        mounted.
        """
        try:
            # Every call of a view begins with this, and every sweep: one look is enough if nothing
            # has changed.
            if (seen := self._seen) and seen.file == _file_of_id(None, self._path_of_id):
                return seen.id
            if make:
                with self.to_write() as root:
                    return self._ensure_id(root)
            with self.opened() as root:
                self._seen = self._read_id(root)
                return self._seen.id
        except FileNotFoundError as error:
            raise BackendUnavailable(f"directory_root does not exist: {MADE_LATER}") from error
        except OSError as error:
            raise BackendUnavailable(f"directory_root is away: {reason(error)}") from error

    def confirm(self, root: int) -> None:
        """Raise `BackendUnavailable` unless an open root is the one that `place` has returned."""
        if self._seen and self._seen.file == _file_of_id(root):
            return
        found = self._read_id(root)
        if self._seen and self._seen.id != found.id:
            raise BackendUnavailable("directory_root is not the place that it was before")
        self._seen = found

    def clock(self, root: int) -> int:
        """Return the time in ns by the clock that dates what is written there."""
        os.utime(RESERVED, dir_fd=root, follow_symlinks=False)
        return os.lstat(RESERVED, dir_fd=root).st_ctime_ns

    def mark(self) -> int | None:
        """Return what `clock` does; None if the root is away."""
        with suppress(OSError), self.opened() as root:
            return self.clock(root)
        return None

    def fence(self, path: str) -> None:
        """Wait until nobody is about to delete in the directory of a file. Raises `FileBusy`."""
        try:
            directory = self.go_to_hold(path.split("/")[:-1])
        except OSError:  # there is nothing to delete; a write reports anything else
            return
        try:
            locks.take(directory)
        finally:
            os.close(directory)

    def _ensure_id(self, root: int) -> str:
        seen = self._seen
        if seen and seen.file == _file_of_id(root):
            return seen.id
        try:
            self._seen = self._read_id(root)
        except BackendUnavailable:
            if self._is_bare(root):
                raise
            self._seen = self._make_id(root)
        return self._seen.id

    def _is_bare(self, root: int) -> bool:
        """Return whether an open root is the mount point of a disk that was there before."""
        return self._seen is not None and self._seen.file[0] != os.fstat(root).st_dev

    def _read_id(self, root: int) -> _Id:
        try:
            own = self.step(RESERVED, root)
            try:
                file = open_file(PLACE, own)
            finally:
                os.close(own)
        except FileNotFoundError:
            cure = "mount its disk again" if self._is_bare(root) else MADE_LATER
            raise BackendUnavailable(
                f"directory_root holds no {RESERVED}/{PLACE}: {cure}"
            ) from None
        try:
            found, id_ = os.fstat(file), os.read(file, 100).decode(errors="replace").strip()
        finally:
            os.close(file)
        if not _is_id(id_):
            raise BackendUnavailable(f"{RESERVED}/{PLACE} in directory_root is damaged")
        return _Id(_told_apart(found), id_)

    def _make_id(self, root: int) -> _Id:
        self.make_in(root, [RESERVED, WRITES])
        own = self.go([RESERVED], root=root)
        try:
            new = Unfinished(self.writes(root))
            try:
                write_all(new.file, token_hex(16).encode())
                os.fsync(new.file)
                with suppress(FileExistsError):
                    new.publish(own, PLACE, replace=False)
            finally:
                new.close()
        finally:
            os.close(own)
        return self._id_being_made(root)

    def _id_being_made(self, root: int) -> _Id:
        end = monotonic() + LONGEST_MAKING
        while True:
            try:
                return self._read_id(root)
            except BackendUnavailable:  # empty for a moment, if there are no hard links
                if monotonic() > end:
                    raise
                sleep(0.01)

    # -- steps

    def step(self, name: str, above: int, flags: int = _A_STEP) -> int:
        """Return a new descriptor of a directory. Raises `OSError`, ELOOP for a link."""
        try:
            return os.open(name, flags | self.no_follow, dir_fd=above)
        except NotADirectoryError:
            if stat.S_ISLNK(os.lstat(name, dir_fd=above).st_mode):
                raise OSError(errno.ELOOP, "a link, which is not followed", name) from None
            raise

    def go(self, names: Sequence[str], flags: int = _A_STEP, root: int | None = None) -> int:
        """Return a new descriptor of the directory that ``names`` lead to from the root.

        ``flags`` are those with which it is opened; a root that is open already stays so.
        """
        if not names:
            return os.open(self.root if root is None else ".", flags, dir_fd=root)
        top = os.open(self.root, _A_STEP) if root is None else root
        here = top
        try:
            for number, name in enumerate(names, 1):
                below = self.step(name, here, flags if number == len(names) else _A_STEP)
                if here != top:
                    os.close(here)
                here = below
        except BaseException:
            if here != top:
                os.close(here)
            raise
        finally:
            if root is None:
                os.close(top)
        return here

    def go_to_hold(self, names: Sequence[str], root: int | None = None) -> int:
        """Return a new descriptor of a directory, which can be locked if it can be read."""
        try:
            return self.go(names, TO_LIST, root)
        except PermissionError:
            return self.go(names, root=root)

    def walk(self, ways: list[int], names: Sequence[str]) -> None:
        """Open one directory after the other below the first of ``ways``, and append them."""
        for number, name in enumerate(names, 1):
            try:
                ways.append(self.step(name, ways[-1], TO_LIST if number == len(names) else _A_STEP))
            except PermissionError:
                ways.append(self.step(name, ways[-1]))

    def lstat(self, path: str) -> os.stat_result:
        """Return what is known of a file; of a link, what the link itself is. Raises `OSError`."""
        *above, name = path.split("/")
        directory = self.go(above)
        try:
            return os.lstat(name, dir_fd=directory)
        finally:
            os.close(directory)

    def nearest(self, names: Sequence[str]) -> int:
        """Return a new descriptor of the last directory on a way that is there."""
        for count in range(len(names), 0, -1):
            with suppress(FileNotFoundError):
                return self.go(names[:count])
        with suppress(FileNotFoundError):
            return os.open(self.root, _A_STEP)
        return os.open(os.sep, _A_STEP)

    # -- what is made

    def make(self, names: Sequence[str]) -> None:
        """Make a directory and those above it, the root included, if they are missing."""
        for _ in range(PRUNINGS_WITHSTOOD):
            with suppress(FileNotFoundError), self.to_write() as root:
                return self.make_in(root, names)
        with self.to_write() as root:
            return self.make_in(root, names)

    def make_in(self, root: int, names: Sequence[str]) -> None:
        """Make a directory and those above it below an open root."""
        here = os.dup(root)
        try:
            for name in names:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=here)
                below = self.step(name, here)
                os.close(here)
                here = below
        finally:
            os.close(here)

    def writes(self, root: int) -> int:
        """Return a new descriptor of the directory for unfinished files."""
        way = [RESERVED, WRITES]
        try:
            return self.go(way, root=root)
        except FileNotFoundError:
            self.make_in(root, way)
            return self.go(way, root=root)

    def tidy(self, root: int) -> None:
        """Remove the unfinished files of writers that died; never fail."""
        with suppress(OSError):
            writes = self.go([RESERVED, WRITES], TO_LIST, root)
            try:
                remove_abandoned(writes, lambda path: self._elsewhere(path, root))
            finally:
                os.close(writes)

    def _elsewhere(self, path: str, root: int) -> int:
        if os.path.isabs(path):  # behind a link
            return os.open(path, _A_STEP if self.follow else _A_STEP | os.O_NOFOLLOW)
        return self.go(path.split("/"), root=root)


@contextmanager
def pruned(root: int, names: Sequence[str]) -> Iterator[list[int]]:
    """Keep the directories that `Descent.walk` opens below a root, and close them in the end.

    The deepest of them are removed before, as long as they are empty.
    """
    ways = [root]
    try:
        yield ways
    finally:
        _prune(ways, names)
        for way in ways[1:]:
            os.close(way)


def _prune(ways: Sequence[int], names: Sequence[str]) -> None:
    for above, name in reversed(list(zip(ways, names[: len(ways) - 1], strict=False))):
        try:
            os.rmdir(name, dir_fd=above)
        except OSError:  # not empty: somebody needs it
            return
