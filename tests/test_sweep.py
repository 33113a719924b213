"""The sweep: what it deletes, what it counts, and what it leaves alone."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Barrier
from time import sleep
from typing import Any, ClassVar
from unittest.mock import ANY

import pytest
import redis
from fs.base import FS
from fs.errors import RemoteConnectionError
from fs.memoryfs import MemoryFS

from djpyfs import (
    BackendUnavailable,
    RecordStoreError,
    SweepReport,
    conf,
    expirations,
    expire_objects,
    get_filesystem,
)
from djpyfs.backends import Lease, Outcome, backend_for
from djpyfs.backends.memory import MemoryBackend
from djpyfs.backends.osfs import DiskBackend
from djpyfs.conf import SECOND
from djpyfs.expirations import LIVE, State
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import status, tracked_file
from djpyfs.names import Entry
from djpyfs.signals import files_expired, sweep_finished
from djpyfs.sweeper import delete_if_due, recent_sweeps, sweep
from tests.conftest import records_here
from tests.endless import Endless
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, running_redis, wait_for


class BrittleFS(MemoryFS):
    """Refuses to remove files whose names begin with ``bad``."""

    def remove(self, path: str) -> None:
        if path.startswith("bad"):
            raise PermissionError(13, "read-only", path)
        super().remove(path)


class BrittleBackend(MemoryBackend):
    """A backend of a project's own, with one method."""

    def make_filesystem(self, namespace: str) -> FS:
        return BrittleFS()


class AwayBackend(MemoryBackend):
    """A backend whose server cannot be reached to delete anything."""

    asked = 0

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        type(self).asked += 1
        raise RemoteConnectionError

    def answers(self) -> bool:
        return False


class BusyBackend(MemoryBackend):
    """A backend whose server is too busy for every other request."""

    asked = 0

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        type(self).asked += 1
        if self.asked % 2:
            raise BackendUnavailable("too busy")
        return super().delete(entries, lease)


class CutOffFS(MemoryFS):
    """A filesystem whose server cannot be reached to remove anything."""

    asked = 0

    def remove(self, path: str) -> None:
        type(self).asked += 1
        raise RemoteConnectionError(path)


class CutOffBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return CutOffFS()

    def answers(self) -> bool:
        return False


class LateBackend(MemoryBackend):
    """A backend that knows how often the one that is away was asked before it."""

    away_was_asked = 0

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        type(self).away_was_asked = AwayBackend.asked
        return super().delete(entries, lease)


class EmptiedBackend(DiskBackend):
    """Has Redis emptied, and a file written, between a claim and its deletion."""

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        settings = conf.current()
        with closing(redis.Redis.from_url(settings.redis_url)) as client:
            client.delete(*client.scan_iter(f"{settings.key_prefix}:*"))
        sleep(0.02)  # longer than a tick of the clock that dates files
        get_filesystem("plots").writebytes("a", b"new")
        return super().delete(entries, lease)


def fill(filesystem: ExpiringFS, *names: str, seconds: float = 0) -> None:
    for name in names:
        filesystem.writebytes(name, b"picture")
    filesystem.expire_many(names, seconds)


def test_the_report_counts_files_by_outcome(plots: ExpiringFS) -> None:
    fill(plots, "a", "b")
    fill(plots, "later", seconds=100)
    report = expire_objects()
    assert (report.deleted, report.failed, report.remaining) == (2, 0, 0)
    assert 0 <= report.lag < 60
    assert 0 < report.duration < 60
    assert plots.listdir("/") == ["later"]


def test_an_idle_sweep_reports_nothing(plots: ExpiringFS) -> None:
    report = expire_objects()
    assert report == SweepReport(duration=report.duration)
    assert recent_sweeps() == []


def test_files_that_are_gone_already_count_as_missing(disk: ExpiringFS) -> None:
    fill(disk, "a")
    disk.expire_many(["never/was", "b"], 0)
    report = expire_objects()
    assert (report.deleted, report.missing) == (1, 2)
    assert disk.expiration("never/was") is None


