"""Which backends are away as a whole, as far as this process has seen.

Files that are due on such a backend are postponed: at first for seconds, then for half as long as
it has been away, up to ten minutes. No attempt is counted: an outage never sets a file aside.
"""

from __future__ import annotations

import logging
from time import monotonic

from .conf import SECOND

SHORTEST_PAUSE = 5 * SECOND
LONGEST_PAUSE = 600 * SECOND
# Seconds at a stretch that one sweep waits for a backend that is away: each time counts as one
# at least, and what takes long is not tried twice.
PATIENCE = 3.0

log = logging.getLogger("djpyfs")

_since: dict[str, float] = {}


def is_known(place: str) -> bool:
    """Return whether a backend was away when it was last asked."""
    return place in _since


def pause(place: str) -> int:
    """Return for how many µs to leave a backend alone that is away now."""
    now = monotonic()
    lasted = round((now - _since.setdefault(place, now)) * SECOND)
    return min(max(lasted // 2, SHORTEST_PAUSE), LONGEST_PAUSE)


def end(place: str) -> None:
    """Note that a backend has answered."""
    _since.pop(place, None)


class Patience:
    """How long one sweep still tries backends that are away."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}
        self._why: dict[str, str] = {}

    def lost(self, place: str) -> str:
        """Return why not to ask a backend again, or nothing."""
        return self._why[place] if self._left.get(place, PATIENCE) <= 0 else ""

    def lose(self, place: str, why: str, seconds: float) -> None:
        """Note that a backend was away, ``why``, and how long it took to find out."""
        if place not in self._why:
            log.warning("a backend is away, so its files are postponed: %s", why)
        self._why[place] = why
        self._left[place] = self._left.get(place, PATIENCE) - max(1.0, seconds)

    def regain(self, place: str) -> None:
        """Note that a backend has answered."""
        self._left.pop(place, None)
