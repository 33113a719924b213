"""The goals, and the table that says whether they were met."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from html import escape
from math import log10
from statistics import quantiles
from typing import Any

from tests.bench.turns import Turn
from tests.tables import laid_out

HEADINGS = ("what", "against", "measured", "to reach", "")
EXPLANATIONS = "docs/explanation/speed.md"


class Explained(StrEnum):
    """Where that page says which limit stops a row: the anchors of its headings."""

    SWEEPS = "what-a-sweep-spends"
    VIEWS = "what-a-view-spends"


@dataclass(frozen=True)
class Goal:
    """One row: a figure, and the bound that it has to keep."""

    what: str
    against: str
    measured: float
    least: float | None = None
    most: float | None = None
    unit: str = "×"
    #: What else must hold, or nothing.
    besides: str = ""
    besides_holds: bool = True
    #: The range of the middle half of the turns, if there were several.
    spread: tuple[float, float] | None = None
    #: Why, and by how much, it may be missed, if a profile has shown what stops it.
    explained: Explained | None = None
    tolerated: float = 0.0

    @property
    def met(self) -> bool:
        enough = self.least is None or self.measured >= self.least
        little = self.most is None or self.measured <= self.most
        return enough and little and self.besides_holds

    @property
    def is_explained(self) -> bool:
        """Whether it is missed no further than the explanation goes."""
        if self.explained is None or not self.besides_holds:
            return False
        most = self.most is not None
        return self.measured <= self.tolerated if most else self.measured >= self.tolerated

    @property
    def outcome(self) -> str:
        if self.met:
            return "ok"
        return f"missed: see {EXPLANATIONS}#{self.explained}" if self.is_explained else "MISSED"

    def cells(self) -> tuple[str, ...]:
        sign, bound = ("≥", self.least) if self.most is None else ("≤", self.most)
        besides = f", {self.besides}" if self.besides else ""
        spread = " ({:.2f} to {:.2f})".format(*self.spread) if self.spread else ""
        return (
            self.what,
            self.against,
            f"{_short(self.measured)} {self.unit}{spread}",
            f"{sign} {bound:g} {self.unit}{besides}",
            self.outcome,
        )


def explained(why: Explained, tolerated: float) -> dict[str, Any]:
    """Return what a goal says of its explanation, and how far that goes."""
    return {"explained": why, "tolerated": tolerated}


def compared(what: str, against: str, turns: Sequence[Turn], **bound: Any) -> Goal:
    """Return a goal on our time, with the ``most`` of it, or on our rate, with the ``least``."""
    in_time = "most" in bound
    ratios = [turn.ours / turn.bare if in_time else turn.bare / turn.ours for turn in turns]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return Goal(what, against, middle, spread=(low, high), **bound)


def _short(number: float) -> str:
    return f"{number:{'.3g' if number < 100 else '.0f'}}"


def table(goals: Sequence[Goal]) -> str:
    """Return the goals as one table for people."""
    return laid_out([HEADINGS, *(goal.cells() for goal in goals)])


def passes(goals: Sequence[Goal]) -> bool:
    """Tell whether each goal is met, or it is explained why it cannot be."""
    return all(goal.met or goal.is_explained for goal in goals)


def as_json(goals: Sequence[Goal]) -> str:
    """Return the goals for programs, with the size of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return json.dumps(
        {
            "machine": {
                "system": platform.platform(),
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "memory_gib": round(memory / (1 << 30), 1),
                "python": platform.python_version(),
            },
            "rows": [{**asdict(goal), "met": goal.met} for goal in goals],
        },
        indent=2,
    )


ROW, LEFT, HALF = 22, 620, 150  # of the drawing, in pixels; HALF is for a factor of ten


def as_svg(goals: Sequence[Goal]) -> str:
    """Draw how far each goal is exceeded: by a factor of ten at the right end, missed at the left.

    A line shows between what the middle half of the turns lay.
    """
    height = ROW * len(goals)
    shapes = [f'<path d="M{LEFT + HALF} 0V{height}" stroke="gray"/>']
    for number, goal in enumerate(goals):
        y, reach = number * ROW, goal.least if goal.most is None else goal.most
        low, high = (_x(goal, value) for value in goal.spread or [goal.measured] * 2)
        missed = "darkorange" if goal.is_explained else "firebrick"
        color = "seagreen" if goal.met else missed
        words = (
            f"{goal.what} against {goal.against}: {_short(goal.measured)} {goal.unit}, {reach:g}"
        )
        shapes += [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(words)}</text>',
            f'<circle cx="{_x(goal, goal.measured)}" cy="{y + 11}" r="5" fill="{color}"/>',
            f'<path d="M{low} {y + 11}H{high}" stroke="{color}" stroke-width="2"/>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + 2 * HALF} {height}" '
        f'font-family="sans-serif" font-size="11">{"".join(shapes)}</svg>\n'
    )


def _x(goal: Goal, value: float) -> int:
    bound = (goal.least if goal.most is None else goal.most) or 1
    exceeded = value / bound if goal.most is None else bound / max(value, 1e-9)
    return round(LEFT + HALF * (1 + max(-1, min(1, log10(max(exceeded, 1e-9))))))


def tell(progress: str) -> None:
    """Say on standard error what comes next."""
    print(progress, file=sys.stderr, flush=True)
