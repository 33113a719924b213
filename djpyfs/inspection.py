"""A look at the records: how many, which ones, and what was set aside. All reads are bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import ceil

from . import conf
from .backends import Backend, backend_for
from .conf import SECOND
from .errors import DjpyfsError, InvalidName
from .expirations import ExpirationStore, GivenUp, Record, State, store_for
from .names import Entry, check_namespace, check_path

EPOCH = datetime.fromtimestamp(0, UTC)
MICROSECOND = timedelta(microseconds=1)
PAGE = 1_000  # records set aside that are read at a time


@dataclass(frozen=True)
class TrackedFile:
    """A file with a record."""

    namespace: str
    path: str
    state: State
    #: None where only that is known: it has passed.
    deadline: datetime | None
    #: Seconds until the deadline, negative once it has passed; None where that is not known.
    remaining: float | None


@dataclass(frozen=True)
class Status:
    """How the record store is doing, at one moment."""

    #: Records that wait for their deadline or for a sweep.
    tracked: int
    #: Of these: their deadline has passed.
    overdue: int
    #: Age of the oldest deadline that has passed, in seconds.
    oldest_overdue: float
    #: Of those tracked: a sweep is at them.
    claimed: int
    #: Beside those tracked: deletions that were given up.
    set_aside: int
    #: The deadlines that come next, overdue ones first.
    next_deadlines: Sequence[TrackedFile]


@dataclass(frozen=True)
class Listing:
    """Tracked files, soonest first; ``complete`` tells whether these are all there are."""

    files: Sequence[TrackedFile]
    complete: bool


@dataclass(frozen=True)
class Sample:
    """In which namespaces the records are."""

    #: How many records were looked at.
    records: int
    #: Whether these are all there are.
    complete: bool
    #: How many of them are in which namespace, or below which first segment (``usage/*``).
    by_prefix: Mapping[str, int]


@dataclass(frozen=True)
class Requests:
    """How often a sweep would ask somebody else; an estimate where not all files were looked at."""

    #: Where the files are: system calls on disk, requests on S3, calls of a storage.
    files: int
    #: Round trips to the record store.
    records: int


@dataclass(frozen=True)
class Preview:
    """What a sweep would delete if it came now."""

    #: How many files are overdue, up to the limit.
    files: int
    #: How many of them were looked at, the most overdue first.
    sampled: int
    #: How many of those looked at stay, because their namespace is on hold.
    held: int
    #: The bytes of the others, as far as known.
    bytes: int
    #: How many of the others have a size that only a request for each would tell.
    unmeasured: int
    requests: Requests
    #: How many of the others are in which namespace, the most first.
    by_namespace: Mapping[str, int]


@dataclass(frozen=True)
class Horizon:
    """A stretch of time from now on, in ``parts`` of the same length."""

    part: timedelta
    parts: int


@dataclass(frozen=True)
class SetAsideFile:
    """A file whose deletion was given up."""

    namespace: str
    path: str
    reason: str
    attempts: int
    at: datetime


def status(upcoming: int = 10) -> Status:
    """Return counts of all records, and the ``upcoming`` next deadlines."""
    store = _store()
    counts = store.counts()
    return Status(
        tracked=counts.tracked,
        overdue=counts.overdue,
        oldest_overdue=counts.oldest / SECOND,
        claimed=counts.claimed,
        set_aside=counts.set_aside,
        next_deadlines=[_tracked(record, counts.now) for record in store.earliest(upcoming)],
    )


def deadlines_ahead(*horizons: Horizon) -> list[list[int]]:
    """Count, for each of the ``horizons``, the deadlines in each of its parts."""
    store = _store()
    now, _ = store.deadline(b"")
    return [
        list(
            store.due_between([now + part * (h.part // MICROSECOND) for part in range(h.parts + 1)])
        )
        for h in horizons
    ]


def tracked_files(
    where: str | None, limit: int = 1_000, looks: int = 1_000_000, text: str = ""
) -> Listing:
    """Return the tracked files of a namespace, of all below ``prefix/*``, or of all namespaces.

    Up to ``limit`` files whose paths contain ``text``, after a look at about ``looks`` records of
    all namespaces. Raises `InvalidName`.
    """
    store = _store()
    found = store.find(_beginning(where), limit, looks, text.encode())
    now = store.counts().now
    return Listing([_tracked(record, now) for record in found.records], found.complete)


def tracked_file(namespace: str, path: str) -> TrackedFile | None:
    """Return one file, or None where it has no record. Raises `InvalidName`."""
    store = _store()
    record = store.record(Entry(check_namespace(namespace), check_path(path)).member)
    return _tracked(record, store.counts().now) if record else None


def preview(limit: int | None = None, looks: int = 10_000) -> Preview:
    """Return what a sweep of ``limit`` files would delete; ``looks`` of them are looked at.

    No back-end is asked over a network.
    """
    settings, store = conf.current(), _store()
    counts = store.counts()
    files = counts.overdue if limit is None else min(limit, counts.overdue)
    first = store.earliest(min(files, looks)) if files else []
    overdue = [record.member for record in first if record.deadline <= counts.now]
    namespaces = Counter(_names(member)[0] for member in overdue)
    held = sum(namespaces.pop(name) for name in list(namespaces) if settings.policy_for(name).hold)
    backends = [_deleting(settings, member) for member in overdue]
    sizes = [
        backend.size(Entry.of_member(member))
        for member, backend in zip(overdue, backends, strict=True)
        if backend
    ]
    return Preview(
        files=files,
        sampled=len(overdue),
        held=held,
        bytes=sum(filter(None, sizes)),
        unmeasured=sizes.count(None),
        requests=_requests(overdue, backends, files),
        by_namespace=dict(namespaces.most_common()),
    )


def _deleting(settings: conf.Settings, member: bytes) -> Backend | None:
    """Return the back-end that would delete a file; None where nobody would."""
    try:
        namespace = Entry.of_member(member).namespace
        held = settings.policy_for(namespace).hold
        return None if held else backend_for(settings, namespace)
    except DjpyfsError:
        return None


def _requests(overdue: Sequence[bytes], backends: Sequence[Backend | None], files: int) -> Requests:
    """Count as a sweep of ``files`` would ask, by those that were looked at."""
    store, size = _store(), conf.current().batch_size
    shards: dict[int, list[Backend | None]] = {}
    for member, backend in zip(overdue, backends, strict=True):
        shards.setdefault(store.shard_of(member), []).append(backend)
    batches = [own[i : i + size] for own in shards.values() for i in range(0, len(own), size)]
    deletions = sum(
        ceil(count / backend.files_per_request)
        for batch in batches
        for backend, count in Counter(batch).items()
        if backend
    )
    scale = files / len(overdue) if overdue else 0
    # Each shard is asked for its first batch, and told of each; the report is noted in the end.
    records = len(store.shards) + ceil(len(batches) * scale) + bool(overdue)
    return Requests(ceil(deletions * scale), records)


def sample(looks: int = 20_000, most: int = 20) -> Sample:
    """Look at about ``looks`` records; return the ``most`` frequent beginnings of namespaces."""
    prefixes: Counter[str] = Counter()
    complete = True
    for looked, records in _store().scan(b""):
        complete = looks > 0
        if not complete:
            break
        looks -= looked
        prefixes.update(_prefix(record.member) for record in records)
    return Sample(prefixes.total(), complete, dict(prefixes.most_common(most)))


def files_set_aside(where: str | None = None) -> Iterator[SetAsideFile]:
    """Yield the files whose deletion was given up, in no order; ``where`` as `tracked_files`."""
    for page in _pages_set_aside(where):
        for record in page:
            namespace, path = _names(record.member)
            at = datetime.fromtimestamp(record.at, UTC)
            yield SetAsideFile(namespace, path, record.reason, record.attempts, at)


def retry(where: str | None = None, paths: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Have files that were set aside due now: ``paths`` of a namespace, or all of `tracked_files`'
    ``where``, or all there are. Returns namespace and path of those that were set aside.
    """
    return _release(_store().retry, where, paths)


def forget(where: str | None = None, paths: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Drop the records of files that were set aside, as `retry` chooses them. The files stay."""
    return _release(_store().forget, where, paths)


def _release(
    verb: Callable[[Sequence[bytes]], Sequence[bytes]], where: str | None, paths: Sequence[str]
) -> list[tuple[str, str]]:
    if where is not None and paths:
        pages: Iterable[Sequence[bytes]] = [_members(where, paths)]
    else:
        pages = ([record.member for record in page] for page in _pages_set_aside(where))
    return [_names(member) for page in pages for member in verb(page)]


def _members(where: str, paths: Sequence[str]) -> Sequence[bytes]:
    """Return the members of files, or of broken records set aside that show under these names."""
    try:
        entries = [Entry(check_namespace(where), check_path(path)) for path in paths]
        return [Entry.of_member(entry.member).member for entry in entries]
    except InvalidName:
        shown = {(where, path) for path in paths}
        pages = chain.from_iterable(_pages_set_aside(None))
        found = [record.member for record in pages if _names(record.member) in shown]
        if not found:
            raise
        return found


def _pages_set_aside(where: str | None) -> Iterator[Sequence[GivenUp]]:
    prefix = _beginning(where)
    page, cursor = _store().set_aside(prefix, limit=PAGE)
    yield page
    while cursor:
        page, cursor = _store().set_aside(prefix, cursor, PAGE)
        yield page


def microseconds(moment: datetime) -> int:
    """Return an aware point in time as the record store counts."""
    return (moment - EPOCH) // MICROSECOND


def _store() -> ExpirationStore:
    return store_for(conf.current())


def _beginning(where: str | None) -> bytes:
    """Return what the members of a namespace, or of all below ``prefix/*``, or all begin with."""
    if where is None:
        return b""
    if where.endswith("/*"):
        return f"{check_namespace(where[:-2])}/".encode()
    return f"{check_namespace(where)}\0".encode()


def _names(member: bytes) -> tuple[str, str]:
    """Return namespace and path of any record, of one that no file could have as well."""
    namespace, _, path = member.decode(errors="backslashreplace").partition("\0")
    return namespace, path


def _prefix(member: bytes) -> str:
    first, below, _ = _names(member)[0].partition("/")
    return f"{first}/*" if below else first


def _tracked(record: Record, now: int) -> TrackedFile:
    namespace, path = _names(record.member)
    if not record.deadline:
        return TrackedFile(namespace, path, record.state, None, None)
    deadline = EPOCH + timedelta(microseconds=record.deadline)
    remaining = (record.deadline - now) / SECOND
    return TrackedFile(namespace, path, record.state, deadline, remaining)
