"""djpyfs as a Django storage: what is uploaded into a namespace, and expires."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from os import PathLike
from pathlib import PurePath
from typing import IO, Any, cast

from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import File
from django.utils.deconstruct import deconstructible
from django.utils.functional import cached_property
from django.utils.timezone import get_default_timezone, make_naive
from fs import errors
from fs.mode import Mode
from fs.path import dirname

from .backends.spool import spool
from .errors import InvalidName
from .filesystem import ExpiringFS, get_filesystem
from .lifetimes import Seconds
from .names import SEGMENT_BYTES, without_refused_characters
from .owners import OwnedStorage, await_owner, let_rows_decide

# What the errors of PyFilesystem become.
OS_ERRORS = {
    errors.ResourceNotFound: errno.ENOENT,
    errors.FileExpected: errno.EISDIR,
    errors.DirectoryExpected: errno.ENOTDIR,
    errors.DirectoryNotEmpty: errno.ENOTEMPTY,
    errors.PermissionDenied: errno.EACCES,
}


@deconstructible(path="djpyfs.storage.ExpiringStorage")
class ExpiringStorage(OwnedStorage):
    """Keeps files in ``namespace``, under its policy::

        STORAGES = {
            "uploads": {
                "BACKEND": "djpyfs.storage.ExpiringStorage",
                "OPTIONS": {"namespace": "uploads", "default_ttl": 3600},
            },
        }

    With ``default_ttl`` (seconds, or a `timedelta`) a file lives that long from when it was
    saved, whatever the ``default_ttl`` of the namespace is. With ``allow_overwrite`` a saved file
    replaces one of the same name, instead of getting another name. Without a ``default_ttl`` it
    then keeps the deadline of the older file, as after any write.

    With ``until_committed`` (as ``default_ttl``) a file is deleted that long after it was saved,
    unless a row that names it has been committed by then: that makes it permanent, or gives it
    the ``default_ttl`` of the storage or the namespace. No transaction may take longer. With
    ``clean_up``, a file whose row was deleted or names another file is deleted after
    ``DJFS["grace"]``, unless another row names it. Both are for the names in fields of models,
    and need ``djpyfs`` in ``INSTALLED_APPS``::

        file = models.FileField(storage=ExpiringStorage("uploads", until_committed=3600))

    By hand, `expire` and `keep` set the deadline of a file or make it permanent, and `expiration`
    reads it::

        ExpiringStorage("uploads").expire("a.pdf", 3600)

    A new file's name loses the characters that no name may contain, and is cut if it is too
    long. Errors are those of Django's own storages: names that are refused, absolute ones among
    them, raise `SuspiciousFileOperation`, missing files `FileNotFoundError`, and a file without a
    URL `ValueError`. Raises `InvalidLifetime` for 0 and for what is no lifetime, and at the
    first use for one that the namespace does not allow.
    """

    def __init__(
        self,
        namespace: str,
        default_ttl: Seconds | None = None,
        allow_overwrite: bool = False,
        *,
        until_committed: Seconds | None = None,
        clean_up: bool = False,
    ) -> None:
        super().__init__(namespace, default_ttl, until_committed, clean_up)
        self.allow_overwrite = allow_overwrite

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Save a file, under another name if that one is taken; return its name."""
        given = name if name is not None else content.name
        return super().save(self._cleaned(given), content, max_length)

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Return ``name``, or one that is made from it and free."""
        return super().get_available_name(self._cleaned(name), max_length)

    def generate_filename(self, filename: str | PathLike[str]) -> str:
        """Return a name for `save`, made from what a FileField proposes."""
        return super().generate_filename(self._cleaned(filename))

    def delete(self, name: str) -> None:
        """Delete a file or an empty directory, if it is there."""
        if not name:
            raise ValueError("The name must be given to delete().")
        with suppress(FileNotFoundError), self._files(name) as (files, path):
            try:
                files.remove(path)
            except errors.FileExpected:
                files.removedir(path)

    def exists(self, name: str) -> bool:
        """Return whether there is a file or a directory."""
        with self._files(name) as (files, path):
            return files.exists(path)

    def is_name_available(self, name: str, max_length: int | None = None) -> bool:
        """Return whether a file can be saved under ``name``."""
        if self.allow_overwrite:
            return max_length is None or len(name) <= max_length
        return super().is_name_available(name, max_length)

    def get_alternative_name(self, file_root: str, file_ext: str) -> str:
        """Return another name for a file whose own is taken, or too long."""
        if self.allow_overwrite:
            return _fitting(file_root, file_ext)
        return _fitting(file_root, super().get_alternative_name("", file_ext))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of the directories and of the files in a directory."""
        with self._files(path) as (files, directory):
            entries = list(files.scandir(directory))
        found: dict[bool, list[str]] = {True: [], False: []}
        for entry in entries:
            found[entry.is_dir].append(entry.name)
        return found[True], found[False]

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        with self._files(name) as (files, path):
            return files.getsize(path)

    def url(self, name: str | None) -> str:
        """Return a URL, as `ExpiringFS.get_url` does."""
        with self._files(name or "") as (files, path):
            return files.get_url(path)

    def expire(self, name: str, seconds: Seconds | None = None, days: float | None = None) -> None:
        """Set the deadline of a file, as `ExpiringFS.expire` does.

        Rows that name it now no longer change that, even when they let go of it. A row that comes
        to name it later does.
        """
        with self._files(name) as (files, path):
            files.expire(path, seconds, days)

    def keep(self, name: str) -> None:
        """Make a file permanent, whatever rows name it or let go of it, now or later."""
        with self._files(name) as (files, path):
            files.expire(path, expires=False)

    def expiration(self, name: str) -> datetime | None:
        """Return a file's deadline as an aware datetime (UTC), or None if it has none."""
        with self._files(name) as (files, path):
            return files.expiration(path)

    def get_accessed_time(self, name: str) -> datetime:
        """Return when a file was last read. Raises `NotImplementedError` if nobody knows."""
        return self._time(name, "accessed")

    def get_created_time(self, name: str) -> datetime:
        """Return when a file was made. Raises `NotImplementedError` if nobody knows.

        On disk that is, as in Django, when anything about the file last changed.
        """
        return self._time(name, "created", "metadata_changed")

    def get_modified_time(self, name: str) -> datetime:
        """Return when a file was last written. Raises `NotImplementedError` if nobody knows."""
        return self._time(name, "modified")

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        with self._files(name) as (files, path), ExitStack() as on_error:
            file = on_error.enter_context(_opened(files, path, mode))
            if Mode(mode).writing and self.until_committed is not None:
                await_owner(self, path)
            on_error.pop_all()
            return _StoredFile(file, name, mode, self)

    def _save(self, name: str, content: File[Any]) -> str:
        self.check_followed()
        path = (self._replaced if self.allow_overwrite else self._created)(name, content)
        let_rows_decide(self, path)
        if hasattr(content, "temporary_file_path"):  # it has been moved, as Django puts it
            with suppress(FileNotFoundError):
                os.remove(content.temporary_file_path())
        return path

    def _replaced(self, name: str, content: File[Any]) -> str:
        with self._files(name) as (files, path):
            with _opened(files, path, "wb") as file:
                _copy(content, file)
            if self.default_ttl is not None and self.until_committed is None:
                files.expire(path, self.default_ttl)
            return path

    def _created(self, name: str, content: File[Any]) -> str:
        with spool() as copy:  # what comes from elsewhere may not be there for a second try
            _copy(content, copy)
            while True:
                copy.seek(0)
                with self._files(name) as (files, path):
                    try:
                        with _opened(files, path, "xb") as file:
                            shutil.copyfileobj(copy, file)
                        return path
                    except errors.FileExists:  # somebody has been faster
                        name = self._another_name(path)

    def _another_name(self, taken: str) -> str:
        name = self.get_available_name(taken)
        if name != taken:
            return name
        # What is there cannot be seen: it has expired, and could not be deleted yet.
        return self.get_available_name(self.get_alternative_name(*os.path.splitext(taken)))

    def _time(self, name: str, which: str, instead: str = "") -> datetime:
        with self._files(name) as (files, path):
            info = files.getinfo(path, ["details"])
        time: datetime | None = getattr(info, which) or (instead and getattr(info, instead)) or None
        if time is None:
            raise NotImplementedError(f"this backend does not say when a file was {which}")
        return time if settings.USE_TZ else make_naive(time, get_default_timezone())

    def _cleaned(self, name: str | PathLike[str]) -> str:
        """Return the name that a file which would be called ``name`` may have."""
        above, slash, own = without_refused_characters(_posix(name)).rpartition("/")
        ending = "".join(PurePath(own).suffixes)
        cleaned = f"{above}{slash}{_fitting(own.removesuffix(ending), ending)}"
        # Before Django does, whose messages hold the name as it is, however long.
        with self._files(cleaned):
            return cleaned

    @contextmanager
    def _files(self, name: str | PathLike[str]) -> Iterator[tuple[ExpiringFS, str]]:
        path = _posix(name)
        try:
            if path.startswith("/"):
                raise InvalidName(name, "is absolute: the names of a storage are relative")
            files = get_filesystem(self.namespace)
            if (life := self.until_committed or self.default_ttl) is not None:
                files.set_default_life(life)
            yield files, files.validatepath(path).lstrip("/")
        except InvalidName as error:
            raise SuspiciousFileOperation(str(error)) from error
        except errors.NoURL as error:
            raise ValueError(str(error)) from error
        except errors.FSError as error:
            for kind, number in OS_ERRORS.items():
                if isinstance(error, kind):
                    raise OSError(number, str(error)) from error
            raise


