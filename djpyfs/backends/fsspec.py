"""Stores that fsspec knows: Google Cloud Storage, Azure, SFTP, SMB, HDFS, and more."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from itertools import islice
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO

from fs import errors
from fs.base import FS
from fs.enums import ResourceType
from fs.info import Info
from fs.path import basename, dirname, join
from fs.permissions import Permissions
from fs.subfs import SubFS

from ..errors import ConfigurationError
from . import LATE, Backend, described, place_id
from .opened import CopyingFS, OpenedBackend, without_secrets
from .osfs import DiskBackend
from .spool import Made, SpoolingFS, Turns

ON_DISK = ("file", "local")
ON_S3 = ("s3", "s3a")
DELETES = ("rm_file", "_rm_file", "_rm")
NOT_THERE = (FileNotFoundError, NotADirectoryError)
TYPES = {"file": ResourceType.file, "directory": ResourceType.directory}


class FsspecBackend(OpenedBackend):
    """Keeps each namespace in a directory of what ``url`` leads to.

    Whatever else fsspec needs, such as keys, is in ``storage_options``.
    """

    options = frozenset({"url", "storage_options"})

    @classmethod
    def at(cls, options: Mapping[str, Any]) -> Backend:
        """Return a backend for a URL; the disk has its own."""
        url = _checked_address(options.get("url"))
        protocol, _, path = url.partition("://")
        if protocol in ON_DISK:
            return DiskBackend({"directory_root": path})
        return cls(options)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._url = _checked_address(options.get("url"))
        self._options = options.get("storage_options") or {}
        if not isinstance(self._options, Mapping):
            kind = type(self._options).__name__  # they may hold secrets
            raise ConfigurationError(f"DJFS['storage_options'] is of type {kind}: give it a dict")
        self._class = _class_for(self._url)
        self.shared = not self._url.startswith("memory://")
        self.late = LATE if self.shared else 0
        # These outlast a connection.
        self._made = Made()
        self._turns = Turns()

    def connect(self) -> FS:
        """Open the filesystem at the URL."""
        told = self._class._get_kwargs_from_urls(self._url)
        try:
            opened = self._class(**{**told, **self._options, "skip_instance_cache": True})
        except Exception as error:  # a library may raise anything
            raise errors.CreateFailed(exc=error) from error
        # Others write there too, and their changes must show.
        opened.dircache.use_listings_cache = False
        root = opened._strip_protocol(self._url).rstrip("/")
        if not self.shared:
            opened.makedirs(root, exist_ok=True)
        files = FsspecFiles(opened, root, self._made, self._turns)
        # Those that speak HTTP share connections among threads; the others have one.
        return files if opened.async_impl else CopyingFS(files, thread_safe=False)

    def place(self, make: bool = False) -> str:
        """Return what tells the files from others: the URL, and how they are reached."""
        protocol, _, rest = self._url.partition("://")
        server, _, path = rest.partition("/")
        login, _, host = server.rpartition("@")
        # Two users may find different files at the same path of a server, and no process shares
        # its memory with another.
        own = login.partition(":")[0] if self.shared else str(os.getpid())
        root = f"{host}/{path}".rstrip("/")
        return place_id("fsspec", own, protocol, root, described(self._options))

    def roots(self) -> Sequence[str]:
        """Return the URL without user and password."""
        return [without_secrets(self._url)]


class FsspecFiles(SpoolingFS):
    """The files of an fsspec filesystem below ``root``.

    Object stores have only the directories that the names of objects imply. An empty one is known
    from ``made`` alone.
    """

    def __init__(self, files: Any, root: str, made: Made, turns: Turns) -> None:
        super().__init__()
        self._fs = files
        self._root = root
        self._made = made
        self._turns = turns
        self._meta = {
            "case_insensitive": False,
            "network": type(files).protocol != "memory",
            "read_only": False,
            "supports_rename": False,
            "thread_safe": bool(files.async_impl),
            "unicode_paths": True,
            "virtual": False,
        }

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        """Return what is known of a file or directory: size and time, if known."""
        absolute = self.validatepath(path)
        return self._info(absolute, self._look(absolute), namespaces or ())

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""
        return [*self._listed(self.validatepath(path))]

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """Describe what a directory holds."""
        absolute = self.validatepath(path)
        found = self._listed(absolute)
        for name in islice(found, *page) if page else found:
            yield self._info(join(absolute, name), found[name], namespaces or ())

    def makedir(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> SubFS[FS]:
        """Make a directory, or remember it if the store has none."""
        absolute = self.validatepath(path)
        if self.exists(absolute):
            if not (recreate and self.isdir(absolute)):
                raise errors.DirectoryExists(path)
            return self.opendir(path)
        if not self.isdir(dirname(absolute)):
            raise errors.ResourceNotFound(path)
        with suppress(FileExistsError):  # somebody was faster
            self._fs.mkdir(self._name(absolute), create_parents=False)
        if not self._fs.isdir(self._name(absolute)):
            self._made.add(absolute.strip("/"))
        return self.opendir(path)

    def download(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Copy the contents of a file into an open binary file."""
        absolute = self._file(path)
        with NamedTemporaryFile() as local:
            try:
                self._fs.get_file(self._name(absolute), local.name)
            except FileNotFoundError:
                raise errors.ResourceNotFound(path) from None
            shutil.copyfileobj(local, file)

    def store(self, path: str, file: BinaryIO, exclusive: bool = False) -> None:
        """Store a file. Only this process keeps an ``exclusive`` one from taking another's place.

        An object store shows it as a whole; elsewhere others may see it grow.
        """
        absolute = self.validatepath(path)
        with NamedTemporaryFile() as local:
            shutil.copyfileobj(file, local)
            local.flush()
            with self._turns.of(absolute):
                try:
                    self._file(path)
                except errors.ResourceNotFound:
                    if not self.isdir(dirname(absolute)):
                        raise
                else:
                    if exclusive:
                        raise errors.FileExists(path)
                self._fs.put_file(local.name, self._name(absolute))

    def remove(self, path: str) -> None:
        """Remove a file."""
        absolute = self._file(path)
        try:
            self._fs.rm_file(self._name(absolute))
        except FileNotFoundError:
            raise errors.ResourceNotFound(path) from None

    def removedir(self, path: str) -> None:
        """Remove an empty directory."""
        absolute = self.validatepath(path)
        if absolute == "/":
            raise errors.RemoveRootError(path)
        if self._listed(absolute):
            raise errors.DirectoryNotEmpty(path)
        self._made.discard(absolute.strip("/"))
        if self._fs.isdir(self._name(absolute)):
            self._fs.rmdir(self._name(absolute))

    def setinfo(self, path: str, info: Any) -> None:
        """Do nothing if there is a file or directory, because fsspec cannot."""
        self._look(self.validatepath(path))

    def _name(self, absolute: str) -> str:
        return f"{self._root}{absolute}".rstrip("/")

    def _look(self, absolute: str) -> Mapping[str, Any]:
        """Return what fsspec says of a file or directory. Raises `ResourceNotFound`."""
        if absolute.strip("/") in self._made or (absolute == "/" and self._is_rooted()):
            return {"type": "directory"}
        try:
            found: Mapping[str, Any] = self._fs.info(self._name(absolute))
        except NOT_THERE:
            raise errors.ResourceNotFound(absolute.lstrip("/")) from None
        return found

    def _is_rooted(self) -> bool:
        # In a bucket the first file makes the directory that it is in.
        above = self._root.partition("/")[0] if self._fs.async_impl else self._root
        return any(self._fs.exists(path) for path in (self._root, above))

    def _file(self, path: str) -> str:
        absolute = self.validatepath(path)
        if self._look(absolute)["type"] == "directory":
            raise errors.FileExpected(path)
        return absolute

    def _listed(self, absolute: str) -> dict[str, Mapping[str, Any]]:
        if self._look(absolute)["type"] != "directory":
            raise errors.DirectoryExpected(absolute)
        name = self._name(absolute)
        found: dict[str, Mapping[str, Any]] = {
            made: {"type": "directory"} for made in self._made.below(absolute.strip("/"))
        }
        with suppress(*NOT_THERE):
            for entry in self._fs.ls(name, detail=True):
                listed = entry["name"].strip("/")
                if listed != name.strip("/"):  # object stores may have one for the directory
                    found[basename(listed)] = entry
        return found

    def _info(self, absolute: str, told: Mapping[str, Any], namespaces: Collection[str]) -> Info:
        type_ = TYPES.get(told["type"], ResourceType.unknown)
        is_dir = type_ is ResourceType.directory
        details: dict[str, Any] = {"type": int(type_)}
        if "details" in namespaces:
            details["size"] = told.get("size") or 0
            details["modified"] = None if is_dir else self._modified(absolute)
        return Info({"basic": {"name": basename(absolute), "is_dir": is_dir}, "details": details})

    def _modified(self, absolute: str) -> float | None:
        try:
            time = self._fs.modified(self._name(absolute))
        except NotImplementedError:
            return None
        except FileNotFoundError:
            raise errors.ResourceNotFound(absolute.lstrip("/")) from None
        return float((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def _checked_address(url: Any) -> str:
    """Return ``url``. The errors show no more of it than what stands before ``://``."""
    cure = "give it a URL that fsspec knows, such as 'gcs://bucket/files'"
    if not isinstance(url, str):
        raise ConfigurationError(f"DJFS['url'] is of type {type(url).__name__}: {cure}")
    if "::" in url:
        raise ConfigurationError("DJFS['url'] is a chain ('::'): name one filesystem alone")
    protocol = re.match(r"([a-zA-Z][a-zA-Z0-9+._-]*)://", url)
    if not protocol:
        raise ConfigurationError(f"DJFS['url'] names no protocol: {cure}")
    if protocol[1] in ON_S3:
        raise ConfigurationError(f"DJFS['url'] begins with {protocol[0]!r}: use type 's3fs'")
    return url


def _class_for(url: str) -> Any:
    """Return fsspec's class for a URL, if it can delete files."""
    try:
        from fsspec import available_protocols, get_filesystem_class
        from fsspec.asyn import AsyncFileSystem
        from fsspec.spec import AbstractFileSystem
    except ImportError as error:
        raise ConfigurationError(
            "DJFS['type'] is 'fsspec', which is not installed: pip install djpyfs[fsspec]"
        ) from error
    protocol = url.partition("://")[0]
    begins = f"DJFS['url'] begins with {protocol + '://'!r}"
    try:
        class_ = get_filesystem_class(protocol)
    except ImportError as error:
        raise ConfigurationError(f"{begins}, for which a package is missing: {error}") from error
    except ValueError as error:
        known = ", ".join(sorted(available_protocols()))
        raise ConfigurationError(f"{begins}, which fsspec does not know: use {known}") from error
    own = [vars(of) for of in class_.__mro__ if of not in (AbstractFileSystem, AsyncFileSystem)]
    if not any(name in names for names in own for name in DELETES):
        raise ConfigurationError(
            f"{begins}, where fsspec deletes nothing: files that expire need a store that does"
        )
    return class_
