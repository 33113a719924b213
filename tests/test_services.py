"""Worker, beat and Flower as processes, over a real Redis, a real S3 endpoint and a real disk."""

from __future__ import annotations

import json
import pickle
import re
import socket
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from celery import Celery

from demo.services import commands
from djpyfs import get_filesystem
from djpyfs.backends import Backend
from djpyfs.backends.osfs import DiskBackend
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import status
from djpyfs.names import Entry
from djpyfs.sweeper import recent_sweeps
from tests.conftest import BUCKET, KEYS, files_beneath
from tests.servers import HOST, PATIENCE, RedisServer, running_redis, wait_for
from tests.services import SWEEP, SWEEPS, Service, run_client, running, started


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


class UnhurriedBackend(DiskBackend):
    """Takes its time for each file."""

    delete = Backend.delete

    def delete_one(self, entry: Entry) -> None:
        time.sleep(0.1)
        super().delete_one(entry)


SLOW = f"{__name__}.{UnhurriedBackend.__name__}"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, s3_endpoint: str
) -> Iterator[Service]:
    """A worker and Flower; each test starts the beats that it needs."""
    on_s3 = {"type": "s3fs", "bucket": BUCKET, "prefix": "services", "endpoint_url": s3_endpoint}
    slow = {"type": SLOW, "directory_root": str(tmp_path_factory.mktemp("slow"))}
    made = Service(
        tmp_path_factory.mktemp("service"),
        redis,
        batch_size=5,
        punctual=False,  # each test says who sweeps
        namespaces={"s3": {**on_s3, **KEYS}, "slow": slow},
    )
    with made.process("worker"), made.process("flower"):
        wait_for(made.flower_shows_a_worker, what="the worker in Flower")
        yield made
    made.close()


@pytest.fixture
def files(service: Service, djfs: Callable[..., None]) -> ExpiringFS:
    """The service's files on disk, as this process sees them; no sweep is under way."""
    service.wait_until_idle()
    djfs(**service.djfs)
    return get_filesystem("disk")


def make_overdue(files: ExpiringFS, count: int) -> None:
    names = [f"{n:05}" for n in range(count)]
    for name in names:
        files_beneath(files.namespace).touch(name)
    files.expire_many(names, 0)


def swept_since(start: float) -> list[dict[str, float]]:
    """The reports of the sweeps since then, the first one first."""
    return [report for report in reversed(recent_sweeps(100)) if report["finished"] >= start]


def keys_of(redis: RedisServer, database: int) -> set[str]:
    with redis.client() as client:
        client.select(database)
        found: Any = client.keys("*")
        return {key.decode() for key in found}


# -- beat


def test_a_file_appears_is_served_and_is_deleted_by_the_sweep_of_a_beat_or_two(
    service: Service, files: ExpiringFS
) -> None:
    on_s3 = get_filesystem("s3")
    start = time.time()
    with service.process("beat"), service.process("beat"):
        for filesystem in files, on_s3:
            filesystem.writebytes("sine.png", b"a plot")
        assert files.get_url("sine.png") == "/files/disk/sine.png"
        with urlopen(on_s3.get_url("sine.png", timeout=60), timeout=PATIENCE) as answer:
            assert answer.read() == b"a plot"
        for filesystem in files, on_s3:
            filesystem.expire("sine.png", seconds=3)
        wait_for(lambda: not files.exists("sine.png") or not on_s3.exists("sine.png"))
        assert time.time() > start + 3, "one went too early"
        wait_for(lambda: not files.exists("sine.png") and not on_s3.exists("sine.png"))
        # The sweep of an earlier test may go on with them, and reports its own files as well.
        wait_for(lambda: sum(report["deleted"] for report in swept_since(start)) >= 2)

    reports = swept_since(start)
    assert sum(report["missing"] + report["failed"] for report in reports) == 0
    assert max(report["lag"] for report in reports) < 30  # of 1 s, and the machine may be busy


# -- sweeps


