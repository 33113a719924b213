"""Any PyFilesystem by its URL: FTP, archives, memory, and everything else with an opener."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from collections.abc import Mapping, Sequence
from tempfile import mkdtemp
from typing import Any, ClassVar
from weakref import finalize

from fs.base import FS
from fs.opener import open_fs, registry
from fs.opener.appfs import AppFSOpener
from fs.opener.errors import NotWriteable, OpenerError, ParseError
from fs.opener.osfs import OSFSOpener
from fs.opener.parse import parse_fs_url
from fs.tarfs import ReadTarFS

from ..errors import ConfigurationError
from . import Backend, place_id
from .memory import MemoryBackend
from .opened import CopyingFS, OpenedBackend, without_secrets
from .osfs import DiskBackend

READ_ONLY = ("zip", "tar")


class OpenerBackend(OpenedBackend):
    """Keeps each namespace in a directory of the filesystem that ``url`` leads to.

    A read-only filesystem, such as an archive, is opened for reading.
    """

    options = frozenset({"url"})
    deletions_at_once: ClassVar[int] = 8

    @classmethod
    def at(cls, options: Mapping[str, Any]) -> Backend:
        """Return a backend for a URL; disk and memory have their own."""
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

    def place(self, make: bool = False) -> str:
        """Return what tells the files from others: protocol, user, host and path."""
        parsed = parse_fs_url(self._address)
        place = posixpath.normpath(parsed.resource)
        if parsed.protocol in READ_ONLY:
            place = os.path.abspath(os.path.expanduser(parsed.resource))
        # Two users may find different files at the same path of a server.
        return place_id(parsed.protocol, parsed.username or "", place)

    def roots(self) -> Sequence[str]:
        """Return host and path of the URL."""
        parsed = parse_fs_url(self._address)
        if parsed.protocol in READ_ONLY:
            return []
        return [without_secrets(f"{parsed.protocol}://{parsed.resource}")]

    def connect(self) -> FS:
        """Open the filesystem at the URL."""
        try:
            # Not with `create`: a new archive would take the place of one that is there.
            opened = open_fs(self._address, writeable=True)
        except NotWriteable:
            opened = open_fs(self._address)
        meta = opened.getmeta()
        # A tar file says so too, but each reader moves the position of all.
        thread_safe = bool(meta.get("thread_safe")) and not isinstance(opened, ReadTarFS)
        if thread_safe and meta.get("read_only") and not meta.get("network"):
            return opened
        # Others would show half-written files, and open files on FTP lose empty contents.
        return CopyingFS(opened, thread_safe)


class _TemporaryBackend(DiskBackend):
    """A directory that goes with the process that made it."""

    shared = False

    def __init__(self) -> None:
        self._process = os.getpid()
        super().__init__({"directory_root": mkdtemp(prefix="djpyfs-")})
        self._end = finalize(self, _remove_own, self.root, self._process)

    def place(self, make: bool = False) -> str:
        """Return an identity that no other process has, not even a child."""
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
    cure = "give it the URL of a PyFilesystem, such as 'ftp://user:password@host/files'"
    if not isinstance(url, str):
        raise ConfigurationError(f"DJFS['url'] is of type {type(url).__name__}: {cure}")
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
            f"DJFS['url'] begins with {protocol[0]!r}: {error}; use one of {known}, "
            "or install the package that provides it"
        ) from error
    return url
