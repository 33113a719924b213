"""Any Django storage of ``STORAGES`` as a filesystem."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.utils.timezone import is_naive, make_aware
from fs import errors
from fs.base import FS
from fs.enums import ResourceType
from fs.info import Info
from fs.path import basename, dirname
from fs.permissions import Permissions
from fs.subfs import SubFS

from ..errors import ConfigurationError
from ..names import Entry
from . import Backend, size_on_disk
from .spool import IN_MEMORY, open_spooled


class StorageBackend(Backend):
    """Keeps each namespace below a directory of its name in the storage ``alias``."""

    options = frozenset({"alias"})

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._alias = options.get("alias", "default")
        configured: Any = storages.backends  # which the stubs take for storages
        if self._alias not in configured:
            known = ", ".join(map(repr, configured))
            raise ConfigurationError(
                f"DJFS['alias'] is {self._alias!r}, which STORAGES does not have: use {known}"
            )

        # By its name: Django makes a storage, and imports it, at the first use.
        self.shared = not configured[self._alias]["BACKEND"].endswith("InMemoryStorage")

    def storage(self) -> Storage:
        """Return the storage; Django makes it at the first use."""
        return storages[self._alias]

    def make_filesystem(self, namespace: str) -> FS:
        """Return the filesystem of a namespace; nothing is asked for yet."""
        return StorageFileSystem(self.storage, namespace)

    def is_there(self) -> bool:
        """Tell whether the directory is there, of a storage that has one."""
        try:
            return os.path.isdir(self.storage().path(""))
        except NotImplementedError:
            return True

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Return the storage's own address, which may outlive the file's deadline."""
        if download_as is not None:
            raise errors.NoURL(path, "download")
        try:
            return self.storage().url(f"{namespace}/{path}")
        except (NotImplementedError, ValueError):  # which is how storages say that they have none
            raise errors.NoURL(path, "download") from None

    def size(self, entry: Entry) -> int | None:
        """Return the size in bytes of a file that the storage keeps on disk."""
        storage = self.storage()
        if isinstance(storage, FileSystemStorage):  # others have paths too, where no file is
            return size_on_disk(storage.path("/".join(entry)))
        return None


class StorageFileSystem(FS):
    """What a storage keeps under one name.

    A storage has no directories but those that the names of its files imply. An empty one is
    known to this object alone.
    """

    def __init__(self, storage: Callable[[], Storage], namespace: str) -> None:
        super().__init__()
        self._storage = storage
        self._namespace = namespace
        self._made: set[str] = set()
        self._meta = {
            "case_insensitive": False,
            "network": True,
            "read_only": False,
            "supports_rename": False,
            "thread_safe": True,
            "unicode_paths": True,
            "virtual": False,
        }

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        """Return what is known of a file or directory: size and times, where they are told."""
        absolute = self.validatepath(path)
        is_dir = self._is_dir(absolute)
        type_ = ResourceType.directory if is_dir else ResourceType.file
        details: dict[str, Any] = {"type": int(type_)}
        if "details" in (namespaces or ()):
            details |= {"size": 0, "modified": None} if is_dir else self._details(absolute)
        basic = {"name": basename(absolute), "is_dir": is_dir}
        return Info({"basic": basic, "details": details})

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""
        absolute = self.validatepath(path)
        if not self._is_dir(absolute):
            raise errors.DirectoryExpected(path)
        directories, files = self._entries(absolute)
        return [*directories, *files]

    def makedir(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> SubFS[FS]:
        """Remember a directory, which is there as soon as it holds a file."""
        absolute = self.validatepath(path)
        if not self.isdir(dirname(absolute)):
            raise errors.ResourceNotFound(path)
        if self.exists(absolute) and not (recreate and self.isdir(absolute)):
            raise errors.DirectoryExists(path)
        if absolute != "/":
            self._made.add(absolute)
        return self.opendir(path)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file; what is written is stored when it is closed."""
        return open_spooled(self, path, mode)

    def download(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Copy the contents of a file into an open binary file."""
        absolute = self._file(path)
        with self._storage().open(self._name(absolute)) as source:
            shutil.copyfileobj(source, file)

    def upload(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Store the rest of an open binary file; for a moment there is neither old nor new."""
        with suppress(errors.ResourceNotFound):
            self.remove(path)
        absolute = self.validatepath(path)
        if not self.isdir(dirname(absolute)):
            raise errors.ResourceNotFound(path)
        name = self._name(absolute)
        with SpooledTemporaryFile(max_size=IN_MEMORY) as copy:  # a storage wants to seek
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            stored = self._storage().save(name, File(copy))
        if stored != name:  # somebody was faster, and a storage does not replace
            self._storage().delete(stored)
            raise errors.ResourceLocked(path)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._storage().delete(self._name(self._file(path)))

    def removedir(self, path: str) -> None:
        """Remove an empty directory."""
        absolute = self.validatepath(path)
        if absolute == "/":
            raise errors.RemoveRootError(path)
        if self.listdir(absolute):
            raise errors.DirectoryNotEmpty(path)
        self._made.discard(absolute)
        if self.exists(absolute):
            self._storage().delete(self._name(absolute))

    def setinfo(self, path: str, info: Any) -> None:
        """Do nothing, for a storage cannot, where there is a file or directory."""
        self._is_dir(self.validatepath(path))

    def _file(self, path: str) -> str:
        absolute = self.validatepath(path)
        if self._is_dir(absolute):
            raise errors.FileExpected(path)
        return absolute

    def _name(self, absolute: str) -> str:
        return f"{self._namespace}{absolute}".rstrip("/")

    def _is_dir(self, absolute: str) -> bool:
        # Only a listing tells a file from a directory, on every storage.
        if absolute == "/":
            return True
        directories, files = self._entries(dirname(absolute))
        name = basename(absolute)
        if name not in directories and name not in files:
            raise errors.ResourceNotFound(absolute.lstrip("/"))
        return name in directories

    def _entries(self, absolute: str) -> tuple[set[str], set[str]]:
        directories = {basename(made) for made in self._made.copy() if dirname(made) == absolute}
        try:
            stored, files = self._storage().listdir(self._name(absolute))
        # All of them say that it is no directory, the last in Django's storage in memory.
        except (FileNotFoundError, NotADirectoryError, FileExistsError, ValueError):
            stored, files = [], []
        return directories | set(stored), set(files) - {""}

    def _details(self, absolute: str) -> dict[str, Any]:
        storage, name = self._storage(), self._name(absolute)
        # Not the time of access, which some storages move when they are asked.
        times = {"created": storage.get_created_time, "modified": storage.get_modified_time}
        return {"size": storage.size(name), **{key: _told(of, name) for key, of in times.items()}}


def _told(time_of: Callable[[str], datetime], name: str) -> float | None:
    try:
        time = time_of(name)
    except NotImplementedError:
        return None
    return (make_aware(time) if is_naive(time) else time).timestamp()
