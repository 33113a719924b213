"""A look at the records: how many, which ones, and what was set aside. All reads are bounded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import nlargest, nsmallest
from itertools import chain, islice
from math import ceil
from operator import attrgetter
from typing import NamedTuple

from . import conf
from .conf import SECOND
from .errors import InvalidName, RecordStoreError, printable
from .expirations import (
    Counts,
    Expirations,
    GivenUp,
    Record,
    State,
    file_name,
    find,
    soonest,
    store_for,
    total,
)
from .lifetimes import datetime_of
from .names import Entry, check_namespace, check_path
from .places import Known, Place, places_here, records_known

PAGE = 1_000  # records set aside that are read at a time


@dataclass(frozen=True)
class TrackedFile:
    """A file with a record."""

    namespace: str
    path: str
    state: State
    deadline: datetime
    #: Seconds until the deadline, negative once it has passed.
    remaining: float


@dataclass(frozen=True)
class Status:
    """The state of the record store at one moment."""

    #: Records that wait for their deadline or for a sweep.
    tracked: int
    #: Of these: their deadline has passed.
    overdue: int
    #: Age of the oldest deadline that has passed, in seconds.
    oldest_overdue: float
    #: Of those overdue, also while a sweep has claimed them again: a deletion has failed, and is
    #: retried; the namespace is on hold; the backend is away, or who owns the file is not known.
    retried: int
    held: int
    postponed: int
    #: Of those tracked: a sweep has claimed them.
    claimed: int
    #: Beside those tracked: deletions that were given up.
    set_aside: int
    #: The deadlines that come next, overdue ones first.
    next_deadlines: Sequence[TrackedFile]
    #: Whether a worker keeps the time of each place here: files go within about a second then.
    #: None if the shard that knows cannot be read.
    punctual: bool | None
    #: Over how many shards the records are spread and, while `reshard` moves them, will be.
    shards: int
    shards_soon: int
    #: Records of files in places that this process does not know, or that are not there now:
    #: how many there are, by the name of the place. A process that knows the place deletes them.
    elsewhere: Mapping[str, int]
    #: Why some shards cannot be read; their records are in none of the numbers.
    unreadable: Sequence[str]


@dataclass(frozen=True)
class Listing:
    """Tracked files, soonest first; ``complete`` says whether these are all there are."""

    files: Sequence[TrackedFile]
    complete: bool
    #: Why some shards cannot be read, as in `Status`.
    unreadable: Sequence[str] = ()


@dataclass
class Share:
    """How many of the records that were looked at are in a namespace."""

    files: int = 0
    #: Of these: their deadline has passed; they were set aside.
    overdue: int = 0
    set_aside: int = 0


@dataclass(frozen=True)
class Sample:
    """In which namespaces the records are."""

    #: How many records were looked at.
    records: int
    #: Whether these are all there are.
    complete: bool
    #: How many of them are in which namespace, or below which first segment (``usage/*``).
    by_prefix: Mapping[str, Share]
    #: How many more such beginnings were seen.
    more: int


@dataclass(frozen=True)
class Requests:
    """The requests of a sweep; an estimate if not all files were looked at."""

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
    #: The bytes of the others, as far as known; an estimate if not all files were looked at.
    bytes: int
    #: How many of those looked at have a size that only a request for each would tell.
    unmeasured: int
    requests: Requests
    #: How many of those looked at are in which namespace, the most first.
    by_namespace: Mapping[str, int]
    #: How many more namespaces were seen.
    more: int
    #: Why some shards cannot be read, as in `Status`.
    unreadable: Sequence[str]


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


@dataclass(frozen=True)
class SetAside:
    """Files set aside, newest first; ``complete`` says whether these are all there are."""

    files: Sequence[SetAsideFile]
    complete: bool
    #: Why some shards cannot be read, as in `Status`.
    unreadable: Sequence[str] = ()


def status(upcoming: int = 10) -> Status:
    """Return counts of all records, and the ``upcoming`` next deadlines."""
    settings = conf.current()
    known = records_known(settings)
    counted = {records: records.counts() for records in known.records}
    counts, spread = total(counted.values()), store_for(settings).spread()
    return Status(
        tracked=counts.tracked,
        overdue=counts.overdue,
        oldest_overdue=counts.oldest / SECOND,
        retried=counts.retried,
        held=counts.held,
        postponed=counts.postponed,
        claimed=counts.claimed,
        set_aside=counts.set_aside,
        next_deadlines=[_tracked(record, counts.now) for record in _earliest(counted, upcoming)],
        punctual=_is_punctual(settings, known.here),
        shards=spread.shards,
        shards_soon=spread.soon,
        elsewhere=_elsewhere(known, counted),
        unreadable=_messages(known.problems),
    )


def _messages(problems: Iterable[Exception]) -> list[str]:
    # A server that is away is the same problem for every place.
    return list(dict.fromkeys(printable(str(problem)) for problem in problems))


def _is_punctual(settings: conf.Settings, here: Sequence[Place]) -> bool | None:
    try:
        kept = store_for(settings).timekeepers([place.records for place in here])
        return len(kept) == len(here)
    except RecordStoreError:
        return None


def _elsewhere(known: Known, counted: Mapping[Expirations, Counts]) -> Mapping[str, int]:
    here = {place.records.place for place in known.here}
    return {
        f"{known.called[records.place]} ({records.place})": waiting
        for records, counts in counted.items()
        if records.place not in here and (waiting := counts.tracked + counts.set_aside)
    }


def _earliest(known: Iterable[Expirations], limit: int) -> Sequence[Record]:
    return soonest(chain(*(records.earliest(limit) for records in known)), limit)


def deadlines_ahead(*horizons: Horizon) -> list[list[int]]:
    """Count, for each of the ``horizons``, the deadlines in each of its parts."""
    known = _records()
    now = total(records.counts() for records in known).now
    return [_due_ahead(known, now, horizon) for horizon in horizons]


def _due_ahead(known: Sequence[Expirations], now: int, horizon: Horizon) -> list[int]:
    edges = [
        now + part * (horizon.part // timedelta(microseconds=1))
        for part in range(horizon.parts + 1)
    ]
    nothing = [0] * horizon.parts
    return [sum(bar) for bar in zip(nothing, *(it.due_between(edges) for it in known), strict=True)]


def tracked_files(
    where: str | None, limit: int = 1_000, looks: int = 1_000_000, text: str = ""
) -> Listing:
    """Return the tracked files of a namespace, of all below ``prefix/*``, or of all namespaces.

    Up to ``limit`` files whose paths contain ``text``, after a look at about ``looks`` records of
    all namespaces. Raises `InvalidName`.
    """
    known, beginning = records_known(conf.current()), _beginning(where)
    steps = chain(*(records.scan(beginning, text.encode()) for records in known.records))
    found = find(steps, limit, looks)
    now = total(records.counts() for records in known.records).now
    files = [_tracked(record, now) for record in found.records]
    return Listing(files, found.complete, _messages(known.problems))


def tracked_file(namespace: str, path: str) -> TrackedFile | None:
    """Return one file, or None if it has no record. Raises `InvalidName`."""
    member = Entry(check_namespace(namespace), check_path(path)).member
    for records in _records():
        if record := records.record(member):
            return _tracked(record, records.counts().now)
    return None


def preview(limit: int | None = None, looks: int = 10_000, most: int = 20) -> Preview:
    """Return what a sweep of ``limit`` files would delete; ``looks`` of them are looked at.

    It names no more than ``most`` namespaces.

    No backend is asked over a network.
    """
    settings = conf.current()
    here = places_here(settings)
    seen, problems = store_for(settings).readable([place.records for place in here])
    places = [place._replace(records=own) for place, own in zip(here, seen, strict=True)]
    counts = total(place.records.counts() for place in places)
    files = counts.overdue if limit is None else min(limit, counts.overdue)
    found = (
        _Overdue(place, record.member, record.deadline, _is_held(settings, record.member))
        for place in places
        for record in place.records.earliest(min(files, looks))
        if record.deadline <= counts.now and record.state is not State.CLAIMED
    )
    overdue = nsmallest(min(files, looks), found, key=attrgetter("deadline"))
    going = [it for it in overdue if not it.is_held]
    sizes = [size for it in going if (size := it.size()) is not NO_FILE]
    scale = files / len(overdue) if overdue else 0
    namespaces = Counter(names_of(it.member)[0] for it in going)
    return Preview(
        files=files,
        sampled=len(overdue),
        held=len(overdue) - len(going),
        bytes=round(sum(filter(None, sizes)) * scale),
        unmeasured=sizes.count(None),
        requests=_requests(settings, overdue, files, len(places)),
        by_namespace=dict(namespaces.most_common(most)),
        more=max(0, len(namespaces) - most),
        unreadable=_messages(problems),
    )


NO_FILE = -1  # the size of what a record that can be no file's names


class _Overdue(NamedTuple):
    """A record that a sweep would claim."""

    place: Place
    member: bytes
    deadline: int
    is_held: bool

    def size(self) -> int | None:
        try:
            return self.place.backend.size(Entry.of_member(self.member))
        except InvalidName:
            return NO_FILE


def _is_held(settings: conf.Settings, member: bytes) -> bool:
    return settings.policy_for(names_of(member)[0]).hold


def _requests(
    settings: conf.Settings, overdue: Sequence[_Overdue], files: int, places: int
) -> Requests:
    """Estimate the requests of a sweep of ``files`` from those that were looked at."""
    size = settings.batch_size
    shards: dict[tuple[str, int], list[_Overdue]] = {}
    for it in overdue:
        of = it.place.records
        shards.setdefault((of.place, of.shard_of(it.member)), []).append(it)
    batches = [own[i : i + size] for own in shards.values() for i in range(0, len(own), size)]
    deletions = sum(
        ceil(sum(not it.is_held for it in batch) / batch[0].place.backend.files_per_request)
        for batch in batches
    )
    scale = files / len(overdue) if overdue else 0
    # All shards are asked at once whether there is anything; each that has is asked for its first
    # batch, for the second while that is deleted, and told of each; the report is noted in the end.
    # If the store of a backend may ask for fewer deletions, Redis is asked whether it has.
    ahead = [
        len(own) > size and own[0].place.backend.deletions_at_once > 1 for own in shards.values()
    ]
    paced = {it.place.records.place for it in overdue if it.place.backend.throttles}
    claims = len(shards) + sum(ahead)
    records = bool(places) + len(paced) + claims + ceil(len(batches) * scale) + bool(overdue)
    return Requests(ceil(deletions * scale), records)


def sample(looks: int = 20_000, most: int = 20) -> Sample:
    """Look at about ``looks`` records; return ``most`` beginnings of namespaces.

    Those with files set aside come first, then those with the most files.
    """
    known = _records()
    now = total(records.counts() for records in known).now
    shares: defaultdict[str, Share] = defaultdict(Share)
    complete = True
    for looked, records in chain(*(one.scan(b"") for one in known)):
        complete = looks > 0
        if not complete:
            break
        looks -= looked
        for record in records:
            share, given_up = shares[_prefix(record.member)], record.state is State.SET_ASIDE
            share.files += 1
            share.set_aside += given_up
            share.overdue += record.deadline <= now and not given_up
    first = nlargest(most, shares.items(), lambda it: (it[1].set_aside > 0, it[1].files, it[0]))
    records_seen = sum(share.files for share in shares.values())
    return Sample(records_seen, complete, dict(first), len(shares) - len(first))


def files_set_aside(
    where: str | None = None, limit: int = 1_000, looks: int = 100_000, text: str = ""
) -> SetAside:
    """Return the files whose deletion was given up, after a look at ``looks`` of these records.

    The newest come first, and those of the same second by name; ``where`` and ``text`` as
    `tracked_files`.
    """
    known, beginning = records_known(conf.current()), _beginning(where)
    records = chain.from_iterable(_pages_set_aside(known.records, beginning))
    looked_at = islice(records, looks)
    seen = [it for it in looked_at if text.encode() in file_name(it.member)]
    first = nsmallest(limit, seen, key=lambda record: (-record.at, record.member))
    files = [
        SetAsideFile(
            *names_of(record.member),
            record.reason,
            record.attempts,
            datetime.fromtimestamp(record.at, UTC),
        )
        for record in first
    ]
    complete = len(seen) == len(files) and next(records, None) is None
    return SetAside(files, complete, _messages(known.problems))


def retry(where: str | None = None, names: Sequence[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Have files that were set aside due now: those of ``names``, each a namespace and a path, or
    all of `tracked_files`' ``where``, or all there are. Returns the names of those set aside.

    Raises `RecordStoreError` if shards cannot be read, after it has done so for the others.
    """
    return _release(lambda known: known.retry, where, names)


def forget(
    where: str | None = None, names: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """Drop the records of files that were set aside, as `retry` chooses them. The files stay."""
    return _release(lambda known: known.forget, where, names)


def _release(
    verb_of: Callable[[Expirations], Callable[[Sequence[bytes]], Sequence[bytes]]],
    where: str | None,
    names: Sequence[tuple[str, str]],
) -> list[tuple[str, str]]:
    if names:
        members = _members(names)
        return [names_of(member) for known in _records() for member in verb_of(known)(members)]
    known, beginning = records_known(conf.current()), _beginning(where)
    released = [
        names_of(member)
        for records in known.records
        for page in _pages_of(records, beginning)
        for member in verb_of(records)([record.member for record in page])
    ]
    if known.problems:
        raise known.problems[0]
    return released


def _members(names: Sequence[tuple[str, str]]) -> Sequence[bytes]:
    """Return the members of files, or of broken records set aside that show under these names."""
    try:
        entries = [Entry(check_namespace(where), check_path(path)) for where, path in names]
        return [Entry.of_member(entry.member).member for entry in entries]
    except InvalidName:
        shown = set(names)
        pages = chain.from_iterable(_pages_set_aside(_records(), b""))
        found = [record.member for record in pages if names_of(record.member) in shown]
        if not found:
            raise
        return found


def _pages_set_aside(known: Sequence[Expirations], prefix: bytes) -> Iterator[Sequence[GivenUp]]:
    return chain(*(_pages_of(records, prefix) for records in known))


def _pages_of(known: Expirations, prefix: bytes) -> Iterator[Sequence[GivenUp]]:
    page, cursor = known.set_aside(prefix, limit=PAGE)
    yield page
    while cursor:
        page, cursor = known.set_aside(prefix, cursor, PAGE)
        yield page


def _records() -> Sequence[Expirations]:
    return records_known(conf.current()).records


def below(where: str) -> str:
    """Return the directory that a person means by ``x`` or ``x/*``. Raises `InvalidName`."""
    directory = check_namespace(where.removesuffix("/*"))
    if "*" in directory.split("/"):
        raise InvalidName(where, "stands for no namespace: use 'prefix/*', or leave it out for all")
    return directory


def _beginning(where: str | None) -> bytes:
    """Return the beginning of all members below a namespace."""
    return b"" if where is None else f"{below(where)}/".encode()


def names_of(member: bytes) -> tuple[str, str]:
    """Return directory and name of any record, even of one that no file could have."""
    namespace, _, path = member.decode(errors="backslashreplace").rpartition("/")
    return namespace, path


def _prefix(member: bytes) -> str:
    first, below, _ = names_of(member)[0].partition("/")
    return f"{first}/*" if below else first


def _tracked(record: Record, now: int) -> TrackedFile:
    namespace, path = names_of(record.member)
    deadline = datetime_of(record.deadline)
    remaining = (record.deadline - now) / SECOND
    return TrackedFile(namespace, path, record.state, deadline, remaining)
