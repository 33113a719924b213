"""A backend over one filesystem that is opened when needed, and reopened from time to time."""

from __future__ import annotations

import math
import os
import re
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock, local
from time import monotonic
from typing import Any, BinaryIO, ClassVar
from weakref import WeakSet

from fs import errors
from fs.base import FS
from fs.info import Info
from fs.path import join, normpath, relpath
from fs.permissions import Permissions
from fs.subfs import SubFS

from ..errors import BackendUnavailable
from ..names import Entry
from . import Backend, Lease, Outcome, timed_out
from .spool import SpoolingFS, Turns

_opened: WeakSet[OpenedBackend] = WeakSet()
_inherited: list[Any] = []  # connections of the parent, which this process must not even close
CONNECTION_LIFE = 60  # s; servers drop idle connections, and are restarted
JUST_NOW = 1  # s, for which a connection that failed need not be tried again


class OpenedBackend(Backend):
    """Keeps each namespace in a directory of one filesystem.

    It is opened once, or over a network again after a minute. There, deletions that run at the
    same time use connections of their own, because most libraries let one thread at a time use
    one.
    """

    deletions_at_once: ClassVar[int] = 10

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._network = True  # until more is known
        self._start()
        _opened.add(self)

    def _start(self) -> None:
        self._lock = RLock()
        self._shared = _Connection()
        self._spare = [self._shared]  # which no deletion uses
        self._own = local()  # of a thread that deletes

    def leave_to_parent(self) -> None:
        """Use other connections than the process that this one was forked from."""
        if self._network:
            _inherited.append((self._shared, self._spare))
            self._start()

    @abstractmethod
    def connect(self) -> FS:
        """Open the filesystem again. Raises `fs.errors.CreateFailed`."""

    def filesystem(self) -> FS:
        """Return the opened filesystem. Raises `fs.errors.CreateFailed`."""
        connection, asked_at = self._connection(), monotonic()
        with connection.lock:
            files = connection.files
            if files is None or files.isclosed() or monotonic() > connection.stale_at:
                if connection.failed_at > asked_at:
                    raise errors.CreateFailed(exc=TimeoutError("no answer, as others found"))
                try:
                    connection.files = files = self.connect()
                except Exception as error:
                    if timed_out(error):
                        connection.failed_at = monotonic()
                    if isinstance(error, errors.FSError):  # such as a login that is refused
                        raise errors.CreateFailed(exc=error) from error
                    raise
                connection.failed_at = -math.inf
                self._network = bool(files.getmeta().get("network"))
                connection.stale_at = monotonic() + CONNECTION_LIFE if self._network else math.inf
            return files

    def _connection(self) -> _Connection:
        return getattr(self._own, "connection", None) or self._shared

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        """Delete files, over a network by a connection that no other deletion uses meanwhile.

        If a server allows no further connection, the shared one is used. Raises
        `BackendUnavailable` if it answers on neither.
        """
        silent = self._meets_silence(self._shared)
        with self._lock:
            connection = self._spare.pop() if self._spare else _Connection()
        try:
            if self._network and not silent:
                silent = self._meets_silence(connection)
            if silent and not self.answers():
                raise BackendUnavailable("no connection is answered in time")
            return super().delete(entries, lease)
        finally:
            self._own.connection = None
            with self._lock:
                self._spare.append(connection)

    def _meets_silence(self, connection: _Connection) -> bool:
        """Have this thread use a connection, or the shared one if it cannot be opened.

        Return whether that is so because no answer came.
        """
        self._own.connection = connection
        try:
            self.filesystem()
        except (errors.FSError, OSError) as error:  # which each file will report
            self._own.connection = self._shared
            return timed_out(error)
        return False

    def make_filesystem(self, namespace: str) -> FS:
        """Return the directory of a namespace, which is made if need be."""
        try:
            files = self.filesystem()
            with self._lock:
                if not files.isdir(namespace):  # a read-only filesystem refuses to make even that
                    files.makedirs(namespace, recreate=True)
        except errors.CreateFailed:
            raise
        except errors.FSError as error:
            raise errors.CreateFailed(exc=error) from error
        return _Directory(self, namespace)

    def has(self, namespace: str) -> bool:
        """Return whether the directory of a namespace is there. Raises `fs.errors.FSError`."""
        return self.filesystem().exists(namespace)

    def is_there(self) -> bool:
        """Return whether there is anything that could hold files."""
        try:
            return self.filesystem().isdir("/")
        except (errors.FSError, OSError):
            return False

    def answers(self) -> bool:
        """Ask again; over a network by another connection.

        On the old one a late answer might be taken for the answer to the next question. Threads
        that ask at the same time wait for one answer, not each for its own.
        """
        connection, asked_at = self._connection(), monotonic()
        with connection.lock:
            if connection.failed_at > asked_at - JUST_NOW:
                return False
            if self._network:
                connection.files = None
            is_there = self.is_there()
            if not is_there:
                connection.failed_at = monotonic()
            return is_there

    def delete_one(self, entry: Entry) -> None:
        """Delete a file; no directory is made for it."""
        self.filesystem().remove("/".join(entry))

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Raise `NoURL`: a browser cannot use a filesystem's URL."""
        raise errors.NoURL(path, "download")

    def close(self) -> None:
        """Close the filesystem."""
        super().close()
        for connection in {self._shared, *self._spare}:
            connection.close()


