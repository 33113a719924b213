"""A namespace's directory on disk as a PyFilesystem: a write appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from fs.base import FS
from fs.error_tools import convert_os_errors
from fs.errors import (
    CreateFailed,
    DestinationExists,
    FileExpected,
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

from ..errors import FileReplaced, LinkNotFollowed
from . import locks
from .spool import WholeOrNot
from .tree import PRUNINGS_WITHSTOOD, TO_LIST, Descent, open_file
from .unfinished import Beside, Unfinished, copy_all, is_hidden, write_all

T = TypeVar("T")

DIRECTORIES_REMEMBERED = 10_000
_WHOLE = Mode("wb")


class DiskFileSystem(FS):
    """A namespace's directory, which need not be there until something is written.

    A sweep may prune what has become empty: a directory that this process has made, or that was
    there when a write began, is made again if the write finds it pruned. A link is listed,
    moved and removed as what it is; what would follow it raises `LinkNotFollowed`, unless the
    ``descent`` allows it.
    """

    def __init__(self, descent: Descent, namespace: str) -> None:
        super().__init__()
        self._descent = descent
        self._names = namespace.split("/") if namespace else []
        self.root_path = os.path.join(descent.root, *self._names)
        self._made = {"/"}
        self._meta = {
            "case_insensitive": os.path.normcase("Aa") == "aa",
            "network": False,
            "read_only": False,
            "supports_rename": False,  # that would be by system paths, and there are none
            "thread_safe": True,
            "unicode_paths": os.path.supports_unicode_filenames,
            "virtual": False,
        }
        try:
            os.close(descent.nearest(self._names))
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise LinkNotFollowed(namespace) from error
            raise CreateFailed(exc=error) from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._descent.root!r}, {'/'.join(self._names)!r})"

    # -- reading

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        """Return what is known of a file or directory; of a link, what the link itself is."""
        self.check()
        with self._parent("getinfo", path, there=False) as (parent, name):
            raw = self._raw_info(parent, name, namespaces or ())
        raw["basic"]["name"] = basename(path)
        return Info(raw)

    def islink(self, path: str) -> bool:
        """Return whether ``path`` is a symbolic link. Raises `ResourceNotFound`."""
        self.check()
        with self._parent("islink", path, there=False) as (parent, name):
            return stat.S_ISLNK(os.lstat(name, dir_fd=parent).st_mode)

    def listdir(self, path: str) -> list[str]:
        """List a directory."""
        self.check()
        with self._listable("listdir", path) as directory:
            names = os.listdir(directory) if directory is not None else []
            return [name for name in names if not is_hidden(name)]

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
        with self._listable("scandir", path) as directory:
            if directory is None:
                return
            with os.scandir(directory) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        with suppress(FileNotFoundError):  # removed since
                            yield self._scanned(directory, entry, namespaces)

    def _scanned(
        self, directory: int, entry: os.DirEntry[str], namespaces: Collection[str]
    ) -> Info:
        if not {"basic"}.issuperset(namespaces):
            return Info(self._raw_info(directory, entry.name, namespaces))
        is_dir = entry.is_dir(follow_symlinks=self._descent.follow)
        return Info({"basic": {"name": entry.name, "is_dir": is_dir}})

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
        if "version" in namespaces:
            raw["version"] = {"etag": _etag(found)}
        if "link" in namespaces:
            is_link = stat.S_ISLNK(link.st_mode)
            raw["link"] = {"target": os.readlink(name, dir_fd=parent) if is_link else None}
        return raw

    # -- writing

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file; what is written appears when it is closed, whole.

        After ``discard`` of the file, closing it leaves what was there before.
        With an ``etag`` from `getinfo`, opening another version for reading raises
        `FileReplaced`.
        """
        checked = Mode(mode)
        checked.validate_bin()
        if checked.writing:
            return cast(BinaryIO, _NewFile(self._begin(path, checked), checked, buffering))
        self._check_file(path)
        with self._parent("openbin", path) as (parent, name):
            file = open_file(name, parent, self._descent.no_follow)
            expected = options.get("etag")
            if expected and expected != _etag(os.fstat(file)):
                os.close(file)
                raise FileReplaced(path)
            return open(file, "rb", buffering)

    def upload(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Write what is left in ``file``; if reading it fails, the old contents stay."""
        with self.openbin(path, "wb", **options) as new:
            try:
                copy_file_data(file, new, chunk_size)
            except BaseException:
                cast(_NewFile, new).discard()
                raise

    def writebytes(self, path: str, contents: bytes) -> None:
        """Write ``contents`` to a file, replacing what was there."""
        if not isinstance(contents, bytes):
            raise TypeError("contents must be bytes")
        write = self._begin(path, _WHOLE)
        try:
            write_all(write.new.file, contents)
            write.publish()
        finally:
            write.close()

    def _begin(self, path: str, mode: Mode) -> _Write:
        self._check_file(path)
        if mode.create:
            return self._despite_pruning(path, lambda: self._begun(path, mode))
        return self._begun(path, mode)

    def _begun(self, path: str, mode: Mode) -> _Write:
        with _as_fs_errors("openbin", path), self._descent.to_write() as root:
            target = self.target(path, root)
            try:
                _check_target(target.found, mode, target.name)
                return _Write(self, path, target, mode, self._descent.writes(root))
            except BaseException:
                os.close(target.directory)
                raise

    def target(self, path: str, root: int | None = None) -> _Target:
        """Open the directory of the file that will be written. Raises `OSError`."""
        above, _, name = normpath(path).strip("/").rpartition("/")
        names = self._steps(above)
        directory = self._descent.go_to_hold(names, root)
        try:
            found = _lstat(name, directory)
            if found is None or not stat.S_ISLNK(found.st_mode):
                return _Target(directory, "/".join(names), name, found)
            if not self._descent.follow:
                raise OSError(errno.ELOOP, "a link, which is not followed", name)
        except BaseException:
            os.close(directory)
            raise
        os.close(directory)
        real, name = os.path.split(os.path.realpath(os.path.join(self._descent.root, *names, name)))
        directory = os.open(real, TO_LIST)
        return _Target(directory, real, name, _lstat(name, directory))

    def make_again(self, path: str, write: Callable[[], T]) -> T:
        """Write to a directory that was there when the write began, and make it again if need be.

        Raises PyFilesystem's errors.
        """
        return self._despite_pruning(path, write, was_there=True)

    def _check_file(self, path: str) -> None:
        self.check()
        if abspath(normpath(path)) == "/":
            raise FileExpected(path)

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
        """Rename a file; return False if that leads to another device."""
        with (
            self._parent("move", src_path) as (source, old),
            self._parent("move", dst_path, hold=True) as (destination, new),
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
        """Make a directory and those above it, and remember it, even if it was there."""
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

    def remove_all(self, paths: Iterable[str]) -> None:
        """Remove files; one that is not there is no error."""
        for directory, group in groupby(paths, dirname):
            with (
                suppress(ResourceNotFound),
                self._parent("remove", f"{directory}/-") as (parent, _),
            ):
                for path in group:
                    try:
                        os.unlink(basename(path), dir_fd=parent)
                    except FileNotFoundError:
                        pass
                    except OSError:
                        self.remove(path)  # which raises the right error

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
    def _parent(
        self,
        act: str,
        path: str,
        directory: bool = False,
        hold: bool = False,
        there: bool = True,
    ) -> Iterator[tuple[int, str]]:
        """Open the directory above ``path``; the root is an entry of itself.

        Errors of the system become PyFilesystem's. With ``hold`` no sweep deletes in it
        meanwhile. If the root need not be ``there``, the nearest one above it takes its place.
        """
        above, _, name = normpath(path).strip("/").rpartition("/")
        names = self._steps(above)
        with _as_fs_errors(act, path, directory):
            if hold:
                parent = self._descent.go_to_hold(names)
            elif name or there:
                parent = self._descent.go(names)
            else:
                parent = self._descent.nearest(names)
            try:
                if hold:
                    locks.take(parent)
                yield parent, name or "."
            finally:
                os.close(parent)

    @contextmanager
    def _listable(self, act: str, path: str) -> Iterator[int | None]:
        """Open a directory to list it; None for a root that is not there."""
        names = self._steps(normpath(path).strip("/"))
        with _as_fs_errors(act, path, directory=True):
            try:
                directory = self._descent.go(names, TO_LIST)
            except FileNotFoundError:
                if names != self._names:
                    raise
                yield None
                return
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

    def _despite_pruning(self, path: str, write: Callable[[], T], was_there: bool = False) -> T:
        parent = dirname(abspath(normpath(path)))
        was_there = was_there or parent in self._made or self.isdir(parent)
        for _ in range(PRUNINGS_WITHSTOOD if was_there else 0):
            try:
                return write()
            except ResourceNotFound:
                # Another writer may have made it again by now, so it proves nothing if it is there.
                with _as_fs_errors("makedirs", parent):
                    self._descent.make(self._steps(parent.strip("/")))
        return write()


def _etag(found: os.stat_result) -> str:
    """Return what tells one version of a file from the next, for HTTP."""
    return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'


class _Target(NamedTuple):
    """The target of a write: its open directory, and what is there now."""

    directory: int
    path: str
    name: str
    found: os.stat_result | None


class _Write:
    """A new file, with the old contents if it adds to them, and its target.

    It takes the target's directory and ``writes``, the one for unfinished files, and closes them.
    """

    def __init__(
        self, files: DiskFileSystem, path: str, target: _Target, mode: Mode, writes: int
    ) -> None:
        self._files = files
        self.path = path
        self._target = target
        self._replace = not mode.exclusive
        found = target.found
        self._permissions = stat.S_IMODE(found.st_mode) if found else None
        here = os.fstat(target.directory).st_dev == os.fstat(writes).st_dev
        self.new = Unfinished(writes, self._permissions) if here else self._beside(writes)
        try:
            if found and not mode.truncate and not mode.exclusive:
                self._copy_old()
            if mode.appending:
                fcntl.fcntl(self.new.file, fcntl.F_SETFL, os.O_APPEND)
        except BaseException:
            self.new.close()
            raise

    def publish(self) -> None:
        """Put the new file in its place. Raises PyFilesystem's errors, and `FileBusy`."""
        try:
            with _as_fs_errors("close", self.path):
                self._publish()
        except ResourceNotFound:  # a sweep has pruned the directory
            self._files.make_again(self.path, self._publish_again)

    def close(self) -> None:
        """Close what is open, and remove what was not published."""
        self.new.close()
        os.close(self._target.directory)

    def _publish(self) -> None:
        _, _, name, _ = self._target
        try:
            self.new.publish(self._target.directory, name, self._replace)
        except OSError as error:
            if error.errno != errno.EXDEV:  # of a mount within one and the same device
                raise
            self._move_beside()
            self.new.publish(self._target.directory, name, self._replace)

    def _publish_again(self) -> None:
        with _as_fs_errors("close", self.path):
            target = self._files.target(self.path)
            os.close(self._target.directory)
            self._target = target
            self._publish()

    def _move_beside(self) -> None:
        old, new = self.new, self._beside(os.dup(self.new.directory))
        try:
            os.lseek(old.file, 0, os.SEEK_SET)
            copy_all(old.file, new.file)
        except BaseException:
            new.close()
            raise
        self.new = new
        old.close()

    def _beside(self, writes: int) -> Beside:
        directory, path, _, _ = self._target
        return Beside(writes, os.dup(directory), path, self._permissions)

    def _copy_old(self) -> None:
        old = open_file(self._target.name, self._target.directory)
        try:
            copy_all(old, self.new.file)
        finally:
            os.close(old)
        os.lseek(self.new.file, 0, os.SEEK_SET)


class _NewFile(WholeOrNot, RawWrapper):
    """A file that appears when it is closed, unless writing to it has failed."""

    def __init__(self, write: _Write, mode: Mode, buffering: int) -> None:
        name = mode.to_platform_bin()
        opened: Any = open(  # noqa: SIM115
            write.new.file, name.replace("x", "w"), buffering, closefd=False
        )
        super().__init__(opened, mode=name, name=write.path)
        self._write = write
        self._changed = mode.create  # else it stays as it is until something is written

    def write(self, data: Any) -> int:
        return self._attempt(super().write, data)

    def writelines(self, lines: Iterable[Any]) -> None:
        self._attempt(super().writelines, lines)

    def truncate(self, size: int | None = None) -> int:
        return self._attempt(super().truncate, size)

    def flush(self) -> None:
        if not self.discarded:
            with self._broken_by_error():
                super().flush()

    def close(self) -> None:
        if self.closed:
            return
        try:
            super(RawWrapper, self).close()  # flushes
            if self._changed and not self.discarded:
                self._write.publish()
        finally:
            with suppress(OSError):  # already reported; what is left in it is not for anybody
                self._f.close()
            self._write.close()

    def _attempt(self, act: Callable[..., T], *arguments: Any) -> T:
        self._changed = True
        with self._broken_by_error():
            return act(*arguments)


def _lstat(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return None


def _check_target(found: os.stat_result | None, mode: Mode, name: str) -> None:
    if found is None:
        if not mode.create:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", name)
    elif stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", name)
    elif mode.exclusive:
        raise FileExistsError(errno.EEXIST, "there is one already", name)


class _as_fs_errors(convert_os_errors):  # noqa: N801  named as what it derives from
    """Turn errors of the system into PyFilesystem's."""

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise LinkNotFollowed(self._path) from error
        if isinstance(error, OSError) and error.errno == errno.ENXIO:
            raise FileExpected(self._path) from error
        super().__exit__(kind, error, traceback)
