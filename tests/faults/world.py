"""A world whose time a test moves, with sweeps that die or freeze where the test says."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Semaphore, Thread
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import redis
from fs import errors

from djpyfs import clock, expirations, leases, sweeper
from djpyfs.backends import Lease, Outcome
from djpyfs.backends.memory import MemoryBackend, MemoryFiles
from djpyfs.conf import SECOND
from djpyfs.expirations import scripts
from djpyfs.leases import HeldLease
from djpyfs.names import Entry

BEGINNING = 1_800_000_000 * SECOND
TICK = SECOND // 1_000  # no reachable point in time lies between two of them


class World:
    """The time, by every clock there is, and what the sweeps do in it."""

    def __init__(self, tell_time: Callable[[int], object]) -> None:
        self._tell_time = tell_time
        self.begin()

    def begin(self) -> None:
        """Start again."""
        self.now = BEGINNING  # µs since the epoch
        self.sweep: Sweep | None = None  # which has its turn
        self.refuses_writes = False
        self.undeletable: set[Entry] = set()
        self.kept: dict[HeldLease, Sweep | None] = {}  # leases, and whose they are
        self._tell_time(self.now)

    def pass_(self, microseconds: float) -> None:
        if microseconds:
            ticks = math.ceil(microseconds / TICK) * TICK
            self._extend_leases(ticks)
            self.now += ticks
            self._tell_time(self.now)
            self._extend_leases()

    # The thread that keeps alive the leases of those that do not stand still

    def keep(self, lease: HeldLease) -> None:
        self.kept[lease] = self.sweep

    def drop(self, lease: HeldLease) -> None:
        self.kept.pop(lease, None)

    def _extend_leases(self, microseconds: int = 0) -> None:
        for lease, sweep in self.kept.items():
            if not (sweep and sweep.is_frozen):
                lasts = {lease.name: lease.length + microseconds}
                assert not lease.records.extend(lease.shard, lasts)
                lease.extended(self.monotonic())

    # The clocks that a process has

    def sleep(self, seconds: float) -> None:
        self.pass_(seconds * SECOND)

    def monotonic(self) -> float:
        return (self.now - BEGINNING) / SECOND

    def nanoseconds(self) -> int:
        return self.now * 1_000


def world_of_memory(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world in which the records are in this process."""
    world = _with_clocks(World(lambda now: None), monkeypatch)
    monkeypatch.setattr(clock, "time_ns", world.nanoseconds)
    monkeypatch.setattr(clock, "clock_gettime_ns", lambda _: world.nanoseconds())
    return world


def world_of_redis(monkeypatch: pytest.MonkeyPatch, client: redis.Redis) -> World:
    """Return a world in which they are in Redis, whose clock nobody can set.

    So the one place in the scripts that asks for the time is given a key to read instead.
    """
    clock = f"clock-{uuid.uuid4().hex}"
    ask, read = "redis.call('TIME')", f"{{0, redis.call('GET', '{clock}')}}"
    sources = scripts._sources()
    assert all(source.count(ask) == 1 for source in sources.values())
    told = {verb: source.replace(ask, read) for verb, source in sources.items()}
    monkeypatch.setattr(scripts, "_sources", lambda: told)
    return _with_clocks(World(lambda now: client.set(clock, now)), monkeypatch)


def _with_clocks(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    clocks = SimpleNamespace(monotonic=world.monotonic, clock_gettime=lambda _: world.monotonic())
    monkeypatch.setattr(sweeper, "time", clocks)
    monkeypatch.setattr(leases, "time", clocks)
    monkeypatch.setattr(leases, "keep", world.keep)
    monkeypatch.setattr(leases, "drop", world.drop)
    monkeypatch.setattr(expirations, "monotonic", world.monotonic)
    monkeypatch.setattr(expirations, "sleep", world.sleep)
    monkeypatch.setattr(WatchedBackend, "world", world, raising=False)
    return world


class Died(BaseException):
    """A sweep ends as if its process had been killed."""


@dataclass(frozen=True)
class Claimed:
    """A sweep has claimed a batch, and is about to delete it."""

    entries: Sequence[Entry]
    at: int


@dataclass(frozen=True)
class Removed:
    """A sweep has called for the removal of a file."""

    entry: Entry
    at: int


@dataclass(frozen=True)
class Settling:
    """A sweep has done with a batch, and is about to say so."""


@dataclass
class Sweep:
    """A sweep that stops before the deletion, or the end of a batch, that comes at ``stops_at``.

    There it dies, or freezes until it is thawed. ``log`` has what it did since the last look.
    """

    world: World
    perform: Callable[[], Any]
    stops_at: int | None = None
    freezes: bool = False
    log: list[Claimed | Removed | Settling] = field(default_factory=list)
    result: Any = None
    has_died: bool = False
    is_frozen: bool = False

    def run(self) -> None:
        """Go on until it is through, or stops."""
        if not self.freezes:
            self._run()
            return
        self._its_turn, self._our_turn = Semaphore(0), Semaphore(0)
        self._thread = Thread(target=self._run_and_tell, daemon=True)
        self._thread.start()
        self._await()

    def thaw(self, to_die: bool = False) -> None:
        """Let a frozen sweep go on until it is through."""
        self.stops_at, self._is_to_die = None, to_die
        self._its_turn.release()
        self._await()

    def _await(self) -> None:
        self._our_turn.acquire()
        if not self.is_frozen:
            self._thread.join()

    def _run_and_tell(self) -> None:
        try:
            self._run()
        finally:
            self._our_turn.release()

    def _run(self) -> None:
        self.world.sweep = self
        try:
            self.result = self.perform()
        except Died:
            self.has_died = True
        finally:
            self.world.sweep = None

    def may_stop(self) -> None:
        """Stop here, if this is the place."""
        if self.stops_at is None:
            return
        self.stops_at -= 1
        if self.stops_at >= 0:
            return
        if not self.freezes:
            raise Died
        self.is_frozen, self.world.sweep = True, None
        self._our_turn.release()
        self._its_turn.acquire()
        self.is_frozen, self.world.sweep = False, self
        if self._is_to_die:
            raise Died


class WatchedBackend(MemoryBackend):
    """Files in memory; writes and deletions fail where the world wants it."""

    world: ClassVar[World]

    def __init__(self, options: object) -> None:
        super().__init__(options)
        self._files = WatchedFiles()

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        sweep = self.world.sweep
        assert sweep
        sweep.log.append(Claimed(entries, self.world.now))
        outcome = super().delete(entries, WatchedLease(lease, sweep))
        sweep.may_stop()
        sweep.log.append(Settling())
        return outcome


@dataclass
class WatchedLease:
    """The lease of a sweep that may stop whenever it looks at it."""

    lease: Lease
    sweep: Sweep

    def remaining(self) -> float:
        self.sweep.may_stop()
        return self.lease.remaining()

    @property
    def mark(self) -> int | None:
        return self.lease.mark


class WatchedFiles(MemoryFiles):
    """The files of all namespaces."""

    def move(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Move a file, or put what was written where it belongs."""
        if WatchedBackend.world.refuses_writes:
            raise errors.PermissionDenied(dst_path)
        super().move(src_path, dst_path, overwrite, preserve_time)  # type: ignore[no-untyped-call]

    def remove(self, path: str) -> None:
        world = WatchedBackend.world
        if world.sweep:
            entry = Entry.of_member(path.lstrip("/").encode())
            world.sweep.log.append(Removed(entry, world.now))
            if entry in world.undeletable:
                raise errors.PermissionDenied(path)
        super().remove(path)
