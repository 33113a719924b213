"""A backlog swept by several workers, on a store that takes its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from django.test import override_settings

from demo.services import commands
from djpyfs import get_filesystem
from djpyfs.backends import Backend
from djpyfs.backends.osfs import DiskBackend
from djpyfs.inspection import status
from djpyfs.names import Entry
from tests.bench.goals import Goal, tell
from tests.servers import running_redis, wait_for
from tests.services import Service, running

ANSWERS_AFTER = 0.02  # s
FILES_PER_WORKER = 1_000
BATCH = 25
ROUNDS = 3
WORKERS = {2: 1.9, 4: 3.5}  # how many times as fast as one


class SlowBackend(DiskBackend):
    """Answers late, as a store over a network does, and to each file on its own."""

    delete = Backend.delete
    deletions_at_once = 1  # or the cores would be what is measured

    def delete_one(self, entry: Entry) -> None:
        time.sleep(ANSWERS_AFTER)
        super().delete_one(entry)


def goals() -> Iterator[Goal]:
    """Compare the sweeps of two and four workers with that of one."""
    rates: dict[int, list[float]] = {}
    for number in range(ROUNDS):
        for workers in 1, *WORKERS:
            tell(f"Sweeping with {workers} workers, {number + 1} of {ROUNDS}")
            rates.setdefault(workers, []).append(_rate(workers))
    for workers, least in WORKERS.items():
        ratios = [many / one for many, one in zip(rates[workers], rates[1], strict=True)]
        what = f"sweep by {workers} workers, {ANSWERS_AFTER * 1_000:g} ms a file"
        yield Goal(what, "one worker", median(ratios), least=least)


def _rate(workers: int) -> float:
    """Return how many files a second the workers delete, from the tick to the last file."""
    count = FILES_PER_WORKER * workers
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis())
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="djpyfs-bench-")))
        slow = f"{__name__}.{SlowBackend.__name__}"
        service = Service(directory, redis, type=slow, punctual=False, batch_size=BATCH)
        stack.callback(service.close)
        stack.enter_context(override_settings(DJFS=service.djfs))
        files = get_filesystem("plots")
        names = [f"{number:06}" for number in range(count)]
        files.touch("first")
        for name in names:
            Path(service.djfs["directory_root"], "plots", name).touch()
        environ = service.environ()
        for number in range(workers):
            alone = ["--concurrency=1", f"--hostname={number}@%h"]
            command = [*commands(environ)["worker"], *alone]
            stack.enter_context(running(command, environ, service.log(f"worker-{number}")))
        service.wait_for_workers(workers)
        service.sweep().get(timeout=60)  # opens all that is to be opened
        files.expire_many(names, 0)
        started = time.perf_counter()
        service.sweep()
        wait_for(lambda: status().tracked == 0, 600, "the end of the sweep")
        return count / (time.perf_counter() - started)
