"""Compares files with their records: which files have none, and which records have no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import chain, islice
from typing import NamedTuple

from fs.base import FS
from fs.errors import PermissionDenied, ResourceNotFound
from fs.info import Info
from fs.walk import Walker

from . import conf
from .backends import Backend, backend_at, backend_for, reason
from .conf import LONGEST_LIFE, SECOND
from .errors import BackendUnavailable, InvalidLifetime, InvalidName, printable
from .expirations import store_for
from .inspection import below, names_of
from .lifetimes import datetime_of, microseconds
from .names import RESERVED, Entry, check_namespace, check_path
from .owners import await_owners
from .places import Place, records_of

BATCH = 500
OnError = Callable[[str, Exception], bool]  # may it go on?


class Kind(StrEnum):
    """What an audit has found."""

    NO_RECORD = "no record"
    NO_FILE = "no file"
    REFUSED = "name refused"
    AWAY = "not there"
    UNREADABLE = "not read"


@dataclass(frozen=True)
class Finding:
    """A file without a record, a record without a file, or a file that can have no record.

    Or a place that is missing now, or a shard of the records or a directory that cannot be read;
    then ``path`` says why.
    """

    kind: Kind
    #: The directory of the file, as `inspection.TrackedFile` has it.
    namespace: str
    path: str
    #: The deadline that the file was given, or would be given, on adoption.
    deadline: datetime | None = None


@dataclass
class Totals:
    """What an audit has looked at, and found, so far."""

    files: int = 0
    records: int = 0
    no_record: int = 0
    no_file: int = 0
    refused: int = 0
    away: int = 0
    #: Shards that cannot be read: nothing is said of the files that have their records there.
    unreadable: int = 0
    #: Directories that may not be listed: nothing is said of the files there.
    unlisted: int = 0
    #: Files without a record that somebody has made permanent: nothing is wrong with them.
    permanent: int = 0
    adopted: int = 0

    @property
    def differences(self) -> int:
        """How many findings there were, except for files that have a deadline now."""
        findings = self.no_record + self.no_file + self.refused + self.away
        return findings + self.unreadable + self.unlisted - self.adopted


class _Area(NamedTuple):
    """The files of a place below one directory; ``""`` stands for all of them."""

    place: Place
    root: str

    def files(self) -> FS | None:
        # Opening a namespace that is not there would make it.
        backend = self.place.backend
        return backend.open(self.root) if not self.root or backend.has(self.root) else None


class Audit:
    """One walk through namespaces; it only reads, unless it is to ``adopt``.

    With ``adopt``, a file without a record gets a deadline that many seconds after it was last
    modified, but `grace` from now at the earliest; with ``dry_run`` it is only reported. If its
    storage leaves it to rows, it stays while one names it. Permanent files are left alone.

    Calls ``on_batch`` with the totals so far. Raises `InvalidLifetime`.
    """

    def __init__(
        self,
        adopt: float | None = None,
        on_batch: Callable[[Totals], object] | None = None,
        dry_run: bool = False,
    ) -> None:
        if adopt is not None and not 0 <= adopt <= LONGEST_LIFE:
            raise InvalidLifetime(f"a lifetime of {adopt!r} s: use 0 to {LONGEST_LIFE}")
        self.totals = Totals()
        self._on_batch = on_batch or (lambda totals: None)
        self._ttl = None if adopt is None else round(adopt * SECOND)
        self._makes = adopt is not None and not dry_run
        self._settings = conf.current()

    def run(self, *wheres: str) -> Iterator[Finding]:
        """Return what is found, while it is walked through.

        Each of ``wheres`` is a namespace, with all below it, or ``prefix/*``, as
        `inspection.tracked_files` has it; without any, all namespaces are meant. Raises
        `InvalidName`, `BackendUnavailable` if none of their places is there, and
        `RecordStoreError` if no record can be read, before anything is looked at.
        """
        roots = _topmost([below(where) for where in wheres] or [""])
        areas, problems = [], []
        for root in roots:
            for backend in self._backends(root):
                try:
                    records = records_of(self._settings, backend, make=self._makes)
                except BackendUnavailable as error:
                    problems.append((root, error))
                else:
                    areas.append(_Area(Place(backend, records), root))
        if not areas:
            raise problems[0][1]
        known = list(dict.fromkeys(area.place.records for area in areas))
        seen, unreadable = store_for(self._settings).readable(known)
        records_seen = dict(zip(known, seen, strict=True))
        areas = [
            _Area(place._replace(records=records_seen[place.records]), root)
            for place, root in areas
        ]
        away = [Finding(Kind.AWAY, root, printable(str(error))) for root, error in problems]
        unread = [Finding(Kind.UNREADABLE, "", printable(str(error))) for error in unreadable]
        self.totals.away, self.totals.unreadable = len(away), len(unread)
        return chain(away, unread, self._findings(areas))

    def _backends(self, root: str) -> Iterable[Backend]:
        """Return the backends that files below a directory may be on."""
        settings = self._settings
        inside = f"{root}/" if root else ""
        policies = [settings.policy_for(root) if root else settings.policy]
        policies += [own for name, own in settings.namespaces.items() if name.startswith(inside)]
        return dict.fromkeys(backend_at(settings, policy.placement) for policy in policies)

    def _findings(self, areas: Sequence[_Area]) -> Iterator[Finding]:
        for area in areas:
            yield from self._without_record(area)
        by_place: dict[str, list[_Area]] = {}
        for area in areas:
            by_place.setdefault(area.place.records.place, []).append(area)
        for own in by_place.values():
            yield from self._without_file(own[0].place, [area.root for area in own])

    # -- files without a record

    def _without_record(self, area: _Area) -> Iterator[Finding]:
        files = area.files()
        if files is None:
            return
        unlisted: list[Finding] = []

        def is_passed_over(path: str, error: Exception) -> bool:
            if isinstance(error, PermissionDenied):
                directory = _joined(area.root, path.strip("/"))
                unlisted.append(Finding(Kind.UNREADABLE, directory, reason(error)))
            # A sweep removes directories that have become empty.
            return isinstance(error, PermissionDenied | ResourceNotFound)

        for paths in _batches(self._owned(area, files, is_passed_over)):
            self.totals.files += len(paths)
            entries: dict[Entry, str] = {}
            for path in paths:
                namespace, _, name = _joined(area.root, path).rpartition("/")
                try:
                    entries[Entry(check_namespace(namespace), check_path(name))] = path
                except InvalidName:
                    self.totals.refused += 1
                    yield Finding(Kind.REFUSED, namespace, name)
            untracked = self._untracked(area, files, entries)
            self.totals.no_record += len(untracked)
            deadlines = self._adopt(area, files, untracked)
            for entry in untracked:
                yield Finding(Kind.NO_RECORD, *entry, deadlines.get(entry))
            self._on_batch(self.totals)
        self.totals.unlisted += len(unlisted)
        yield from unlisted

    def _owned(self, area: _Area, files: FS, on_error: OnError) -> Iterator[str]:
        """Yield the files that `get_filesystem` would find here: others may use a bucket too."""
        for path in _walk(files, on_error):
            name = _joined(area.root, path)
            if name.partition("/")[0] == RESERVED:
                continue
            if backend_for(self._settings, name.rpartition("/")[0]) is area.place.backend:
                yield path

    def _untracked(
        self, area: _Area, files: FS, entries: Mapping[Entry, str]
    ) -> Mapping[Entry, str]:
        records = area.place.records
        seen = [it for it in entries if records.shard_of(it.member) in records.shards]
        _, deadlines = records.deadlines([entry.member for entry in seen])
        known = zip(seen, deadlines, strict=True)
        left = {entry: entries[entry] for entry, deadline in known if not deadline}
        kept = set(records.permanent([entry.member for entry in left]))
        self.totals.permanent += len(kept)
        return {
            entry: path
            for entry, path in left.items()
            if entry.member not in kept and files.exists(path)
        }

    # -- adoption

    def _adopt(
        self, area: _Area, files: FS, entries: Mapping[Entry, str]
    ) -> Mapping[Entry, datetime]:
        if self._ttl is None or not entries:
            return {}
        # Begin with the latest deadline that it may get: from then on the record shows every
        # write, so a modification time that is read now is still true when it is used.
        records = area.place.records
        now = records.counts().now
        lives = {entry: self._life(entry, self._ttl) for entry in entries}
        latests = {it.member: now + max(life, self._settings.grace) for it, life in lives.items()}
        new = set(latests)
        if self._makes:
            new &= set(records.adopt(latests))
        adopted = {}
        for entry, path in entries.items():
            if entry.member in new:
                latest = latests[entry.member]
                deadline = self._deadline(files, path, lives[entry], now, latest)
                if self._makes and deadline != latest:
                    records.place_at(entry.member, deadline, expected=latest)
                if deadline:
                    adopted[entry] = datetime_of(deadline)
        if self._makes:
            await_owners(self._settings, records, adopted)
        self.totals.adopted += len(adopted) if self._makes else 0
        return adopted

    def _life(self, entry: Entry, ttl: int) -> int:
        longest = self._settings.policy_for(entry.directory).max_ttl
        return ttl if longest is None else min(ttl, longest)

    def _deadline(self, files: FS, path: str, ttl: int, now: int, latest: int) -> int:
        """Return the deadline of a file that is adopted, or 0 if it is gone."""
        try:
            modified = files.getinfo(path, ["details"]).modified
        except ResourceNotFound:
            return 0
        wanted = latest if modified is None else microseconds(modified) + ttl
        return min(latest, max(wanted, now + self._settings.grace))

    # -- records without a file

    def _without_file(self, place: Place, roots: Sequence[str]) -> Iterator[Finding]:
        # One scan for all namespaces, because each scan reads all records.
        beginnings = tuple(f"{root}/".encode() if root else b"" for root in roots)
        for _, records in place.records.scan(beginnings):
            found = [record.member for record in records]
            self.totals.records += len(found)
            missing = [member for member in found if not _has_file(place.backend, member)]
            # A sweep may have taken both since.
            _, deadlines = place.records.deadlines(missing) if missing else (0, [])
            for member, deadline in zip(missing, deadlines, strict=True):
                if deadline:
                    self.totals.no_file += 1
                    yield Finding(Kind.NO_FILE, *names_of(member))
            self._on_batch(self.totals)


class _WithinWalker(Walker):
    """Stays within the namespace: a link to a directory may lead anywhere."""

    def check_open_dir(self, fs: FS, path: str, info: Info) -> bool:
        return not _is_link(info)


def _walk(files: FS, on_error: OnError) -> Iterator[str]:
    walker = _WithinWalker(on_error=on_error)
    entries: Iterable[tuple[str, Info]] = walker.info(files, namespaces=["basic", "link"])
    found = (path for path, info in entries if not info.is_dir and not _is_link(info))
    return (path.lstrip("/") for path in found)


def _is_link(info: Info) -> bool:
    return info.get("link", "target") is not None


def _batches(paths: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(paths, BATCH)):
        yield batch


def _topmost(roots: Iterable[str]) -> list[str]:
    """Return those of ``roots`` that lie below no other."""
    found: list[str] = []
    for root in sorted(set(roots)):
        if not any(not above or root.startswith(f"{above}/") for above in found):
            found.append(root)
    return found


def _joined(root: str, path: str) -> str:
    return f"{root}/{path}" if root else path


def _has_file(backend: Backend, member: bytes) -> bool:
    try:
        files, path = backend.reach(Entry.of_member(member))
        return bool(files.isfile(path))
    except (InvalidName, ResourceNotFound):
        return False
    except PermissionDenied:  # nobody can tell
        return True