def test_one_sweep_serves_many_namespaces_and_backends(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(
        type="osfs",
        directory_root=tmp_path,
        namespaces={"memos/*": {"type": "memory"}, "here": {"directory_root": tmp_path / "x"}},
    )
    filesystems = [get_filesystem(name) for name in ("plots", "memos/today", "here", "memos")]
    for filesystem in filesystems:
        fill(filesystem, "a")
    assert (tmp_path / "memos" / "a").is_file()
    assert (tmp_path / "x" / "here" / "a").is_file()
    assert not (tmp_path / "memos" / "today").exists()
    assert expire_objects().deleted == 4


def test_a_limit_is_kept_and_the_report_says_what_remains(plots: ExpiringFS) -> None:
    fill(plots, *"abcdef")
    report = expire_objects(limit=4)
    assert (report.deleted, report.remaining) == (4, 2)
    assert expire_objects().deleted == 2


def test_a_time_budget_ends_the_sweep_after_a_batch(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", batch_size=2, **records)
    fill(get_filesystem("plots"), *"abcdef")
    report = expire_objects(seconds=1e-9)
    assert report.deleted in (0, 2)
    assert report.deleted + report.remaining == 6


@pytest.mark.parametrize("bound", [0, -1, float("nan"), "5", True])
@pytest.mark.parametrize("name", ["limit", "seconds"])
def test_a_bound_that_is_no_number_above_zero_is_refused(name: str, bound: Any) -> None:
    with pytest.raises(ValueError, match="above 0"):
        expire_objects(**{name: bound})


def test_progress_is_reported_batch_by_batch(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", batch_size=2, **records)
    fill(get_filesystem("plots"), *"abcde")
    told: list[int] = []
    sweep(on_batch=lambda report: told.append(report.deleted))
    assert told == [2, 4, 5]


def test_sweeps_that_did_something_are_listed(plots: ExpiringFS) -> None:
    for number in 1, 2:
        fill(plots, *"ab"[:number])
        expire_objects()
        expire_objects()
    assert [report["deleted"] for report in recent_sweeps()] == [2, 1]
    assert recent_sweeps(1)[0]["finished"] > 0


def test_a_deletion_that_fails_stops_nothing_and_is_set_aside(
    djfs: Callable[..., None], records: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    djfs(type="tests.test_sweep.BrittleBackend", max_attempts=1, **records)
    plots = get_filesystem("plots")
    fill(plots, "a good one", "bad one", "better")  # in this order they are deleted
    with caplog.at_level(logging.WARNING, "djpyfs"):
        report = expire_objects()
    assert (report.deleted, report.failed, report.retried, report.set_aside) == (2, 1, 0, 1)
    assert "plots/bad one" in caplog.text
    assert "read-only" in caplog.text
    assert expire_objects().failed == 0
    assert plots.exists("bad one")


def test_a_deletion_that_fails_is_retried_before_that(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_sweep.BrittleBackend", **records)
    fill(get_filesystem("plots"), "bad one")
    report = expire_objects()
    assert (report.failed, report.retried, report.set_aside) == (1, 1, 0)


def test_a_backend_that_cannot_be_made_does_not_stop_the_others(
    djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer
) -> None:
    records = {"redis_url": redis_server.url, "key_prefix": "unmade", "max_attempts": 1}
    files = {"type": "osfs", "directory_root": tmp_path}
    djfs(**files, **records)
    get_filesystem("exports").expire("a", 0)
    fill(get_filesystem("plots"), "a")
    djfs(**files, **records, namespaces={"exports": {"type": "s3fs", "bucket": ""}})
    report = expire_objects()
    assert (report.deleted, report.missing, report.failed) == (1, 1, 0)


def test_directories_that_a_sweep_empties_are_pruned(disk: ExpiringFS, tmp_path: Path) -> None:
    disk.makedirs("a/b/c")
    disk.makedirs("a/kept")
    disk.makedirs("untouched")
    fill(disk, "a/b/c/x", "a/b/y")
    disk.writebytes("a/kept/z", b"")
    expire_objects()
    assert sorted(disk.walk.dirs("/")) == ["/a", "/a/kept", "/untouched"]


def test_a_namespace_that_a_sweep_has_emptied_leaves_nothing_and_works_on(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    fill(disk, "x")
    deep = get_filesystem("users/7/plots")
    fill(deep, "x")
    expire_objects()
    assert os.listdir(tmp_path / "files") == [".djpyfs"]
    for namespace in disk, deep:
        assert (namespace.listdir("/"), list(namespace.scandir("/"))) == ([], [])
        assert namespace.getinfo("/", ["details"]).is_dir
        assert (namespace.exists("/"), namespace.exists("x")) == (True, False)
    disk.makedir("d")
    deep.writebytes("y", b"picture")
    assert (disk.listdir("/"), deep.listdir("/")) == (["d"], ["y"])


def test_the_next_try_removes_what_an_interrupted_pruning_left(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    fill(disk, "kept")
    disk.makedirs("a/b")
    disk.expire("a/b/c/x", 0)  # whose directory was removed, and then the sweeper died
    expire_objects()
    assert os.listdir(tmp_path / "files") == [".djpyfs"]


def test_a_directory_that_was_pruned_is_there_for_the_next_write(disk: ExpiringFS) -> None:
    disk.makedir("d")
    fill(disk, "d/x")
    expire_objects()
    assert not disk.exists("d")
    disk.writebytes("d/y", b"picture")
    assert disk.exists("d/y")


def test_a_namespace_that_somebody_cleared_away_works_on(disk: ExpiringFS, tmp_path: Path) -> None:
    disk.writebytes("x", b"picture")
    shutil.rmtree(tmp_path / "files" / "plots")
    assert disk.listdir("/") == []
    get_filesystem("plots").writebytes("x", b"picture")
    assert disk.exists("x")


def test_a_sweep_follows_no_link_out_of_the_namespace(disk: ExpiringFS, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"precious")
    disk.makedir("directory")
    os.symlink(outside, tmp_path / "files" / "plots" / "link")
    disk.expire("link/x", 0)
    report = expire_objects()
    assert (report.deleted, report.missing, report.failed) == (0, 0, 1)
    assert (outside / "x").is_file()


def test_a_link_is_deleted_and_not_what_it_points_to(disk: ExpiringFS, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"precious")
    disk.makedir("directory")
    os.symlink(tmp_path / "outside", tmp_path / "files" / "plots" / "link")
    disk.expire("link", 0)
    assert expire_objects().deleted == 1
    assert (tmp_path / "outside").is_file()


def test_a_backend_that_answers_now_and_then_is_asked_for_each_batch(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_sweep.BusyBackend", batch_size=1, **records)
    BusyBackend.asked = 0
    fill(get_filesystem("plots"), *"abcdefghijkl")
    report = expire_objects()
    assert (report.deleted, report.postponed, report.failed) == (6, 6, 0)


def test_a_server_that_cannot_be_reached_is_asked_for_one_file_of_a_batch(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_sweep.CutOffBackend", **records)
    CutOffFS.asked = 0
    fill(get_filesystem("plots"), *"abcd")
    assert expire_objects().postponed == 4
    assert CutOffFS.asked == 1


def test_a_backend_that_was_away_is_asked_after_the_others(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    late = {"type": "tests.test_sweep.LateBackend"}
    away = {"type": "tests.test_sweep.AwayBackend", "bucket": records["key_prefix"]}
    djfs(**away, namespaces={"plots": late}, **records)
    AwayBackend.asked = 0
    for was_asked_before in 1, 1:
        fill(get_filesystem("exports"), f"a{was_asked_before}")
        fill(get_filesystem("plots"), "a")
        expire_objects()
        assert LateBackend.away_was_asked == was_asked_before
    assert AwayBackend.asked == 2


@pytest.mark.parametrize("mount_point", [False, True])
def test_files_of_a_disk_that_is_not_mounted_are_postponed_and_not_missing(
    disk: ExpiringFS, tmp_path: Path, mount_point: bool
) -> None:
    fill(disk, "x", "y")
    (tmp_path / "files").rename(tmp_path / "unmounted")
    if mount_point:
        (tmp_path / "files").mkdir()
    assert expire_objects() == SweepReport(duration=ANY)
    if mount_point:
        (tmp_path / "files").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "files")
    assert expire_objects().deleted == 2


def test_a_namespace_that_is_gone_while_others_are_there_has_no_files(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    get_filesystem("others")
    fill(disk, "x")
    (tmp_path / "files" / "plots" / "x").unlink()
    (tmp_path / "files" / "plots").rmdir()
    assert expire_objects().missing == 1


def test_files_on_a_backend_that_is_away_are_postponed_as_often_as_it_takes(
    djfs: Callable[..., None], records: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    away = {"type": "tests.test_sweep.AwayBackend"}
    djfs(type="memory", max_attempts=1, batch_size=2, namespaces={"exports": away}, **records)
    AwayBackend.asked = 0
    names = list("abcdefghij")
    fill(get_filesystem("exports"), *names)
    fill(get_filesystem("plots"), *names)
    with caplog.at_level(logging.WARNING, "djpyfs"):
        report = expire_objects()
    assert (report.deleted, report.failed, report.postponed) == (10, 0, 10)
    assert caplog.text.count("postponed: RemoteConnectionError") == 1
    assert AwayBackend.asked == 3, "it was asked for each batch"
    assert expire_objects() == SweepReport(duration=ANY), "they were due again at once"


def test_a_file_written_after_a_claim_that_redis_lost_stays(
    djfs: Callable[..., None], redis_server: RedisServer, tmp_path: Path
) -> None:
    backend, own = "tests.test_sweep.EmptiedBackend", {"key_prefix": uuid.uuid4().hex}
    djfs(type=backend, directory_root=tmp_path, redis_url=redis_server.local_url, **own)
    plots = get_filesystem("plots")
    fill(plots, "a", "b")
    assert expire_objects().deleted == 1
    assert plots.readbytes("a") == b"new"


def test_a_broken_record_is_set_aside_alone_and_at_once(
    disk: ExpiringFS, redis_server: RedisServer, settings: Any
) -> None:
    fill(disk, "x")
    broken = [b"no slash", b"plots/../x", b"plots//x", b"plots/", b"\xff\xfe/x", b"a/b\0c"]
    client = redis_server.client()
    [key] = client.keys(f"{settings.DJFS['key_prefix']}:*:due")
    client.zadd(key, dict.fromkeys(broken, 1))
    report = expire_objects()
    assert (report.deleted, report.failed, report.set_aside) == (1, len(broken), len(broken))


def test_a_record_that_looks_like_two_is_broken_and_deletes_neither(
    disk: ExpiringFS, redis_server: RedisServer, settings: Any
) -> None:
    fill(disk, "x")
    disk.writebytes("y", b"precious")
    client = redis_server.client()
    [key] = client.keys(f"{settings.DJFS['key_prefix']}:*:due")
    client.zadd(key, {b"plots/z\nplots/y": 1})
    report = expire_objects()
    assert (report.deleted, report.set_aside) == (1, 1)
    assert disk.exists("y")


class MeetingBackend(MemoryBackend):
    """A backend whose deletions end in pairs."""

    deletions_at_once = 2
    meeting: Barrier

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        self.meeting.wait(timeout=20)
        return super().delete(entries, lease)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_next_files_are_deleted_while_the_first_are(
    djfs: Callable[..., None],
    records: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
) -> None:
    djfs(type="tests.test_sweep.MeetingBackend", batch_size=batch_size, **records)
    monkeypatch.setattr(MeetingBackend, "meeting", Barrier(2), raising=False)
    fill(get_filesystem("plots"), *"abcd")
    assert expire_objects() == SweepReport(deleted=4, lag=ANY, duration=ANY)


class WatchedBackend(MemoryBackend):
    """A backend that notes what it deletes at a time."""

    deletions_at_once = 3
    now: ClassVar[set[str]] = set()
    together: ClassVar[list[set[str]]] = []

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        names = {entry.path for entry in entries}
        self.now.update(names)
        sleep(0.05)
        self.together.append(set(self.now))
        self.now.difference_update(names)
        return super().delete(entries, lease)


def test_as_many_deletions_go_on_at_once_as_the_backend_likes(
    djfs: Callable[..., None], records: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    djfs(type="tests.test_sweep.WatchedBackend", batch_size=1, **records)
    monkeypatch.setattr(WatchedBackend, "together", [])
    fill(get_filesystem("plots"), *"abcdefghijkl")
    assert expire_objects().deleted == 12
    assert max(map(len, WatchedBackend.together)) == 3


def test_a_file_that_may_kill_its_sweeper_is_deleted_while_nothing_else_is(
    djfs: Callable[..., None], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"redis_url": redis_server.url, "key_prefix": uuid.uuid4().hex}
    djfs(type="tests.test_sweep.WatchedBackend", batch_size=1, **own)
    monkeypatch.setattr(WatchedBackend, "together", [])
    plots = get_filesystem("plots")
    fill(plots, "suspect", "another")
    dying = expirations.store_for(conf.current()).at(records_here().place, SECOND // 10)
    assert len(dying.claim(0, 2).members) == 2
    wait_for(lambda: not status().claimed)
    fill(plots, "a", "b")
    assert expire_objects().deleted == 4
    assert {"a", "b"} in WatchedBackend.together
    assert WatchedBackend.together[-2:] == [{"another"}, {"suspect"}]


class RepeatingBackend(MemoryBackend):
    """A backend with a mistake: it reports the first file twice, and leaves the second."""

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        outcome = super().delete(entries[:1], lease)
        outcome.deleted *= len(entries)
        return outcome


def test_a_backend_that_reports_one_file_twice_makes_no_other_forgotten(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_sweep.RepeatingBackend", **records)
    plots = get_filesystem("plots")
    fill(plots, "a", "b")
    expire_objects()
    assert plots.listdir("/") == []


class LeaseNotingBackend(MemoryBackend):
    """Notes what is left of the lease when it deletes."""

    left: ClassVar[list[float]] = []

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        self.left.append(lease.remaining())
        return super().delete(entries, lease)


def test_a_lease_counts_from_before_the_claim_was_sent_and_ends_early(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    own = {"type": "tests.test_sweep.LeaseNotingBackend", "lease": 10, "batch_size": 1}
    proxy = Proxy(redis_server.port)
    djfs(**own, redis_url=proxy.url, key_prefix="lease")
    plots = get_filesystem("plots")
    fill(plots, "a", "b", "c", "d")
    expire_objects(limit=1)  # nothing is left to be loaded
    LeaseNotingBackend.left.clear()

    proxy.delay = 0.5  # s, for which each claim is under way
    expire_objects(limit=2)
    delete_if_due("plots", ["d"])

    expirations.close_all()
    proxy.stop()
    assert len(LeaseNotingBackend.left) == 3
    assert max(LeaseNotingBackend.left) < LIVE / SECOND - 0.18 - 0.4


class EndingLease(Endless):
    """A lease that is looked at so many times before it has ended."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def remaining(self) -> float:
        self._looks -= 1
        return float(self._looks)


@pytest.mark.parametrize("place", ["osfs", "memory"], indirect=True)
def test_the_rest_of_a_batch_stays_when_the_lease_ends(
    djfs: Callable[..., None], place: dict[str, Any]
) -> None:
    djfs(**place)
    fill(get_filesystem("plots"), *"abc")
    entries = [Entry("plots", name) for name in "abc"]
    outcome = backend_for(conf.current(), "plots").delete(entries, EndingLease(3))
    assert 0 < len(outcome.deleted) < 3
    assert not outcome.missing
    assert len(get_filesystem("plots").listdir("/")) == 3 - len(outcome.deleted)


def test_an_idle_sweep_is_one_round_trip_per_shard(djfs: Callable[..., None]) -> None:
    with running_redis() as own:
        for shards in 1, 4:
            djfs(type="memory", redis_url=own.url, key_prefix=f"idle{shards}", shards=shards)
            expire_objects()
            before = own.commands()
            expire_objects()
            assert own.commands() - before == shards + 1  # the count itself is one more


class SilentBackend(MemoryBackend):
    """A backend that does not answer for files whose names begin with ``bad``."""

    late = 0.3
    is_out = False

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        silent = [entry for entry in entries if entry.path.startswith("bad")]
        outcome = super().delete([entry for entry in entries if entry not in silent], lease)
        outcome.unanswered += [(entry, "no answer") for entry in silent]
        return outcome

    def answers(self) -> bool:
        return not self.is_out


def test_a_deletion_that_was_not_answered_stays_claimed_and_counts_as_an_attempt(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.test_sweep.SilentBackend", max_attempts=2, **records)
    fill(get_filesystem("plots"), "bad", "good")
    report = expire_objects()
    assert (report.deleted, report.retried, report.postponed) == (1, 1, 0)
    waits = tracked_file("plots", "bad")
    assert waits is not None
    assert waits.state is State.CLAIMED
    wait_for(lambda: expire_objects().retried == 1)

    def is_set_aside() -> bool:
        expire_objects()
        return status().set_aside == 1

    wait_for(is_set_aside)


class WrongBackend(MemoryBackend):
    """A backend with a mistake in it."""

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        raise ZeroDivisionError


def test_a_backend_that_fails_as_a_whole_stops_no_other(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    wrong = {"type": "tests.test_sweep.WrongBackend"}
    djfs(type="memory", namespaces={"exports": wrong}, **records)
    fill(get_filesystem("exports"), "a")
    fill(get_filesystem("plots"), "a")
    report = expire_objects()
    assert (report.deleted, report.retried) == (1, 1)


def test_a_deletion_that_was_not_answered_in_an_outage_costs_no_attempt(
    djfs: Callable[..., None], records: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    djfs(type="tests.test_sweep.SilentBackend", max_attempts=1, **records)
    monkeypatch.setattr(SilentBackend, "is_out", True)
    fill(get_filesystem("plots"), "bad")
    assert expire_objects().postponed == 1
    wait_for(lambda: expire_objects().postponed == 1)
    assert status().set_aside == 0


def test_nothing_is_claimed_while_receivers_run(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", batch_size=1, **records)
    fill(get_filesystem("plots"), "a", "b")
    claimed: list[int] = []

    def receive(**_: Any) -> None:
        claimed.append(status().claimed)

    files_expired.connect(receive)
    try:
        assert expire_objects().deleted == 2
    finally:
        files_expired.disconnect(receive)
    assert claimed == [0, 0]


def test_receivers_that_take_long_take_no_time_from_a_sweep(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", batch_size=1, **records)
    fill(get_filesystem("plots"), *"abcde")

    def receive(**_: Any) -> None:
        sleep(0.4)

    files_expired.connect(receive)
    try:
        report = expire_objects(seconds=1)
    finally:
        files_expired.disconnect(receive)
    assert (report.deleted, report.remaining) == (5, 0)


def test_one_shard_that_cannot_be_asked_stops_no_other(
    disk: ExpiringFS, settings: Any, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DJFS = {**settings.DJFS, "shards": 4}
    plots = get_filesystem("plots")
    fill(plots, *map(str, range(40)))
    client = redis_server.client()
    key = sorted(client.keys(f"{settings.DJFS['key_prefix']}:*:due"))[2]
    lost = client.zcard(key)
    client.delete(key)
    client.set(key, "of the wrong type")
    report = expire_objects()
    assert (report.deleted, report.unreachable) == (40 - lost, 1)
    assert "a shard cannot be swept" in caplog.text


class BreakingBackend(MemoryBackend):
    """A backend that breaks the shard of the files that it deletes first."""

    break_: Callable[[], object] | None = None

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        if self.break_:
            breaking, type(self).break_ = self.break_, None
            breaking()
        return super().delete(entries, lease)


def test_a_sweep_that_fails_in_the_middle_still_tells_what_it_has_deleted(
    djfs: Callable[..., None], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"type": "tests.test_sweep.BreakingBackend", "key_prefix": "fails", "batch_size": 1}
    djfs(**own, redis_url=redis_server.url)
    fill(get_filesystem("plots"), "a", "b")
    client = redis_server.client()

    def break_all() -> None:
        for key in client.keys("fails:*:claimed"):
            client.delete(key)
            client.set(key, "of the wrong type")

    monkeypatch.setattr(BreakingBackend, "break_", staticmethod(break_all))
    told: list[list[str]] = []
    reports: list[SweepReport] = []

    def note(paths: list[str], **_: Any) -> None:
        told.append(paths)

    def note_report(report: SweepReport, **_: Any) -> None:
        reports.append(report)

    files_expired.connect(note)
    sweep_finished.connect(note_report)
    with pytest.raises(RecordStoreError):
        expire_objects()
    files_expired.disconnect(note)
    sweep_finished.disconnect(note_report)
    assert told
    assert [(it.deleted, it.unreachable) for it in reports] == [(len(told), 1)]


def test_a_shard_that_breaks_in_the_middle_stops_no_other(
    djfs: Callable[..., None], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    djfs(
        type="tests.test_sweep.BreakingBackend",
        redis_url=redis_server.url,
        key_prefix="breaking",
        shards=2,
    )
    fill(get_filesystem("plots"), *map(str, range(20)))
    client = redis_server.client()

    def break_the_first() -> None:
        [key] = client.keys("breaking:{00}:*:claimed")
        client.delete(key)
        client.set(key, "of the wrong type")

    monkeypatch.setattr(BreakingBackend, "break_", staticmethod(break_the_first))
    report = expire_objects()
    assert report.unreachable == 1
    assert report.deleted == 20
    assert not client.keys("breaking:{01}:*:due")