class _Connection:
    """A filesystem that is opened, or is to be."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.files: FS | None = None
        self.failed_at = -math.inf
        self.stale_at = math.inf

    def close(self) -> None:
        with self.lock:
            files, self.files = self.files, None
            if files is not None:
                files.close()


def _leave_all_to_parent() -> None:
    for backend in _opened:
        backend.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)


class _Directory(SubFS[FS]):
    """A directory in whatever filesystem the backend has open at the time."""

    def __init__(self, backend: OpenedBackend, path: str) -> None:
        super().__init__(backend.filesystem(), path)
        del self._wrap_fs  # which would keep its connection
        self._backend = backend

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._sub_dir!r})"

    __str__ = __repr__

    def delegate_fs(self) -> FS:
        return self._backend.filesystem()

    def delegate_path(self, path: str) -> tuple[FS, str]:
        return self.delegate_fs(), join(self._sub_dir, relpath(normpath(path)))


class CopyingFS(SpoolingFS):
    """A filesystem whose open files are copies, used by one thread at a time if need be."""

    def __init__(self, files: FS, thread_safe: bool) -> None:
        super().__init__()
        self._files = files
        self._turns = Turns()
        self._turn: AbstractContextManager[Any] = nullcontext() if thread_safe else RLock()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Let others wait. If no answer has come, the next call makes another connection."""
        with self._turn:
            if self.isclosed():  # since this began to wait for its turn
                raise errors.RemoteConnectionError(msg="the connection was lost")
            try:
                yield
            except BaseException as error:
                is_answer = isinstance(error, errors.FSError)
                is_lost = isinstance(error, errors.RemoteConnectionError) or not is_answer
                if is_lost and self._files.getmeta().get("network"):
                    # A late answer might be taken for that to the next question. No good-bye:
                    # the server could let this wait for that, too.
                    super().close()
                raise

    def getmeta(self, namespace: str = "standard") -> dict[str, object]:
        with self._asking():
            return dict(self._files.getmeta(namespace))

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        with self._asking():
            return self._files.getinfo(path, namespaces)

    def listdir(self, path: str) -> list[str]:
        with self._asking():
            return self._files.listdir(path)

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        with self._asking():
            return iter(list(self._files.scandir(path, namespaces, page)))

    def makedir(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> SubFS[FS]:
        with self._asking():
            self._files.makedir(path, permissions, recreate)
        return SubFS(self, path)

    def download(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        with self._asking():
            self._files.download(path, file, chunk_size, **options)

    def store(self, path: str, file: BinaryIO, exclusive: bool = False) -> None:
        with self._turns.of(normpath(path)), self._asking():
            if exclusive and self._files.exists(path):
                raise errors.FileExists(path)
            self._files.upload(path, file)

    def remove(self, path: str) -> None:
        with self._asking():
            try:
                self._files.remove(path)
            except errors.ResourceNotFound:
                # An FTP server refuses in the same words if it does not permit that.
                if self._files.exists(path):
                    raise errors.PermissionDenied(path) from None
                raise

    def removedir(self, path: str) -> None:
        with self._asking():
            self._files.removedir(path)

    def setinfo(self, path: str, info: Any) -> None:
        with self._asking():
            self._files.setinfo(path, info)

    def close(self) -> None:
        self._files.close()
        super().close()


def without_secrets(url: str) -> str:
    """Return protocol, host and path of a URL."""
    protocol, _, rest = url.partition("://")
    # Only between the last @ and the query can there be no part of an unquoted password.
    return f"{protocol}://{re.split('[?&;=#]', rest.rpartition('@')[2])[0]}"
