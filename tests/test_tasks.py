"""The tasks as functions: what they refuse, and what they send."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any, cast

import pytest
from celery import Celery, current_app
from celery.exceptions import Ignore
from fs.move import move_file
from kombu.simple import SimpleQueue

from djpyfs import SweepReport, conf, get_filesystem
from djpyfs.backends.memory import MemoryBackend
from djpyfs.expirations import store_for
from djpyfs.filesystem import ExpiringFS
from djpyfs.names import Entry
from djpyfs.sweeper import recent_sweeps, sweep
from djpyfs_tasks import beat_schedule
from djpyfs_tasks.one_shots import send_one_shots
from djpyfs_tasks.tasks import delete_expired, expire_objects, help_sweep
from tests.servers import HOST, PATIENCE, RedisServer, python, wait_for


@pytest.fixture
def plots(djfs: Callable[..., None]) -> ExpiringFS:
    djfs(type="memory", one_shot=False)
    return get_filesystem("plots")


@pytest.fixture
def queue() -> Iterator[SimpleQueue]:
    """The tasks that wait at a broker in this process."""
    proxy: Any = current_app
    before = proxy._get_current_object()
    app = Celery("tests", broker="memory://", set_as_current=True)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        queue.clear()
        yield queue
        queue.close()
    app.close()
    before.set_current()


@pytest.fixture
def sent(queue: SimpleQueue) -> Callable[[], int]:
    """How many tasks wait there."""
    return queue.qsize


@pytest.mark.parametrize(
    "arguments",
    [
        ("plots", "a"),
        ("plots", {"a": 1}),
        ("plots", ["a"] * 1_001),
        ("plots", ["../plots/a"]),
        ("plots", ["a", "../plots/a"]),
        ("plots", [None]),
        ("../plots", ["a"]),
        (None, ["a"]),
    ],
    ids=lambda arguments: str(arguments)[:30],
)
def test_arguments_that_nobody_sends_are_refused_and_delete_nothing(
    plots: ExpiringFS, arguments: tuple[Any, Any]
) -> None:
    plots.writebytes("a", b"picture")
    plots.expire("a", 0)
    with pytest.raises(ValueError, match=r"paths must be|is not a str|leads out|has the segment"):
        delete_expired(*arguments)
    assert plots.exists("a")


def test_files_due_after_the_horizon_are_left_to_the_sweep(
    djfs: Callable[..., None], sent: Callable[[], int]
) -> None:
    djfs(type="memory", one_shot=True, one_shot_horizon=60)
    for ttl, waiting in (61.0, 0), (59.0, 1):
        send_one_shots(namespace="plots", paths=["a"], ttl=ttl)
        assert sent() == waiting


def test_a_one_shot_that_comes_a_little_early_is_sent_once_more(
    plots: ExpiringFS, sent: Callable[[], int]
) -> None:
    for seconds, waiting in (100, 0), (4, 1):
        plots.expire("a", seconds)
        delete_expired("plots", ["a"])
        assert sent() == waiting


def test_two_sites_on_one_redis_have_queues_of_their_own(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    from djpyfs_tasks.celery import make_app

    used = []
    for site in f"site-{uuid.uuid4().hex}", f"site-{uuid.uuid4().hex}":
        djfs(type="memory", redis_url=f"{redis_server.url[:-1]}7", key_prefix=site)
        with make_app() as app, redis_server.client() as client:
            client.select(7)
            client.flushdb()
            for task in "djpyfs_tasks.expire_objects", "djpyfs_tasks.delete_expired", "another":
                app.send_task(task, ignore_result=True)
            queues = {key.decode() for key in client.scan_iter(_type="list")}
        assert all(queue.startswith(f"{site}.") for queue in queues)
        used.append(queues)
    assert used[0].isdisjoint(used[1])


GIVE_A_DEADLINE: dict[str, Callable[[ExpiringFS], object]] = {
    "expire_many": lambda fs: fs.expire_many(["a", "b"], seconds=50),
    "move": lambda fs: fs.move("timed", "moved"),
    "move to another": lambda fs: move_file(fs, "timed", get_filesystem("other"), "moved"),
    "rewrite": lambda fs: fs.writebytes("near", b"more"),
    "read": lambda fs: fs.readbytes("renewed/a"),
}


@pytest.mark.parametrize("how", GIVE_A_DEADLINE)
def test_every_call_that_sets_a_deadline_sends_a_one_shot(
    djfs: Callable[..., None], queue: SimpleQueue, how: str
) -> None:
    renewed = {"plots/renewed": {"default_ttl": 50, "renew_on_read": True}}
    djfs(type="memory", one_shot=True, grace=50, namespaces=renewed)
    plots = get_filesystem("plots")
    plots.makedir("renewed")
    for name in "timed", "near", "renewed/a":
        plots.writebytes(name, b"")
    plots.expire("timed", 50)
    plots.expire("near", 1)
    queue.clear()
    GIVE_A_DEADLINE[how](plots)
    eta = datetime.fromisoformat(queue.get(timeout=PATIENCE).headers["eta"])
    assert 40 < (eta - datetime.now(UTC)).total_seconds() <= 50
    assert not queue.qsize()


def in_worker(task: Any, turn: int = 0) -> Any:
    """Carry out a task as a worker does."""
    task.push_request(id="of a worker", is_eager=False, replaced_task_nesting=turn)
    try:
        return task.run()
    finally:
        task.pop_request()


Backlog = Callable[..., Callable[[], list[tuple[str, str]]]]


@pytest.fixture
def backlog(djfs: Callable[..., None], queue: SimpleQueue) -> Backlog:
    """Make more files due than one turn can sweep; return a function that lists the tasks sent."""

    def sent() -> list[tuple[str, str]]:
        headers = [queue.get(timeout=PATIENCE).headers for _ in range(queue.qsize())]
        return [(it["id"], it["task"]) for it in headers]

    def make(**options: Any) -> Callable[[], list[tuple[str, str]]]:
        prefix = uuid.uuid4().hex
        djfs(type="memory", batch_size=1, sweep_interval=0.1, key_prefix=prefix, **options)
        get_filesystem("plots").expire_many(map(str, range(5_000)), 0)
        return sent

    return make


@pytest.mark.parametrize(("bound", "helpers"), [({}, 15), ({"sweepers": 3}, 2)])
def test_a_backlog_calls_for_help_and_the_sweep_goes_on_under_its_id(
    backlog: Backlog, bound: dict[str, int], helpers: int
) -> None:
    sent = backlog(**bound)
    with pytest.raises(Ignore):
        in_worker(expire_objects)
    *others, last = sent()
    assert [task for _, task in others] == ["djpyfs_tasks.help_sweep"] * helpers
    assert last == ("of a worker", "djpyfs_tasks.expire_objects")


def test_a_sweep_that_comes_while_another_one_leads_takes_part_in_that_one_for_a_turn(
    backlog: Backlog,
) -> None:
    sent = backlog()
    store = store_for(conf.current())
    store.take_seat("sweep", "the first", 60_000)
    store.record_sweep("the first", {**SweepReport().as_dict(), "deleted": 7})
    report = in_worker(expire_objects)
    assert sent() == []
    assert report["missing"] > 0
    assert report["deleted"] == 7
    assert [it["missing"] for it in recent_sweeps()] == [report["missing"]]


def test_a_sweep_that_ends_with_little_to_do_leads_no_longer(backlog: Backlog) -> None:
    backlog()
    with pytest.raises(Ignore):
        in_worker(expire_objects)
    sweep()
    in_worker(expire_objects, turn=1)
    assert store_for(conf.current()).take_seat("sweep", "another", 60_000) == ["another"]


def test_the_work_of_helpers_is_reported_with_the_sweep_that_called_them(backlog: Backlog) -> None:
    backlog()
    with pytest.raises(Ignore):
        in_worker(expire_objects)
    [before] = recent_sweeps()
    for _ in range(2):
        help_sweep("of a worker", store_for(conf.current()).now())
    [whole] = recent_sweeps()
    assert whole["missing"] > before["missing"]
    assert whole["missing"] + whole["remaining"] == 5_000


def test_a_call_for_help_that_arrives_late_is_ignored(backlog: Backlog) -> None:
    backlog()
    help_sweep("one", store_for(conf.current()).now() - 5 * conf.SECOND)
    assert recent_sweeps() == []
    help_sweep("one", store_for(conf.current()).now())
    assert recent_sweeps() != []


class SlowBackend(MemoryBackend):
    """Takes longer for a file than a turn lasts."""

    def delete_one(self, entry: Entry) -> None:
        time.sleep(0.15)
        super().delete_one(entry)


def test_a_helper_finishes_what_it_has_claimed_though_its_turn_is_over(
    djfs: Callable[..., None],
) -> None:
    djfs(type=f"{__name__}.SlowBackend", batch_size=3, sweep_interval=0.1)
    plots = get_filesystem("plots")
    for name in "abcd":
        plots.touch(name)
    plots.expire_many(list("abcd"), 0)

    def helped() -> bool:  # a machine that stands still may let the turn pass before the claim
        help_sweep("of a worker", store_for(conf.current()).now())
        return len(plots.listdir("/")) < 4

    wait_for(helped)
    assert len(plots.listdir("/")) == 1


def test_a_small_sweep_calls_nobody_and_asks_nobody_whether_it_leads(
    djfs: Callable[..., None], sent: Callable[[], int]
) -> None:
    djfs(type="memory", key_prefix=uuid.uuid4().hex)
    store_for(conf.current()).take_seat("sweep", "another", 60_000)
    get_filesystem("plots").expire_many(["a", "b"], 0)
    assert in_worker(expire_objects)["missing"] == 2
    assert len(recent_sweeps()) == 1
    assert sent() == 0


def test_a_follow_up_expires_when_no_clock_can_be_to_blame(
    djfs: Callable[..., None], queue: SimpleQueue
) -> None:
    djfs(type="memory", batch_size=1, sweep_interval=0.1, sweepers=1)
    get_filesystem("plots").expire_many(map(str, range(5_000)), 0)
    with pytest.raises(Ignore):
        in_worker(expire_objects)
    headers = queue.get(timeout=PATIENCE).headers
    assert headers["id"] == "of a worker"
    expires = datetime.fromisoformat(headers["expires"])
    assert expires > datetime.now(UTC) + timedelta(hours=23)


EAGER = """
import django
from django.conf import settings
settings.configure(
    DJFS={"type": "memory", "redis_url": "memory://"}, CELERY_TASK_ALWAYS_EAGER=True,
    INSTALLED_APPS=["djpyfs", "djpyfs_tasks"],
)
django.setup()
from djpyfs_tasks.celery import app
from djpyfs_tasks.tasks import expire_objects
print(expire_objects.delay().get()["deleted"])
"""


def test_the_apps_tasks_run_eagerly_where_records_are_in_memory() -> None:
    assert python(EAGER).communicate(timeout=PATIENCE)[0] == b"0\n"


ABOVE_DJFS = """
from djpyfs_tasks import beat_schedule
CELERY_BEAT_SCHEDULE = beat_schedule()
DJFS = {"type": "memory", "redis_url": "memory://", "sweep_interval": 7}
"""


def test_a_schedule_made_above_djfs_has_its_interval(tmp_path: Path) -> None:
    (tmp_path / "settings_of_a_site.py").write_text(ABOVE_DJFS)
    process = python(
        "import sys; sys.path.append(sys.argv[1])\n"
        "from django.conf import settings\n"
        "[tick] = settings.CELERY_BEAT_SCHEDULE.values()\n"
        "print(tick['schedule'].run_every.total_seconds())",
        str(tmp_path),
        DJANGO_SETTINGS_MODULE="settings_of_a_site",
    )
    assert process.communicate(timeout=PATIENCE)[0] == b"7.0\n"


def test_a_one_shot_is_not_sent_if_tasks_run_eagerly(
    djfs: Callable[..., None], queue: SimpleQueue
) -> None:
    djfs(type="memory", one_shot=True)
    current_app.conf.task_always_eager = True
    plots = get_filesystem("plots")
    plots.writebytes("a", b"picture")
    plots.expire("a", seconds=0)
    assert plots.exists("a")


def test_a_sweep_whose_broker_and_results_have_gone_goes_on_and_returns(
    djfs: Callable[..., None], queue: SimpleQueue
) -> None:
    djfs(type="memory", batch_size=1, sweep_interval=0.1)
    get_filesystem("plots").expire_many(map(str, range(5_000)), 0)
    of_celery: Any = current_app.conf
    of_celery.broker_url = of_celery.result_backend = f"redis://{HOST}:1/0"
    of_celery.broker_transport_options = {"max_retries": 1, "interval_start": 0}
    of_celery.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}
    report = in_worker(expire_objects)
    assert report["missing"] > 0
    assert report["remaining"] == 5_000 - report["missing"]


def test_sweeps_at_a_time_in_threads_of_a_worker_all_keep_their_results(
    djfs: Callable[..., None], queue: SimpleQueue
) -> None:
    djfs(type="memory", batch_size=1)
    get_filesystem("plots").expire_many(map(str, range(100)), 0)
    together, proxy = Barrier(8), cast(Any, current_app)
    app = proxy._get_current_object()

    def keeps_its_result(number: int) -> bool:
        app.set_current()
        expire_objects.push_request(id=f"{number}", is_eager=False)
        try:
            together.wait(PATIENCE)
            expire_objects.run()
            return not expire_objects.request.ignore_result
        finally:
            expire_objects.pop_request()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(keeps_its_result, range(8)))


def test_ticks_ask_for_no_result_and_expire_if_no_worker_takes_them_for_a_day(
    djfs: Callable[..., None],
) -> None:
    djfs(sweep_interval=7)
    [tick] = beat_schedule().values()
    assert tick["schedule"].run_every.total_seconds() == 7
    assert tick["options"]["expires"] == 86_400
    assert tick["options"]["ignore_result"]
