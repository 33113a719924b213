"""Files that are kept whole somewhere else: fetched when opened, put back when closed."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Any, BinaryIO, cast
from zlib import crc32

from fs import errors
from fs.base import FS
from fs.mode import Mode
from fs.path import abspath, basename, dirname, normpath
from fs.tools import copy_file_data

IN_MEMORY = 1 << 20  # bytes, beyond which a file waits on disk
DIRECTORIES_MADE = 10_000


def spool() -> BinaryIO:
    """Return a new temporary file, in memory as long as it is short."""
    return cast(BinaryIO, SpooledTemporaryFile(max_size=IN_MEMORY))


class Turns:
    """Locks, so that only one thread at a time stores a file of a given name."""

    def __init__(self) -> None:
        self._locks = [Lock() for _ in range(64)]

    def of(self, name: str) -> Lock:
        """Return the lock of a name, which it may share with a few others."""
        return self._locks[crc32(name.encode()) % len(self._locks)]


class Made:
    """Directories that may be empty: only this process knows of them."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}
        self._below: dict[str, set[str]] = {}
        self._lock = Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._above

    def below(self, name: str) -> set[str]:
        """Return the names of those in a directory."""
        with self._lock:
            return set(self._below.get(name, ()))

    def add(self, name: str) -> None:
        """Remember a directory, and forget the oldest if there are too many."""
        with self._lock:
            above, _, own = name.rpartition("/")
            self._above[name] = above
            self._below.setdefault(above, set()).add(own)
            if len(self._above) > DIRECTORIES_MADE:
                self._forget(next(iter(self._above)))

    def discard(self, name: str) -> None:
        """Forget a directory."""
        with self._lock:
            self._forget(name)

    def _forget(self, name: str) -> None:
        above = self._above.pop(name, None)
        if above is not None:
            self._below[above].discard(basename(name))
            if not self._below[above]:
                del self._below[above]


class SpoolingFS(FS):
    """A filesystem that can only `download` and `store` whole files."""

    @abstractmethod
    def store(self, path: str, file: BinaryIO, exclusive: bool = False) -> None:
        """Store what is left in ``file``, in place of what is there.

        An ``exclusive`` one replaces nothing, and raises `fs.errors.FileExists` instead. Raises
        `fs.errors.FileExpected` and `fs.errors.ResourceNotFound` as well.
        """

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file; what is written is stored when it is closed."""
        checked = Mode(mode)
        checked.validate_bin()
        there = _is_there(self, path, checked)

        def fetch(copy: BinaryIO) -> None:
            if there:
                self.download(path, copy)

        def store(copy: BinaryIO) -> None:
            self.store(path, copy, checked.exclusive)

        return cast(BinaryIO, SpooledFile(checked, fetch, store))

    def upload(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Store the rest of an open binary file; if reading it fails, nothing is stored."""
        with spool() as copy:
            copy_file_data(file, copy, chunk_size)
            copy.seek(0)
            self.store(path, copy)


def _is_there(files: FS, path: str, mode: Mode) -> bool:
    try:
        info = files.getinfo(path)
    except errors.ResourceNotFound:
        if not mode.create or not files.isdir(dirname(abspath(normpath(path)))):
            raise errors.ResourceNotFound(path) from None
        return False
    if info.is_dir:
        raise errors.FileExpected(path)
    if mode.exclusive:
        raise errors.FileExists(path)
    return True


class WholeOrNot:
    """A file that is not stored if it is discarded, or if a write to its copy has failed.

    Nor does a child of `fork` store it, which may drop it while its parent still writes.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._discarded = False
        self._owner = os.getpid()

    @property
    def discarded(self) -> bool:
        """Whether `close` stores nothing."""
        return self._discarded or os.getpid() != self._owner

    def discard(self) -> None:
        """Have `close` store nothing: what was there before stays."""
        self._discarded = True

    @contextmanager
    def _broken_by_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # the local disk is full, say
            self.discard()
            raise


class SpooledFile(WholeOrNot, io.RawIOBase):
    """A binary file with its own copy of the contents, on disk if they are long.

    ``fetch`` writes the present contents into the file that it is given, ``store`` reads from the
    beginning of one; it is called at close, if there is anything to store.
    """

    def __init__(
        self, mode: Mode, fetch: Callable[[BinaryIO], Any], store: Callable[[BinaryIO], Any]
    ) -> None:
        super().__init__()
        # What is closed without having been filled must not be stored.
        self._changed = False
        self._mode = mode
        self._store = store
        self._file = spool()
        if not mode.truncate:
            fetch(self._file)
            self._file.seek(0, io.SEEK_END if mode.appending else io.SEEK_SET)
        self._changed = mode.create

    @property
    def mode(self) -> str:
        """The mode in which the file was opened."""
        return self._mode.to_platform_bin()

    def readable(self) -> bool:
        return self._mode.reading

    def writable(self) -> bool:
        return self._mode.writing

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._need(self._mode.reading, "read")
        return cast(int, self._file.readinto(buffer))  # type: ignore[attr-defined]

    def write(self, data: Any) -> int:
        self._need(self._mode.writing, "write")
        self._changed = True
        if self._mode.appending:
            self._file.seek(0, io.SEEK_END)
        with self._broken_by_error():
            return self._file.write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._need(True, "seek")
        self._file.seek(offset, whence)
        return self._file.tell()

    def tell(self) -> int:
        self._need(True, "tell")
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        self._need(self._mode.writing, "truncate")
        self._changed = True
        here = self._file.tell()
        size = here if size is None else size
        with self._broken_by_error():
            missing = size - self._file.seek(0, io.SEEK_END)
            self._file.write(bytes(max(missing, 0)))
            self._file.truncate(size)
            self._file.seek(here)
        return size

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._changed and not self.discarded:
                self._file.seek(0)
                self._store(self._file)
        finally:
            super().close()
            self._file.close()

    def _need(self, allowed: bool, act: str) -> None:
        if self.closed:
            raise ValueError(f"{act} of a closed file")
        if not allowed:
            raise io.UnsupportedOperation(f"{act} of a file opened with {self.mode!r}")