def _posix(name: str | PathLike[str]) -> str:
    return str(name).replace("\\", "/")


def _fitting(root: str, ending: str) -> str:
    """Return a file name with that end, and as much of ``root`` as there is room for."""
    room = max(0, SEGMENT_BYTES - len(ending.encode()))
    return root.encode()[:room].decode(errors="ignore") + ending


def _copy(content: File[Any], file: IO[Any]) -> None:
    for chunk in content.chunks():
        file.write(chunk.encode() if isinstance(chunk, str) else chunk)


def _opened(files: ExpiringFS, path: str, mode: str) -> IO[Any]:
    """Open a file; one that is new makes the directories that it needs."""
    try:
        try:
            return files.open(path, mode)
        except errors.ResourceNotFound:
            if not Mode(mode).create:
                raise
            files.makedirs(dirname(path), recreate=True)
            return files.open(path, mode)
    except errors.DirectoryExpected as error:
        raise FileExistsError(errno.EEXIST, str(error)) from error


class _StoredFile(File):  # type: ignore[type-arg]  # which it takes in its stubs alone
    """An open file that knows its storage; Django would look for it on this machine."""

    def __init__(self, file: Any, name: str, mode: str, storage: ExpiringStorage) -> None:
        super().__init__(file, name)
        self.mode = mode
        self._storage = storage

    def __exit__(self, *error: Any) -> None:
        cast(IO[Any], self.file).__exit__(*error)  # Django's own does not tell of the error

    def open(self, mode: str | None = None, *args: Any, **kwargs: Any) -> _StoredFile:
        """Go back to the beginning, or open the file again after it was closed."""
        if not self.closed:
            self.seek(0)
        else:
            self.file = self._storage.open(self.name or "", mode or self.mode).file
        return self

    @cached_property
    def size(self) -> int:
        return self._storage.size(self.name or "")
