"""The files of a namespace held against its records: which have none, and which are none's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain, islice

from fs.base import FS
from fs.errors import ResourceNotFound
from fs.info import Info
from fs.memoryfs import MemoryFS
from fs.walk import Walker

from . import conf
from .backends import backend_for
from .conf import LONGEST_LIFE, SECOND
from .errors import InvalidLifetime, InvalidName
from .inspection import EPOCH, microseconds
from .names import Entry, check_namespace, check_path
from .places import records_of

BATCH = 500


class Kind(StrEnum):
    """What an audit has found."""

    NO_RECORD = "no record"
    NO_FILE = "no file"
    REFUSED = "name refused"


@dataclass(frozen=True)
class Finding:
    """A file without a record, a record without a file, or a file that can have no record."""

    kind: Kind
    namespace: str
    path: str
    #: The deadline that the file has got, where it was adopted.
    deadline: datetime | None = None


@dataclass
class Totals:
    """What an audit has looked at, and found, so far."""

    files: int = 0
    records: int = 0
    no_record: int = 0
    no_file: int = 0
    refused: int = 0
    adopted: int = 0


class Audit:
    """One walk through namespaces; it only reads, unless it shall ``adopt``.

    With ``adopt``, a file without a record gets a deadline that many seconds after it was last
    modified, but `grace` from now at the earliest. Calls ``on_batch`` with the totals so far.
    Raises `InvalidLifetime`.
    """

    def __init__(
        self, adopt: float | None = None, on_batch: Callable[[Totals], object] | None = None
    ) -> None:
        if adopt is not None and not 0 <= adopt <= LONGEST_LIFE:
            raise InvalidLifetime(f"a life of {adopt!r} s: use 0 to {LONGEST_LIFE}")
        self.totals = Totals()
        self._on_batch = on_batch or (lambda totals: None)
        self._ttl = None if adopt is None else round(adopt * SECOND)
        self._settings = conf.current()

    def run(self, namespace: str) -> Iterator[Finding]:
        """Return what is found in ``namespace``, while it is walked through.

        Raises `InvalidName`, before anything is looked at.
        """
        backend = backend_for(self._settings, check_namespace(namespace))
        self._records = records_of(self._settings, backend, make=self._ttl is not None)
        # To open a namespace that is not there would make it.
        files = backend.open(namespace) if backend.has(namespace) else MemoryFS()
        return chain(self._without_record(namespace, files), self._without_file(namespace, files))

    # -- files without a record

    def _without_record(self, namespace: str, files: FS) -> Iterator[Finding]:
        for paths in _batches(_walk(files)):
            self.totals.files += len(paths)
            entries = []
            for path in paths:
                try:
                    entries.append(Entry(namespace, check_path(path)))
                except InvalidName:
                    self.totals.refused += 1
                    yield Finding(Kind.REFUSED, namespace, path)
            untracked = [entry for entry in self._untracked(entries) if files.exists(entry.path)]
            self.totals.no_record += len(untracked)
            deadlines = self._adopt(untracked, files)
            for entry in untracked:
                yield Finding(Kind.NO_RECORD, *entry, deadlines.get(entry))
            self._on_batch(self.totals)

    def _untracked(self, entries: Sequence[Entry]) -> list[Entry]:
        _, deadlines = self._records.deadlines([entry.member for entry in entries])
        return [entry for entry, due in zip(entries, deadlines, strict=True) if not due]

    # -- adoption

    def _adopt(self, entries: Sequence[Entry], files: FS) -> Mapping[Entry, datetime]:
        if self._ttl is None or not entries:
            return {}
        # First the latest deadline that may come of it: from then on the record tells of every
        # write, and a time of modification that is read now is not outdated when it is used.
        now = self._records.counts().now
        latest = now + max(self._ttl, self._settings.grace)
        new = set(self._records.adopt({entry.member: latest for entry in entries}))
        adopted = {}
        for entry in entries:
            if entry.member in new and (deadline := self._settle(entry, files, now, latest)):
                adopted[entry] = EPOCH + timedelta(microseconds=deadline)
        self.totals.adopted += len(adopted)
        return adopted

    def _settle(self, entry: Entry, files: FS, now: int, latest: int) -> int:
        """Bring an adopted file's deadline forward; return it, or 0 where the file is gone."""
        try:
            modified = files.getinfo(entry.path, ["details"]).modified
        except ResourceNotFound:
            self._records.place_at(entry.member, 0, expected=latest)
            return 0
        if modified is None or self._ttl is None:
            return latest
        wanted = microseconds(modified) + self._ttl
        deadline = min(latest, max(wanted, now + self._settings.grace))
        self._records.place_at(entry.member, deadline, expected=latest)
        return deadline

    # -- records without a file

    def _without_file(self, namespace: str, files: FS) -> Iterator[Finding]:
        for _, records in self._records.scan(f"{namespace}/".encode()):
            members = [record.member for record in records]
            self.totals.records += len(members)
            paths = {member: _path_in(namespace, member) for member in members}
            missing = [member for member in members if not _has_file(paths[member], files)]
            # A sweep may have taken both since.
            _, deadlines = self._records.deadlines(missing) if missing else (0, [])
            for member, deadline in zip(missing, deadlines, strict=True):
                if deadline:
                    self.totals.no_file += 1
                    yield Finding(Kind.NO_FILE, namespace, paths[member])
            self._on_batch(self.totals)


class _WithinWalker(Walker):
    """Stays within the namespace: a link to a directory may lead anywhere."""

    def check_open_dir(self, fs: FS, path: str, info: Info) -> bool:
        return not _is_link(info)


def _walk(files: FS) -> Iterator[str]:
    # A sweep prunes what has become empty.
    walker = _WithinWalker(on_error=lambda _, error: isinstance(error, ResourceNotFound))
    entries: Iterable[tuple[str, Info]] = walker.info(files, namespaces=["basic", "link"])
    found = (path for path, info in entries if not info.is_dir and not _is_link(info))
    return (path.lstrip("/") for path in found)


def _is_link(info: Info) -> bool:
    return info.get("link", "target") is not None


def _batches(paths: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(paths, BATCH)):
        yield batch


def _path_in(namespace: str, member: bytes) -> str:
    return member.decode(errors="backslashreplace")[len(namespace) + 1 :]


def _has_file(path: str, files: FS) -> bool:
    try:
        return bool(files.isfile(check_path(path)))
    except InvalidName:
        return False
