"""Sweepers and writers that race, die and freeze: each of them a process, over a real Redis."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import cycle, groupby
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest
from fs.errors import ResourceNotFound
from fs.path import dirname

from djpyfs import expire_objects, get_filesystem
from djpyfs.backends import Lease, Outcome
from djpyfs.backends.osfs import DiskBackend
from djpyfs.errors import FileBusy
from djpyfs.filesystem import ExpiringFS
from djpyfs.names import Entry
from tests.faults.conftest import Measured
from tests.faults.processes import Actor, Race, names, processes
from tests.servers import running_redis, wait_for

PAUSE = 0.005  # s between two sweeps of a process: an idle one is a single round trip
SECONDS = 2.0  # of sweeping while others write, at the least
ENCOUNTERS = 10  # of each kind, at the least


def sweep_through(gate: Barrier) -> tuple[int, int]:
    gate.wait()
    report = expire_objects()
    return report.deleted, report.missing


def sweep_until(stop: Event) -> int:
    deleted = 0
    while not stop.wait(PAUSE):
        deleted += expire_objects().deleted
    return deleted


def sweep_for_ever() -> None:
    while True:
        expire_objects()
        time.sleep(PAUSE)


class Rounds:
    """Goes round some names in small groups, until everything possible has happened often.

    Each name of a group is one round; there are ``least`` of them at the least.
    """

    def __init__(self, names: Sequence[str], least: int) -> None:
        self._groups = [names[first : first + 50] for first in range(0, len(names), 50)]
        self._end = time.monotonic() + SECONDS
        self._left = least
        self._pace = 0.1
        self.seen: Counter[str] = Counter(dict.fromkeys(("sweeper first", "writer first"), 0))

    def __iter__(self) -> Iterator[Sequence[str]]:
        for group in cycle(self._groups):
            if self._left <= 0 and self._had_enough():
                return
            start = time.monotonic()
            yield group
            self._pace = time.monotonic() - start
            self._left -= len(group)

    def _had_enough(self) -> bool:
        return time.monotonic() > self._end and min(self.seen.values()) > ENCOUNTERS

    def short_life(self) -> float:
        """Seconds until about the time when the same group comes round again."""
        return random.uniform(0, self._pace)


def has_passed(deadline: datetime | None) -> bool:
    return deadline is not None and deadline <= datetime.now(UTC)


# -- sweeps against sweeps


def test_four_sweeps_delete_each_of_many_files_once(
    race_with: Callable[..., Race], full: bool
) -> None:
    race, count = race_with(batch_size=100), 20_000 if full else 2_000
    due = [f"{n % 20:02}/{n:05}" for n in range(count)]
    race.fill(due)
    race.fs.expire_many(due, 0)
    gate = processes.Barrier(4)

    sweepers = [race.start(sweep_through, gate) for _ in range(4)]
    deleted, missing = zip(*(sweeper.result() for sweeper in sweepers), strict=True)

    assert sum(deleted) == count
    assert sum(map(bool, deleted)) > 1, "they did not run at the same time"
    assert sum(missing) == 0
    assert not race.directory.exists()
    assert race.kinds() == set()


# -- sweeps against writers


def keep_extending(names: Sequence[str]) -> tuple[set[str], Counter[str]]:
    """Give files short lives and extend them at about the time when those end.

    Returns the files that were there after their extension, and how often who was first.
    """
    fs, extended, rounds = get_filesystem(Race.namespace), set[str](), Rounds(names, len(names))
    for group in rounds:
        for name in group:
            assert name not in extended or fs.exists(name), f"{name} was extended, and is gone"
            fs.writebytes(name, b"short")
            fs.expire(name, seconds=rounds.short_life())
        for name in group:
            deadline = fs.expiration(name)
            fs.expire(name, seconds=600)
            if fs.exists(name):
                extended.add(name)
                rounds.seen["writer first"] += 1
            else:
                assert deadline is None or has_passed(deadline), f"{name} went too early"
                extended.discard(name)
                rounds.seen["sweeper first"] += 1
    return extended, rounds.seen


def keep_rewriting(names: Sequence[str], least: int) -> tuple[dict[str, bytes], Counter[str]]:
    """Write files again at about the time when their short lives end.

    Returns what was written to those that have no deadline since, and how often who was first.
    """
    fs, written, rounds = get_filesystem(Race.namespace), dict[str, Written](), Rounds(names, least)
    for generation, group in enumerate(rounds):
        for name in group:
            if name in written:
                written[name].check(fs, name)
            fs.expire(name, seconds=rounds.short_life())
        for name in group:
            written[name] = it = Written(fs, name, b"%d %a" % (generation, name))
            rounds.seen["writer first" if it.deadline else "sweeper first"] += 1
    permanent = {name: it.contents for name, it in written.items() if not it.deadline}
    return permanent, rounds.seen


class Written:
    """A write that has returned."""

    def __init__(self, fs: ExpiringFS, name: str, contents: bytes) -> None:
        if random.random() < 0.5:
            fs.writebytes(name, contents)
        else:
            with fs.open(name, "wb") as file:
                file.write(contents)
        self.contents = contents
        self.deadline = fs.expiration(name)

    def check(self, fs: ExpiringFS, name: str) -> None:
        try:
            assert fs.readbytes(name) == self.contents
        except ResourceNotFound:
            assert has_passed(self.deadline), f"{name} was written, and is gone"


@pytest.mark.fault(
    "rewriter against sweeper, 20,000 rounds; extender against sweeper, 5,000 files; "
    "4 processes each",
    "every write and extension that returned is kept",
)
def test_no_file_is_lost_once_its_extension_or_write_has_returned(
    race_with: Callable[..., Race], full: bool, measured: Measured
) -> None:
    race = race_with(grace=10, batch_size=50)
    stop = processes.Event()
    of_each, files, rounds = (4, 1_250, 5_000) if full else (1, 300, 0)
    sweepers = [race.start(sweep_until, stop) for _ in range(4 if full else 2)]
    extenders = [race.start(keep_extending, names(f"e{n}", files)) for n in range(of_each)]
    rewriters = [race.start(keep_rewriting, names(f"w{n}", 1_000), rounds) for n in range(of_each)]

    extended, seen_extending = merged(extenders)
    permanent, seen_writing = merged(rewriters)
    stop.set()
    assert sum(sweeper.result() for sweeper in sweepers) > ENCOUNTERS

    found = race.files()
    assert set(extended) <= found
    assert permanent == {name: race.fs.readbytes(name) for name in permanent.keys() & found}
    measured(
        f"0 lost; {seen_writing.total():,} rounds, {seen_writing['writer first']:,} of them with "
        f"the writer first; {seen_extending.total():,} extensions of {of_each * files:,} files, "
        f"{seen_extending['writer first']:,} of them in time"
    )


def merged(actors: Sequence[Actor]) -> tuple[dict[str, Any], Counter[str]]:
    kept, seen = dict[str, Any](), Counter[str]()
    for actor in actors:
        own, own_seen = actor.result(timeout=600)
        kept.update(own if isinstance(own, dict) else dict.fromkeys(own))
        seen.update(own_seen)
    return kept, seen


def register_all(gate: Barrier, names: Sequence[str]) -> None:
    gate.wait()
    fs = get_filesystem(Race.namespace)
    for name in names:
        fs.expire(name, seconds=600)


@pytest.mark.fault("4 processes × 1,000 expire() on the same new names", "0 errors, 1,000 records")
def test_four_processes_may_register_the_same_new_names(
    race_with: Callable[..., Race], full: bool, measured: Measured
) -> None:
    race = race_with()
    gate, new = processes.Barrier(4), names("new", 1_000 if full else 200)

    errors = [race.start(register_all, gate, new).result for _ in range(4)]

    assert [result() for result in errors] == [None] * 4
    records = race.waiting()
    assert records == set(new)
    assert race.kinds() == {"due"}
    measured(f"0 errors, {len(records):,} records")


def write_in_directory(name: str, encounters: int) -> None:
    """Write until a sweep was first often enough."""
    fs, found_gone = get_filesystem(Race.namespace), 0
    while found_gone <= encounters:
        found_gone += not fs.exists(f"some/directory/{name}")
        fs.makedirs("some/directory", recreate=True)
        with fs.open(f"some/directory/{name}", "wb") as file:
            file.write(b"contents")
        fs.expire(f"some/directory/{name}", 0)


def test_empty_directories_are_never_pulled_from_under_a_writer(
    race_with: Callable[..., Race], full: bool
) -> None:
    race, encounters = race_with(), 50 if full else 2
    stop = processes.Event()
    sweepers = [race.start(sweep_until, stop) for _ in range(2)]
    writers = [race.start(write_in_directory, f"file {n}", encounters) for n in range(2)]

    for writer in writers:
        writer.result(timeout=300)
    stop.set()
    assert sum(sweeper.result() for sweeper in sweepers) >= 2 * encounters
    expire_objects()
    assert not race.directory.exists()


# -- sweepers that are killed


def killed_in_mid_batch(race: Race, due: Sequence[str]) -> bool:
    """Kill a sweeper as soon as it has claimed new files; return whether that was soon enough."""
    race.fill(due)
    race.fs.expire_many(due, 0)
    sweeper = race.start(sweep_for_ever)
    wait_for(lambda: not race.is_waiting(due[500]), what="a claim")
    sweeper.kill()
    return not race.claims().keys().isdisjoint(due)


def test_sweepers_killed_in_mid_batch_lose_and_leave_nothing(
    race_with: Callable[..., Race], full: bool
) -> None:
    race = race_with(lease=1, batch_size=100)  # each in it is tried alone afterwards
    alive, permanent = names("alive", 1_000), names("permanent", 1_000)
    race.fill([*alive, *permanent])
    race.fs.expire_many(alive, seconds=600)

    killed = rounds = 0
    while killed < (20 if full else 1):
        killed += killed_in_mid_batch(race, names(f"due-{rounds}", 1_000))
        rounds += 1
    # These writes wait for the end of the last one's lease.
    written = sorted(race.claims().keys() & race.files())[:10]
    for name in written:
        race.fs.writebytes(name, b"new")

    def sweep() -> bool:  # what was tried alone when its sweeper was killed waits for a while
        expire_objects()
        return race.kinds() == {"due"}

    wait_for(sweep, 90, "the end of the last file")
    assert race.files() == {*alive, *permanent, *written}
    assert all(race.fs.readbytes(name) == b"new" for name in written)
    assert race.fs.expiration(alive[0])


# -- sweepers that are frozen


class StopsOnce(DiskBackend):
    """Stops the process that deletes, until somebody lets it go on."""

    _has_stopped = False

    def _stop(self) -> None:
        if not self._has_stopped:
            self._has_stopped = True
            os.kill(os.getpid(), signal.SIGSTOP)


class StopsBeforeDeleting(StopsOnce):
    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        self._stop()
        return super().delete(entries, lease)


class StopsInMidBatch(DiskBackend):
    """Stops before one of the first deletions, whichever that is."""

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        if not StopsWhenAsked.has_stopped:
            lease = StopsWhenAsked(lease, random.randint(1, len(entries)))
        return super().delete(entries, lease)


class StopsWhenAsked:
    """A lease that stops its holder, once, just before it is asked for the n-th time."""

    has_stopped = False

    def __init__(self, lease: Lease, n: int) -> None:
        self._lease, self._left = lease, n

    def remaining(self) -> float:
        self._left -= 1
        # If deletions are slow, two threads may be deleting.
        if not self._left and not StopsWhenAsked.has_stopped:
            StopsWhenAsked.has_stopped = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return self._lease.remaining()

    @property
    def mark(self) -> int | None:
        return self._lease.mark


class StopsAfterDeleting(StopsOnce):
    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        outcome = super().delete(entries, lease)
        self._stop()
        return outcome


def dotted(backend: type[DiskBackend]) -> str:
    return f"{backend.__module__}.{backend.__qualname__}"


def sweep_once() -> dict[str, float]:
    return expire_objects().as_dict()


def sweep_until_stopped() -> int:
    """Sweep until one was stopped, in case the lease of the first ends too soon."""
    deleted = expire_objects().deleted
    while not StopsWhenAsked.has_stopped:
        time.sleep(PAUSE)
        deleted = expire_objects().deleted
    return deleted


def frozen(race: Race, backend: type[StopsOnce], **djfs: Any) -> Actor:
    sweeper = race.start(sweep_once, type=dotted(backend), **djfs)
    wait_for(sweeper.is_stopped, what="the stop")
    return sweeper


class Frozen:
    """A sweeper of its own files, stopped somewhere between its claim and its last deletion."""

    lease = 1  # s

    def __init__(self, race: Race, files: Sequence[str]) -> None:
        self._race, self._files = race, files
        race.fill(files)
        race.fs.expire_many(files, 0)
        self._sweeper = race.start(sweep_until_stopped, type=dotted(StopsInMidBatch))

    def is_stopped(self) -> bool:
        self._since = time.monotonic()
        return self._sweeper.is_stopped()

    def rewrite(self) -> set[str]:
        """Write the files again; return those in directories that the sweeper does not hold."""
        written = set[str]()
        for _, group in groupby(self._files, key=dirname):
            with suppress(FileBusy):
                for name in group:
                    self._race.fs.makedirs(dirname(name), recreate=True)
                    self._race.fs.writebytes(name, b"new")
                    written.add(name)
        self._written = written
        return written

    def outlast_its_lease(self) -> None:
        time.sleep(max(0, self._since + 2 * self.lease - time.monotonic()))

    def go_on(self) -> int:
        """Let it go on; return how many files were lost by that."""
        self._sweeper.send(signal.SIGCONT)
        assert self._sweeper.result() < len(self._files), "it stopped too late"
        kept = self._race.files() & self._written
        return len(self._written) - sum(self._race.fs.readbytes(name) == b"new" for name in kept)


@pytest.mark.fault(
    "SIGSTOP a sweeper between claim and deletion for twice the lease while its files are "
    "rewritten, 200 times",
    "0 new files lost",
)
def test_a_file_written_while_a_sweeper_is_frozen_past_its_lease_stays(
    race_with: Callable[..., Race], tmp_path: Path, full: bool, measured: Measured
) -> None:
    times, at_once = (200, 20) if full else (8, 8)
    files = [f"{n // 5}/{n:05}" for n in range(50 if full else 20)]
    lost = written = 0
    for first in range(0, times, at_once):
        frozen = [
            Frozen(race_with(directory_root=str(tmp_path / str(n)), lease=Frozen.lease), files)
            for n in range(first, first + at_once)
        ]
        for one in frozen:
            wait_for(one.is_stopped, what="the stop")
        with ThreadPoolExecutor(at_once) as pool:
            written += sum(map(len, pool.map(Frozen.rewrite, frozen)))
        for one in frozen:
            one.outlast_its_lease()
        lost += sum(one.go_on() for one in frozen)
    assert lost == 0
    assert written > times * len(files) / 2
    measured(f"{lost} of {written:,} lost, {times} stops")


@pytest.mark.fault(
    "FLUSHALL while a sweeper is in the middle of a batch and its files are rewritten, 50 times",
    "0 new files lost",
)
def test_a_file_written_after_redis_lost_everything_in_the_middle_of_a_batch_stays(
    race_with: Callable[..., Race], tmp_path: Path, full: bool, measured: Measured
) -> None:
    times, at_once = (50, 10) if full else (4, 4)
    files = [f"{n // 5}/{n:05}" for n in range(50 if full else 20)]
    lost = written = 0
    with running_redis() as server, server.client() as client:
        for first in range(0, times, at_once):
            frozen = [
                Frozen(
                    race_with(redis_url=server.url, directory_root=str(tmp_path / str(n))), files
                )
                for n in range(first, first + at_once)
            ]
            for one in frozen:
                wait_for(one.is_stopped, what="the stop")
            client.flushall()
            with ThreadPoolExecutor(at_once) as pool:
                written += sum(map(len, pool.map(Frozen.rewrite, frozen)))
            lost += sum(one.go_on() for one in frozen)
    assert lost == 0
    assert written > times * len(files) / 2
    measured(f"{lost} of {written:,} lost, {times} times")


def test_a_sweeper_frozen_past_its_lease_does_not_end_the_claim_of_the_next(
    race_with: Callable[..., Race],
) -> None:
    race = race_with()
    race.fill(["file"])
    race.fs.expire("file", 0)
    first = frozen(race, StopsAfterDeleting, lease=1)
    race.fs.writebytes("file", b"second")
    race.fs.expire("file", 0)
    second = frozen(race, StopsBeforeDeleting)

    first.send(signal.SIGCONT)
    first.result()

    assert race.claims().keys() == {"file"}
    second.send(signal.SIGCONT)
    assert second.result()["deleted"] == 1


def test_a_failure_reported_after_the_lease_gives_a_new_file_no_deadline(
    race_with: Callable[..., Race],
) -> None:
    race = race_with(lease=1)
    race.fill(["file/that is a directory"])
    race.fs.expire("file", 0)
    sweeper = frozen(race, StopsAfterDeleting)
    (race.directory / "file/that is a directory").unlink()
    (race.directory / "file").rmdir()
    race.fs.writebytes("file", b"new")

    sweeper.send(signal.SIGCONT)

    assert sweeper.result()["failed"] == 0
    assert race.fs.expiration("file") is None
    assert race.kinds() == set()


# -- files that cannot be deleted


def thousand_with_one_directory(race: Race) -> str:
    """A directory where a file was; return its name."""
    files = names("file", 1_000)
    race.fill(files[:500] + files[501:] + [f"{files[500]}/below"])
    race.fs.expire_many(files, 0)
    return files[500]


def test_one_file_that_cannot_be_deleted_is_set_aside_and_stops_no_other(
    race_with: Callable[..., Race],
) -> None:
    race = race_with(max_attempts=1)
    bad = thousand_with_one_directory(race)

    report = expire_objects()

    assert (report.deleted, report.failed, report.set_aside, report.retried) == (999, 1, 1, 0)
    assert race.files() == {f"{bad}/below"}
    why = race.set_aside()[bad]
    assert "directory" in why["reason"]
    assert why["attempts"] == 1
    assert abs(why["at"] - time.time()) < 60
    assert expire_objects().as_dict()["failed"] == 0


def test_one_file_that_cannot_be_deleted_is_retried_while_no_other_waits_for_it(
    race_with: Callable[..., Race],
) -> None:
    race = race_with(max_attempts=2)
    bad = thousand_with_one_directory(race)
    assert (first := expire_objects()).deleted == 999
    assert (first.failed, first.retried, first.set_aside) == (1, 1, 0)
    others = 0

    def sweep_with_others() -> bool:
        nonlocal others
        race.fs.writebytes("other", b"")
        race.fs.expire("other", 0)
        report = expire_objects()
        others += report.deleted
        assert not race.fs.exists("other")
        return bool(report.set_aside)

    wait_for(sweep_with_others)

    assert others > 5
    assert race.set_aside()[bad]["attempts"] == 2


# -- forks


def use_on_both_sides_of_a_fork() -> int:
    fs = get_filesystem(Race.namespace)
    fs.writebytes("parent's", b"")
    fs.expire("parent's", seconds=600)
    child = os.fork()
    if not child:
        see_files_off("child")
        os._exit(0)
    see_files_off("parent")  # over its own connections, while the child uses others
    assert fs.expiration("parent's")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def see_files_off(whose: str) -> None:
    fs = get_filesystem(Race.namespace)
    for name in names(whose, 100):
        fs.writebytes(name, b"")
        fs.expire(name, 0)
        wait_for(partial(swept_away, fs, name))


def swept_away(fs: ExpiringFS, name: str) -> bool:
    expire_objects()
    return not fs.exists(name)  # another sweep may still have it


def test_a_fork_can_expire_and_sweep_and_so_can_its_parent(
    race_with: Callable[..., Race],
) -> None:
    race = race_with()

    assert race.start(use_on_both_sides_of_a_fork).result() == 0
    assert race.files() == {"parent's"}
