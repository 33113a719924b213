"""Which back-ends are away as a whole, as far as this process has seen.

What is due on such a back-end is put off: at first for seconds, then for half as long as it has
been away already, up to ten minutes. No attempt is counted: nothing is ever set aside for that.
"""

from __future__ import annotations

import logging
from time import monotonic

from .conf import SECOND, Placement

SHORTEST_PAUSE = 5 * SECOND
LONGEST_PAUSE = 600 * SECOND
# Seconds at a stretch that one sweep waits for a back-end that is away: each time counts as one
# at least, and what takes long is not tried twice.
PATIENCE = 3.0

log = logging.getLogger("djpyfs")

_since: dict[Placement, float] = {}


def is_known(placement: Placement) -> bool:
    """Tell whether a back-end was away when it was last asked."""
    return placement in _since


def pause(placement: Placement) -> int:
    """Return for how many µs to leave a back-end alone that is away now."""
    now = monotonic()
    lasted = round((now - _since.setdefault(placement, now)) * SECOND)
    return min(max(lasted // 2, SHORTEST_PAUSE), LONGEST_PAUSE)


def is_over(placement: Placement) -> None:
    """Note that a back-end has answered."""
    _since.pop(placement, None)


class Patience:
    """How long one sweep still tries back-ends that are away."""

    def __init__(self) -> None:
        self._left: dict[Placement, float] = {}
        self._why: dict[Placement, str] = {}

    def lost(self, placement: Placement) -> str:
        """Return why a back-end shall not be asked again, or nothing."""
        return self._why[placement] if self._left.get(placement, PATIENCE) <= 0 else ""

    def lose(self, placement: Placement, why: str, seconds: float) -> None:
        """Note that a back-end was away, ``why``, and how long it took to find that."""
        if placement not in self._why:
            log.warning("back-end %r is away, its files are put off: %s", placement.type, why)
        self._why[placement] = why
        self._left[placement] = self._left.get(placement, PATIENCE) - max(1.0, seconds)

    def regain(self, placement: Placement) -> None:
        """Note that a back-end has answered."""
        self._left.pop(placement, None)
