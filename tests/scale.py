"""One shard's part of a day with a billion files, through the real scripts, in compressed time.

``python -m tests.scale`` starts a Redis and a sweeper, lets the deadlines of a day arrive and pass
at one of ``--shards`` shards, and prints what that cost. docs/explanation/scale.md reckons with it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from multiprocessing import Process
from tempfile import TemporaryDirectory
from typing import Any, cast

import django

DAY = 86_400.0  # s
FILES = 1_000_000_000  # that wait for their deadlines at any time
RATE = 12_000.0  # deadlines a second, on average over the day
PEAK = 0.6  # by how much the busiest hour is above the average
MONTH = 30 * DAY
PRELOADED_AT_ONCE = 5_000
SWEEP_EVERY = 0.25  # s


@dataclass(frozen=True)
class Plan:
    """What part of the day is simulated."""

    shards: int
    hours: float
    speed: float  # how many times as fast as the clock

    @property
    def files(self) -> int:
        """How many files wait at this shard."""
        return round(FILES / self.shards)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.hours * 3_600 / self.speed

    def rate(self, passed: float) -> float:
        """Return how many files arrive in a second at this shard, ``passed`` s after the start."""
        hour = passed * self.speed / DAY
        return RATE / self.shards * self.speed * (1 + PEAK * math.sin(2 * math.pi * hour))

    def life(self) -> float:
        """Return how many seconds one file lives: a few minutes, or days; a day on average."""
        minutes = random.random() < 0.5
        mean = 300 if minutes else 2 * DAY
        return min(random.expovariate(1 / mean), MONTH) / self.speed


def names() -> Iterator[str]:
    """Yield names as `temporary_file` makes them, in namespaces of ten files."""
    for number in count():
        yield f"{number // 10:07}/{random.getrandbits(128):032x}.png"


def sweep_for_ever() -> None:
    """Sweep what is due again and again: somebody will put an end to it."""
    django.setup()
    from djpyfs import expire_objects

    while True:
        expire_objects()
        time.sleep(SWEEP_EVERY)


def simulate(plan: Plan, client: Any) -> dict[str, str]:
    """Let the day pass; return what was found, each with what it is."""
    from djpyfs import conf, expire_objects, get_filesystem
    from djpyfs.expirations import store_for

    fs, fresh = get_filesystem("users"), names()
    fs.touch("so that the place is there")
    expire_objects()  # loads the scripts
    empty = client.info("memory")["used_memory"]
    tell(f"{plan.files:,} files wait")
    # What waits after many such days: a file that lives twice as long is twice as likely met.
    for done in range(0, plan.files, PRELOADED_AT_ONCE):
        some = list(islice(fresh, min(PRELOADED_AT_ONCE, plan.files - done)))
        fs.expire_many(some, random.expovariate(1 / (2 * DAY / plan.speed)))
    loaded = client.info("memory")["used_memory"]

    sweeper = Process(target=sweep_for_ever, daemon=True)
    sweeper.start()
    tell(f"{plan.hours:g} hours pass in {plan.seconds:.0f} s")
    before, start, arrived = spent(client), time.monotonic(), 0
    owed, looked, peak, told = 0.0, start, loaded, start
    while (passed := time.monotonic() - start) < plan.seconds:
        now = time.monotonic()
        owed, looked = owed + plan.rate(passed) * (now - looked), now
        for name in islice(fresh, int(owed)):
            fs.expire(name, plan.life())
            arrived += 1
        owed -= int(owed)
        if now - told > 10:
            told = now
            peak = max(peak, client.info("memory")["used_memory"])
            tell(f"{passed:.0f} s: {arrived:,} arrived")
        time.sleep(0.002)
    after = spent(client)
    sweeper.kill()
    sweeper.join()

    totals = store_for(conf.current()).totals()
    gone = totals.get("deleted", 0) + totals.get("missing", 0)
    busy = (after - before) / plan.seconds
    return {
        "bytes per record at rest": f"{(loaded - empty) / plan.files:.0f}",
        "bytes per record at the peak, sweeps included": f"{(peak - empty) / plan.files:.0f}",
        "arrived, and expired": f"{arrived:,}, {gone:,.0f}",
        "time of Redis' core per file, for its expire() and its sweep": (
            f"{(after - before) / max(1, (arrived + gone) / 2) * 1e6:.1f} µs"
        ),
        "of one core, at this speed": f"{busy:.0%}",
        "cores of Redis for all shards, at the clock's speed": (
            f"{busy * plan.shards / plan.speed:.2f}"
        ),
        **lateness(totals),
    }


def lateness(totals: Any) -> dict[str, str]:
    """Tell how late most sweeps were."""
    from djpyfs.expirations.totals import LATENESS

    buckets, _ = LATENESS.read(totals)
    everything = buckets[-1][1] or 1
    within = next(bound for bound, so_far in buckets if so_far >= 0.99 * everything)
    return {"99 of 100 were taken up within": f"{within} s"}


def spent(client: Any) -> float:
    """Return the seconds of CPU that Redis has spent."""
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--shards", type=int, default=1_000, help="of which one is simulated")
    parser.add_argument("--hours", type=float, default=2.0, help="of the day")
    parser.add_argument("--speed", type=float, default=60.0, help="times the clock's")
    plan = Plan(**vars(parser.parse_args()))

    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.service_settings"
    from tests.servers import running_redis

    with running_redis() as server, server.client() as client, TemporaryDirectory() as files:
        djfs = {"type": "osfs", "directory_root": files, "redis_url": server.url}
        os.environ["SETTINGS"] = json.dumps({"DJFS": djfs})
        django.setup()
        found = simulate(plan, cast(Any, client))
    from tests.tables import laid_out

    print(laid_out([("what", "found"), *found.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
