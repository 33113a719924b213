"""Uploads that reach a store after their address has ended.

A store accepts an upload that began in time, however slow it is: by then a sweep may have found
nothing and dropped the record, or somebody may have removed the file of an earlier upload to the
same address. So each address that a store itself answers leaves a second record, apart from those
of files: when it is due, a file that was sent there and has no lifetime gets a deadline, which is
now. What the site itself has written there since is not one that was sent.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from fs.base import FS
from fs.errors import NoURL, ResourceNotFound

from .backends import Backend, reason
from .conf import SECOND, Settings
from .errors import BackendUnavailable
from .expirations import Backoff, Expirations, store_for
from .names import Entry
from .owners import await_owners
from .places import Place

# Nobody waits for an upload that is slower, and even a small one may stall for so long.
SLOWEST, STALL = 64 * 1024, 3_600  # bytes/s, s
# A look that was given up would be listed as a file that nobody knows.
FOR_EVER = Backoff(max_attempts=sys.maxsize)


def watch(settings: Settings, records: Expirations, member: bytes, end: int, size: int) -> None:
    """Have a sweep look for an upload of up to ``size`` bytes that may begin until ``end``."""
    latest = end + (STALL + size // SLOWEST) * SECOND
    _watched(settings, records).place_at(member, latest)


def late_uploads(settings: Settings, places: Iterable[Place]) -> Iterator[Place]:
    """Yield, for each place to which browsers may send files, what a sweep does about late ones."""
    for place in places:
        if place.backend.takes_uploads:
            yield Place(_LateUploads(settings, place), _watched(settings, place.records))


def _watched(settings: Settings, records: Expirations) -> Expirations:
    return store_for(settings).at(f"{records.place}-uploads", backoff=FOR_EVER)


class _LateUploads(Backend):
    """Deletes nothing: gives files without a life a deadline in their own place."""

    late = 0.0  # nothing newer can go

    def __init__(self, settings: Settings, place: Place) -> None:
        super().__init__({})
        self._settings = settings
        self._place = place

    def make_filesystem(self, namespace: str) -> FS:
        return self._place.backend.open(namespace)

    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        raise NoURL(path, "download")

    def delete_one(self, entry: Entry) -> None:
        if self._was_uploaded(entry):
            records = self._place.records
            now, _ = records.deadline(entry.member)
            records.adopt({entry.member: now})
            await_owners(self._settings, records, [entry])
        raise ResourceNotFound(entry.path)  # of its own it has no files

    def _was_uploaded(self, entry: Entry) -> bool:
        try:
            return self._place.backend.was_uploaded(entry)
        except Exception as error:
            if not self.answers():
                raise BackendUnavailable(reason(error)) from error
            raise

    def answers(self) -> bool:
        return self._place.backend.answers()
