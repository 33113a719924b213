"""What sweeps and one-shots have done so far, as numbers that only grow.

They are kept beside the records, because deletions happen in many processes that come and go.
A tally says by how much each number has grown; its keys are the names of the numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

#: What becomes of a file that was taken up for deletion. A record store counts the last two.
OUTCOMES = "deleted missing held owned postponed retried set_aside".split()


@dataclass(frozen=True)
class Histogram:
    """Durations, counted by their lengths."""

    name: str
    bounds: tuple[float, ...]  # s, ascending

    def tally(self, durations: Sequence[float], unit: float = 1) -> dict[str, float]:
        """Return the tally of ``durations``, of which ``unit`` are a second.

        It costs little if they are nearly in order, as those of a claim are.
        """
        ordered = sorted(durations)
        ends = [bisect_right(ordered, bound * unit) for bound in self.bounds] + [len(ordered)]
        buckets = zip(self._buckets().values(), [0, *ends], ends, strict=False)
        grown: dict[str, float] = {number: end - start for number, start, end in buckets}
        grown[f"{self.name}_sum"] = sum(ordered) / unit
        return {number: growth for number, growth in grown.items() if growth}

    def read(self, totals: Mapping[str, float]) -> tuple[list[tuple[str, float]], float]:
        """Return for each bound how many durations were no longer, and the sum of all, in s."""
        counts = accumulate(totals.get(number, 0) for number in self._buckets().values())
        return list(zip(self._buckets(), counts, strict=True)), totals.get(f"{self.name}_sum", 0)

    def _buckets(self) -> dict[str, str]:
        bounds = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return {bound: f"{self.name}_{bound}" for bound in bounds}


#: How long after its deadline a file was claimed for deletion.
LATENESS = Histogram("late", (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3_600, 14_400, 86_400))
#: How long sweeps took that had anything to do.
SWEEP_DURATION = Histogram("sweep", (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900))
