"""The audit: files without a record, records without a file, and how the first are adopted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from fs.base import FS
from fs.errors import PermissionDenied, ResourceNotFound
from fs.info import Info
from fs.memoryfs import MemoryFS

from djpyfs import BackendUnavailable, InvalidLifetime, InvalidName, expire_objects, get_filesystem
from djpyfs.audit import Audit, Finding, Kind, Totals
from djpyfs.backends.memory import MemoryBackend
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import tracked_files
from tests.conftest import counted, files_beneath, records_here
from tests.servers import RedisServer, running_redis


class VanishingFS(MemoryFS):
    """Its files go just before somebody asks when they were modified."""

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        if "details" in (namespaces or ()):
            raise ResourceNotFound(path)
        return super().getinfo(path, namespaces)


class VanishingBackend(MemoryBackend):
    """A backend whose files vanish."""

    def make_filesystem(self, namespace: str) -> FS:
        return VanishingFS()


class GuardedFS(MemoryFS):
    """One of its directories may not be listed, as the lost+found of a disk."""

    def scandir(self, path: str, *how: Any, **more: Any) -> Any:
        if path.endswith("lost+found"):
            raise PermissionDenied(path)
        return super().scandir(path, *how, **more)


class GuardedBackend(MemoryBackend):
    """A backend with such a directory."""

    def make_filesystem(self, namespace: str) -> FS:
        files = GuardedFS()
        files.makedir("lost+found")
        files.writebytes("file", b"picture")
        return files


def fill(filesystem: ExpiringFS, *names: str) -> None:
    for name in names:
        filesystem.writebytes(name, b"picture")


def age(file: Path, seconds: float) -> None:
    """Make a file look as if it was last modified that long ago."""
    then = file.stat().st_mtime - seconds
    os.utime(file, (then, then))


def remaining(filesystem: ExpiringFS, name: str) -> float:
    deadline = filesystem.expiration(name)
    assert deadline
    return (deadline - datetime.now(UTC)) / timedelta(seconds=1)


def found(*wheres: str, adopt: float | None = None) -> set[tuple[Kind, str]]:
    """The findings, by the names of the files in ``plots`` or in all namespaces."""
    findings = Audit(adopt).run(*(wheres or ["plots"]))
    names = ((it.kind, f"{it.namespace}/{it.path}") for it in findings)
    return {(kind, name.removeprefix("plots/")) for kind, name in names}


def test_a_directory_that_may_not_be_listed_is_named_and_the_rest_is_adopted(
    djfs: Callable[..., None],
) -> None:
    djfs(type="tests.test_audit.GuardedBackend")
    audit = Audit(adopt=60)
    kinds = {finding.kind: finding.namespace for finding in audit.run("plots")}
    assert kinds == {Kind.NO_RECORD: "plots", Kind.UNREADABLE: "plots/lost+found"}
    assert (audit.totals.adopted, audit.totals.differences) == (1, 1)


def test_files_without_a_record_and_records_without_a_file_are_found(plots: ExpiringFS) -> None:
    plots.makedir("d")
    fill(plots, "kept", "d/kept too", "tracked")
    plots.expire("tracked", 100)
    plots.expire("never/was", 100)
    audit = Audit()
    assert set(audit.run("plots")) == {
        Finding(Kind.NO_RECORD, "plots", "kept"),
        Finding(Kind.NO_RECORD, "plots/d", "kept too"),
        Finding(Kind.NO_FILE, "plots/never", "was"),
    }
    assert audit.totals == Totals(files=3, records=2, no_record=2, no_file=1)


def test_nothing_is_changed_unless_it_is_asked_for(plots: ExpiringFS) -> None:
    fill(plots, "kept")
    plots.expire("never/was", 100)
    found()
    assert plots.expiration("kept") is None
    assert plots.expiration("never/was")


@pytest.mark.parametrize("type_", ["osfs", "opener"])
def test_a_missing_namespace_is_not_made(
    djfs: Callable[..., None], tmp_path: Path, type_: str
) -> None:
    djfs(type=type_, directory_root=tmp_path, url=f"osfs://{tmp_path}")
    gone = get_filesystem("gone")
    gone.expire("never/was", 100)
    assert found("gone") == {(Kind.NO_FILE, "gone/never/was")}
    assert found("plotz/unheard of") == set()
    assert [path.name for path in tmp_path.iterdir()] == [".djpyfs"]


def test_a_file_is_adopted_by_the_time_of_its_modification(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    fill(disk, "fresh", "old", "ancient", "tracked")
    age(tmp_path / "files" / "plots" / "old", 600)
    age(tmp_path / "files" / "plots" / "ancient", 86_400)
    disk.expire("tracked", 50)
    audit = Audit(adopt=1_000)
    deadlines = {finding.path: finding.deadline for finding in audit.run("plots")}
    assert deadlines == {name: disk.expiration(name) for name in ("fresh", "old", "ancient")}
    assert 980 < remaining(disk, "fresh") <= 1_000
    assert 380 < remaining(disk, "old") <= 400
    assert 40 < remaining(disk, "ancient") <= 60  # the grace
    assert 30 < remaining(disk, "tracked") <= 50
    assert audit.totals.adopted == 3
    assert found(adopt=5) == set()


def test_a_file_is_adopted_for_no_longer_than_its_namespace_allows(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records, namespaces={"plots": {"max_ttl": 100}})
    files_beneath().writebytes("a", b"picture")
    assert found(adopt=1_000) == {(Kind.NO_RECORD, "a")}
    assert 50 < remaining(get_filesystem("plots"), "a") <= 100


def test_adoption_works_on_every_backend(plots: ExpiringFS) -> None:
    fill(plots, "a")
    assert found(adopt=1_000) == {(Kind.NO_RECORD, "a")}
    assert 950 < remaining(plots, "a") <= 1_000
    assert found() == set()


def test_a_file_that_vanishes_while_it_is_adopted_leaves_no_record(
    djfs: Callable[..., None],
) -> None:
    djfs(type="tests.test_audit.VanishingBackend")
    fill(get_filesystem("plots"), "a")
    audit = Audit(adopt=100)
    assert [finding.deadline for finding in audit.run("plots")] == [None]
    assert audit.totals.adopted == 0
    assert counted().tracked == 0


def test_lost_records_are_made_again(djfs: Callable[..., None], tmp_path: Path) -> None:
    place = {"type": "osfs", "directory_root": tmp_path}
    djfs(**place)
    plots = get_filesystem("plots")
    names = [f"{number}" for number in range(1_200)]
    fill(plots, *names)
    plots.expire_many(names, 100)
    djfs(**place)  # with an empty store
    assert len(found()) == 1_200
    assert len(found(adopt=100)) == 1_200
    assert found() == set()


def test_a_file_that_another_namespace_tracks_in_the_same_place_has_a_record(
    disk: ExpiringFS,
) -> None:
    inner = get_filesystem("plots/today")
    fill(inner, "tracked", "kept")
    inner.expire("tracked", 100)
    fill(disk, "tracked from above")
    get_filesystem("plots").expire("today/from above", 100)
    fill(inner, "from above")
    assert found() == {(Kind.NO_RECORD, "today/kept"), (Kind.NO_RECORD, "tracked from above")}
    assert found("plots/today") == {(Kind.NO_RECORD, "today/kept")}


def test_a_file_set_aside_has_a_record(djfs: Callable[..., None]) -> None:
    djfs(type="tests.test_sweep.BrittleBackend", max_attempts=1)
    plots = get_filesystem("plots")
    fill(plots, "bad")
    plots.expire("bad", 0)
    expire_objects()
    assert found(adopt=100) == set()


def test_links_to_directories_are_not_followed(disk: ExpiringFS, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"")
    disk.makedir("d")
    os.symlink(outside, tmp_path / "files" / "plots" / "link")
    os.symlink(tmp_path / "files" / "plots", tmp_path / "files" / "plots" / "loop")
    assert found(adopt=0) == set()


def test_names_that_no_record_can_have_are_reported(disk: ExpiringFS, tmp_path: Path) -> None:
    disk.makedir("d")
    (tmp_path / "files" / "plots" / "new\nline").write_bytes(b"")
    assert found(adopt=0) == {(Kind.REFUSED, "new\nline")}


def test_a_record_that_no_file_could_have_is_reported(disk: ExpiringFS) -> None:
    records_here().schedule([b"plots/../x\xff"], 0)
    assert found() == {(Kind.NO_FILE, "../x\\xff")}


def test_a_file_made_permanent_by_hand_is_neither_reported_nor_adopted(plots: ExpiringFS) -> None:
    fill(plots, "kept", "d", "moved")
    for name in "kept", "moved":
        plots.expire(name, expires=False)
    plots.move("moved", "away")
    audit = Audit(adopt=0)
    assert [finding.path for finding in audit.run("plots")] == ["d"]
    assert (audit.totals.permanent, audit.totals.no_record) == (2, 1)
    assert [plots.expiration(name) for name in ("kept", "away")] == [None, None]


@pytest.fixture
def several(djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]) -> None:
    """Files without records in four namespaces, one of them on another backend."""
    elsewhere = {"tenants/b": {"type": "memory"}, "tenants/c/*": {"clamp": True}}
    djfs(**place, **records, namespaces=elsewhere)
    for namespace in "plots", "tenants/a", "tenants/b", "tenants/c/d":
        fill(get_filesystem(namespace), "kept")


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize(
    ("wheres", "namespaces"),
    [
        ((), ["plots", "tenants/a", "tenants/b", "tenants/c/d"]),
        (("tenants/*",), ["tenants/a", "tenants/b", "tenants/c/d"]),
        (("tenants",), ["tenants/a", "tenants/b", "tenants/c/d"]),
        (("tenants/c/*", "tenants/c/d", "plots"), ["plots", "tenants/c/d"]),
        (("tenants/b",), ["tenants/b"]),
    ],
    ids=str,
)
def test_an_audit_covers_the_files_that_ls_would_list(
    wheres: tuple[str, ...], namespaces: list[str]
) -> None:
    audit = Audit(adopt=1_000)
    assert sorted(finding.namespace for finding in audit.run(*wheres)) == namespaces
    listed = [tracked_files(where) for where in wheres or [None]]
    assert {file.namespace for it in listed for file in it.files} == set(namespaces)
    assert audit.totals.adopted == len(namespaces)
    assert not list(Audit().run(*wheres))


def test_files_of_others_in_the_same_place_are_left_alone(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    shared = {"type": "osfs", "directory_root": tmp_path / "shared"}
    djfs(type="osfs", directory_root=tmp_path / "own", namespaces={"exports": shared})
    for namespace in "plots", "exports":
        fill(get_filesystem(namespace), "kept")
    theirs = tmp_path / "shared" / "plots" / "precious"
    theirs.parent.mkdir()
    theirs.write_bytes(b"")
    audit = Audit(adopt=0)
    assert {finding.namespace for finding in audit.run()} == {"plots", "exports"}
    assert audit.totals.adopted == 2


def test_a_dry_run_says_what_would_be_adopted_and_adopts_nothing(disk: ExpiringFS) -> None:
    fill(disk, "a")
    audit = Audit(adopt=1_000, dry_run=True)
    [finding] = audit.run("plots")
    assert finding.deadline
    assert 900 < (finding.deadline - datetime.now(UTC)) / timedelta(seconds=1) <= 1_000
    assert (disk.expiration("a"), audit.totals.adopted, audit.totals.no_record) == (None, 0, 1)


def test_the_records_are_looked_through_once_for_all_namespaces(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    with running_redis() as server:
        djfs(type="osfs", directory_root=tmp_path, redis_url=server.url)
        namespaces = [f"n{number}" for number in range(20)]
        records_here("n0").schedule([f"{n}/{k}".encode() for n in namespaces for k in "abc"], 10**9)
        records_here("n0").schedule([b"n0/%d" % number for number in range(30_000)], 10**9)
        costs = []
        for wheres in namespaces[1:2], namespaces[1:]:
            before = looks(server)
            assert len(list(Audit().run(*wheres))) == 3 * len(wheres)
            costs.append(looks(server) - before)
    assert costs[0] == costs[1] > 10


def looks(server: RedisServer) -> int:
    """How many steps there were in which the records were looked through."""
    stats: Any = server.client().info("commandstats")
    return int(stats.get("cmdstat_zscan", {"calls": 0})["calls"])


def test_a_missing_place_is_reported_and_the_others_are_looked_at(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    bare = {"type": "osfs", "directory_root": tmp_path / "bare"}
    djfs(type="memory", namespaces={"exports": bare})
    fill(get_filesystem("plots"), "kept")
    findings = list(Audit().run())
    assert [(it.kind, it.path) for it in findings if it.kind != Kind.AWAY] == [
        (Kind.NO_RECORD, "kept")
    ]
    assert [it.kind for it in findings].count(Kind.AWAY) == 1
    with pytest.raises(BackendUnavailable):
        Audit().run("exports")


def test_bad_arguments_are_refused(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    with pytest.raises(InvalidName):
        Audit().run("../x")
    for ttl in -1, float("nan"), float("inf"):
        with pytest.raises(InvalidLifetime):
            Audit(ttl)


def test_the_command_lists_findings_and_ends_with_1_if_some_are_left(
    disk: ExpiringFS, tmp_path: Path
) -> None:
    fill(disk, "kept")
    disk.expire("never was", 100)
    out = StringIO()
    arguments = ("djpyfs", "audit", "plots", "memos", "--format", "json")
    with pytest.raises(CommandError) as caught:
        call_command(*arguments, stdout=out, stderr=StringIO())
    assert caught.value.returncode == 1
    first, second, totals = map(json.loads, out.getvalue().splitlines())
    assert (first["kind"], first["path"], first["deadline"]) == ("no record", "kept", None)
    assert (second["kind"], second["path"]) == ("no file", "never was")
    assert (totals["files"], totals["records"]) == (1, 1)


def test_the_command_adopts(disk: ExpiringFS) -> None:
    fill(disk, "kept")
    out = StringIO()
    call_command("djpyfs", "audit", "plots", "--adopt", "100", stdout=out, stderr=StringIO())
    assert "no record     plots  kept  due 2" in out.getvalue()
    assert "1 adopted" in out.getvalue()
    assert disk.expiration("kept")


def test_the_command_refuses_all_namespaces_or_none(disk: ExpiringFS) -> None:
    fill(disk, "kept")
    with pytest.raises(CommandError) as caught:
        call_command("djpyfs", "audit", "plots", "../x", "--adopt", "100", stdout=StringIO())
    assert caught.value.returncode == 2
    assert disk.expiration("kept") is None