def test_flower_shows_the_task_with_its_result_and_its_worker(
    service: Service, files: ExpiringFS
) -> None:
    make_overdue(files, 10)

    sent = service.sweep()
    report = sent.get(timeout=PATIENCE)

    assert (report["deleted"], report["remaining"]) == (10, 0)
    shown = wait_for(
        lambda: service.flower(f"tasks?taskname={SWEEP}&state=SUCCESS").get(sent.id),
        what="the task in Flower",
    )
    assert literal_eval(shown["result"]) == report
    assert not re.search(r"\.\d{4}", shown["result"]), "more digits than anybody reads"
    assert shown["worker"] in service.flower("workers?status=true")
    with urlopen(f"http://{HOST}:{service.flower_port}/tasks", timeout=PATIENCE) as answer:
        headings = re.findall(r"<th[^>]*>\s*(.*?)\s*</th>", answer.read().decode())
    assert "Result" in headings


def test_flower_shows_what_a_tick_did_that_keeps_no_result(
    service: Service, files: ExpiringFS
) -> None:
    make_overdue(files, 10)
    sent = service.celery.send_task(SWEEP, queue=SWEEPS, ignore_result=True)
    shown = wait_for(
        lambda: service.flower(f"tasks?taskname={SWEEP}&state=SUCCESS").get(sent.id),
        what="the task in Flower",
    )
    assert literal_eval(shown["result"])["deleted"] == 10
    with service.redis.client() as client:
        assert not client.exists(f"celery-task-meta-{sent.id}")


def test_a_backlog_is_one_sweep_in_flower_and_in_the_list_however_many_help_with_it(
    service: Service, files: ExpiringFS
) -> None:
    make_overdue(get_filesystem("slow"), 400)  # for some turns
    log, begun = service.log("worker"), service.log("worker").stat().st_size
    before, start = set(service.flower("tasks")), time.time()

    told: list[dict[str, Any]] = []
    sent = service.sweep()
    report = sent.get(timeout=PATIENCE, on_message=told.append)

    assert report["remaining"] == 0
    wait_for(lambda: sum(it["deleted"] for it in swept_since(start)) == 400)
    [whole] = swept_since(start)
    assert 0 < report["deleted"] <= whole["deleted"] == 400
    assert any(it["result"]["deleted"] > 0 for it in told if it["status"] == "PROGRESS")
    news = log.read_bytes()[begun:].decode()
    assert news.count(f"Task {SWEEP}[{sent.id}] received") > 1, "it went on after a turn"
    assert f"Task {HELP}[" in news
    wait_for(lambda: service.flower(f"tasks?taskname={SWEEP}&state=SUCCESS").get(sent.id))
    assert set(service.flower("tasks")) - before == {sent.id}


def test_a_sweep_that_a_soft_time_limit_ends_has_a_true_report(
    redis: RedisServer, tmp_path: Path, djfs: Callable[..., None]
) -> None:
    records = f"redis://{HOST}:{redis.port}/5"
    # With an interval that lets a turn last longer than the limit.
    own = {"redis_url": records, "type": SLOW, "punctual": False, "sweep_interval": 60}
    service = Service(tmp_path, redis, **own)
    djfs(**service.djfs)
    files = get_filesystem("disk")
    make_overdue(files, 100)
    celery = Celery("client", broker=service.djfs["redis_url"], backend=service.djfs["redis_url"])
    with service.process("worker"), celery:
        celery.send_task(SWEEP, args=[1], queue=SWEEPS).get(timeout=PATIENCE)  # opens all
        sweep = celery.send_task(SWEEP, args=[100], queue=SWEEPS, soft_time_limit=1)
        report = sweep.get(timeout=PATIENCE)
    left = len(files.listdir("/"))
    assert 0 < left < 99
    assert (report["deleted"], report["failed"], report["remaining"]) == (99 - left, 0, left)
    service.close()


