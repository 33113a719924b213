"""Any Django storage of ``STORAGES`` as a filesystem."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from itertools import islice
from secrets import token_hex
from threading import Lock
from typing import Any, BinaryIO, ClassVar

from django.core.checks import CheckMessage, Error
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, InMemoryStorage, Storage, storages
from django.utils.timezone import is_naive, make_aware, override
from fs import errors
from fs.base import FS
from fs.enums import ResourceType
from fs.info import Info
from fs.osfs import OSFS
from fs.path import basename, dirname, join
from fs.permissions import Permissions
from fs.subfs import SubFS

from ..errors import BackendUnavailable, ConfigurationError
from ..names import RESERVED, Entry
from . import LATE, Backend, Lease, Outcome, described, is_away, place_id, reason, size_told
from .deletion import delete_below
from .spool import Made, SpoolingFS, Turns
from .tree import PRUNINGS_WITHSTOOD, Descent, pruned

# How storages say that something is no directory: the third is Django's in memory, and the last
# cannot list at all.
NO_DIRECTORY = (
    FileNotFoundError,
    NotADirectoryError,
    FileExistsError,
    ValueError,
    NotImplementedError,
)
# What storages, those of django-storages above all, call where they keep files. They may have it
# from settings of their own.
WHERE = "account_name azure_container bucket_name host location root_path".split()
DIRECTORIES_REMEMBERED = 1_000


class DjpyfsStorage(Storage):
    """A storage that keeps its files in djpyfs; no backend can keep its own there."""


class StorageBackend(Backend):
    """Keeps each namespace below a directory of its name in the storage ``alias``."""

    options = frozenset({"alias"})
    deletions_at_once: ClassVar[int] = 16

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._alias = options.get("alias", "default")
        configured: Any = storages.backends  # which the stubs take for storages
        if self._alias not in configured:
            known = ", ".join(map(repr, configured))
            raise ConfigurationError(
                f"DJFS['alias'] is {self._alias!r}, which STORAGES does not have: use {known}"
            )

        self._settings = configured[self._alias]
        # By its name: Django makes a storage, and imports it, at the first use.
        self.shared = not self._settings["BACKEND"].endswith("InMemoryStorage")
        self._id = token_hex()
        self._making = Lock()
        self._descent: Descent | None = None
        #: True once the storage is known to have no directories, only names with slashes.
        self.flat = False
        #: The directories that were made here, and those in which a file was written.
        self.made = Made()
        self.written: set[str] = set()
        self.turns = Turns()

    @property
    def late(self) -> float:  # type: ignore[override]  # which depends on what is below
        """0 in memory, and on disk where `delete` looks at the files itself; see `Backend`."""
        is_ours = isinstance(self.storage(), InMemoryStorage) or self._deleted_here()
        return 0 if is_ours else LATE

    def storage(self) -> Storage:
        """Return the storage; Django makes it at the first use.

        Raises `BackendUnavailable` if its server is away; `ConfigurationError` if it cannot be
        made, or keeps its files in djpyfs.
        """
        with self._making:  # or threads that need it at the same time would each get one
            try:
                storage = storages[self._alias]
            except Exception as error:  # its OPTIONS may raise anything
                kind = BackendUnavailable if is_away(error) else ConfigurationError
                told = f"STORAGES[{self._alias!r}] cannot be made: {reason(error)}"
                raise kind(told) from error
        if isinstance(storage, DjpyfsStorage):
            raise ConfigurationError(
                f"DJFS['alias'] is {self._alias!r}, a storage that keeps its files in djpyfs: "
                "name one that keeps them itself, or use its backend's own 'type'"
            )
        return storage

    def make_filesystem(self, namespace: str) -> FS:
        """Return the filesystem of a namespace; its files are not asked for yet."""
        self.storage()
        return StorageFileSystem(self, namespace)

    def is_there(self) -> bool:
        """Return whether the directory is there, of a storage that has one."""
        try:
            return self._on_disk() is None or bool(self.place())
        except BackendUnavailable:
            return False

    def _on_disk(self) -> Descent | None:
        """Return the way into the directory of a storage that has one."""
        storage = self.storage()
        if not isinstance(storage, FileSystemStorage):
            return None
        location = str(storage.location)
        if self._descent is None or self._descent.root != location:
            self._descent = Descent(location)
        return self._descent

    def _deleted_here(self) -> Descent | None:
        """Return the way into a directory whose storage deletes as Django does, and no more."""
        unlinks = type(self.storage()).delete is FileSystemStorage.delete
        return self._on_disk() if unlinks else None

    def answers(self) -> bool:
        """Return whether the storage answers the question for a file."""
        try:
            self.storage().exists(f"{RESERVED}/answers")
        except NO_DIRECTORY:
            pass
        except Exception:  # a storage may raise anything if its server is away
            return False
        return self.is_there()

    def place(self, make: bool = False) -> str:
        """Return what tells the storage from others: its location, or its configuration.

        On disk that is the identity of the directory, which is made only to ``make`` it.
        """
        if descent := self._on_disk():
            return place_id("disk", descent.place(make))
        if not self.shared:
            return place_id(self._id, str(os.getpid()))
        return place_id(*(self.roots() or (self._settings["BACKEND"], *self._described())))

    def _described(self) -> Sequence[str]:
        """Return how the storage is configured, and where it keeps files if that is known."""
        storage = self.storage()
        known = {name: getattr(storage, name, None) for name in WHERE}
        where = {name: _without_login(it) for name, it in known.items() if isinstance(it, str)}
        return described(self._settings.get("OPTIONS", {})), described(where)

    def mark(self) -> int | None:
        """Return the time in ns by the clock of the disk that dates what is written there."""
        descent = self._deleted_here()
        return descent.mark() if descent else None

    def fence(self, entry: Entry) -> None:
        """Wait until nobody is about to delete a file in its directory. Raises `FileBusy`."""
        if descent := self._deleted_here():
            descent.fence("/".join(entry))

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        """Delete files; on disk a link itself, and nothing behind it.

        There the directories that become empty go as well, or they would stay forever.
        """
        if descent := self._deleted_here():
            return delete_below(descent, entries, lease, writers_hold=False)
        return super().delete(entries, lease)

    def delete_one(self, entry: Entry) -> None:
        """Delete a file by the storage's own method, and directories that become empty."""
        descent = self._on_disk()
        if descent is None:
            return super().delete_one(entry)
        try:
            with descent.opened() as root:
                self._delete_below(descent, root, "/".join(entry))
        except FileNotFoundError:
            raise errors.ResourceNotFound(entry.path) from None

    def _delete_below(self, descent: Descent, root: int, path: str) -> None:
        *above, name = path.split("/")
        with pruned(root, above) as ways:
            descent.walk(ways, above)
            os.lstat(name, dir_fd=ways[-1])
            self.storage().delete(path)

    def roots(self) -> Sequence[str]:
        """Return the directory of a storage on disk, or bucket and location of one on S3."""
        if self.checks():
            return []
        storage: Any = self.storage()
        if isinstance(storage, FileSystemStorage):
            return [str(storage.location)]
        if hasattr(storage, "endpoint_url") and hasattr(storage, "bucket_name"):
            endpoint = _without_login(storage.endpoint_url or "s3:").rstrip("/")
            return [f"{endpoint}/{storage.bucket_name}/{storage.location}"]
        return []

    def checks(self) -> list[CheckMessage]:
        """Report a storage that cannot be made, or cannot hold djpyfs' files."""
        try:
            self.storage()
        except (BackendUnavailable, ConfigurationError) as error:
            return [Error(str(error), obj="settings.DJFS", id="djpyfs.E006")]
        return []

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Return the storage's own URL, which may outlive the file's deadline."""
        if download_as is not None:
            raise errors.NoURL(path, "download")
        try:
            return self.storage().url(f"{namespace}/{path}")
        except (NotImplementedError, ValueError):  # which is how storages say that they have none
            raise errors.NoURL(path, "download") from None

    def size(self, entry: Entry) -> int | None:
        """Return the size in bytes of a file that the storage keeps on disk."""
        descent = self._on_disk()
        return size_told(lambda: descent.lstat("/".join(entry))) if descent else None


class StorageFileSystem(SpoolingFS):
    """The files that a storage keeps below one name.

    A storage has only the directories that the names of its files imply. Only the backend knows
    of an empty one.
    """

    def __init__(self, backend: StorageBackend, namespace: str) -> None:
        super().__init__()
        self._backend = backend
        self._storage = backend.storage
        self._namespace = namespace
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
        """Return what is known of a file or directory: size and times, if known."""
        absolute = self.validatepath(path)
        return self._info(absolute, self._is_dir(absolute), namespaces or ())

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""
        directories, files = self._listed(path)
        return [*directories, *files]

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """Describe what a directory holds: from one listing, if no details are wanted."""
        directories, files = self._listed(path)
        names = [*((name, True) for name in directories), *((name, False) for name in files)]
        for name, is_dir in islice(names, *page) if page else names:
            yield self._info(join(self.validatepath(path), name), is_dir, namespaces or ())

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
            self._backend.made.add(self._name(absolute))
        return self.opendir(path)

    def download(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Copy the contents of a file into an open binary file."""
        absolute = self.validatepath(path)
        if self._type(self._name(absolute)) is not ResourceType.file:
            raise errors.FileExpected(path)
        with self._reading(self._name(absolute)):
            try:
                source = self._storage().open(self._name(absolute))
            except OSError:
                self._file(path)  # which raises if there is nothing, or no file
                raise
            with source:
                shutil.copyfileobj(source, file)

    def _reading(self, name: str) -> AbstractContextManager[Any]:
        # All who open one of its files share it, writers included.
        in_memory = isinstance(self._storage(), InMemoryStorage)
        return self._backend.turns.of(name) if in_memory else nullcontext()

    def store(self, path: str, file: BinaryIO, exclusive: bool = False) -> None:
        """Store a file.

        If the storage does not replace files, for a moment neither the old nor the new one is
        there. If it does, only this process keeps an ``exclusive`` one from taking another's place.
        """
        absolute = self.validatepath(path)
        storage, name = self._storage(), self._name(absolute)
        self._backend.place(make=True)
        # Whatever has become of its claim, a sweeper that is about to delete must not find this.
        self._backend.fence(Entry(self._namespace, absolute.lstrip("/")))
        with self._backend.turns.of(name):
            if self._make_way(path):
                if exclusive:
                    raise errors.FileExists(path)
                if storage.get_available_name(name) != name:
                    storage.delete(name)
            stored = self._saved(name, file)
            if stored != name:  # somebody was faster, and the storage does not replace
                storage.delete(stored)
                raise errors.FileExists(path) if exclusive else errors.ResourceLocked(path)

    def _saved(self, name: str, file: BinaryIO) -> str:
        """Save a file under that name, or another one; return which."""
        storage = self._storage()
        for _ in range(PRUNINGS_WITHSTOOD if isinstance(storage, FileSystemStorage) else 0):
            # A sweep has pruned the directory that Django has just made, or found.
            with suppress(FileNotFoundError, FileExistsError):
                return storage.save(name, File(file))
        return storage.save(name, File(file))

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._storage().delete(self._name(self._file(path)))

    def removedir(self, path: str) -> None:
        """Remove an empty directory."""
        absolute = self.validatepath(path)
        if absolute == "/":
            raise errors.RemoveRootError(path)
        self._backend.written.discard(self._name(absolute))  # it may be gone with its last file
        if self.listdir(absolute):
            raise errors.DirectoryNotEmpty(path)
        self._backend.made.discard(self._name(absolute))
        if self._exists(absolute):
            self._storage().delete(self._name(absolute))

    def setinfo(self, path: str, info: Any) -> None:
        """Do nothing if there is a file or directory, because a storage cannot."""
        self._is_dir(self.validatepath(path))

    def _file(self, path: str) -> str:
        absolute = self.validatepath(path)
        if self._is_dir(absolute):
            raise errors.FileExpected(path)
        return absolute

    def _name(self, absolute: str) -> str:
        return f"{self._namespace}{absolute}".strip("/")

    def _make_way(self, path: str) -> bool:
        """Look whether a file can be written, and return whether there is one."""
        absolute = self.validatepath(path)
        try:
            self._file(path)
        except errors.ResourceNotFound:
            self._check_parent(path, dirname(absolute))
            return False
        return True

    def _check_parent(self, path: str, directory: str) -> None:
        written, name = self._backend.written, self._name(directory)
        if name in written:  # or each new file would list all the others
            return
        if not self.isdir(directory):
            raise errors.ResourceNotFound(path)
        if len(written) >= DIRECTORIES_REMEMBERED:
            written.clear()
        written.add(name)

    def _is_dir(self, absolute: str) -> bool:
        """Tell a directory from a file, without listing what is beside it."""
        if absolute == "/" or self._name(absolute) in self._backend.made:
            return True
        if self._exists(absolute):
            return not self._backend.flat and self._is_existing_dir(absolute)
        if not any(self._entries(absolute)):  # names alone may make it a directory
            raise errors.ResourceNotFound(absolute.lstrip("/"))
        return True

    def _exists(self, absolute: str) -> bool:
        try:
            return self._storage().exists(self._name(absolute))
        except NO_DIRECTORY:  # nor is there one above
            return False

    def _is_existing_dir(self, absolute: str) -> bool:
        """Tell a directory from a file, given that the storage has one of them."""
        try:
            listing = self._storage().listdir(self._name(absolute))
        except NO_DIRECTORY:
            return False
        if any(listing):
            return True
        # An empty directory, or a file where there are none: then its parent is nothing either.
        if not self._exists(dirname(absolute)) and self._exists(absolute):
            self._backend.flat = True
            return False
        directories, files = self._entries(dirname(absolute))
        if basename(absolute) not in directories | files:  # it has just been removed
            raise errors.ResourceNotFound(absolute.lstrip("/"))
        return basename(absolute) in directories

    def _listed(self, path: str) -> tuple[set[str], set[str]]:
        absolute = self.validatepath(path)
        directories, files = self._entries(absolute)
        if not (directories or files or self._is_dir(absolute)):
            raise errors.DirectoryExpected(path)
        return directories, files

    def _entries(self, absolute: str) -> tuple[set[str], set[str]]:
        directories = self._backend.made.below(self._name(absolute))
        try:
            stored, files = self._storage().listdir(self._name(absolute))
        except NO_DIRECTORY:
            stored, files = [], []
        return directories | set(stored), set(files) - {""}

    def _info(self, absolute: str, is_dir: bool, namespaces: Collection[str]) -> Info:
        type_ = ResourceType.directory if is_dir else ResourceType.file
        details: dict[str, Any] = {"type": int(type_)}
        if "details" in namespaces:
            details |= {"size": 0, "modified": None} if is_dir else self._details(absolute)
        return Info({"basic": {"name": basename(absolute), "is_dir": is_dir}, "details": details})

    def _type(self, name: str) -> ResourceType:
        """Return the type of what is not a directory: a file, or on disk a pipe, for instance."""
        storage = self._storage()
        if isinstance(storage, FileSystemStorage):
            with suppress(FileNotFoundError):
                return OSFS._get_type_from_stat(os.stat(storage.path(name)))
        return ResourceType.file

    def _details(self, absolute: str) -> dict[str, Any]:
        storage, name = self._storage(), self._name(absolute)
        # Not the time of access, which some storages move when they are asked.
        times = {"created": storage.get_created_time, "modified": storage.get_modified_time}
        told = {"size": storage.size(name), "type": int(self._type(name))}
        return told | {key: _timestamp(of, name) for key, of in times.items()}


def _timestamp(time_of: Callable[[str], datetime], name: str) -> float | None:
    # A naive time is in the time zone of the site, not in that of a visitor, as some storages
    # would have it.
    with override(None):
        try:
            time = time_of(name)
        except NotImplementedError:
            return None
        return (make_aware(time) if is_naive(time) else time).timestamp()


def _without_login(url: str) -> str:
    return re.sub("//[^/]*@", "//", url)
