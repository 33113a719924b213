"""Any PyFilesystem by its address: FTP, archives, memory, and whatever else has an opener."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from tempfile import mkdtemp
from threading import RLock
from time import monotonic
from typing import Any, BinaryIO, ClassVar
from weakref import finalize

from fs import errors
from fs.base import FS
from fs.info import Info
from fs.opener import open_fs, registry
from fs.opener.appfs import AppFSOpener
from fs.opener.errors import NotWriteable, OpenerError, ParseError
from fs.opener.osfs import OSFSOpener
from fs.opener.parse import parse_fs_url
from fs.path import join, normpath, relpath
from fs.permissions import Permissions
from fs.subfs import SubFS
from fs.tarfs import ReadTarFS

from ..errors import ConfigurationError
from ..names import Entry
from . import Backend, place_id
from .memory import MemoryBackend
from .osfs import DiskBackend
from .spool import SpoolingFS, Turns

READ_ONLY = ("zip", "tar")
LATE = 30  # s, after which no server on the way carries out what was asked for
CONNECTION_LIFE = 60  # s; servers drop what is idle for longer, and some are started again


class OpenerBackend(Backend):
    """Keeps each namespace in a directory of the filesystem that ``url`` leads to.

    It is opened once for all, and again after a minute where there is a network between. What
    can only be read, such as an archive, is opened for reading.
    """

    options = frozenset({"url"})
    deletions_at_once: ClassVar[int] = 8

    @classmethod
    def at(cls, options: Mapping[str, Any]) -> Backend:
        """Return a back-end for an address; the disk and memory have their own."""
        address = _checked_address(options.get("url"))
        protocol = address.partition("://")[0]
        if protocol == "mem":
            return MemoryBackend({})
        if protocol == "temp":
            return _TemporaryBackend()
        if protocol in OSFSOpener.protocols:
            directory = os.path.expanduser(parse_fs_url(address).resource)
            return DiskBackend({"directory_root": os.path.expandvars(directory)})
        if protocol in AppFSOpener.protocols:
            with open_fs(address, create=True) as files:
                return DiskBackend({"directory_root": files.getsyspath("/")})
        return cls(options)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._address = _checked_address(options.get("url"))
        self._lock = RLock()
        self._opened: FS | None = None
        self._network = True  # until it is known better
        self._stale_at = math.inf

    @property
    def late(self) -> float:  # type: ignore[override]  # which depends on what is opened
        """Seconds after which a deletion can no longer act; 0 where there is no network between."""
        return LATE if self._network else 0

    def filesystem(self) -> FS:
        """Return the opened filesystem. Raises `fs.errors.CreateFailed`."""
        with self._lock:
            if self._opened is None or monotonic() > self._stale_at:
                self._opened = self._open()
                self._network = bool(self._opened.getmeta().get("network"))
                self._stale_at = monotonic() + CONNECTION_LIFE if self._network else math.inf
            return self._opened

    def make_filesystem(self, namespace: str) -> FS:
        """Return the directory of a namespace, which is made if need be."""
        try:
            files = self.filesystem()
            with self._lock:
                if not files.isdir(namespace):  # what can only be read refuses to make even that
                    files.makedirs(namespace, recreate=True)
        except errors.CreateFailed:
            raise
        except errors.FSError as error:
            raise errors.CreateFailed(exc=error) from error
        return _Directory(self, namespace)

    def has(self, namespace: str) -> bool:
        """Tell whether the directory of a namespace is there. Raises `fs.errors.FSError`."""
        return self.filesystem().exists(namespace)

    def is_there(self) -> bool:
        """Tell whether there is anything to have files in."""
        try:
            return self.filesystem().isdir("/")
        except (errors.FSError, OSError):
            return False

    def answers(self) -> bool:
        """Ask again; over a network by another connection.

        By the old one a late answer may still come: to the next question.
        """
        with self._lock:
            if self._network:
                self._opened = None
            return self.is_there()

    def delete_one(self, entry: Entry) -> None:
        """Delete a file; no directory is made for it."""
        self.filesystem().remove("/".join(entry))

    def place(self, make: bool = False) -> str:
        """Return what tells the files from others: protocol, user, host and path."""
        parsed = parse_fs_url(self._address)
        place = re.split("[?&;=#]", parsed.resource.rpartition("@")[2])[0]
        if parsed.protocol in READ_ONLY:
            place = os.path.abspath(os.path.expanduser(place))
        # What one user finds at a path of a server need not be what another finds there.
        return place_id(parsed.protocol, parsed.username or "", place)

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Raise `NoURL`: a filesystem's address is nothing for a browser."""
        raise errors.NoURL(path, "download")

    def roots(self) -> Sequence[str]:
        """Return host and path of the address."""
        parsed = parse_fs_url(self._address)
        if parsed.protocol in READ_ONLY:
            return []
        # Whoever writes a password unquoted may have some of it here: not in what comes after
        # the last @, and before anything that a query has.
        place = re.split("[?&;=#]", parsed.resource.rpartition("@")[2])[0]
        return [f"{parsed.protocol}://{place}"]

    def close(self) -> None:
        """Close the filesystem."""
        super().close()
        with self._lock:
            opened, self._opened = self._opened, None
            if opened is not None:
                opened.close()

    def _open(self) -> FS:
        try:
            # Not with `create`: a new archive would take the place of one that is there.
            opened = open_fs(self._address, writeable=True)
        except NotWriteable:
            opened = open_fs(self._address)
        meta = opened.getmeta()
        # A tar file says so too, but whoever reads from it moves the position of all.
        thread_safe = bool(meta.get("thread_safe")) and not isinstance(opened, ReadTarFS)
        if thread_safe and meta.get("read_only") and not meta.get("network"):
            return opened
        # What is written to others would be seen in part; and open files on FTP lose what is
        # empty, and more.
        return _Copying(opened, thread_safe)


