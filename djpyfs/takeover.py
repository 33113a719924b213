"""The deadlines that openedx-django-pyfs has left in a database, taken over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.dateparse import parse_datetime
from django.utils.timezone import get_default_timezone
from fs.errors import FSError, ResourceNotFound

from . import conf
from .backends import backend_at, is_away, reason
from .conf import Placement, Settings
from .errors import BackendUnavailable, FileBusy, InvalidName, RecordStoreError, TableUnreadable
from .expirations import store_for
from .lifetimes import microseconds
from .names import Entry, check_length, check_namespace, check_path
from .places import Place, records_of
from .writes import Reservation

TABLE = "djpyfs_fsexpirations"
COLUMNS = "module filename expires expiration".split()
BATCH = 1_000
# µs since the epoch. In 2255 a double ceases to hold them all.
PERMANENT, EARLIEST, LATEST = 0, 1, 2**53


@dataclass(frozen=True)
class RefusedName:
    """A row whose namespace or file name djpyfs refuses, or whose file cannot be looked at."""

    namespace: str
    path: str
    reason: str


@dataclass
class TakeOver:
    """What happened to the rows of the table."""

    rows: int = 0
    #: Files that have got a deadline.
    taken: int = 0
    #: Files that had a record already, which was left as it is.
    known: int = 0
    #: Files that do not expire, and have been made permanent here too.
    permanent: int = 0
    #: Files that are gone, with deadlines that have passed.
    gone: int = 0
    #: Files that were written after their deadline had passed: they stay, without one.
    rewritten: int = 0
    refused: list[RefusedName] = field(default_factory=list)


def take_over(
    connection: BaseDatabaseWrapper, on_batch: Callable[[TakeOver], object] | None = None
) -> TakeOver:
    """Give the files in the table of openedx-django-pyfs their deadlines, or make them permanent.

    A file that has a record already keeps it, and one that is newer than its deadline gets none,
    so that this can be repeated at any time. The table is only read, and each file whose deadline
    has passed is looked at. Calls ``on_batch`` with the report so far. Raises `TableUnreadable`,
    and `BackendUnavailable` if a backend is away.
    """
    settings, report = conf.current(), TakeOver()
    for rows in _batches(connection):
        _take(settings, rows, connection, report)
        if on_batch:
            on_batch(report)
    return report


def _batches(connection: BaseDatabaseWrapper) -> Iterator[list[tuple[Any, ...]]]:
    # Behind some poolers a cursor on the server is lost between two reads.
    on_server = not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    try:
        with connection.chunked_cursor() if on_server else connection.cursor() as cursor:
            cursor.execute(_query(connection.ops.quote_name))
            while rows := cursor.fetchmany(BATCH):
                yield rows
    except (DatabaseError, ImproperlyConfigured, ValueError) as error:  # the last: of no date
        why = str(error).partition("\n")[0]
        raise TableUnreadable(
            f"{TABLE} in the database {connection.alias!r} cannot be read: {why}"
        ) from error


def _query(quote: Callable[[str], str]) -> str:
    return f"SELECT {', '.join(map(quote, COLUMNS))} FROM {quote(TABLE)}"  # noqa: S608  constants


def _take(
    settings: Settings,
    rows: list[tuple[Any, ...]],
    connection: BaseDatabaseWrapper,
    report: TakeOver,
) -> None:
    deadlines: dict[Placement, dict[bytes, int]] = {}
    now = store_for(settings).now()
    for namespace, path, expires, expiration in rows:
        try:
            member = _member(namespace, path)
        except InvalidName as error:
            report.refused.append(RefusedName(namespace, path, str(error)))
        else:
            placement = settings.policy_for(namespace).placement
            longest = settings.policy_for(Entry.of_member(member).directory).max_ttl
            deadline = _deadline(expiration, connection) if expires else PERMANENT
            if longest is not None:
                deadline = min(deadline or LATEST, now + longest)
            deadlines.setdefault(placement, {})[member] = deadline
    report.rows += len(rows)
    for placement, own in deadlines.items():
        backend = backend_at(settings, placement)
        place = Place(backend, records_of(settings, backend, make=True))
        overdue = {member: due for member, due in own.items() if PERMANENT < due <= now}
        ahead = {member: due for member, due in own.items() if member not in overdue}
        new = [ahead[member] for member in place.records.adopt(ahead)]
        report.permanent += new.count(PERMANENT)
        report.taken += len(new) - new.count(PERMANENT)
        report.known += len(ahead) - len(new)
        with ThreadPoolExecutor(backend.deletions_at_once) as threads:
            looks = threads.map(partial(_take_overdue, place), overdue, overdue.values())
            fates = dict(zip(overdue, looks, strict=True))
        count = Counter(fates.values())
        report.taken += count[Fate.TAKEN]
        report.known += count[Fate.KNOWN]
        report.gone += count[Fate.GONE]
        report.rewritten += count[Fate.REWRITTEN]
        report.refused += [
            RefusedName(*Entry.of_member(member), fate)
            for member, fate in fates.items()
            if not isinstance(fate, Fate)
        ]


class Fate(Enum):
    """What becomes of a file whose deadline has passed, as `TakeOver` counts it."""

    TAKEN = auto()
    KNOWN = auto()
    GONE = auto()
    REWRITTEN = auto()


def _take_overdue(place: Place, member: bytes, deadline: int) -> Fate | str:
    """Give a file its deadline while nobody can write it; or return why it cannot be looked at."""
    backend, records = place.backend, place.records
    try:
        with Reservation(records, member, late=0) as reserved:
            if reserved.deadline or reserved.is_permanent:
                return Fate.KNOWN
            files, path = backend.reach(Entry.of_member(member))
            written = files.getinfo(path, ["details"]).modified
            if written is not None and microseconds(written) > deadline:
                return Fate.REWRITTEN
            reserved.pledge(deadline)
            return Fate.TAKEN
    except ResourceNotFound:
        return Fate.GONE
    except FileBusy:  # a sweep has it, so there is a record
        return Fate.KNOWN
    except RecordStoreError:
        raise
    except (FSError, OSError) as error:
        if is_away(error) and not backend.answers():
            raise BackendUnavailable(reason(error)) from error
        return reason(error)


def _member(namespace: str, path: str) -> bytes:
    entry = Entry(check_namespace(namespace), check_path(path))
    if not entry.path:
        raise InvalidName(path, "is not a file")
    check_length(path, *entry)
    return entry.member


def _deadline(expiration: datetime | str, connection: BaseDatabaseWrapper) -> int:
    return min(max(EARLIEST, microseconds(_aware(expiration, connection))), LATEST)


def _aware(expiration: datetime | str, connection: BaseDatabaseWrapper) -> datetime:
    """Return a moment as the ORM would: the driver may not know about time zones, nor types."""
    moment = parse_datetime(expiration) if isinstance(expiration, str) else expiration
    if moment is None:
        raise TableUnreadable(f"{TABLE} has an expiration that is not a time: {expiration!r}")
    if moment.tzinfo:
        return moment.astimezone(UTC)
    return moment.replace(tzinfo=connection.timezone or get_default_timezone())
