"""djpyfs as a Django storage: what is uploaded into a namespace, and expires."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from os import PathLike
from typing import Any, BinaryIO, Literal

from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import File
from django.core.files.storage import Storage
from django.utils.deconstruct import deconstructible
from django.utils.functional import cached_property
from django.utils.timezone import make_naive
from fs import errors
from fs.path import dirname

from .errors import InvalidName
from .filesystem import ExpiringFS, get_filesystem


@deconstructible(path="djpyfs.storage.ExpiringStorage")
class ExpiringStorage(Storage):
    """Keeps files in ``namespace``, under its policy.

    With ``default_ttl`` (seconds) a file lives so long from when it was saved, whatever the
    ``default_ttl`` of the namespace. Errors are those of Django's own storages: names that are
    refused raise `SuspiciousFileOperation`, files that are not there `FileNotFoundError`, and a
    file without an address `ValueError`. Raises `InvalidLifetime` at the first use for a
    ``default_ttl`` that the namespace does not allow.
    """

    def __init__(self, namespace: str, default_ttl: float | None = None) -> None:
        self.namespace = namespace
        self.default_ttl = default_ttl

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Save a file, under another name where that one is taken; return its name."""
        self._check(name if name is not None else content.name)
        return super().save(name, content, max_length)

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Return ``name``, or one that is made from it and free."""
        self._check(name)
        return super().get_available_name(name, max_length)

    def generate_filename(self, filename: str | PathLike[str]) -> str:
        """Return a name for `save`, made from what a FileField proposes."""
        self._check(filename)
        return super().generate_filename(filename)

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
        """Tell whether there is a file or a directory."""
        with self._files(name) as (files, path):
            return files.exists(path)

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
        """Return an address as `ExpiringFS.get_url` gives it."""
        with self._files(name or "") as (files, path):
            return files.get_url(path)

    def get_accessed_time(self, name: str) -> datetime:
        """Return when a file was last read; `NotImplementedError` where nobody knows."""
        return self._time(name, "accessed")

    def get_created_time(self, name: str) -> datetime:
        """Return when a file was made; `NotImplementedError` where nobody knows."""
        return self._time(name, "created")

    def get_modified_time(self, name: str) -> datetime:
        """Return when a file was last written; `NotImplementedError` where nobody knows."""
        return self._time(name, "modified")

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        with self._files(name) as (files, path):
            return _StoredFile(files.open(path, mode), name, self)

    def _save(self, name: str, content: File[Any]) -> str:
        while True:
            with self._files(name) as (files, path):
                try:
                    with _new_file(files, path) as file:
                        for chunk in content.chunks():
                            file.write(chunk.encode() if isinstance(chunk, str) else chunk)
                    return path
                except errors.FileExists:  # somebody has been faster
                    name = self.get_available_name(name)

    def _time(self, name: str, which: Literal["accessed", "created", "modified"]) -> datetime:
        with self._files(name) as (files, path):
            info = files.getinfo(path, ["details"])
        time: datetime | None = getattr(info, which)
        if time is None:
            raise NotImplementedError(f"this back-end does not tell when a file was {which}")
        return time if settings.USE_TZ else make_naive(time)

    def _check(self, name: str | PathLike[str]) -> None:
        # Before Django does, whose messages would hold the name as it is.
        with self._files(name):
            pass

    @contextmanager
    def _files(self, name: str | PathLike[str]) -> Iterator[tuple[ExpiringFS, str]]:
        path = str(name).replace("\\", "/")
        try:
            files = get_filesystem(self.namespace)
            if self.default_ttl is not None:
                files.set_default_life(self.default_ttl)
            yield files, files.validatepath(path).lstrip("/")
        except InvalidName as error:
            raise SuspiciousFileOperation(str(error)) from error
        except errors.ResourceNotFound as error:
            raise FileNotFoundError(str(error)) from error
        except errors.NoURL as error:
            raise ValueError(str(error)) from error


def _new_file(files: ExpiringFS, path: str) -> BinaryIO:
    try:
        return files.openbin(path, "x")
    except errors.ResourceNotFound:  # so is the directory; on S3 there need not be one
        files.makedirs(dirname(path), recreate=True)
        return files.openbin(path, "x")


class _StoredFile(File):  # type: ignore[type-arg]  # which it takes in its stubs alone
    """An open file whose size the storage knows; Django would look for it on this machine."""

    def __init__(self, file: Any, name: str, storage: ExpiringStorage) -> None:
        super().__init__(file, name)
        self._storage = storage

    @cached_property
    def size(self) -> int:
        return self._storage.size(self.name or "")