class _TemporaryBackend(DiskBackend):
    """A directory that goes with the process that made it."""

    shared = False

    def __init__(self) -> None:
        self._process = os.getpid()
        super().__init__({"directory_root": mkdtemp(prefix="djpyfs-")})
        self._end = finalize(self, _remove_own, self.root, self._process)

    def place(self, make: bool = False) -> str:
        """Return what no other process has, nor a child of this one."""
        return place_id(self.root, str(self._process), str(os.getpid()))

    def close(self) -> None:
        """Remove the directory."""
        super().close()
        self._end()


def _remove_own(directory: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)


def _checked_address(url: Any) -> str:
    """Return ``url``. The errors show no more of it than what stands before ``://``."""
    cure = "give it the address of a PyFilesystem, such as 'ftp://user:password@host/files'"
    if not isinstance(url, str):
        raise ConfigurationError(f"DJFS['url'] is a {type(url).__name__}: {cure}")
    protocol = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", url)
    if not protocol:
        raise ConfigurationError(f"DJFS['url'] names no protocol: {cure}")
    try:
        parse_fs_url(url)
    except ParseError:  # which shows the address
        raise ConfigurationError(f"DJFS['url'] cannot be read: {cure}") from None
    try:
        registry.get_opener(protocol[1])
    except OpenerError as error:
        known = ", ".join(sorted(registry.protocols))
        raise ConfigurationError(
            f"DJFS['url'] begins with {protocol[0]!r}, but there is {error}: use one of {known}, "
            "or install the package that brings it"
        ) from error
    return url


class _Directory(SubFS[FS]):
    """A directory in whatever filesystem the back-end has open at the time."""

    def __init__(self, backend: OpenerBackend, path: str) -> None:
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


class _Copying(SpoolingFS):
    """A filesystem whose open files are copies, and that only one thread uses where it must."""

    def __init__(self, files: FS, thread_safe: bool) -> None:
        super().__init__()
        self._files = files
        self._turns = Turns()
        self._turn: AbstractContextManager[Any] = nullcontext() if thread_safe else RLock()

    def getmeta(self, namespace: str = "standard") -> dict[str, object]:
        with self._turn:
            return dict(self._files.getmeta(namespace))

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        with self._turn:
            return self._files.getinfo(path, namespaces)

    def listdir(self, path: str) -> list[str]:
        with self._turn:
            return self._files.listdir(path)

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        with self._turn:
            return iter(list(self._files.scandir(path, namespaces, page)))

    def makedir(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> SubFS[FS]:
        with self._turn:
            self._files.makedir(path, permissions, recreate)
        return SubFS(self, path)

    def download(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        with self._turn:
            self._files.download(path, file, chunk_size, **options)

    def store(self, path: str, file: BinaryIO, exclusive: bool = False) -> None:
        with self._turns.of(normpath(path)), self._turn:
            if exclusive and self._files.exists(path):
                raise errors.FileExists(path)
            self._files.upload(path, file)

    def remove(self, path: str) -> None:
        with self._turn:
            self._files.remove(path)

    def removedir(self, path: str) -> None:
        with self._turn:
            self._files.removedir(path)

    def setinfo(self, path: str, info: Any) -> None:
        with self._turn:
            self._files.setinfo(path, info)

    def close(self) -> None:
        self._files.close()
        super().close()
