"""A namespace's directory, in which every step is taken from the directory above it.

A path that is checked first and opened afterwards can be led astray by a link that somebody puts
there in between. Here every directory on the way is opened through the descriptor of the one above
it, by a system call that fails on a link, so there is no such moment. Only the root may be a link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import islice
from typing import Any, BinaryIO, TypeVar, cast

from fs.base import FS
from fs.error_tools import convert_os_errors
from fs.errors import (
    CreateFailed,
    DestinationExists,
    FileExists,
    FileExpected,
    FSError,
    RemoveRootError,
    ResourceNotFound,
)
from fs.info import Info
from fs.iotools import RawWrapper
from fs.mode import Mode
from fs.osfs import OSFS
from fs.path import abspath, basename, dirname, normpath
from fs.permissions import Permissions
from fs.subfs import SubFS
from fs.tools import copy_file_data

from ..errors import LinkNotFollowed

T = TypeVar("T")

DIRECTORIES_REMEMBERED = 10_000
# How often a sweep may take a directory away from under one and the same write.
PRUNINGS_WITHSTOOD = 100
# Where there is O_PATH, a directory on the way need not be readable.
_A_STEP = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
_TO_LIST = os.O_DIRECTORY | os.O_RDONLY
_NEW_FILE = 0o666  # less the umask


class Descent:
    """The way from ``root`` down; links below it are followed where ``follow`` says so."""

    def __init__(self, root: str, follow: bool = False) -> None:
        self.root = root
        self.follow = follow
        self.no_follow = 0 if follow else os.O_NOFOLLOW

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the root, so that it can be listed."""
        root = os.open(self.root, _TO_LIST)
        try:
            yield root
        finally:
            os.close(root)

    def step(self, name: str, above: int, flags: int = _A_STEP) -> int:
        """Return a new descriptor of a directory. Raises `OSError`, ELOOP for a link."""
        try:
            return os.open(name, flags | self.no_follow, dir_fd=above)
        except NotADirectoryError:
            if stat.S_ISLNK(os.lstat(name, dir_fd=above).st_mode):
                raise OSError(errno.ELOOP, "a link, which is not followed", name) from None
            raise

    def go(self, names: Sequence[str], flags: int = _A_STEP, make: bool = False) -> int:
        """Return a new descriptor of the directory that ``names`` lead to, or ``make`` it.

        ``flags`` are those with which the directories are opened.
        """
        here = os.open(self.root, _A_STEP)
        for name in names:
            above = here
            try:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=above)
                here = self.step(name, above, flags)
            finally:
                os.close(above)
        return here

    def lstat(self, path: str) -> os.stat_result:
        """Return what is known of a file; of a link, what the link itself is. Raises `OSError`."""
        *above, name = path.split("/")
        directory = self.go(above)
        try:
            return os.lstat(name, dir_fd=directory)
        finally:
            os.close(directory)

    def ways(self, opened: ExitStack, root: int, names: Sequence[str]) -> list[int]:
        """Open one directory after the other below ``root``; return all of the descriptors."""
        ways = [root]
        for name in names:
            ways.append(self.step(name, ways[-1]))
            opened.callback(os.close, ways[-1])
        return ways

    def make(self, names: Sequence[str]) -> None:
        """Make a directory and those above it, the root included, where they are not there."""
        for _ in range(PRUNINGS_WITHSTOOD):
            os.makedirs(self.root, exist_ok=True)
            with suppress(FileNotFoundError):
                return os.close(self.go(names, make=True))
        return os.close(self.go(names))


