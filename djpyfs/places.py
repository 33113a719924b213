"""Which records belong to the files of which backend."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from . import conf
from .backends import Backend, backend_at, backend_for, foreign_keys
from .conf import SECOND, Bounds, Placement, Settings
from .errors import (
    BackendUnavailable,
    ConfigurationError,
    RecordStoreError,
    RecordStoreUnavailable,
)
from .expirations import LIVE, Backoff, Expirations, store_for
from .names import Entry

log = logging.getLogger("djpyfs")


class Place(NamedTuple):
    """Where files are, and their records."""

    backend: Backend
    records: Expirations
    bounds: Bounds = Bounds()


def records_of(settings: Settings, backend: Backend, make: bool = False) -> Expirations:
    """Return the records of a backend's files; a caller that writes may ``make`` the place.

    Raises `BackendUnavailable` if the place is not there.
    """
    store, place = store_for(settings), backend.place(make)
    known = store.known
    key = backend, place, settings.lease, settings.max_attempts, make
    if key not in known:
        if make:
            store.introduce(place, ", ".join(backend.roots()) or type(backend).__name__)
        lease = min(LIVE, settings.lease) + round(backend.late * SECOND)
        known[key] = store.at(
            place,
            lease,
            lambda member: backend.fence(Entry.of_member(member)),
            Backoff(settings.max_attempts),
        )
    return known[key]


def records_for(namespace: str) -> Expirations:
    """Return the records of a namespace's files, for who writes. Raises as `records_of` does."""
    settings = conf.current()
    return records_of(settings, backend_for(settings, namespace), make=True)


def place_for(settings: Settings, namespace: str) -> Place:
    """Return where the files of a namespace are. Raises as `records_of` does."""
    return _place(settings, settings.policy_for(namespace).placement)


def _place(settings: Settings, placement: Placement) -> Place:
    backend = backend_at(settings, placement)
    return Place(backend, records_of(settings, backend), settings.bounds[placement])


def places_here(settings: Settings, level: int = logging.WARNING) -> Sequence[Place]:
    """Return the places that the settings name; those that are not there are left out, and logged.

    Raises `ConfigurationError` for a misspelled key, which no single backend can report.
    """
    foreign_keys(settings)
    found: dict[str, Place] = {}
    for placement in settings.placements:
        try:
            place = _place(settings, placement)
        except (BackendUnavailable, ConfigurationError) as error:
            log.log(level, "backend %r is skipped, so its files wait: %s", placement.type, error)
        else:
            found[place.records.place] = place
    return list(found.values())


class Known(NamedTuple):
    """The records to look at."""

    #: The places here, see `places_here`.
    here: Sequence[Place]
    #: Of these, and of all that the store was told of.
    records: Sequence[Expirations]
    #: What a person calls the places that the store was told of.
    called: Mapping[str, str]
    #: Why some of their shards cannot be read, which are left out.
    problems: Sequence[Exception]


def records_known(settings: Settings) -> Known:
    """Return the records of the places here, and of all that the store was told of.

    If none can be read, raises what is wrong.
    """
    store, here = store_for(settings), places_here(settings)
    found = {place.records.place: place.records for place in here}
    try:
        called, problems = store.places(), list[Exception]()
    except RecordStoreError as error:
        if not found or (store.on_one_server and isinstance(error, RecordStoreUnavailable)):
            raise  # to ask again would only take as long again
        # Only one shard knows them; the files here may be in others.
        called, problems = {}, [error]
    # A store that has lost what it had does not know the places either.
    others = [store.at(place) for place in called if place not in found]
    records, unreadable = store.readable([*found.values(), *others])
    return Known(here, records, called, [*problems, *unreadable])
