"""Spreading the records over another number of shards, and how far that has come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm

from . import conf
from .conf import MOST_SHARDS
from .errors import ConfigurationError
from .expirations import Backoff, store_for, total
from .places import records_known

PAUSE = 0.1  # s between two looks whether a claim has ended


@dataclass(frozen=True)
class Resharding:
    """How far it has come."""

    #: Entries that were looked at, of about so many in all; a file may have several.
    looked: int = 0
    total: int = 0
    #: Files whose records are in another shard now, by what was done here.
    moved: int = 0
    #: Files whose records wait for the end of a claim.
    waiting: int = 0
    #: In seconds.
    duration: float = 0.0

    @property
    def rate(self) -> float:
        """How many files move in a second."""
        return self.moved / self.duration if self.duration else 0.0


@dataclass(frozen=True)
class Plan:
    """What there is to do."""

    shards: int
    soon: int
    #: Files with a record, and how many of these have another shard then, about.
    files: int
    moving: int


def plan(shards: int) -> Plan:
    """Return what `reshard` would have to do. Raises `ConfigurationError` as that does."""
    _check(shards)
    settings = conf.current()
    now = store_for(settings).spread().shards
    counts = total(records.counts() for records in records_known(settings).records)
    files = counts.tracked + counts.set_aside
    stay = min(now, shards) / lcm(now, shards)
    return Plan(now, shards, files, round(files * (1 - stay)))


def reshard(shards: int) -> Iterator[Resharding]:
    """Spread the records over so many shards, and yield the progress now and then.

    Writers and sweeps go on meanwhile. It may be stopped at any time, and goes on where it was
    when it is called again. Raises `ConfigurationError` if the records are on their way to another
    number.
    """
    _check(shards)
    settings = conf.current()
    started = time.monotonic()
    looked = moved = entries = 0
    for step in store_for(settings).reshard(shards, Backoff(settings.max_attempts)):
        looked, moved, entries = looked + step.looked, moved + step.moved, entries + step.total
        yield Resharding(looked, entries, moved, step.waiting, time.monotonic() - started)
        if step.waiting and not step.moved:
            time.sleep(PAUSE)
    yield Resharding(looked, entries, moved, 0, time.monotonic() - started)


def _check(shards: int) -> None:
    if not 1 <= shards <= MOST_SHARDS:
        raise ConfigurationError(f"{shards} shards: there can be 1 to {MOST_SHARDS}")