class DiskFileSystem(FS):
    """A namespace's directory, in which a sweep may prune what has become empty.

    A directory that this process has made, or that was there when a write began, is made again
    where the write finds it pruned. A link is listed, moved and removed as what it is; what would
    follow it raises `LinkNotFollowed`, unless the ``descent`` allows it.
    """

    def __init__(self, descent: Descent, namespace: str) -> None:
        super().__init__()
        self._descent = descent
        self._names = namespace.split("/")
        self._made = {"/"}
        self._meta = {
            "case_insensitive": os.path.normcase("Aa") == "aa",
            "network": False,
            "read_only": False,
            "supports_rename": False,  # by system paths, of which there are none
            "thread_safe": True,
            "unicode_paths": os.path.supports_unicode_filenames,
            "virtual": False,
        }
        try:
            descent.make(self._names)
        except OSError as error:
            raise CreateFailed(exc=error) from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._descent.root!r}, {'/'.join(self._names)!r})"

    # -- reading

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        """Return what is known of a file or directory; of a link, what the link itself is."""
        self.check()
        with self._parent("getinfo", path) as (parent, name):
            raw = self._raw_info(parent, name, namespaces or ())
        raw["basic"]["name"] = basename(path)
        return Info(raw)

    def islink(self, path: str) -> bool:
        """Tell whether ``path`` is a symbolic link. Raises `ResourceNotFound`."""
        self.check()
        with self._parent("islink", path) as (parent, name):
            return stat.S_ISLNK(os.lstat(name, dir_fd=parent).st_mode)

    def listdir(self, path: str) -> list[str]:
        """List a directory."""
        self.check()
        with self._listable("listdir", path) as directory:
            return os.listdir(directory)

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """List a directory with what is known of each entry."""
        infos = self._scan(path, namespaces or ())
        return islice(infos, *page) if page else infos

    def _scan(self, path: str, namespaces: Collection[str]) -> Iterator[Info]:
        self.check()
        needs_more = not {"basic"}.issuperset(namespaces)
        with self._listable("scandir", path) as directory, os.scandir(directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # removed since
                    if needs_more:
                        yield Info(self._raw_info(directory, entry.name, namespaces))
                    else:
                        is_dir = entry.is_dir(follow_symlinks=self._descent.follow)
                        yield Info({"basic": {"name": entry.name, "is_dir": is_dir}})

    def _raw_info(
        self, parent: int, name: str, namespaces: Collection[str]
    ) -> dict[str, dict[str, Any]]:
        link = os.lstat(name, dir_fd=parent)
        found = link
        if self._descent.follow and stat.S_ISLNK(link.st_mode):
            found = os.stat(name, dir_fd=parent)
        raw: dict[str, dict[str, Any]] = {
            "basic": {"name": name, "is_dir": stat.S_ISDIR(found.st_mode)}
        }
        if "details" in namespaces:
            raw["details"] = OSFS._make_details_from_stat(found)
        if "access" in namespaces:
            raw["access"] = OSFS._make_access_from_stat(found)
        for key, result in ("stat", found), ("lstat", link):
            if key in namespaces:
                raw[key] = {k: getattr(result, k) for k in dir(result) if k.startswith("st_")}
        if "link" in namespaces:
            is_link = stat.S_ISLNK(link.st_mode)
            raw["link"] = {"target": os.readlink(name, dir_fd=parent) if is_link else None}
        return raw

    # -- writing

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file; a write finds the directory that was there when it began."""
        self.check()
        checked = Mode(mode)
        checked.validate_bin()
        if abspath(normpath(path)) == "/":
            raise FileExpected(path)

        def open_(flag: int = 0) -> BinaryIO:
            with self._parent("openbin", path) as (parent, name):
                return cast(BinaryIO, self._opened(parent, name, checked, buffering, flag))

        if not checked.create:
            return open_()
        try:  # what is added to is new only if nothing was there
            flag = os.O_EXCL if checked.appending else 0
            file = self._despite_pruning(path, lambda: open_(flag))
        except FileExists:
            if not checked.appending:
                raise
            return self._despite_pruning(path, open_)
        return cast(BinaryIO, _NewFile(file, checked.to_platform_bin(), path, self._remove_if))

    def upload(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Write what is left in ``file``; where reading it fails, nothing stays behind."""
        with self.openbin(path, "wb", **options) as new:
            try:
                copy_file_data(file, new, chunk_size)
            except BaseException:
                cast(_NewFile, new).discard()
                raise

    def _remove_if(self, path: str, is_it: Callable[[os.stat_result], bool]) -> None:
        with suppress(FSError), self._parent("remove", path) as (parent, name):
            if is_it(os.lstat(name, dir_fd=parent)):
                os.unlink(name, dir_fd=parent)

    def _opened(self, parent: int, name: str, mode: Mode, buffering: int, flag: int) -> Any:
        def open_beneath(name: str, flags: int) -> int:
            flags |= flag | self._descent.no_follow
            return os.open(name, flags, _NEW_FILE, dir_fd=parent)

        return open(name, mode.to_platform_bin(), buffering, opener=open_beneath)

    def move(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Move a file; one that is on another device is copied."""
        if not overwrite and self.exists(dst_path):
            raise DestinationExists(dst_path)
        if self.getinfo(src_path).is_dir:
            raise FileExpected(src_path)
        if not self._despite_pruning(dst_path, lambda: self._rename(src_path, dst_path)):
            super().move(src_path, dst_path, overwrite=True, preserve_time=preserve_time)

    def _rename(self, src_path: str, dst_path: str) -> bool:
        """Rename a file; return False where that leads to another device."""
        with (
            self._parent("move", src_path) as (source, old),
            self._parent("move", dst_path) as (destination, new),
        ):
            try:
                os.rename(old, new, src_dir_fd=source, dst_dir_fd=destination)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    return False
                raise
        return True

    def makedir(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> SubFS[FS]:
        """Make a directory, and remember it."""
        self.check()
        mode = Permissions.get_mode(permissions)

        def make() -> None:
            with self._parent("makedir", path, directory=True) as (parent, name):
                try:
                    os.mkdir(name, mode, dir_fd=parent)
                except FileExistsError:
                    if not recreate:
                        raise

        self._despite_pruning(path, make)
        made = self.opendir(path)
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

    def setinfo(self, path: str, info: Any) -> None:
        """Set the times of a file."""
        self.check()
        details = info.get("details", {})
        modified = details.get("modified", details.get("accessed"))
        with self._parent("setinfo", path) as (parent, name):
            if modified is None:
                os.lstat(name, dir_fd=parent)  # what is not there has no times
                return
            accessed = details.get("accessed", modified)
            follow = self._descent.follow
            os.utime(name, (accessed, modified), dir_fd=parent, follow_symlinks=follow)

    def remove(self, path: str) -> None:
        """Remove a file, or a link."""
        self.check()
        with self._parent("remove", path) as (parent, name):
            try:
                os.unlink(name, dir_fd=parent)
            except PermissionError:  # which is what some systems say of a directory
                if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                    raise FileExpected(path) from None
                raise

    def removedir(self, path: str) -> None:
        """Remove an empty directory, and forget it."""
        self.check()
        absolute = abspath(normpath(path))
        if absolute == "/":
            raise RemoveRootError
        with self._parent("removedir", path, directory=True) as (parent, name):
            os.rmdir(name, dir_fd=parent)
        self._made.discard(absolute)

    # -- the way down

    @contextmanager
    def _parent(self, act: str, path: str, directory: bool = False) -> Iterator[tuple[int, str]]:
        """Open the directory above ``path``; the root is an entry of itself.

        Errors of the system become PyFilesystem's.
        """
        above, _, name = normpath(path).strip("/").rpartition("/")
        with _told(act, path, directory):
            parent = self._descent.go(self._steps(above))
            try:
                yield parent, name or "."
            finally:
                os.close(parent)

    @contextmanager
    def _listable(self, act: str, path: str) -> Iterator[int]:
        names = self._steps(normpath(path).strip("/"))
        with _told(act, path, directory=True):
            try:
                directory = self._descent.go(names, _TO_LIST)
            except FileNotFoundError:
                if names != self._names:
                    raise
                # This object lives as long as the process; somebody may clear the disk.
                self._descent.make(names)
                directory = self._descent.go(names, _TO_LIST)
            try:
                yield directory
            finally:
                os.close(directory)

    def _steps(self, path: str) -> list[str]:
        return [*self._names, *path.split("/")] if path else self._names

    # -- what a sweep prunes

    def _remember(self, path: str) -> None:
        if len(self._made) >= DIRECTORIES_REMEMBERED:
            self._made = {"/"}
        self._made.add(abspath(normpath(path)))

    def _despite_pruning(self, path: str, write: Callable[[], T]) -> T:
        parent = dirname(abspath(normpath(path)))
        was_there = parent in self._made or self.isdir(parent)
        for _ in range(PRUNINGS_WITHSTOOD if was_there else 0):
            try:
                return write()
            except ResourceNotFound:
                # Another writer may have made it again by now: whether it is there tells nothing.
                with _told("makedirs", parent):
                    self._descent.make(self._steps(parent.strip("/")))
        return write()


class _NewFile(RawWrapper):
    """A file that a write has begun, and that is removed again where the write fails."""

    def __init__(
        self,
        file: BinaryIO,
        mode: str,
        path: str,
        remove_if: Callable[[str, Callable[[os.stat_result], bool]], None],
    ) -> None:
        super().__init__(file, mode=mode, name=path)
        self._path = path
        self._own = os.fstat(file.fileno())
        self._remove_if = remove_if
        self._failed = False

    def write(self, data: Any) -> int:
        return self._attempt(super().write, data)

    def writelines(self, lines: Iterable[Any]) -> None:
        self._attempt(super().writelines, lines)

    def truncate(self, size: int | None = None) -> int:
        return self._attempt(super().truncate, size)

    def flush(self) -> None:
        if not self._failed:  # there is nothing left to write to
            self._attempt(super().flush)

    def close(self) -> None:
        if not self.closed:
            try:
                super(RawWrapper, self).close()  # flushes
            finally:
                with suppress(OSError) if self._failed else nullcontext():  # was told already
                    self._attempt(self._f.close)

    def discard(self) -> None:
        """Remove the file, unless another one is there by now."""
        self._remove_if(self._path, lambda found: os.path.samestat(found, self._own))

    def _attempt(self, act: Callable[..., T], *arguments: Any) -> T:
        try:
            return act(*arguments)
        except OSError:
            self._failed = True
            self.discard()
            raise


@contextmanager
def _told(act: str, path: str, directory: bool = False) -> Iterator[None]:
    with convert_os_errors(act, path, directory=directory):
        try:
            yield
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise LinkNotFollowed(path) from error
            raise
