"""Files that are being written: nobody sees them until they appear under their name, whole.

They have random names in a directory of their own. Each is locked by its writer, so one that is
not locked was left behind by a writer that died.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex

from ..errors import FileBusy
from . import locks

NEW_FILE = 0o666  # less the umask
# Before the random name of a file that waits beside its target, on another device than the root.
BESIDE = ".djpyfs-"
# After the name of what stands for it among the others, and holds the path of its directory.
ELSEWHERE = ".elsewhere"
AT_A_TIME = 1 << 20  # bytes
_is_beside = re.compile(re.escape(BESIDE) + "[0-9a-f]{32}").fullmatch
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def is_hidden(name: str) -> bool:
    """Return whether a name in a directory is that of an unfinished file."""
    return name.startswith(BESIDE) and bool(_is_beside(name))


class Unfinished:
    """A new file in a directory of unfinished ones, which it closes with itself.

    ``mode`` has the permissions of what it replaces; a new one has those that the umask leaves.
    """

    def __init__(self, directory: int, mode: int | None = None, ending: str = "") -> None:
        try:
            self._name, self.file = _begun(directory, ending, mode)
        except BaseException:
            os.close(directory)
            raise
        self.directory = directory
        self._published = False
        self._owner = os.getpid()

    def publish(self, directory: int, name: str, replace: bool = True) -> None:
        """Let the file appear under a name, all at once.

        Raises `FileExistsError` if there is one that it may not ``replace``, `FileBusy` if
        a frozen sweeper might take it for the old one, and `OSError`.
        """
        # Some network filesystems report a full disk only when a descriptor is closed.
        os.close(os.dup(self.file))
        locks.take(directory)
        try:
            rename(self.directory, self._name, directory, name, replace)
        finally:
            locks.give_back(directory)
        self._published = True

    def close(self) -> None:
        """Close it, and remove what was not published."""
        if not self._published:
            self._remove(self._name, self.directory)
        os.close(self.file)
        os.close(self.directory)

    def _remove(self, name: str, directory: int) -> None:
        """Remove a file that this process has made, and no child of fork() for its parent."""
        if os.getpid() == self._owner:
            with suppress(OSError):  # then a sweep does it
                os.unlink(name, dir_fd=directory)


class Beside(Unfinished):
    """A new file in the directory in which it is to appear.

    ``writes`` is the directory of unfinished files, in which something that is locked stands for
    it, and ``path`` leads to ``directory``. It closes both with itself.
    """

    def __init__(self, writes: int, directory: int, path: str, mode: int | None = None) -> None:
        try:
            super().__init__(writes, ending=ELSEWHERE)
        except BaseException:
            os.close(directory)
            raise
        self._sign = self._name, self.file, writes
        try:
            write_all(self.file, os.fsencode(path))
            self._name = BESIDE + self._name.removesuffix(ELSEWHERE)
            self.file = _created(directory, self._name, mode)
        except BaseException:
            os.close(directory)
            self._end()
            raise
        self.directory = directory

    def close(self) -> None:
        """Close it, and remove what was not published."""
        super().close()
        self._end()

    def _end(self) -> None:
        name, file, writes = self._sign
        self._remove(name, writes)
        os.close(file)
        os.close(writes)


def rename(source: int, old: str, directory: int, new: str, replace: bool = True) -> None:
    """Rename a file from one directory to another. Raises `FileExistsError` unless ``replace``."""
    if not replace:
        try:
            os.link(old, new, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Then there is an empty one for a moment.
            os.close(os.open(new, os.O_CREAT | os.O_EXCL, NEW_FILE, dir_fd=directory))
        else:
            return os.unlink(old, dir_fd=source)
    return os.rename(old, new, src_dir_fd=source, dst_dir_fd=directory)


def remove_abandoned(directory: int, open_directory: Callable[[str], int]) -> None:
    """Remove the unfinished files of writers that died; never fail.

    ``open_directory`` opens the directory of a file that waits on another device.
    """
    with suppress(OSError):
        for name in os.listdir(directory):
            with suppress(OSError):
                _remove_if_abandoned(directory, name, open_directory)


def _remove_if_abandoned(directory: int, name: str, open_directory: Callable[[str], int]) -> None:
    file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        # Since it was opened it may have been published, and this may be another one.
        if locks.is_free(file) and os.path.samestat(
            os.fstat(file), os.lstat(name, dir_fd=directory)
        ):
            if name.endswith(ELSEWHERE):
                _remove_beside(BESIDE + name.removesuffix(ELSEWHERE), file, open_directory)
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(file)


def _remove_beside(name: str, sign: int, open_directory: Callable[[str], int]) -> None:
    path = os.fsdecode(os.read(sign, AT_A_TIME))
    if not path:  # its writer had not got that far
        return
    with suppress(FileNotFoundError):
        directory = open_directory(path)
        try:
            os.unlink(name, dir_fd=directory)
        finally:
            os.close(directory)


def copy_all(source: int, target: int) -> None:
    """Copy what is left of an open file, without moving a byte if the filesystem can."""
    with suppress(OSError, AttributeError):  # if it cannot, or the system does not
        while os.copy_file_range(source, target, 1 << 30):
            pass
    while chunk := os.read(source, AT_A_TIME):
        write_all(target, chunk)


def write_all(file: int, contents: bytes) -> None:
    """Write all of ``contents``. Raises `OSError`."""
    written = os.write(file, contents)
    if written < len(contents):
        rest = memoryview(contents)
        while written < len(contents):
            written += os.write(file, rest[written:])


def _begun(directory: int, ending: str, mode: int | None) -> tuple[str, int]:
    while True:
        name = token_hex(16) + ending
        file = _created(directory, name, mode)
        with suppress(FileBusy):  # a sweep has found it before it was locked, and removes it
            locks.take(file, patience=0)
            if os.fstat(file).st_nlink:
                return name, file
        os.close(file)


def _created(directory: int, name: str, mode: int | None) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    file = os.open(name, flags, NEW_FILE if mode is None else mode, dir_fd=directory)
    if mode is not None:
        os.fchmod(file, mode)
    return file
