"""Two sides measured in turns."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

from djpyfs.sweeper import SweepReport, sweep

Side = Callable[[], object]


class Turn(NamedTuple):
    """How long each side took in one turn, in seconds."""

    ours: float
    bare: float


def seconds(side: Side) -> float:
    started = perf_counter()
    side()
    return perf_counter() - started


def take_turns(ours: Side, bare: Side, turns: int) -> list[Turn]:
    """Time both sides in turns, and let each go first as often as the other."""
    taken = []
    for turn in range(turns):
        if turn % 2:
            taken.append(Turn(seconds(ours), seconds(bare)))
        else:
            first = seconds(bare)
            taken.append(Turn(seconds(ours), first))
    return taken


def sweep_in_turns(bare: Side) -> list[Turn]:
    """Sweep once, and let ``bare`` do the like after each of the sweep's batches."""
    taken: list[Turn] = []
    started = perf_counter()

    def after_batch(_: SweepReport) -> None:
        nonlocal started
        swept = perf_counter() - started
        taken.append(Turn(swept, seconds(bare)))
        started = perf_counter()

    sweep(on_batch=after_batch)
    return taken


def times_as_long(turns: list[Turn]) -> float:
    """How many times as long as the bare side ours took."""
    return median(turn.ours / turn.bare for turn in turns)


def times_the_rate(turns: list[Turn]) -> float:
    """How many times as much as the bare side ours did in the same time."""
    return median(turn.bare / turn.ours for turn in turns)
