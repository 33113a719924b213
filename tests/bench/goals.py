"""What is to be reached, and the table that tells whether it was."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

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

    @property
    def met(self) -> bool:
        enough = self.least is None or self.measured >= self.least
        little = self.most is None or self.measured <= self.most
        return enough and little and self.besides_holds

    def cells(self) -> tuple[str, ...]:
        sign, bound = ("≥", self.least) if self.most is None else ("≤", self.most)
        besides = f", {self.besides}" if self.besides else ""
        return (
            self.what,
            self.against,
            f"{self.measured:{'.3g' if self.measured < 100 else '.0f'}} {self.unit}",
            f"{sign} {bound:g} {self.unit}{besides}",
            "ok" if self.met else "MISSED",
        )


def table(goals: Sequence[Goal]) -> str:
    """Return the goals as one table for people."""
    return laid_out([HEADINGS, *(goal.cells() for goal in goals)])


def tell(progress: str) -> None:
    """Tell on standard error what comes next."""
    print(progress, file=sys.stderr, flush=True)
