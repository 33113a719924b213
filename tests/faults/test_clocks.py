"""Web and worker machines whose clocks are wrong: real processes, each with a clock of its own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from djpyfs import expire_objects, get_filesystem
from djpyfs_tasks.timekeeper import Timekeeper
from tests.faults.conftest import Measured
from tests.servers import PATIENCE, RedisServer, installed, python, running_redis, wait_for
from tests.services import Service

INTERVAL = 2  # s
HOUR = 3_600  # s

# What a view does: files that live 2 to 7 s, one that lives on, and a link to it for 2 s.
VIEW = """
import json, time
from django.test import Client
from djpyfs import expire_objects, get_filesystem
from djpyfs_tasks.timekeeper import Timekeeper
fs, deadlines = get_filesystem("plots"), {}
for number in range(50):
    name = f"{number:02}"
    fs.writebytes(name, b"")
    fs.expire(name, seconds=2 + number / 10)
    deadlines[name] = fs.expiration(name).timestamp()
fs.writebytes("later", b"")
fs.expire("later", seconds=600)
link = fs.get_url("later", timeout=5)
client = Client()
answers = [client.get(link).status_code]
end = time.monotonic() + 30
while (answer := client.get(link).status_code) == 200 and time.monotonic() < end:
    time.sleep(0.05)
answers.append(answer)
print(json.dumps([deadlines, answers, time.time()]))
"""


@pytest.fixture
def clock(tmp_path: Path) -> Callable[[int], dict[str, str]]:
    """Gives the environment of a process whose wall clock, and no other, is wrong by some seconds.

    Debian's libfaketime makes Python's sleeps fail and its waits hang.
    """
    source, library = Path(__file__).with_name("clock.c"), tmp_path / "clock.so"
    command = [installed("cc", "gcc"), "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return lambda seconds: {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(seconds)}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.mark.fault(
    "web clock +1 h, worker clock −1 h", "nothing early, nothing late by more than the interval"
)
@pytest.mark.parametrize(("web", "worker"), [pytest.param(1, -1, marks=pytest.mark.long), (-1, 1)])
def test_wrong_clocks_make_nothing_early_or_late(
    tmp_path: Path,
    redis: RedisServer,
    djfs: Callable[..., None],
    clock: Callable[[int], dict[str, str]],
    web: int,
    worker: int,
    measured: Measured,
) -> None:
    service = Service(tmp_path, redis, sweep_interval=INTERVAL, signed_urls=True)
    djfs(**service.djfs)
    settings = {"ALLOWED_HOSTS": ["testserver"], "ROOT_URLCONF": "tests.faults.urls"}
    environ = service.environ(one_shot=web > worker)
    environ["SETTINGS"] = json.dumps({**json.loads(environ["SETTINGS"]), **settings})

    def ahead(hours: int) -> dict[str, str]:
        return clock(hours * HOUR)

    plots = get_filesystem("plots")
    with service.process("worker", **ahead(worker)), service.process("beat", **ahead(web)):
        plots.writebytes("first", b"")
        plots.expire("first", 0)
        wait_for(lambda: not plots.exists("first"), what="the first sweep")
        view = python(f"import django; django.setup()\n{VIEW}", **environ, **ahead(web))
        gone = times_of_going(view)
        deadlines, answers, now = json.loads(view.communicate()[0])
    service.close()

    assert round((now - time.time()) / HOUR) == web, "its clock was right"
    assert answers == [200, 404]
    late = [gone[name] - deadline for name, deadline in deadlines.items()]
    assert min(late) > 0
    assert max(late) < INTERVAL + 30  # for a busy machine
    assert plots.listdir("/") == ["later"]
    measured(
        f"web and beat {web:+} h, worker {worker:+} h: {len(late)} files, 0 early, the latest by "
        f"{max(late):.1f} s at an interval of {INTERVAL} s; a signed link ended on time"
    )


def test_a_beat_ticks_at_its_start_even_after_one_whose_clock_was_an_hour_ahead(
    tmp_path: Path,
    redis: RedisServer,
    djfs: Callable[..., None],
    clock: Callable[[int], dict[str, str]],
) -> None:
    service = Service(tmp_path, redis, sweep_interval=600, punctual=False)
    djfs(**service.djfs)
    plots, schedule = get_filesystem("plots"), str(tmp_path / "schedule")
    with service.process("worker"):
        for ahead in clock(HOUR), {}:
            plots.writebytes("overdue", b"")
            plots.expire("overdue", 0)
            with service.process("beat", BEAT_SCHEDULE=schedule, **ahead):
                wait_for(lambda: not plots.exists("overdue"), what="the first tick")
    service.close()


def test_a_redis_whose_clock_goes_back_an_hour_delays_no_sweep(
    tmp_path: Path,
    djfs: Callable[..., None],
    clock: Callable[[int], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead, sent = clock(HOUR), list[float]()
    timekeeper = Timekeeper("worker", lambda: sent.append(time.monotonic()))

    def look(times: int) -> bool:
        time.sleep(timekeeper.look())
        return len(sent) == times

    for name, value in ahead.items():
        monkeypatch.setenv(name, value)
    with running_redis(appendonly="yes") as redis:
        for name in ahead:
            monkeypatch.delenv(name)
        djfs(type="osfs", directory_root=tmp_path, redis_url=redis.url)
        plots = get_filesystem("plots")

        def expiration(name: str) -> datetime:
            return plots.expiration(name) or datetime.max.replace(tzinfo=UTC)

        plots.expire("first", seconds=0)
        assert expiration("first") > datetime.now(UTC), "the clock is ahead"
        wait_for(lambda: look(1), what="the first sweep")
        expire_objects()
        redis.stop()
        redis.start()
        plots.expire("second", seconds=0)
        assert expiration("second") < datetime.now(UTC), "the clock is right now"
        wait_for(lambda: look(2), what="the second sweep")


def times_of_going(view: subprocess.Popen[bytes]) -> dict[str, float]:
    """Watch until a view has ended and its files are gone; return when each was found gone."""
    fs, seen, gone = get_filesystem("plots"), set[str](), dict[str, float]()
    give_up = time.monotonic() + PATIENCE
    while view.poll() is None or seen - gone.keys() != {"later"}:
        assert time.monotonic() < give_up, f"still there: {seen - gone.keys()}"
        found = set(fs.listdir("/"))
        now = time.time()
        gone.update((name, now) for name in seen - found - gone.keys())
        seen |= found
        time.sleep(0.02)
    return gone
