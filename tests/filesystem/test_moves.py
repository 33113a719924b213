"""Moves carry deadlines along, copies do not."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar

import fs.copy
import fs.move
import pytest
import redis
from fs import errors
from fs.base import FS
from fs.memoryfs import MemoryFS

from djpyfs import (
    FileBusy,
    MoveUnfinished,
    NamespaceHeld,
    conf,
    expirations,
    expire_objects,
    get_filesystem,
)
from djpyfs.backends.memory import MemoryBackend
from djpyfs.filesystem import ExpiringFS
from tests.faults.proxy import Proxy
from tests.filesystem.steps import left, overdue
from tests.servers import RedisServer


def test_move_carries_the_deadline_along(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"old")
    plots.expire("a.png", 100)
    deadline = plots.expiration("a.png")
    plots.move("a.png", "b.png")
    assert plots.expiration("b.png") == deadline
    assert plots.expiration("a.png") is None


class SweptWhileMoving(MemoryFS):
    """Reads a file, is swept, and writes the file under its new name."""

    def move(self, src_path: str, dst_path: str, *_: Any) -> None:
        contents = self.readbytes(src_path)
        expire_objects()
        self.writebytes(dst_path, contents)
        if self.exists(src_path):
            self.remove(src_path)


class SweptBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return SweptWhileMoving()


def test_move_may_keep_the_time_of_the_file(plots: ExpiringFS) -> None:
    plots.writebytes("a", b"picture")
    plots.expire("a", 100)
    plots.setinfo("a", {"details": {"modified": 1_000_000_000}})
    before = plots.getinfo("a", ["details"]).raw["details"]["modified"]
    deadline = plots.expiration("a")
    plots.move("a", "b", preserve_time=True)
    after: Any = plots.getinfo("b", ["details"]).raw["details"]["modified"]
    assert abs(after - before) < 60  # S3 lets nobody set the times of a file
    assert (plots.expiration("a"), plots.expiration("b")) == (None, deadline)


def test_a_permanent_file_stays_permanent_when_it_is_moved(
    djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]
) -> None:
    djfs(**place, **records, default_ttl=300)
    plots, others = get_filesystem("plots"), get_filesystem("others")
    plots.writebytes("a", b"old")
    plots.expire("a", expires=False)
    plots.move("a", "b")
    plots.writebytes("b", b"new")
    assert plots.expiration("b") is None
    others.makedir("/", recreate=True)
    fs.move.move_file(plots, "b", others, "c")
    others.writebytes("c", b"newer")
    assert others.expiration("c") is None
    plots.writebytes("b", b"another")
    assert plots.expiration("b"), "it is another file, which nobody made permanent"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_directory_that_is_moved_by_fs_move_takes_its_deadlines_along(
    djfs: Callable[..., None], place: dict[str, Any], elsewhere: bool, workers: int
) -> None:
    djfs(**place, default_ttl=1_000)
    plots = get_filesystem("plots")
    target = get_filesystem("others") if elsewhere else plots
    plots.makedirs("a/b")
    names = ["a/c", "a/b/d", "a/kept"]
    for name in names:
        plots.writebytes(name, b"picture")
    plots.expire_many(names[:2], 60)
    plots.expire("a/kept", expires=False)
    before = [plots.expiration(name) for name in names]
    fs.move.move_dir(plots, "a", target, "z", workers)
    assert [target.expiration(name.replace("a/", "z/", 1)) for name in names] == before
    assert not plots.exists("a")


def test_a_directory_that_is_moved_to_where_it_is_stays(
    djfs: Callable[..., None], place: dict[str, Any]
) -> None:
    djfs(**place)
    plots = get_filesystem("plots")
    plots.makedir("a")
    plots.writebytes("a/b", b"picture")
    plots.expire("a/b", 60)
    for directory in "a", "/":
        with suppress(errors.FSError):
            fs.move.move_dir(plots, directory, plots, directory)
        assert plots.readbytes("a/b") == b"picture"
        assert 0 < left(plots, "a/b") <= 60


@pytest.mark.parametrize("locks", [0, 1])
def test_what_is_copied_and_removed_under_one_lock_has_been_moved(
    plots: ExpiringFS, locks: int
) -> None:
    plots.writebytes("a", b"picture")
    plots.expire("a", 60)
    deadline = plots.expiration("a")
    with plots.lock() if locks else nullcontext():
        plots.copy("a", "b")
        plots.remove("a")
    assert plots.expiration("b") == (deadline if locks else None)


def test_a_directory_that_is_copied_by_fs_copy_within_a_filesystem_is_new(
    plots: ExpiringFS,
) -> None:
    plots.makedir("a")
    plots.writebytes("a/b", b"picture")
    plots.expire("a/b", 60)
    fs.copy.copy_dir(plots, "a", plots, "z")
    assert plots.expiration("z/b") is None


class NotedWhileCopying(MemoryFS):
    """Notes whether the copy has a deadline before anything is removed."""

    noted: ClassVar[list[bool]] = []

    def copy(self, src_path: str, dst_path: str, *how: Any, **more: Any) -> None:
        super().copy(src_path, dst_path, *how, **more)
        self.noted.append(get_filesystem("plots").expiration(dst_path) is not None)


class NotedBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return NotedWhileCopying()


def test_a_copy_that_fs_move_makes_has_a_deadline_from_the_beginning(
    djfs: Callable[..., None], records: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotedWhileCopying, "noted", [])
    djfs(type=f"{__name__}.NotedBackend", **records)
    plots = get_filesystem("plots")
    plots.makedir("a")
    plots.writebytes("a/b", b"picture")
    plots.expire("a/b", 60)
    fs.move.move_dir(plots, "a", plots, "z")
    assert NotedWhileCopying.noted == [True]


@pytest.mark.parametrize("elsewhere", [lambda: get_filesystem("others"), MemoryFS], ids="ab")
def test_no_reply_that_is_lost_while_fs_move_moves_a_file_costs_the_file(
    djfs: Callable[..., None],
    redis_server: RedisServer,
    tmp_path: Path,
    elsewhere: Callable[[], FS],
) -> None:
    proxy = Proxy(redis_server.port)
    own = {"type": "osfs", "directory_root": tmp_path, "key_prefix": uuid.uuid4().hex}
    djfs(**own, redis_url=proxy.url)
    plots, target = get_filesystem("plots"), elsewhere()
    outcomes = list[str]()
    while "moved" not in outcomes:
        name = str(len(outcomes))  # another each time: a lost reply may leave a claim
        plots.writebytes(name, b"picture")
        proxy.passing, proxy.cuts = len(outcomes), 100
        try:
            fs.move.move_file(plots, name, target, name)
            outcomes.append("moved")
        except MoveUnfinished:
            outcomes.append("unfinished")
        except errors.FSError:
            outcomes.append("failed")
        proxy.cuts = 0
        assert plots.isfile(name) or target.readbytes(name) == b"picture", outcomes
    assert {*outcomes} == {"moved", "unfinished", "failed"}
    expirations.close_all()
    proxy.stop()


def test_a_directory_that_is_removed_as_a_file_is_the_same_error_under_the_lock(
    disk: ExpiringFS,
) -> None:
    disk.makedir("d")
    with disk.lock(), pytest.raises(errors.FileExpected):
        disk.remove("d")


class SilentFS(MemoryFS):
    """Removes files, and does not answer."""

    def remove(self, path: str) -> None:
        super().remove(path)
        raise errors.RemoteConnectionError(path)


class SilentBackend(MemoryBackend):
    late = 30.0

    def make_filesystem(self, namespace: str) -> FS:
        return SilentFS()


def test_a_removal_that_is_not_answered_does_not_cost_the_copy_that_fs_move_has_made(
    djfs: Callable[..., None],
) -> None:
    djfs(type="memory", namespaces={"plots": {"type": f"{__name__}.SilentBackend"}})
    plots, others = get_filesystem("plots"), get_filesystem("others")
    plots.writebytes("a", b"picture")
    with pytest.raises(MoveUnfinished):
        fs.move.move_file(plots, "a", others, "a")
    assert others.readbytes("a") == b"picture"


def test_what_another_thread_copies_while_a_file_is_moved_is_a_new_file(
    djfs: Callable[..., None], place: dict[str, Any]
) -> None:
    djfs(**place)
    plots, others = get_filesystem("plots"), get_filesystem("others")
    for name in "moved", "copied":
        plots.writebytes(name, b"picture")
        plots.expire(name, 60)

    def copy() -> None:
        with plots.openbin("copied") as file:
            others.upload("copy", file)

    class Moving(MemoryFS):
        """Gives another thread its turn in the middle of a move."""

        def upload(self, path: str, file: Any, *_: Any, **__: Any) -> None:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(copy).result()

    fs.move.move_file(plots, "moved", Moving(), "moved")
    assert others.exists("copy")
    assert others.expiration("copy") is None


def test_a_sweep_during_a_move_makes_no_file_stay_forever(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.filesystem.test_moves.SweptBackend", **records)
    plots = get_filesystem("plots")
    overdue(plots, "a.png")
    plots.move("a.png", "b.png")
    assert plots.listdir("/") == ["b.png"]
    assert expire_objects().deleted == 1
    assert plots.listdir("/") == []


def test_a_permanent_file_stays_permanent_when_it_replaces_one_that_expires(
    plots: ExpiringFS,
) -> None:
    overdue(plots, "a.png")
    plots.writebytes("b.png", b"permanent")
    plots.move("b.png", "a.png", overwrite=True)
    assert expire_objects().deleted == 0
    assert plots.readbytes("a.png") == b"permanent"


def test_a_move_that_fails_changes_no_deadline(disk: ExpiringFS) -> None:
    disk.writebytes("a.png", b"old")
    disk.expire("a.png", 30)  # which is less than the grace
    disk.expire("missing/a.png", 200)
    before = disk.expiration("a.png"), disk.expiration("missing/a.png")
    with pytest.raises(errors.ResourceNotFound):
        disk.move("a.png", "missing/a.png")
    assert (disk.expiration("a.png"), disk.expiration("missing/a.png")) == before


class CopiedOnly(MemoryFS):
    """Goes away after the first half of a move."""

    def move(self, src_path: str, dst_path: str, *_: Any) -> None:
        self.copy(src_path, dst_path, overwrite=True)
        raise errors.RemoteConnectionError(src_path)


class CopyingBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return CopiedOnly()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_copy_that_a_failed_move_left_does_not_stay_forever(
    djfs: Callable[..., None], records: dict[str, Any], overwrite: bool
) -> None:
    djfs(type="tests.filesystem.test_moves.CopyingBackend", **records)
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 30)
    deadline = plots.expiration("a.png")
    with pytest.raises(errors.RemoteConnectionError):
        plots.move("a.png", "b.png", overwrite)
    assert (plots.expiration("a.png"), plots.expiration("b.png")) == (deadline, deadline)


def test_a_failed_move_onto_a_permanent_file_gives_it_no_deadline(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.filesystem.test_moves.CopyingBackend", **records)
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"picture")
    plots.writebytes("b.png", b"permanent")
    plots.expire("a.png", 30)
    with pytest.raises(errors.RemoteConnectionError):
        plots.move("a.png", "b.png", overwrite=True)
    assert plots.expiration("b.png") is None


def test_movedir_carries_every_deadline_along(plots: ExpiringFS) -> None:
    plots.makedirs("d/e")
    for number, path in enumerate(["d/a.png", "d/e/b.png"]):
        plots.writebytes(path, b"old")
        plots.expire(path, 100 * (number + 1))
    plots.writebytes("d/c.png", b"permanent")
    plots.movedir("d", "f", create=True)
    assert not plots.exists("d")
    assert left(plots, "f/a.png") == pytest.approx(100, abs=40)
    assert left(plots, "f/e/b.png") == pytest.approx(200, abs=40)
    assert plots.expiration("f/c.png") is None


class WrittenMeanwhile(MemoryFS):
    """Lets another writer write during a move."""

    def move(self, src_path: str, dst_path: str, *_: Any) -> None:
        self.writebytes(dst_path, self.readbytes(src_path))
        self.remove(src_path)
        self.writebytes("d/other.png", b"permanent")


class WrittenBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return WrittenMeanwhile()


def test_a_file_written_into_a_directory_while_that_moves_is_not_lost(
    djfs: Callable[..., None],
) -> None:
    djfs(type="tests.filesystem.test_moves.WrittenBackend")
    plots = get_filesystem("plots")
    plots.makedirs("d/e")
    plots.writebytes("d/e/a.png", b"picture")
    plots.movedir("d", "f", create=True)
    assert plots.listdir("d") == ["other.png"]
    assert plots.readbytes("f/e/a.png") == b"picture"


def test_a_directory_cannot_move_into_itself(disk: ExpiringFS) -> None:
    disk.makedirs("d/e")
    disk.writebytes("d/a.png", b"old")
    with pytest.raises(errors.OperationFailed):
        disk.movedir("d", "d/e")
    assert disk.exists("d/a.png")


@pytest.mark.parametrize("through", ["method", "fs.copy", "copydir"])
def test_a_copy_is_a_new_file_without_a_deadline(plots: ExpiringFS, through: str) -> None:
    plots.makedir("d")
    overdue(plots, "d/a.png")
    plots.makedir("f")
    if through == "method":
        plots.copy("d/a.png", "f/a.png")
    elif through == "fs.copy":
        fs.copy.copy_dir(plots, "d", plots, "f")
    else:
        plots.copydir("d", "f")
    expire_objects()
    assert plots.listdir("f") == ["a.png"]
    assert plots.expiration("f/a.png") is None


def test_no_file_is_moved_onto_a_directory(plots: ExpiringFS) -> None:
    plots.makedir("there")
    plots.writebytes("there/kept", b"kept")
    plots.writebytes("moved", b"moved")
    for destination in "there", "there/":
        with pytest.raises(errors.FileExpected):
            plots.move("moved", destination, overwrite=True)
    assert {*plots.walk.files()} == {"/moved", "/there/kept"}


def test_a_copy_onto_itself_changes_nothing(plots: ExpiringFS) -> None:
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 100)
    deadline = plots.expiration("a.png")
    plots.copy("a.png", "/a.png", overwrite=True)
    assert plots.readbytes("a.png") == b"picture"
    assert plots.expiration("a.png") == deadline
    with pytest.raises(errors.DestinationExists):
        plots.copy("a.png", "/a.png")


def test_the_shortcuts_of_fs_move_forget_what_they_took_away(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    overdue(disk, "a.png")
    with fs.open_fs(f"osfs://{tmp_path}") as elsewhere:
        fs.move.move_file(disk, "a.png", elsewhere, "moved.png")
    disk.writebytes("a.png", b"new")
    assert expire_objects().deleted == 0


def test_the_shortcuts_of_fs_move_start_a_new_life_where_they_write(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    overdue(disk, "a.png")
    (tmp_path / "new.png").write_bytes(b"new")
    with fs.open_fs(f"osfs://{tmp_path}") as elsewhere:
        fs.move.move_file(elsewhere, "new.png", disk, "a.png")
    assert expire_objects().deleted == 0
    assert disk.readbytes("a.png") == b"new"


@pytest.mark.parametrize(
    "elsewhere",
    [
        lambda: get_filesystem("plots"),
        lambda: get_filesystem("others"),
        lambda: get_filesystem("plots").makedir("d", recreate=True),
    ],
    ids="twice another sub".split(),
)
def test_a_move_between_two_filesystems_carries_the_deadline(
    plots: ExpiringFS, elsewhere: Callable[[], Any]
) -> None:
    target = elsewhere()
    for name in "a.png", "b.png", "kept.png":
        plots.writebytes(name, b"picture")
    plots.expire_many(["a.png", "b.png"], 30)
    deadline = plots.expiration("a.png")
    fs.move.move_file(plots, "a.png", target, "moved.png")
    assert (plots.expiration("a.png"), target.expiration("moved.png")) == (None, deadline)
    fs.move.move_file(plots, "kept.png", target, "kept too.png")
    assert target.expiration("kept too.png") is None
    fs.copy.copy_file(plots, "b.png", target, "copy.png")
    assert target.expiration("copy.png") is None


def test_a_file_that_moves_to_another_filesystem_has_no_deadline_of_what_it_replaces(
    plots: ExpiringFS,
) -> None:
    plots.writebytes("a.png", b"picture")
    other = get_filesystem("others")
    other.writebytes("a.png", b"preview")
    other.expire("a.png", 30)
    fs.move.move_file(plots, "a.png", other, "a.png")
    assert (other.readbytes("a.png"), other.expiration("a.png")) == (b"picture", None)


def test_a_move_to_another_filesystem_that_dies_leaves_no_copy_without_a_deadline(
    plots: ExpiringFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: str) -> None:
        raise KeyboardInterrupt

    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 30)
    monkeypatch.setattr(plots, "remove", die)
    other = get_filesystem("others")
    with pytest.raises(KeyboardInterrupt):
        fs.move.move_file(plots, "a.png", other, "a.png")
    assert 0 < left(other, "a.png") <= 30


def test_a_file_on_hold_that_may_not_move_leaves_what_is_at_the_target_alone(
    plots: ExpiringFS, settings: Any
) -> None:
    settings.DJFS = {**settings.DJFS, "namespaces": {"held": {"hold": True}}}
    held, free = get_filesystem("held"), get_filesystem("free")
    held.writebytes("a.png", b"evidence")
    free.writebytes("a.png", b"picture")
    with pytest.raises(NamespaceHeld):
        fs.move.move_file(held, "a.png", free, "a.png")
    assert (held.readbytes("a.png"), free.readbytes("a.png")) == (b"evidence", b"picture")


def test_the_move_of_a_directory_to_another_filesystem_carries_the_deadlines(
    plots: ExpiringFS,
) -> None:
    plots.makedir("d")
    plots.writebytes("d/a.png", b"picture")
    plots.expire("d/a.png", 30)
    deadline = plots.expiration("d/a.png")
    other = get_filesystem("others")
    fs.move.move_dir(plots, "d", other, "e")
    assert other.expiration("e/a.png") == deadline
    assert not plots.exists("d/a.png")


def test_two_that_move_a_file_back_and_forth_keep_its_deadline(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records)
    plots = get_filesystem("plots")
    plots.writebytes("x", b"picture")
    plots.expire("x", 300)
    deadline = plots.expiration("x")

    def move(names: tuple[str, str]) -> None:
        for _ in range(50):
            with suppress(errors.ResourceNotFound, errors.DestinationExists):
                plots.move(*names)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(move, [("x", "y"), ("y", "x")]))
    [name] = plots.listdir("/")
    assert plots.expiration(name) == deadline


class NotingMoves(MemoryFS):
    """Notes whether there is a file where another one moves to."""

    replaced: ClassVar[list[bool]] = []

    def move(self, src_path: str, dst_path: str, *options: Any) -> None:
        self.replaced.append(self.exists(dst_path))
        super().move(src_path, dst_path, *options)  # type: ignore[no-untyped-call]


class NotingBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return NotingMoves()


def test_a_file_that_a_permanent_one_replaces_is_gone_before_the_move(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="tests.filesystem.test_moves.NotingBackend", **records)
    NotingMoves.replaced.clear()
    plots = get_filesystem("plots")
    overdue(plots, "a.png")
    plots.writebytes("b.png", b"permanent")
    plots.move("b.png", "a.png", overwrite=True)
    assert NotingMoves.replaced == [False]


@pytest.mark.parametrize("seconds", [None, 300])
def test_a_move_onto_the_same_file_under_its_other_name_changes_nothing(
    djfs: Callable[..., None],
    place: dict[str, Any],
    records: dict[str, Any],
    seconds: float | None,
) -> None:
    djfs(**place, **records)
    inner, outer = get_filesystem("x/y"), get_filesystem("x")
    inner.writebytes("f", b"picture")
    if seconds:
        inner.expire("f", seconds)
    deadline = inner.expiration("f")
    for source, path, target, name in (
        (inner, "f", outer, "y/f"),
        (outer, "y/f", outer.opendir("y"), "f"),
        (inner, "f", get_filesystem("x/y"), "f"),
    ):
        fs.move.move_file(source, path, target, name)
        assert inner.readbytes("f") == b"picture"
        assert inner.expiration("f") == deadline


def test_two_that_move_a_file_back_and_forth_between_filesystems_do_not_lose_it(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records)
    there, back, other = (get_filesystem("plots") for _ in range(3))
    there.writebytes("x", b"picture")
    there.expire("x", 300)
    with there.lock(), back.lock():  # as fs.move does it
        fs.copy.copy_file(there, "x", other, "y")
        fs.copy.copy_file(back, "y", other, "x")
        back.remove("y")
        with pytest.raises(errors.OperationFailed, match="its copy is gone"):
            there.remove("x")
    assert other.listdir("/") == ["x"]
    assert other.expiration("x")


class Forgetful(MemoryFS):
    """Empties Redis when it is asked for a file."""

    def isfile(self, path: str) -> bool:
        settings = conf.current()
        with closing(redis.Redis.from_url(settings.redis_url)) as client:
            client.delete(*client.scan_iter(f"{settings.key_prefix}:*"), "none")
        return super().isfile(path)


class ForgetfulBackend(MemoryBackend):
    def make_filesystem(self, namespace: str) -> FS:
        return Forgetful()


def test_a_move_whose_claim_is_over_moves_nothing(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    backend = "tests.filesystem.test_moves.ForgetfulBackend"
    djfs(type=backend, redis_url=redis_server.local_url, key_prefix=uuid.uuid4().hex)
    source, target = get_filesystem("a"), get_filesystem("b")
    source.writebytes("f", b"picture")
    source.expire("f", 300)
    with pytest.raises(FileBusy, match="lost its claim"):
        fs.move.move_file(source, "f", target, "f")
    assert source.readbytes("f") == b"picture"
