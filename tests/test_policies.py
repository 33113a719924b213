"""Policies of a namespace: bounds for lifetimes, hidden files, holds; and signals of sweeps."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import fs.move
import pytest
from django.core.files.base import ContentFile
from django.dispatch import Signal
from fs import errors
from fs.base import FS
from fs.info import Info
from fs.memoryfs import MemoryFS

from djpyfs import (
    ConfigurationError,
    DjpyfsError,
    InvalidLifetime,
    InvalidName,
    NamespaceHeld,
    conf,
    expire_objects,
    get_filesystem,
)
from djpyfs.backends.memory import MemoryBackend
from djpyfs.conf import SECOND
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import status
from djpyfs.signals import files_expired, sweep_finished
from djpyfs.storage import ExpiringStorage
from tests.filesystem.steps import left, overdue
from tests.servers import running_redis, scripts_run

Make = Callable[..., ExpiringFS]
THREADS = 8


@pytest.fixture
def make(djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]) -> Make:
    """Return a filesystem on every backend whose namespace has a policy."""

    def make(**policy: Any) -> ExpiringFS:
        djfs(**place, **records, namespaces={"plots": policy})
        return get_filesystem("plots")

    return make


@pytest.fixture
def heard() -> Iterator[Callable[[Signal], list[dict[str, Any]]]]:
    """Listen to a signal; return what it was sent with."""
    connected: list[tuple[Signal, Any]] = []

    def listen(signal: Signal) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []

        def receive(**sent: Any) -> None:
            told.append(sent)

        signal.connect(receive, weak=False)
        connected.append((signal, receive))
        return told

    yield listen
    for signal, receive in connected:
        signal.disconnect(receive)


# -- bounds


def test_a_default_lifetime_that_an_entry_inherits_is_the_nearest_within_its_bounds(
    djfs: Callable[..., None],
) -> None:
    own = {"short": {"max_ttl": 300}, "long": {"min_ttl": 5_000}}
    djfs(type="memory", default_ttl=1_000, namespaces=own)
    lives = [conf.current().policy_for(name).default_ttl for name in ("short", "long", "other")]
    assert lives == [300 * SECOND, 5_000 * SECOND, 1_000 * SECOND]


def test_a_lifetime_out_of_bounds_is_refused(make: Make) -> None:
    plots = make(min_ttl=10, max_ttl=100)
    for seconds in 9, 101:
        with pytest.raises(InvalidLifetime, match=r"m.._ttl"):
            plots.expire("a", seconds)
    with pytest.raises(InvalidLifetime, match="endless"):
        plots.expire("a", expires=False)
    assert plots.expiration("a") is None
    plots.expire("a", 50)
    assert left(plots, "a") > 20


def test_a_lifetime_out_of_bounds_is_cut_if_the_policy_says_so(make: Make) -> None:
    plots = make(min_ttl=50, max_ttl=100, clamp=True)
    plots.expire("short", 1)
    plots.expire("long", days=1)
    plots.expire("endless", expires=False)
    assert left(plots, "short") == pytest.approx(50, abs=20)
    assert left(plots, "long") == pytest.approx(100, abs=20)
    assert left(plots, "endless") == pytest.approx(100, abs=20)


def test_a_file_may_become_permanent_whatever_its_shortest_lifetime(make: Make) -> None:
    plots = make(min_ttl=50)
    plots.expire("a", 60)
    plots.expire("a", 0, expires=False)
    assert plots.expiration("a") is None


# -- hidden files


@pytest.fixture
def hidden(make: Make) -> ExpiringFS:
    """A filesystem with one file that is overdue, one that is not, and one without a deadline."""
    plots = make(hide_expired=True)
    plots.makedir("d")
    overdue(plots, "d/over")
    for name in "d/due", "d/permanent":
        plots.writebytes(name, b"alive")
    plots.expire("d/due", 100)
    return plots


READS: dict[str, Callable[[ExpiringFS], object]] = {
    "open": lambda fs: fs.open("d/over"),
    "open to change": lambda fs: fs.open("d/over", "r+b"),
    "readbytes": lambda fs: fs.readbytes("d/over"),
    "readtext": lambda fs: fs.readtext("d/over"),
    "getinfo": lambda fs: fs.getinfo("d/over"),
    "getsize": lambda fs: fs.getsize("d/over"),
    "copy": lambda fs: fs.copy("d/over", "copy"),
    "move": lambda fs: fs.move("d/over", "moved"),
    "sub-filesystem": lambda fs: fs.opendir("d").readbytes("over"),
}


@pytest.mark.parametrize("read", READS)
def test_an_expired_file_is_not_found(hidden: ExpiringFS, read: str) -> None:
    with pytest.raises(errors.ResourceNotFound):
        READS[read](hidden)


def test_to_look_for_hidden_files_takes_one_round_trip_for_each_file_that_a_call_is_about(
    djfs: Callable[..., None],
) -> None:
    calls: dict[str, Callable[[ExpiringFS], object]]
    calls = {**CONTENTS, "move": lambda fs: fs.move("a", "b")}
    costs: dict[bool, list[int]] = {}
    with running_redis() as server:  # on a shared one others may run scripts too
        for hides in False, True:
            djfs(type="memory", redis_url=server.url, hide_expired=hides)
            plots = get_filesystem("plots")
            plots.writebytes("a", b"picture")
            counts = [scripts_run(server)]
            for call in calls.values():
                call(plots)
                counts.append(scripts_run(server))
            costs[hides] = [after - before for before, after in pairwise(counts)]
    more = [hiding - plain for plain, hiding in zip(costs[False], costs[True], strict=True)]
    assert dict(zip(calls, more, strict=True)) == {**dict.fromkeys(CONTENTS, 1), "move": 2}


def test_an_expired_file_is_in_no_listing(hidden: ExpiringFS) -> None:
    assert not hidden.exists("d/over")
    assert not hidden.isfile("d/over")
    assert sorted(hidden.listdir("d")) == ["due", "permanent"]
    assert sorted(info.name for info in hidden.scandir("d")) == ["due", "permanent"]
    assert len(list(hidden.scandir("d", page=(0, 1)))) == 1
    assert sorted(hidden.walk.files("/")) == ["/d/due", "/d/permanent"]
    assert hidden.readbytes("d/due") == b"alive"


@pytest.mark.parametrize("mode", ["ab", "xb", "wb"])
def test_a_write_finds_nothing_where_a_file_is_hidden(hidden: ExpiringFS, mode: str) -> None:
    with hidden.open("d/over", mode) as file:
        file.write(b"new")
    assert hidden.readbytes("d/over") == b"new"
    assert expire_objects().deleted == 0


def test_of_many_who_create_a_file_where_one_is_hidden_one_succeeds(hidden: ExpiringFS) -> None:
    start = Barrier(THREADS)

    def make_it(number: int) -> int:
        with suppress(errors.FileExists):
            start.wait(60)
            with hidden.openbin("d/over", "x") as file:
                file.write(b"%d" % number)
            return 1
        return 0

    with ThreadPoolExecutor(THREADS) as threads:
        assert sum(threads.map(make_it, range(THREADS))) == 1
    hidden.expire("d/over", expires=False)
    assert expire_objects().deleted == 0
    assert hidden.exists("d/over")


def test_a_new_file_takes_nothing_from_a_writer_who_overwrites_an_expired_one(
    hidden: ExpiringFS,
) -> None:
    with hidden.openbin("d/over", "w") as file:
        file.write(b"mine")
        with pytest.raises(errors.FileExists), hidden.openbin("d/over", "x"):
            pass
    assert hidden.readbytes("d/over") == b"mine"


def test_a_hidden_file_does_not_stand_in_the_way(hidden: ExpiringFS) -> None:
    hidden.copy("d/permanent", "d/over")
    assert hidden.readbytes("d/over") == b"alive"
    overdue(hidden, "d/over")
    hidden.move("d/permanent", "d/over")
    assert hidden.readbytes("d/over") == b"alive"


def test_a_tree_is_removed_with_what_is_hidden_in_it(hidden: ExpiringFS) -> None:
    hidden.removetree("d")
    assert expire_objects().deleted == 0
    assert not hidden.exists("d")


def test_a_deletion_that_failed_stays_hidden(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    for attempts in 1, 5:
        policy = {"hide_expired": True, "type": "tests.test_sweep.BrittleBackend"}
        djfs(type="memory", max_attempts=attempts, **records, namespaces={"plots": policy})
        plots = get_filesystem("plots")
        overdue(plots, "bad one")
        assert expire_objects().failed == 1
        assert not plots.exists("bad one")
        assert ExpiringStorage("plots").save("bad one", ContentFile(b"new")) != "bad one"


# -- sliding lives

SLIDING = {"default_ttl": 100, "renew_on_read": True}
CONTENTS: dict[str, Callable[[ExpiringFS], object]] = {
    "open": lambda fs: fs.open("a").close(),
    "readbytes": lambda fs: fs.readbytes("a"),
    "readtext": lambda fs: fs.readtext("a"),
    "download": lambda fs: fs.download("a", io.BytesIO()),
}


@pytest.mark.parametrize("read", CONTENTS)
def test_reading_a_file_renews_its_life(make: Make, read: str) -> None:
    plots = make(**SLIDING)
    plots.writebytes("a", b"picture")
    plots.expire("a", 40)
    CONTENTS[read](plots)
    assert left(plots, "a") == pytest.approx(100, abs=40)


def test_reading_a_file_does_not_shorten_its_life(make: Make) -> None:
    plots = make(**SLIDING)
    plots.writebytes("a", b"picture")
    plots.expire("a", 500)
    plots.readbytes("a")
    assert left(plots, "a") > 400


def test_a_file_is_not_renewed_beyond_its_longest_life(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    sliding = {"default_ttl": 1_000, "max_ttl": 1_000, "renew_on_read": True}
    djfs(type="osfs", directory_root=tmp_path, **sliding)
    plots = get_filesystem("plots")
    plots.writebytes("a", b"picture")
    plots.settimes("a", modified=datetime.now(UTC) - timedelta(seconds=600))
    plots.expire("a", 100)
    plots.readbytes("a")
    assert left(plots, "a") == pytest.approx(400, abs=60)


def test_a_file_that_is_given_a_time_in_the_future_is_not_renewed(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    sliding = {"default_ttl": 1_000, "max_ttl": 2_000, "renew_on_read": True}
    djfs(type="osfs", directory_root=tmp_path, **sliding)
    plots = get_filesystem("plots")
    plots.writebytes("a", b"picture")
    plots.settimes("a", modified=datetime.now(UTC) + timedelta(days=3_650))
    plots.expire("a", 100)
    plots.readbytes("a")
    assert left(plots, "a") == pytest.approx(100, abs=60)


class Timeless(MemoryFS):
    def getinfo(self, path: str, namespaces: Any = None) -> Info:
        return Info({"basic": super().getinfo(path).raw["basic"], "details": {"modified": None}})


class TimelessBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return Timeless()


def test_a_file_with_a_longest_life_is_not_renewed_if_nobody_knows_when_it_was_written(
    djfs: Callable[..., None],
) -> None:
    djfs(type="tests.test_policies.TimelessBackend", **SLIDING, max_ttl=100)
    plots = get_filesystem("plots")
    plots.writebytes("a", b"picture")
    plots.expire("a", 10)
    assert plots.readbytes("a") == b"picture"
    assert left(plots, "a") <= 10


def test_a_file_that_is_overdue_is_not_renewed(make: Make) -> None:
    plots = make(**SLIDING)
    overdue(plots, "a")
    plots.readbytes("a")
    assert expire_objects().deleted == 1


def test_a_permanent_file_stays_permanent_when_it_is_read(make: Make) -> None:
    plots = make(**SLIDING)
    plots.writebytes("a", b"picture")
    plots.expire("a", expires=False)
    plots.readbytes("a")
    assert plots.expiration("a") is None


def test_renewing_lives_need_a_default_length(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="default_ttl"):
        make(renew_on_read=True)


# -- holds


def test_nothing_on_hold_is_deleted_until_the_hold_is_lifted(make: Make) -> None:
    plots = make(hold=True)
    overdue(plots, "a")
    report = expire_objects()
    assert (report.deleted, report.failed, report.held) == (0, 0, 1)
    assert expire_objects().held == 0
    for remove in plots.remove, plots.removetree, plots.removedir:
        with pytest.raises(NamespaceHeld, match="hold") as raised:
            remove("a")
        assert isinstance(raised.value, errors.PermissionDenied)
        assert isinstance(raised.value, DjpyfsError)
    with pytest.raises(NamespaceHeld):
        plots.move("a", "b")
    assert plots.readbytes("a") == b"old"


def test_a_file_that_was_on_hold_counts_as_overdue(make: Make) -> None:
    plots = make(hold=True)
    overdue(plots, "a")
    expire_objects()
    assert left(plots, "a") < 5
    assert status().overdue == 1
    for write in plots.writebytes, plots.appendbytes:
        with pytest.raises(NamespaceHeld):
            write("a", b"new")
    with pytest.raises(NamespaceHeld):
        plots.open("a", "r+b")
    plots.writebytes("b", b"new")
    with pytest.raises(NamespaceHeld):
        plots.copy("b", "a", overwrite=True)
    assert plots.readbytes("a") == b"old"


# -- signals


def test_a_sweep_signals_which_files_it_deleted(
    make: Make, heard: Callable[[Signal], list[dict[str, Any]]]
) -> None:
    plots, other = make(), get_filesystem("other")
    expired, finished = heard(files_expired), heard(sweep_finished)
    for filesystem, name in (plots, "a"), (plots, "b"), (other, "c"):
        overdue(filesystem, name)
    expire_objects()
    told = {sent["namespace"]: sorted(sent["paths"]) for sent in expired}
    assert told == {"plots": ["a", "b"], "other": ["c"]}
    assert [sent["report"].deleted for sent in finished] == [3]
    expire_objects()
    assert len(finished) == 1


def test_a_receiver_that_raises_is_logged_and_stops_nothing(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("receiver is broken")

    plots = make()
    overdue(plots, "a")
    files_expired.connect(fail)
    try:
        with caplog.at_level(logging.ERROR):
            assert expire_objects().deleted == 1
    finally:
        files_expired.disconnect(fail)
    assert "receiver is broken" in caplog.text


# -- bounds


def test_the_longest_life_bounds_files_that_nobody_called_expire_for(make: Make) -> None:
    plots = make(max_ttl=100)
    plots.writebytes("a", b"new")
    assert 50 < left(plots, "a") <= 100


@pytest.mark.parametrize("move", [None, fs.move.move_file])
def test_a_file_moved_to_where_there_is_a_default_lifetime_gets_it_unless_it_was_made_permanent(
    djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any], move: Any
) -> None:
    djfs(**place, **records, namespaces={"plots/born": {"default_ttl": 60}})
    files = get_filesystem("plots")
    files.makedir("born")
    for name in ("plain", "kept"):
        files.writebytes(name, b"picture")
    files.expire("kept", expires=False)
    for name in ("plain", "kept"):
        if move:
            move(files, name, get_filesystem("plots/born"), name)
        else:
            files.move(name, f"born/{name}")
    assert 0 < left(files, "born/plain") <= 60
    assert files.expiration("born/kept") is None


def test_the_longest_life_bounds_files_that_are_moved_in(make: Make) -> None:
    plots, others = make(max_ttl=100), get_filesystem("others")
    outer = get_filesystem("plots").opendir("/")
    others.writebytes("a", b"new")
    others.writebytes("b", b"new")
    others.expire("b", 1_000)
    for name in "ab":
        fs.move.move_file(others, name, outer, name)
        assert 50 < left(plots, name) <= 100


@pytest.mark.parametrize("name", ["a/b", "a"])
def test_the_strictest_of_the_entries_for_a_file_counts(
    djfs: Callable[..., None], place: dict[str, Any], name: str
) -> None:
    entries = {"a": {"max_ttl": 1_000, "hold": True}, "a/b": {"max_ttl": 100, "default_ttl": 50}}
    djfs(**place, namespaces={**entries, "a/*": {"max_ttl": 1}})
    files, path = get_filesystem(name), "b/f".removeprefix(f"{name[2:]}/")
    files.makedirs(path.rpartition("/")[0], recreate=True)
    files.writebytes(path, b"evidence")
    assert 20 < left(files, path) <= 50
    attempts: list[Callable[[], object]] = [
        lambda: files.expire(path, 101),
        lambda: files.remove(path),
        lambda: files.writebytes(path, b"other"),
    ]
    for attempt in attempts:
        with pytest.raises((InvalidLifetime, NamespaceHeld)):
            attempt()


def test_many_files_at_once_are_each_bounded_by_the_policy_of_their_own_directory(
    djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]
) -> None:
    djfs(**place, **records, max_ttl=60, namespaces={"plots/kept": {"max_ttl": 3_600}})
    plots = get_filesystem("plots")
    plots.expire_many(["kept/a", "kept/b"], 600)
    assert left(plots, "kept/b") == pytest.approx(600, abs=60)
    with pytest.raises(InvalidLifetime, match="max_ttl"):
        plots.expire_many(["kept/c", "d"], 600)
    assert plots.expiration("kept/c") is None


@pytest.mark.parametrize(
    ("above", "life"), [({"min_ttl": 3_600}, 3_600), ({"max_ttl": 300}, 300), ({}, 600)]
)
def test_a_default_lifetime_is_moved_within_the_bounds_of_the_entries_above(
    djfs: Callable[..., None], place: dict[str, Any], above: dict[str, Any], life: int
) -> None:
    djfs(**place, namespaces={"a": above, "a/b": {"default_ttl": 600}})
    files = get_filesystem("a/b")
    files.writebytes("f", b"picture")
    assert left(files, "f") == pytest.approx(life, abs=60)


# -- entries for what another backend keeps


@pytest.fixture
def above(djfs: Callable[..., None], tmp_path: Path) -> ExpiringFS:
    djfs(type="osfs", directory_root=tmp_path, namespaces={"plots/other": {"type": "memory"}})
    return get_filesystem("plots")


@pytest.mark.parametrize(
    "write",
    [
        lambda fs: fs.writebytes("other/f", b""),
        lambda fs: fs.makedirs("other/below").writebytes("f", b""),
        lambda fs: fs.move("f", "other/f"),
        lambda fs: fs.copy("f", "other/f"),
        lambda fs: fs.expire("other/f", 1),
        lambda fs: fs.expire_many(["f", "other/f"], 1),
        lambda fs: fs.opendir("other").get_upload_url(seconds=9, max_bytes=9),
        lambda fs: fs.opendir("other").temporary_file(seconds=9).__enter__(),
    ],
)
def test_nothing_is_written_to_where_another_backend_keeps_the_files(
    above: ExpiringFS, write: Callable[[ExpiringFS], object]
) -> None:
    above.writebytes("f", b"picture")
    above.makedir("other", recreate=True)
    with pytest.raises(InvalidName, match=r"'plots/other.*get_filesystem\('plots/other"):
        write(above)
    assert [*above.walk.files()] == ["/f"]
    assert above.expiration("f") is None
    assert get_filesystem("plots/other").listdir("/") == []


def test_files_there_from_before_an_entry_are_read_linked_and_removed(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    get_filesystem("plots/other").writebytes("f", b"picture")
    elsewhere = {"plots/*": {"type": "memory"}}
    djfs(type="osfs", directory_root=tmp_path, url_root="/", namespaces=elsewhere)
    plots = get_filesystem("plots")
    assert plots.readbytes("other/f") == b"picture"
    assert plots.get_url("other/f") == "/plots/other/f"
    plots.remove("other/f")
    assert not plots.exists("other/f")


def test_an_entry_may_have_other_options_for_the_same_place(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    other = {"plots/other": {"url_root": "/other/", "default_ttl": 60}}
    djfs(type="osfs", directory_root=tmp_path, url_root="/", namespaces=other)
    get_filesystem("plots").makedir("other").writebytes("f", b"picture")
    assert get_filesystem("plots/other").readbytes("f") == b"picture"
    assert get_filesystem("plots/other").expiration("f")
