"""A day with a billion files, compressed, of which a small part runs through the real scripts.

``python -m tests.scale`` starts a Redis, a store that speaks as S3 does, and a sweeper, lets the
deadlines of a day arrive and pass, and prints what that cost. docs/explanation/scale.md builds on
it.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from multiprocessing import Process
from pathlib import Path
from typing import Any, cast

import django

from tests.servers import HOST, running_late_store, running_redis
from tests.tables import laid_out

DAY = 86_400.0  # s
FILES = 1_000_000_000  # that wait for their deadlines at any time
RATE = 12_000.0  # deadlines a second, on average over the day
PEAK = 0.6  # by how much the busiest hour is above the average
MONTH = 30 * DAY
PRELOADED_AT_ONCE = 500
WRITERS = 8  # threads of a site
AT_ONCE = 1_000  # arrivals between two looks at the clock
SWEEP_EVERY = 0.25  # s
LOOK_EVERY = 2.0  # s
ANSWERS_AFTER = 0.1  # s, of the store


@dataclass(frozen=True)
class Plan:
    """What part of the day is simulated."""

    parts: int
    hours: float
    speed: float  # how many times as fast as the clock

    @property
    def files(self) -> int:
        """How many files of this part wait."""
        return round(FILES / self.parts)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.hours * 3_600 / self.speed

    def rate(self, passed: float) -> float:
        """Return how many files of this part arrive in a second, ``passed`` s after the start."""
        day = passed * self.speed / DAY
        return RATE / self.parts * self.speed * (1 + PEAK * math.sin(2 * math.pi * day))

    def life(self) -> float:
        """Return how many seconds one file lives: a few minutes, or days; a day on average."""
        minutes = random.random() < 0.5
        mean = 300 if minutes else 2 * DAY
        return min(random.expovariate(1 / mean), MONTH) / self.speed


def names() -> Iterator[str]:
    """Yield names as `temporary_file` makes them, ten in a directory."""
    for number in count():
        yield f"{number // 10:08}/{random.getrandbits(128):032x}.png"


def sweep_for_ever() -> None:
    """Sweep what is due again and again, until the process is killed."""
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
    fs.expire("loads the scripts", 0)
    expire_objects()
    empty = client.info("memory")["used_memory"]
    tell(f"{plan.files:,} files wait")
    # What waits after many such days: a file that lives twice as long is twice as likely met.
    for done in range(0, plan.files, PRELOADED_AT_ONCE):
        some = list(islice(fresh, min(PRELOADED_AT_ONCE, plan.files - done)))
        fs.expire_many(some, random.expovariate(1 / (2 * DAY / plan.speed)))

    sweeper = Process(target=sweep_for_ever, daemon=True)
    sweeper.start()
    store = store_for(conf.current())
    looks = [Look.at(client, store.totals(), sweeper)]
    bytes_each = [(looks[0].memory - empty) / looks[0].records]
    tell(f"{plan.hours:g} hours pass in {plan.seconds:.0f} s")
    start, arrived, owed, passed = time.monotonic(), 0, 0.0, 0.0
    with ThreadPoolExecutor(WRITERS) as site:
        while passed < plan.seconds:
            before, passed = passed, time.monotonic() - start
            owed += plan.rate(passed) * (passed - before)
            some = list(islice(fresh, min(int(owed), AT_ONCE)))
            list(site.map(lambda name: fs.expire(name, plan.life()), some))
            arrived, owed = arrived + len(some), owed - len(some)
            if passed > len(looks) * LOOK_EVERY:
                looks.append(Look.at(client, store.totals(), sweeper))
                bytes_each.append((looks[-1].memory - empty) / looks[-1].records)
                tell(f"{passed:.0f} s: {arrived:,} arrived, {looks[-1].records:,} wait")
            time.sleep(0.002)
    looks.append(Look.at(client, store.totals(), sweeper))
    sweeper.kill()
    sweeper.join()
    return {
        "bytes per record at rest": f"{bytes_each[0]:.0f}",
        "bytes per record at the peak, sweeps included": f"{max(bytes_each):.0f}",
        **_costs(plan, arrived, looks),
        **_lateness(store.totals()),
    }


@dataclass(frozen=True)
class Look:
    """What can be seen of Redis and of the sweeper at one moment."""

    memory: int  # bytes that Redis uses
    records: int
    redis: float  # s of CPU that Redis has spent
    sweeper: float
    gone: float  # files

    @classmethod
    def at(cls, client: Any, totals: Any, sweeper: Process) -> Look:
        """Look now."""
        from djpyfs.inspection import status

        cpu, ticks = client.info("cpu"), Path(f"/proc/{sweeper.pid}/stat").read_text()
        user, system = ticks.rpartition(")")[2].split()[11:13]
        return cls(
            client.info("memory")["used_memory"],
            status().tracked,
            float(cpu["used_cpu_user"] + cpu["used_cpu_sys"]),
            (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"),
            totals.get("deleted", 0) + totals.get("missing", 0),
        )


def _costs(plan: Plan, arrived: int, looks: list[Look]) -> dict[str, str]:
    first, last = looks[0], looks[-1]
    gone = last.gone - first.gone
    files = max(1.0, (arrived + gone) / 2)
    redis, sweeper = (last.redis - first.redis) / files, (last.sweeper - first.sweeper) / files
    at_once = max(look.records for look in looks)
    return {
        "arrived, and gone": f"{arrived:,}, {gone:,.0f}",
        "waiting at the peak": f"{at_once / plan.files:.2f} times as many as on average",
        "Redis per file, from expire() to the end of its sweep": f"{redis * 1e6:.1f} µs of a core",
        "a sweeper per file": f"{sweeper * 1e6:.1f} µs of a core",
        "Redis for all files, on average and in the busiest hour": _cores(redis),
        "sweepers for all files": _cores(sweeper),
    }


def _cores(seconds: float) -> str:
    return f"{seconds * RATE:.2f} and {seconds * RATE * (1 + PEAK):.2f} cores"


def _lateness(totals: Any) -> dict[str, str]:
    """Return how late most sweeps were."""
    from djpyfs.expirations.totals import LATENESS

    buckets, _ = LATENESS.read(totals)
    everything = buckets[-1][1] or 1
    within = next(bound for bound, so_far in buckets if so_far >= 0.99 * everything)
    return {"99 of 100 were taken up within": f"{within} s"}


def tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--parts", type=int, default=16_000, help="of which one is simulated")
    parser.add_argument("--hours", type=float, default=24.0, help="of the day")
    parser.add_argument("--speed", type=float, default=480.0, help="times the clock's")
    plan = Plan(**vars(parser.parse_args()))

    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.service_settings"
    with running_redis() as server, running_late_store(ANSWERS_AFTER) as store:
        djfs = {
            "type": "s3fs",
            "bucket": "pictures",
            "region": "us-east-1",
            "endpoint_url": f"http://{HOST}:{store}",
            "aws_access_key_id": "scale",
            "aws_secret_access_key": "scale",
            "redis_url": f"{server.url}?socket_timeout=60",  # of a machine that is busy
        }
        os.environ["SETTINGS"] = json.dumps({"DJFS": djfs})
        django.setup()
        with server.client() as client:
            found = simulate(plan, cast(Any, client))
    print(laid_out([("what", "found"), *found.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
