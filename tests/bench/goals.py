"""What is to be reached, and the table that tells whether it was."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from tests.bench.turns import Turn
from tests.tables import laid_out

HEADINGS = ("what", "against", "measured", "to reach", "")


@dataclass(frozen=True)
class Goal:
    """One row: a figure, and the bound that it has to keep."""

    what: str
    against: str
    measured: float
    least: float | None = None
    most: float | None = None
    unit: str = "×"
    #: What must hold besides, or nothing.
    besides: str = ""
    besides_holds: bool = True
    #: Between which figures the middle half of the turns lay, where there were several.
    spread: tuple[float, float] | None = None

    @property
    def met(self) -> bool:
        enough = self.least is None or self.measured >= self.least
        little = self.most is None or self.measured <= self.most
        return enough and little and self.besides_holds

    def cells(self) -> tuple[str, ...]:
        sign, bound = ("≥", self.least) if self.most is None else ("≤", self.most)
        besides = f", {self.besides}" if self.besides else ""
        spread = " ({:.2f} to {:.2f})".format(*self.spread) if self.spread else ""
        return (
            self.what,
            self.against,
            f"{self.measured:{'.3g' if self.measured < 100 else '.0f'}} {self.unit}{spread}",
            f"{sign} {bound:g} {self.unit}{besides}",
            "ok" if self.met else "MISSED",
        )


def compared(what: str, against: str, turns: Sequence[Turn], **bound: Any) -> Goal:
    """Return a goal on our time, with the ``most`` of it, or on our rate, with the ``least``."""
    in_time = "most" in bound
    ratios = [turn.ours / turn.bare if in_time else turn.bare / turn.ours for turn in turns]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return Goal(what, against, middle, spread=(low, high), **bound)


def table(goals: Sequence[Goal]) -> str:
    """Return the goals as one table for people."""
    return laid_out([HEADINGS, *(goal.cells() for goal in goals)])


def tell(progress: str) -> None:
    """Tell on standard error what comes next."""
    print(progress, file=sys.stderr, flush=True)
