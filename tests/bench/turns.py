"""Two sides measured in turns."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

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