@pytest.fixture(params=["refuses", "never answers"])
def away(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Redis that is away."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        if request.param == "never answers":
            server.listen()
        yield f"redis://{HOST}:{server.getsockname()[1]}/0"


ASK_FOR_A_RESULT = """
from djpyfs_tasks import app
app.send_task("djpyfs_tasks.expire_objects")
"""


def test_a_result_backend_that_is_away_keeps_no_file(
    redis: RedisServer, tmp_path: Path, djfs: Callable[..., None], away: str
) -> None:
    service = Service(tmp_path, redis, redis_url=f"redis://{HOST}:{redis.port}/4", batch_size=5)
    djfs(**service.djfs)
    files = get_filesystem("disk")
    make_overdue(files, 50)
    results = {"RESULTS_URL": away}
    with service.process("worker", **results):
        run_client(ASK_FOR_A_RESULT, service.environ())
        wait_for(lambda: not files.listdir("/"), what="the sweep whose result is wanted")
        make_overdue(files, 1_000)  # for more than one tick
        with service.process("beat", **results):
            wait_for(lambda: not files.listdir("/"), what="the sweeps of beat")
    service.close()


class Harm:
    """What does something as soon as somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_the_worker_refuses_messages_that_are_not_json(
    service: Service, files: ExpiringFS, tmp_path: Path
) -> None:
    harm, control = Harm(tmp_path / "harm"), Harm(tmp_path / "control")
    pickle.loads(pickle.dumps(control))
    assert control.path.exists(), "it does no harm at all"
    service.celery.send_task(SWEEP, args=[harm], queue=SWEEPS, serializer="pickle")

    log = service.log("worker")
    wait_for(lambda: "content of type pickle" in log.read_text(), what="the refusal")

    assert service.sweep().get(timeout=PATIENCE)["failed"] == 0, "the worker goes on"
    assert not harm.path.exists()


READ_RESULT = """
from djpyfs_tasks import app
try:
    print("it says", app.AsyncResult("poisoned").get(timeout=10))
except Exception as error:
    print("refused")
"""


def test_a_result_that_is_not_json_is_not_read(service: Service, tmp_path: Path) -> None:
    harm = Harm(tmp_path / "harm")
    with service.redis.client() as client:
        client.set("celery-task-meta-poisoned", pickle.dumps({"status": "SUCCESS", "result": harm}))
    assert run_client(READ_RESULT, service.environ()) == "refused\n"
    assert not harm.path.exists()


DELETE = "djpyfs_tasks.delete_expired"
HELP = "djpyfs_tasks.help_sweep"
LINE_OF_A_LOG = "a\n[2026-01-01 00:00:00,000: INFO/MainProcess] all is well\x1b[2J"
BAD_MESSAGES: list[tuple[str, list[Any], dict[str, Any]]] = [
    (DELETE, ["../disk", ["overdue"]], {}),
    (DELETE, ["/etc", ["passwd"]], {}),
    (DELETE, ["", ["overdue"]], {}),
    (DELETE, [5, ["overdue"]], {}),
    (DELETE, [{"disk": 1}, ["overdue"]], {}),
    (DELETE, ["disk", "overdue"], {}),
    (DELETE, ["disk", None], {}),
    (DELETE, ["disk", {"overdue": 1}], {}),
    (DELETE, ["disk", ["overdue", "../overdue"]], {}),
    (DELETE, ["disk", ["overdue", 5]], {}),
    (DELETE, ["disk", ["overdue", ["overdue"]]], {}),
    (DELETE, ["disk", ["overdue", LINE_OF_A_LOG]], {}),
    (DELETE, ["disk", ["overdue"] * 1_001], {}),
    (DELETE, ["disk", ["overdue"] * 200_000], {}),
    (DELETE, [], {}),
    (DELETE, ["disk", ["overdue"], "more"], {}),
    (DELETE, [], {"namespace": "disk", "path": "overdue"}),
    (SWEEP, ["many"], {}),
    (SWEEP, [-1], {}),
    (SWEEP, [], {"seconds": 5}),
    (HELP, [], {}),
    (HELP, [5, 5], {}),
    (HELP, ["one", "now"], {}),
    (HELP, ["one" * 1_000, 5], {}),
]


def test_a_task_that_djpyfs_would_not_send_is_refused_and_logged_and_deletes_nothing(
    service: Service, files: ExpiringFS
) -> None:
    for name in "overdue", "alive", "foreign":
        files.touch(name)
    files.expire("overdue", 0)
    files.expire("alive", 600)
    log, start = service.log("worker"), service.log("worker").stat().st_size

    def news() -> str:
        return log.read_bytes()[start:].decode()

    queues = {SWEEP: SWEEPS, HELP: SWEEPS, DELETE: "djpyfs.one_shot"}
    # Not the results themselves, which call Redis when they end.
    sent = [
        service.celery.send_task(task, args, kwargs, queue=queues[task]).id
        for task, args, kwargs in BAD_MESSAGES
    ]
    # These are well formed, and yet carry no right to delete.
    no_right = ["disk", ["alive", "foreign"]]
    fine = service.celery.send_task(DELETE, no_right, queue=queues[DELETE]).id

    wait_for(lambda: all(f"[{id_}] raised" in news() for id_ in sent), what="the refusals")
    wait_for(lambda: f"[{fine}] succeeded" in news())
    assert set(files.listdir("/")) == {"overdue", "alive", "foreign"}
    assert "\x1b" not in news()
    assert "\n[2026-01-01 00:00:00,000:" not in news()
    for name in "overdue", "alive", "foreign":  # which no later sweep is to find
        files.remove(name)


# -- one-shots

ONE_SHOT = """
from djpyfs import get_filesystem
fs = get_filesystem("disk")
fs.writebytes("one-shot", b"")
fs.expire("one-shot", seconds=1)
print(fs.expiration("one-shot").timestamp())
"""


def test_a_one_shot_deletes_within_two_seconds_of_the_deadline_and_without_a_beat(
    service: Service, files: ExpiringFS
) -> None:
    def lateness() -> float:
        environ = service.environ(one_shot=True)
        deadline = float(run_client(ONE_SHOT.replace("seconds=1", "seconds=5"), environ))
        wait_for(lambda: not files.exists("one-shot"), what="the deletion")
        late = time.time() - deadline
        assert late > 0
        return late

    assert any(lateness() < 2 for _ in range(5))  # a busy machine may hold up some
    wait_for(lambda: service.flower("tasks?taskname=djpyfs_tasks.delete_expired&state=SUCCESS"))


@pytest.mark.parametrize("own_app", [False, True], ids=["our-app", "own-app"])
def test_a_redis_that_restarts_under_a_waiting_one_shot_ends_no_worker_and_delays_no_file(
    tmp_path: Path, djfs: Callable[..., None], own_app: bool
) -> None:
    with running_redis(appendonly="yes", appendfsync="always") as redis:
        service = Service(tmp_path, redis, one_shot=True, punctual=False)
        djfs(**service.djfs)
        environ = service.environ()
        command = commands(environ)["worker"]
        if own_app:
            environ |= environ_of_own_app(redis, tmp_path, ONE_SHOT="1")
            command = [*OWN_APP, "worker", "--concurrency=1", "--loglevel=info"]
        log = service.log("worker")
        files = get_filesystem("disk")

        def restart_while_it_waits(seconds: int) -> bool:
            """Restart Redis while a one-shot waits; tell whether it still did afterwards."""
            begun = log.stat().st_size
            life = ONE_SHOT.replace("seconds=1", f"seconds={seconds}")
            deadline = float(run_client(life, environ))
            wait_for(lambda: f"{DELETE}[" in log.read_text()[begun:], what="it in the worker")
            redis.stop()
            redis.start()
            still_waited = files.exists("one-shot")
            wait_for(lambda: not files.exists("one-shot"), what="the deletion")
            assert time.time() > deadline
            return still_waited

        with running(command, environ, log):  # which it is to the end
            # A busy machine needs more time for the restart.
            assert any(map(restart_while_it_waits, (6, 20, 60)))
        service.close()


TIMED = """
import sys, time
from djpyfs import get_filesystem
fs = get_filesystem("plots")
for name in "first", "second":
    start = time.monotonic()
    fs.expire(name, seconds=1)
    print(time.monotonic() - start)
    assert fs.expiration(name)
"""


def test_a_broker_that_is_away_neither_fails_nor_holds_up_what_sets_a_deadline(
    redis: RedisServer, tmp_path: Path, away: str
) -> None:
    records = f"redis://{HOST}:{redis.port}/3"
    djfs = {"directory_root": str(tmp_path), "redis_url": records, "one_shot": True}
    settings = json.dumps({"DJFS": djfs, "CELERY_BROKER_URL": away})
    environ = {"DJANGO_SETTINGS_MODULE": "tests.service_settings", "SETTINGS": settings}

    first, second = map(float, run_client(TIMED, environ).split())

    assert first < 10
    assert second < 1.8  # the first one has waited for 2 s
    assert all(key.startswith("djpyfs:") for key in keys_of(redis, 3)), "it went elsewhere"


# -- a project with a Celery app of its own


OWN_APP = ["celery", "--app=tests.own_app"]


def environ_of_own_app(redis: RedisServer, directory: Path, **more: str) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tests.own_app.settings",
        "BROKER_URL": f"redis://{HOST}:{redis.port}/1",
        "RECORDS_URL": redis.url,
        "FILES": str(directory / "files"),
        **more,
    }


def test_your_own_celery_app_sweeps_and_takes_one_shots_in_its_default_queue(
    redis: RedisServer, tmp_path: Path, djfs: Callable[..., None]
) -> None:
    records = f"redis://{HOST}:{redis.port}/2"
    environ = environ_of_own_app(redis, tmp_path, RECORDS_URL=records)
    djfs(type="osfs", directory_root=environ["FILES"], redis_url=records)
    files = get_filesystem("disk")
    command = OWN_APP
    schedule = f"--schedule={tmp_path / 'beat'}"

    with running([*command, "worker", "--concurrency=1"], environ, tmp_path / "worker.log"):
        run_client(ONE_SHOT, {**environ, "ONE_SHOT": "1"})
        wait_for(lambda: not files.exists("one-shot"), what="the one-shot")

        files.writebytes("swept", b"")
        files.expire("swept", 0)
        with running([*command, "beat", schedule], environ, tmp_path / "beat.log"):
            wait_for(lambda: not files.exists("swept"), what="the sweep")

        keys = keys_of(redis, 1)
    assert any("celery" in key for key in keys)
    assert not [key for key in keys if "djpyfs." in key]


def test_a_worker_of_your_own_celery_app_keeps_time_without_a_beat(
    redis: RedisServer, tmp_path: Path, djfs: Callable[..., None]
) -> None:
    records, broker = (f"redis://{HOST}:{redis.port}/{database}" for database in (6, 7))
    environ = environ_of_own_app(redis, tmp_path, RECORDS_URL=records, BROKER_URL=broker)
    djfs(type="osfs", directory_root=environ["FILES"], redis_url=records)
    files, worker = get_filesystem("disk"), [*OWN_APP, "worker", "--concurrency=1"]
    environ["PUNCTUAL"] = "1"
    with started(worker, environ, tmp_path / "worker.log") as process:
        files.writebytes("soon", b"")
        files.expire("soon", seconds=1)
        wait_for(lambda: not files.exists("soon"), what="the sweep")
        assert status().punctual
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert not status().punctual, "its lease outlives it"


def test_a_result_backend_that_is_away_keeps_no_file_from_a_worker_of_your_own_celery_app(
    redis: RedisServer, tmp_path: Path, djfs: Callable[..., None], away: str
) -> None:
    records, broker = (f"redis://{HOST}:{redis.port}/{database}" for database in (8, 9))
    environ = environ_of_own_app(redis, tmp_path, RECORDS_URL=records, BROKER_URL=broker)
    djfs(type="osfs", directory_root=environ["FILES"], redis_url=records)
    files, worker = get_filesystem("disk"), [*OWN_APP, "worker", "--concurrency=1"]
    with running(
        worker, {**environ, "RESULTS_URL": away, "BATCH_SIZE": "5"}, tmp_path / "worker.log"
    ):
        for count in 100, 1:  # a backlog for which it calls for help, then one more
            make_overdue(files, count)
            run_client(f"from tests.own_app import app; app.send_task({SWEEP!r})", environ)
            wait_for(lambda: not files.listdir("/"), 60, what="the sweep whose result is wanted")
