"""What a sweep needs to delete in a place: a seat among its sweepers, and a share of its rate.

If the settings limit neither, and no store has asked to slow down, it needs neither.
"""

from __future__ import annotations

from time import monotonic
from uuid import uuid4

from .conf import SECOND, Settings
from .expirations import store_for
from .places import Place

SWEEPERS = 16  # the most that a backlog calls for, if the settings do not say how many
FOR_ANOTHER = 2  # batches that are due for each
WORTH_ANOTHER = 100  # deletions in a second


class Gate:
    """The gate of one sweep to one place."""

    def __init__(self, settings: Settings, place: Place) -> None:
        bounds = place.bounds
        self._store = store_for(settings)
        self._batch = settings.batch_size
        self._sweepers = bounds.sweepers
        self._seats = f"{place.records.place}:sweepers"
        self._name = uuid4().hex
        # A batch lasts for no longer than half of it.
        self._lease = 2 * settings.lease / SECOND
        self._seated_at: float | None = None
        self._paced = place.backend.throttles or bounds.deletions_per_second is not None
        if self._paced:
            self._pace = self._store.pace(place.records.place, bounds.deletions_per_second)
        #: Whether nothing more can be had during this sweep.
        self.closed = False

    def useful(self, overdue: int) -> int:
        """Return how many sweepers may help with so many files."""
        useful = -(-overdue // (FOR_ANOTHER * self._batch))
        if self._paced and (rate := self._pace.rate()) is not None:
            useful = min(useful, -(-int(rate) // WORTH_ANOTHER))
        return min(useful, self._sweepers or SWEEPERS)

    def share(self, most: int, overdue: int) -> int:
        """Return how many files may be claimed and deleted now, ``most`` or fewer."""
        if self.closed or not self._has_seat():
            return 0
        if not self._paced or self._pace.rate() is None:
            return most
        return self._pace.share(min(most, max(1, overdue)))

    def slow_down(self) -> None:
        """Note that the store asks for fewer deletions, which ends this sweep of it."""
        self.closed = True
        if self._paced:
            self._pace.slow_down()

    def leave(self) -> None:
        """Give up the seat."""
        if self._seated_at is not None:
            self._store.take_seat(self._seats, self._name, 0)

    def _has_seat(self) -> bool:
        now = monotonic()
        if self._sweepers is None:
            return True
        if self._seated_at is not None and now < self._seated_at + self._lease / 2:
            return True
        lease = round(self._lease * 1_000)
        seated = self._store.take_seat(self._seats, self._name, lease, self._sweepers)
        self.closed = self._name not in seated
        self._seated_at = None if self.closed else now
        return not self.closed
