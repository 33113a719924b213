"""How fast the files of a place are deleted, by all processes together.

`limits` counts in the record store, by the clock of its server. There is one count for any rate:
of each second there is a million to spend, and a deletion costs its share.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import TypeVar

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

T = TypeVar("T")
Storage = MemoryStorage | RedisStorage

SECOND = RateLimitItemPerSecond(1_000_000)
# This part of what may go in a second goes at once: the store has others to serve as well.
PART = 0.1
# A store that asks for less gets this rate, or half of what was set; then half of that, and so on.
FIRST_RATE = 1_000.0
LOWEST_RATE = 10.0
MEMORY = 600  # s for which it is remembered that a store has asked for less
FRESH = 10.0  # s for which a sweep need not ask again whether it has


class Pace:
    """The rate at which files of one place may be deleted; ``most`` is what the settings say."""

    def __init__(
        self, name: str, most: int | None, counting: Callable[[Callable[[Storage], int]], int]
    ) -> None:
        self._name = name
        self._most = most
        self._counting = counting
        self._times = 0  # that the store has asked for less
        self._asked_at = -FRESH

    def rate(self) -> float | None:
        """Return how many files may be deleted in a second; None: no limit."""
        if monotonic() - self._asked_at >= FRESH:
            self._times = self._counting(lambda storage: storage.get(self._key("slower")))
            self._asked_at = monotonic()
        if not self._times:
            return self._most
        rate = (self._most or 2 * FIRST_RATE) / 2.0**self._times
        return max(rate, min(LOWEST_RATE, self._most or LOWEST_RATE))

    def share(self, wanted: int) -> int:
        """Return how many of ``wanted`` files may be deleted now, and count them."""
        rate = self.rate()
        if rate is None:
            return wanted
        share = max(1, min(wanted, int(rate * PART)))
        cost = ceil(share * SECOND.amount / rate)

        def spend(storage: Storage) -> int:
            return SlidingWindowCounterRateLimiter(storage).hit(SECOND, self._name, cost=cost)

        return share if self._counting(spend) else 0

    def slow_down(self) -> None:
        """Note that the store asks for less; within a second, only the first note counts.

        The later ones come from requests that were sent before it, and say nothing about the new
        rate.
        """

        def note(storage: Storage) -> int:
            is_known = storage.get(self._key("slower")) > self._times
            if is_known or storage.incr(self._key("asked"), 1) > 1:
                return 0
            return storage.incr(self._key("slower"), MEMORY)

        self._counting(note)
        self._asked_at = -FRESH

    def _key(self, what: str) -> str:
        return f"{self._name}/{what}"
