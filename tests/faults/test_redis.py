"""A Redis that is killed, emptied, full, far away, or silent."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import ANY

import pytest
from django.core.management import CommandError, call_command
from django.urls import include, path

from djpyfs import (
    RecordStoreError,
    RecordStoreUnavailable,
    SweepReport,
    expire_objects,
    get_filesystem,
)
from djpyfs.audit import Audit
from djpyfs.conf import SECOND
from djpyfs.expirations import close_all
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import status, tracked_files
from djpyfs.metrics import RecordStoreCollector
from djpyfs.sweeper import delete_if_due, recent_sweeps
from tests.conftest import records_here
from tests.faults.conftest import Measured
from tests.faults.processes import Race, names, processes
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, running_redis, wait_for

WITHIN = 5  # s

urlpatterns = [path("f/", include("djpyfs.urls"))]


# -- killed and started again


class Progress:
    """How often something has happened in each of several processes."""

    def __init__(self, clients: int) -> None:
        self._counts = [processes.Value("q", 0) for _ in range(clients)]

    def __getitem__(self, client: int) -> Any:
        return self._counts[client]

    def seen(self) -> list[int]:
        return [count.value for count in self._counts]

    def wait_for_all(self, more: int) -> None:
        start = self.seen()
        wait_for(
            lambda: all(
                now >= before + more for now, before in zip(self.seen(), start, strict=True)
            ),
            timeout=60,
            what="something new of every client",
        )


def keep_expiring(client: int, count: Any, failed: Any, stop: Event) -> list[str]:
    """Extend new names; return those whose extension was acknowledged."""
    fs, acknowledged, number = get_filesystem(Race.namespace), list[str](), 0
    while not stop.is_set():
        name = f"{client}-{number:06}"
        number += 1
        try:
            fs.expire(name, seconds=1_000)
            fs.expire(name, seconds=1_000_000)
        except RecordStoreUnavailable:
            failed.value += 1
            time.sleep(0.01)
        else:
            acknowledged.append(name)
            count.value += 1
    return acknowledged


def keep_writing_and_sweeping(client: int, count: Any, failed: Any, stop: Event) -> list[str]:
    fs = get_filesystem(Race.namespace)
    while not stop.is_set():
        try:
            fs.writebytes(f"swept by {client}", b"picture")
            fs.expire(f"swept by {client}", 0)
            expire_objects()
        except RecordStoreUnavailable:
            failed.value += 1
            time.sleep(0.01)
        else:
            count.value += 1
    return []


@pytest.mark.fault(
    "Redis killed and started again, 10 times under load", "0 acknowledged records lost"
)
def test_a_redis_that_is_killed_and_started_again_loses_no_acknowledged_record(
    race_with: Callable[..., Race], full: bool, measured: Measured
) -> None:
    kills = 10 if full else 1
    jobs = [keep_expiring] * 3 + [keep_writing_and_sweeping]
    with running_redis(appendonly="yes", appendfsync="always") as server:
        race = race_with(redis_url=server.url, lease=1)
        stop, progress, failed = processes.Event(), Progress(len(jobs)), Progress(len(jobs))
        clients = [race.start(job, n, progress[n], failed[n], stop) for n, job in enumerate(jobs)]
        for _ in range(kills):
            progress.wait_for_all(50 if full else 10)
            server.stop()
            failed.wait_for_all(1)  # otherwise the slow ones might not have noticed
            server.start()
        progress.wait_for_all(50 if full else 10)
        stop.set()
        acknowledged = [name for client in clients for name in client.result()]

        listing = tracked_files(Race.namespace, limit=10_000_000, looks=10_000_000)
        kept = {file.path for file in listing.files if (file.remaining or 0) > 900_000}
        lost = set(acknowledged) - kept
        assert not lost
        # What was claimed when the server died is tried again after a pause.
        wait_for(lambda: not (expire_objects().remaining or race.claims() or race.files()))
        close_all()
    measured(f"{kills} kills, {len(acknowledged):,} acknowledged, {len(lost)} lost")


# -- all records lost


@pytest.mark.fault(
    "Redis lost with all records", "0 files deleted; audit lists 100 %; --adopt takes them in"
)
def test_a_redis_that_lost_all_records_deletes_nothing_and_an_audit_adopts_all_files(
    djfs: Callable[..., None], tmp_path: Path, full: bool, measured: Measured
) -> None:
    count = 20_000 if full else 500
    with running_redis() as server:
        djfs(type="osfs", directory_root=tmp_path, redis_url=server.url, grace=1, lease=1)
        plots = get_filesystem("plots")
        files = names("file", count)
        (tmp_path / "plots").mkdir()
        for name in files:
            (tmp_path / "plots" / name).write_bytes(b"picture")
        plots.expire_many(files[: count // 2], 0)
        plots.expire_many(files[count // 2 :], seconds=600)
        server.stop()
        server.start()

        assert expire_objects() == SweepReport(duration=ANY)
        assert sorted(plots.listdir("/")) == files
        found = [finding.path for finding in Audit().run("plots")]
        assert sorted(found) == files
        with pytest.raises(CommandError, match=f"left: {count:,}"):
            call_command("djpyfs", "audit", "plots", stdout=io.StringIO())
        adopted = io.StringIO()
        call_command("djpyfs", "audit", "--adopt", "0", "plots", stdout=adopted)
        assert f"{count:,} adopted" in adopted.getvalue()
        assert list(Audit().run("plots")) == []

        deleted = 0

        def swept() -> bool:
            nonlocal deleted
            deleted += expire_objects().deleted
            return deleted == count

        wait_for(swept, timeout=60)
        assert plots.listdir("/") == []
        close_all()
    measured(f"{count:,} files: 0 deleted, {len(found):,} listed, {deleted:,} adopted and swept")


# -- far away, silent, or cut off in mid-reply

IN_DIRECTORY = {"directory/a", "directory/b"}
Act = Callable[[ExpiringFS], object]


def open_and_write(fs: ExpiringFS) -> None:
    with fs.open("lasting", "wb") as file:
        file.write(b"new")


WRITES: dict[str, Act] = {
    "expire": lambda fs: fs.expire("lasting", seconds=600),
    "expire what is due": lambda fs: fs.expire("due", seconds=600),
    "expire_many": lambda fs: fs.expire_many(["lasting", "due"], seconds=600),
    "write": lambda fs: fs.writebytes("lasting", b"new"),
    "write what is due": lambda fs: fs.writebytes("due", b"new"),
    "write with a default_ttl": lambda fs: fs.writebytes("born", b"new"),
    "open and write": open_and_write,
    "upload": lambda fs: fs.upload("lasting", io.BytesIO(b"new")),
    "copy": lambda fs: fs.copy("lasting", "copied", overwrite=True),
    "move": lambda fs: fs.move("lasting", "moved"),
    "move over what is due": lambda fs: fs.move("lasting", "due", overwrite=True),
    "move over what is permanent": lambda fs: fs.move("lasting", "permanent", overwrite=True),
    "movedir": lambda fs: fs.movedir("directory", "elsewhere", create=True),
    "remove": lambda fs: fs.remove("lasting"),
    "removetree": lambda fs: fs.removetree("directory"),
    "sweep": lambda fs: expire_objects(),
    "one-shot": lambda fs: delete_if_due(fs.namespace, ["due"]),
    "link for one download": lambda fs: fs.get_url("lasting", max_downloads=1),
}
READS: dict[str, Act] = {
    "expiration": lambda fs: fs.expiration("lasting"),
    "get_url": lambda fs: fs.get_url("lasting"),
    "read": lambda fs: fs.readbytes("lasting"),
    "exists": lambda fs: fs.exists("lasting"),
    "listdir": lambda fs: fs.listdir("/"),
    "status": lambda fs: status(),
    "recent sweeps": lambda fs: recent_sweeps(),
    "tracked files": lambda fs: tracked_files(fs.namespace),
    "audit": lambda fs: list(Audit().run(fs.namespace)),
    "numbers": lambda fs: list(RecordStoreCollector().collect()),
}


class Scene:
    """A filesystem with its records behind a proxy."""

    def __init__(self, proxy: Proxy, redis_server: RedisServer, directory: Path) -> None:
        self.proxy = proxy
        self._directory = directory
        self._server = redis_server

    def filled(self, default_ttl: bool = False) -> ExpiringFS:
        fs = get_filesystem(f"{'born/' if default_ttl else ''}n{uuid.uuid4().hex}")
        fs.makedir("directory")
        for name in "lasting", "due", "permanent", "directory/a", "directory/b":
            fs.writebytes(name, b"old")
        fs.expire("permanent", expires=False)
        fs.expire_many(["lasting", "directory/a", "directory/b"], seconds=600)
        fs.expire("due", 0)
        return fs

    def files(self, fs: ExpiringFS) -> dict[str, bytes]:
        root = self._directory / fs.namespace
        found = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


@pytest.fixture
def scene(
    djfs: Callable[..., None],
    tmp_path: Path,
    redis_server: RedisServer,
    settings: Any,
    request: pytest.FixtureRequest,
) -> Iterator[Scene]:
    settings.ROOT_URLCONF = __name__
    proxy = Proxy(redis_server.port)
    djfs(
        type="osfs",
        directory_root=tmp_path,
        redis_url=proxy.url,
        key_prefix=f"test-{uuid.uuid4().hex}",
        lease=getattr(request, "param", 30),
        grace=1,
        hide_expired=True,
        namespaces={"born/*": {"default_ttl": 600, "renew_on_read": True}},
    )
    yield Scene(proxy, redis_server, tmp_path)
    close_all()
    proxy.stop()


class Answer(NamedTuple):
    seconds: float
    error: Exception | None


def answer(act: Act, fs: ExpiringFS) -> Answer:
    start = time.monotonic()
    try:
        act(fs)
    except Exception as error:
        return Answer(time.monotonic() - start, error)
    return Answer(time.monotonic() - start, None)


def test_a_use_of_a_link_whose_reply_is_lost_is_taken_once(scene: Scene) -> None:
    records, member = records_here(), b"plots/a"
    now, _ = records.deadline(member)
    records.issue_ticket("two", 2, now + 60 * SECOND)
    scene.proxy.cuts = 1
    assert [records.use_ticket("two") for _ in range(3)] == [True, True, False]
    assert scene.proxy.cuts == 0


@pytest.mark.fault("Redis accepts and never answers", "every call ends within 5 s with one error")
def test_every_call_ends_if_redis_accepts_and_never_answers(
    scene: Scene, full: bool, measured: Measured
) -> None:
    acts = {**WRITES, **READS}
    filled = {name: scene.filled("default_ttl" in name or name in READS) for name in acts}
    scene.proxy.silent = True

    with ThreadPoolExecutor(len(acts)) as pool:
        futures = {name: pool.submit(answer, act, filled[name]) for name, act in acts.items()}
        answers = {name: future.result() for name, future in futures.items()}
    scene.proxy.silent = False

    wrong = {n: a.error for n, a in answers.items() if type(a.error) is not RecordStoreUnavailable}
    assert not wrong
    longest = max(answer.seconds for answer in answers.values())
    assert longest < (WITHIN if full else 2 * WITHIN)
    for fs in filled.values():
        assert scene.files(fs).keys() == {"lasting", "due", "permanent", *IN_DIRECTORY}
    measured(f"{len(acts)} calls, the longest {longest:.1f} s")


@pytest.mark.long  # 4 s for each of the calls
@pytest.mark.fault("Redis falls silent in the middle of a call", "it ends within 5 s")
def test_every_write_ends_if_redis_falls_silent_halfway(scene: Scene, measured: Measured) -> None:
    longest = 0.0
    for act in WRITES.values():
        fs = scene.filled()
        scene.proxy.passing, scene.proxy.silent = 1, True
        seconds, error = answer(act, fs)
        scene.proxy.silent = False
        assert error is None or type(error) is RecordStoreUnavailable
        longest = max(longest, seconds)
    assert longest < WITHIN
    measured(f"{len(WRITES)} calls, the longest {longest:.1f} s")


@pytest.mark.fault("Redis 200 ms away", "every call succeeds within 5 s")
def test_every_call_succeeds_if_redis_is_far_away(
    scene: Scene, full: bool, measured: Measured
) -> None:
    acts = {**WRITES, **READS}
    filled = {name: scene.filled("default_ttl" in name or name in READS) for name in acts}
    scene.proxy.delay = 0.2 if full else 0.05
    with ThreadPoolExecutor(len(acts)) as pool:
        futures = {name: pool.submit(answer, act, filled[name]) for name, act in acts.items()}
        answers = {name: future.result() for name, future in futures.items()}
    assert {name: answer.error for name, answer in answers.items() if answer.error} == {}
    longest = max(answer.seconds for answer in answers.values())
    assert longest < (WITHIN if full else 2 * WITHIN)
    measured(f"{len(acts)} calls, the longest {longest:.1f} s")


def deadline_of(fs: ExpiringFS, name: str) -> float | None:
    """Return the seconds until a file is due, or None if it has no deadline."""
    due = fs.expiration(name)
    return (due - datetime.now(UTC)).total_seconds() if due else None


def check_nothing_was_lost(scene: Scene, fs: ExpiringFS) -> None:
    """Look for a file that would live forever, and for a permanent one that would not."""
    files = scene.files(fs)
    for name, contents in files.items():
        begun_anew = contents == b"new" and name == "due"
        if name != "permanent" and not begun_anew and "copied" not in name:
            assert deadline_of(fs, name) is not None, f"{name} lives forever"
    if files.get("permanent") == b"old":
        assert deadline_of(fs, "permanent") is None, "what is permanent would go"


AFTER: dict[str, dict[str, tuple[float, float] | None]] = {
    "expire": {"lasting": (500, 600)},
    "expire what is due": {"due": (500, 600)},
    "expire_many": {"lasting": (500, 600), "due": (500, 600)},
    "write": {"lasting": (500, 600)},
    "write what is due": {"due": None},
    "write with a default_ttl": {"born": (500, 600)},
    "open and write": {"lasting": (500, 600)},
    "upload": {"lasting": (500, 600)},
    "copy": {"lasting": (500, 600), "copied": None},
    "move": {"lasting": None, "moved": (500, 600)},
    "move over what is due": {"lasting": None, "due": (500, 600)},
    "move over what is permanent": {"lasting": None, "permanent": (500, 600)},
    "movedir": {"elsewhere/a": (500, 600), "elsewhere/b": (500, 600), "directory/a": None},
    "remove": {"lasting": None},
    "removetree": {"directory/a": None, "directory/b": None},
    "sweep": {"due": None, "lasting": (500, 600)},
    "one-shot": {"due": None},
    "link for one download": {"lasting": (500, 600)},
}


def check_done(fs: ExpiringFS, name: str) -> None:
    for file, between in AFTER[name].items():
        left = deadline_of(fs, file)
        if between is None:
            assert left is None, f"{file} has a deadline"
        else:
            assert left is not None, f"{file} has no deadline"
            assert between[0] < left <= between[1]


def with_lease(name: str) -> Any:
    """A short lease, for tests in which only its end frees what was claimed in vain."""
    return pytest.param(name, 1 if name in ("sweep", "one-shot") else 30, id=name)


@pytest.mark.parametrize(("name", "scene"), [*map(with_lease, WRITES)], indirect=["scene"])
@pytest.mark.fault("connection to Redis cut in mid-reply", "no half state, within 5 s")
def test_no_half_state_is_left_if_the_connection_is_cut_in_mid_reply(
    scene: Scene, name: str, full: bool, measured: Measured
) -> None:
    act, longest, tried, errors = WRITES[name], 0.0, 0, 0
    for cuts in 1, 100:
        for passing in range(4):
            fs = scene.filled(default_ttl="default_ttl" in name)
            scene.proxy.passing, scene.proxy.cuts = passing, cuts
            seconds, error = answer(act, fs)
            untouched = scene.proxy.cuts == cuts
            scene.proxy.passing = scene.proxy.cuts = 0
            if untouched:
                break
            tried += 1
            errors += error is not None
            longest = max(longest, seconds)
            assert error is None or type(error) is RecordStoreUnavailable
            if name != "move over what is permanent":  # which has the other's deadline at once
                check_nothing_was_lost(scene, fs)
            if error is None:
                wait_until_swept(fs, name)
                check_done(fs, name)
    assert tried > 1
    assert longest < (WITHIN if full else 2 * WITHIN)
    measured(f"{name}: cut {tried} times, {errors} errors, the longest {longest:.1f} s")


def wait_until_swept(fs: ExpiringFS, name: str) -> None:
    """Wait until the claims of a sweep whose reply was lost have been swept."""
    if name in ("sweep", "one-shot"):
        wait_for(lambda: expire_objects().duration and deadline_of(fs, "due") is None)
        assert not fs.exists("due")


# -- full


def is_refused(fs: ExpiringFS, name: str) -> bool:
    error = answer(lambda fs: fs.expire(name, seconds=600), fs).error
    assert error is None or (type(error) is RecordStoreError and "full" in str(error))
    return error is not None


@pytest.mark.fault("Redis memory full (noeviction)", "expire() raises, the sweep still drains")
def test_a_full_redis_refuses_new_records_and_lets_sweeps_through(
    djfs: Callable[..., None], tmp_path: Path, full: bool, measured: Measured
) -> None:
    count = 10_000 if full else 1_000
    with running_redis() as server:
        djfs(type="osfs", directory_root=tmp_path, redis_url=server.url, key_prefix="x" * 50)
        plots = get_filesystem("plots")
        files = names("file", count)
        (tmp_path / "plots").mkdir()
        for name in files[1:]:
            (tmp_path / "plots" / name).write_bytes(b"picture")
        (tmp_path / "plots" / files[0]).mkdir()
        plots.expire_many(files, 0)
        with server.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] + 100_000)

        more = names("more", 100_000)
        refused = next(name for name in more if is_refused(plots, name))
        assert plots.expiration(refused) is None
        held = status().tracked

        report = expire_objects()

        assert (report.deleted, report.retried, report.remaining) == (count - 1, 1, 0)
        assert plots.listdir("/") == [files[0]]
        close_all()
    measured(f"full after {held:,} records, {report.deleted:,} swept all the same")


# -- records that can be no file's

BROKEN = [
    b"no slash",
    b"plots/../x",
    b"\xff\xfe\x80/x",
    b"/x",
    b"plots/",
    b"a/b\0c",
    b"\n/\x1b[31m",
]


@pytest.mark.fault("broken records in Redis", "set aside, the rest swept")
def test_broken_records_are_set_aside_at_once_and_listed_and_the_others_are_swept(
    djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer, measured: Measured
) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    djfs(type="osfs", directory_root=tmp_path, redis_url=redis_server.url, key_prefix=prefix)
    plots = get_filesystem("plots")
    files = names("file", 100)
    (tmp_path / "plots").mkdir()
    for name in files:
        (tmp_path / "plots" / name).write_bytes(b"picture")
    plots.expire_many(files, 0)
    with redis_server.client() as client:
        [due] = client.keys(f"{prefix}:{{00}}:*:due")
        client.zadd(due, dict.fromkeys(BROKEN, 1))
    assert json.loads(told("ls", "plots", "--format", "json"))["complete"]

    report = expire_objects()

    assert (report.deleted, report.set_aside, report.retried) == (100, len(BROKEN), 0)
    listed = json.loads(told("failed", "--format", "json"))["files"]
    assert len(listed) == len(BROKEN)
    assert {record["attempts"] for record in listed} == {1}
    assert all(record["reason"].startswith("InvalidName: ") for record in listed)
    assert "\x1b" not in told("failed")
    assert tracked_files("plots").complete
    for record in listed:
        told("failed", "--forget", "--", record["namespace"], record["path"])
    assert json.loads(told("failed", "--format", "json"))["files"] == []
    measured(f"{len(BROKEN)} set aside at once, {report.deleted} swept beside them")


def told(*arguments: str) -> str:
    out = io.StringIO()
    with suppress(CommandError):  # which it ends with where files are set aside
        call_command("djpyfs", *arguments, stdout=out)
    return out.getvalue()
