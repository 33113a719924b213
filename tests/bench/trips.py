"""Round trips to Redis, which are exact where seconds are not."""

from __future__ import annotations

from typing import Any

from tests.bench.turns import Side
from tests.servers import RedisServer, scripts_run


def round_trips(server: RedisServer, side: Side) -> int:
    """Return how many scripts a side has run, each of which takes a round trip."""
    side()  # which opens what is to be opened
    before = scripts_run(server)
    side()
    return scripts_run(server) - before


def in_round_trips(count: int, most: int) -> dict[str, Any]:
    """Return what a goal says of its round trips, and how many it may have."""
    told = f"{count} round trips" if count != 1 else "one round trip"
    return {"besides": f"{told} to Redis", "besides_holds": count <= most}
