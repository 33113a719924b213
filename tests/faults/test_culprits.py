"""Files whose deletion kills, hangs or fails the sweep that they are in: they stop no other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import pytest

from djpyfs import backends, expire_objects, get_filesystem
from djpyfs.backends import Backend, Lease, Outcome
from djpyfs.backends.memory import MemoryBackend
from djpyfs.backends.osfs import DiskBackend
from djpyfs.errors import FileBusy
from djpyfs.inspection import files_set_aside, status
from djpyfs.names import Entry
from tests.faults.conftest import Measured
from tests.faults.processes import Actor, Race, names
from tests.servers import RedisServer, wait_for

CULPRIT = "culprit"


def is_culprit(entry: Entry) -> bool:
    return entry.path.rpartition("/")[2] == CULPRIT


class Deadly(DiskBackend):
    """Deletes the files before the culprit, and then does not return."""

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        for number, entry in enumerate(entries):
            if is_culprit(entry):
                super().delete(entries[:number], lease)
                self.end()
        return super().delete(entries, lease)

    def end(self) -> None:
        os._exit(9)


class Hanging(Deadly):
    def end(self) -> None:
        time.sleep(3_600)


def sweep_once() -> dict[str, float]:
    return expire_objects().as_dict()


def kill_nobody(race: Race, sweeper: Actor) -> None:
    sweeper.wait()


def kill_what_hangs(race: Race, sweeper: Actor) -> None:
    """Kill a sweeper once nothing is left that it could do."""
    is_stuck = Stillness(race)
    wait_for(lambda: sweeper.has_ended() or is_stuck())
    sweeper.die()


def let_it_hang(race: Race, sweeper: Actor) -> None:
    """Wait until a sweeper has ended, or its claim."""
    is_stuck = Stillness(race)
    wait_for(lambda: sweeper.has_ended() or is_stuck())


class Stillness:
    """Notices when the culprit is claimed and nothing else happens any more."""

    def __init__(self, race: Race) -> None:
        self._race = race
        self._seen: tuple[set[str], set[str]] = set(), set()
        self._since = time.monotonic()

    def __call__(self) -> bool:
        found = self._race.files(), self._race.live_claims()
        if found != self._seen or CULPRIT not in found[1]:
            self._seen, self._since = found, time.monotonic()
        return time.monotonic() - self._since > 0.5


@pytest.mark.fault(
    "a file whose deletion kills its sweeper, or hangs and is killed, or hangs forever",
    "the others gone within 3 sweeps, it is set aside, at most max_attempts processes lost",
)
@pytest.mark.parametrize(
    ("kind", "meet"),
    [
        (Deadly, kill_nobody),
        pytest.param(Hanging, kill_what_hangs, marks=pytest.mark.long),
        (Hanging, let_it_hang),
    ],
    ids=["kills", "hangs and is killed", "hangs"],
)
def test_a_file_that_takes_its_sweeper_with_it_stops_no_other_and_is_set_aside(
    race_with: Callable[..., Race],
    kind: type[Deadly],
    meet: Callable[[Race, Actor], None],
    full: bool,
    measured: Measured,
) -> None:
    attempts, count = (4, 2_000) if full else (2, 300)
    race = race_with(max_attempts=attempts, lease=2)
    others = names("file", count)
    race.fill([*others, CULPRIT])
    race.fs.expire_many([*others[::2], CULPRIT, *others[1::2]], 0)
    dotted = f"{kind.__module__}.{kind.__qualname__}"

    sweeps = lost = 0
    others_gone_after = 0
    while not race.set_aside():
        wait_for(lambda: not race.live_claims(), what="the end of the lease")
        sweeper = race.start(sweep_once, type=dotted)
        meet(race, sweeper)
        sweeps += 1
        lost += not sweeper.has_result()
        if not others_gone_after and race.files() == {CULPRIT}:
            others_gone_after = sweeps

    assert 0 < others_gone_after <= 3
    assert race.files() == {CULPRIT}
    [(name, why)] = race.set_aside().items()
    assert (name, why["attempts"]) == (CULPRIT, attempts)
    assert "ended the process" in why["reason"]
    assert lost <= attempts
    measured(
        f"{count:,} others gone in sweep {others_gone_after}, {lost} of {sweeps} sweepers lost, "
        f"set aside after {why['attempts']} attempts"
    )


class Failing(MemoryBackend):
    """Fails with one file: with that alone, or as a whole with every batch in which it is."""

    error: ClassVar[Exception]
    as_a_whole: ClassVar[bool]

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        if self.as_a_whole and any(map(is_culprit, entries)):
            raise self.error
        return super().delete(entries, lease)

    def delete_one(self, entry: Entry) -> None:
        if is_culprit(entry):
            raise self.error
        super().delete_one(entry)


@pytest.mark.fault(
    "one file for which a backend that answers raises, alone or with its batch",
    "the others gone in the first sweep, it is set aside",
)
@pytest.mark.parametrize("as_a_whole", [False, True], ids=["alone", "as a whole"])
@pytest.mark.parametrize(
    "error", [TimeoutError("no answer"), ValueError("a fault in it")], ids=["time-out", "fault"]
)
def test_a_file_for_which_the_backend_raises_stops_no_other_and_is_set_aside(
    djfs: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    as_a_whole: bool,
    measured: Measured,
) -> None:
    monkeypatch.setattr(Failing, "error", error, raising=False)
    monkeypatch.setattr(Failing, "as_a_whole", as_a_whole, raising=False)
    djfs(type=f"{__name__}.Failing", max_attempts=2)
    fs, others = get_filesystem("plots"), names("file", 100)
    for name in [*others, CULPRIT]:
        fs.writebytes(name, b"")
    fs.expire_many([*others, CULPRIT], 0)

    report = expire_objects()

    assert (report.deleted, report.retried, report.postponed) == (100, 1, 0)
    assert fs.listdir("/") == [CULPRIT]
    wait_for(lambda: expire_objects().set_aside, what="the last attempt")
    [given_up] = files_set_aside().files
    assert (given_up.path, given_up.attempts) == (CULPRIT, 2)
    assert type(error).__name__ in given_up.reason
    measured(f"{type(error).__name__}: 100 others gone at once, 1 set aside after 2 attempts")
    backends.close_all()


class SlowlyFailing(MemoryBackend):
    """Takes most of a lease to fail with a batch."""

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        if any(map(is_culprit, entries)):
            time.sleep(0.7)
            raise TimeoutError("no answer")
        return super().delete(entries, lease)


def test_a_file_that_a_lease_is_too_short_to_find_is_tried_alone(
    djfs: Callable[..., None],
) -> None:
    djfs(type=f"{__name__}.SlowlyFailing", lease=1)
    fs, others = get_filesystem("plots"), names("file", 100)
    for name in [*others, CULPRIT]:
        fs.writebytes(name, b"")
    fs.expire_many([*others, CULPRIT], 0)

    assert expire_objects().deleted == 0
    wait_for(lambda: not status().claimed, what="the end of the lease")

    assert expire_objects().deleted == 100
    assert fs.listdir("/") == [CULPRIT]
    backends.close_all()


# -- shards in trouble


@pytest.mark.fault(
    "one shard of four broken", "the other three drained in the same sweep, the error told"
)
@pytest.mark.parametrize("broken", ["due", "claimed", "deadlines", "retries"])
def test_a_broken_shard_stops_no_other_and_is_reported(
    djfs: Callable[..., None],
    tmp_path: Any,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    full: bool,
    measured: Measured,
    broken: str,
) -> None:
    prefix, count = f"test-{tmp_path.name}-{time.time_ns()}", 20_000 if full else 400
    djfs(
        type="osfs",
        directory_root=tmp_path / "files",
        redis_url=redis_server.url,
        key_prefix=prefix,
        shards=4,
    )
    fs, files = get_filesystem("plots"), names("file", count)
    for name in files:
        fs.writebytes(name, b"")
    fs.expire_many(files, 0)
    with redis_server.client() as client:
        [due] = client.keys(f"{prefix}:{{02}}:*:due")
        stay = {member.decode().partition("/")[2] for member in client.zrange(due, 0, -1)}
        key = due.removesuffix(b"due") + broken.encode()
        if broken == "due":
            client.rename(due, f"{prefix}:elsewhere")
        client.set(key, "of the wrong type")

        report = expire_objects()

        assert set(fs.listdir("/")) == stay
        assert (report.deleted, report.unreachable) == (count - len(stay), 1)
        assert any("shard" in told.message for told in caplog.records)
        client.delete(key)
        if broken == "due":
            client.rename(f"{prefix}:elsewhere", due)
    assert expire_objects().deleted == len(stay)
    assert status().tracked == 0
    measured(f"{count - len(stay):,} of {count:,} gone in the same sweep, 1 shard unreachable")


# -- writers that meet them


class Remote(Hanging):
    """Deletes by requests that may still act when their sweeper has died."""

    late = Backend.late  # that of a backend that does not say otherwise


@pytest.mark.fault("expire() on a file whose sweeper was killed", "returns within 2 s")
@pytest.mark.parametrize(
    ("kind", "ends"),
    [(Hanging, nullcontext()), (Remote, pytest.raises(FileBusy, match="died"))],
    ids=["on disk", "over a network: FileBusy"],
)
def test_expire_on_a_file_whose_sweeper_was_killed_returns_within_two_seconds(
    race_with: Callable[..., Race],
    full: bool,
    measured: Measured,
    kind: type[DiskBackend],
    ends: AbstractContextManager[object],
) -> None:
    race = race_with(type=f"{__name__}.{kind.__name__}")
    waits = []
    for number in range(20 if full else 1):
        culprit = f"{number}/{CULPRIT}"
        race.fill([culprit])
        race.fs.expire(culprit, 0)
        sweeper = race.start(sweep_once)
        wait_for(partial(race.is_claimed, culprit), what="a claim")
        time.sleep(number % 4 / 2)  # at any time between two extensions of its lease
        sweeper.kill()
        began = time.monotonic()
        with ends:
            race.fs.expire(culprit, seconds=600)
        waits.append(time.monotonic() - began)
        assert race.fs.exists(culprit)
    assert max(waits) <= (2 + 0.2 if full else 10)  # for a busy machine; a lease lasts longer
    measured(f"{len(waits)} kills, the longest wait {max(waits):.2f} s")
