"""The audit: files without a record, records without a file, and how the first are adopted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from fs.base import FS
from fs.errors import ResourceNotFound
from fs.info import Info
from fs.memoryfs import MemoryFS

from djpyfs import InvalidLifetime, InvalidName, expire_objects, get_filesystem
from djpyfs.audit import Audit, Finding, Kind, Totals
from djpyfs.backends.memory import MemoryBackend
from djpyfs.filesystem import ExpiringFS
from tests.conftest import counted, records_here


class VanishingFS(MemoryFS):
    """Its files go just before somebody asks when they were modified."""

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        if "details" in (namespaces or ()):
            raise ResourceNotFound(path)
        return super().getinfo(path, namespaces)


class VanishingBackend(MemoryBackend):
    """A back-end whose files vanish."""

    def make_filesystem(self, namespace: str) -> FS:
        return VanishingFS()


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


def found(namespace: str = "plots", adopt: float | None = None) -> set[tuple[Kind, str]]:
    return {(finding.kind, finding.path) for finding in Audit(adopt).run(namespace)}


def test_files_without_a_record_and_records_without_a_file_are_found(plots: ExpiringFS) -> None:
    plots.makedir("d")
    fill(plots, "kept", "d/kept too", "tracked")
    plots.expire("tracked", 100)
    plots.expire("never/was", 100)
    audit = Audit()
    assert set(audit.run("plots")) == {
        Finding(Kind.NO_RECORD, "plots", "kept"),
        Finding(Kind.NO_RECORD, "plots", "d/kept too"),
        Finding(Kind.NO_FILE, "plots", "never/was"),
    }
    assert audit.totals == Totals(files=3, records=2, no_record=2, no_file=1)


def test_nothing_is_changed_unless_it_is_told_to(plots: ExpiringFS) -> None:
    fill(plots, "kept")
    plots.expire("never/was", 100)
    found()
    assert plots.expiration("kept") is None
    assert plots.expiration("never/was")


@pytest.mark.parametrize("type_", ["osfs", "opener"])
def test_a_namespace_that_is_not_there_is_not_made(
    djfs: Callable[..., None], tmp_path: Path, type_: str
) -> None:
    djfs(type=type_, directory_root=tmp_path, url=f"osfs://{tmp_path}")
    gone = get_filesystem("gone")
    gone.expire("never/was", 100)
    assert found("gone") == {(Kind.NO_FILE, "never/was")}
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


def test_adoption_works_on_every_back_end(plots: ExpiringFS) -> None:
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


def test_records_that_were_lost_are_made_anew(djfs: Callable[..., None], tmp_path: Path) -> None:
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


def test_what_another_namespace_tracks_in_the_same_place_has_a_record(disk: ExpiringFS) -> None:
    inner = get_filesystem("plots/today")
    fill(inner, "tracked", "kept")
    inner.expire("tracked", 100)
    fill(disk, "tracked from above")
    get_filesystem("plots").expire("today/from above", 100)
    fill(inner, "from above")
    assert found() == {(Kind.NO_RECORD, "today/kept"), (Kind.NO_RECORD, "tracked from above")}
    assert found("plots/today") == {(Kind.NO_RECORD, "kept")}


def test_what_is_set_aside_has_a_record(djfs: Callable[..., None]) -> None:
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


def test_names_that_no_record_can_have_are_told(disk: ExpiringFS, tmp_path: Path) -> None:
    disk.makedir("d")
    (tmp_path / "files" / "plots" / "new\nline").write_bytes(b"")
    assert found(adopt=0) == {(Kind.REFUSED, "new\nline")}


def test_a_record_that_no_file_could_have_is_told(disk: ExpiringFS) -> None:
    records_here().schedule([b"plots/../x\xff"], 0)
    assert found() == {(Kind.NO_FILE, "../x\\xff")}


def test_bad_arguments_are_refused(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    with pytest.raises(InvalidName):
        Audit().run("../x")
    for ttl in -1, float("nan"), float("inf"):
        with pytest.raises(InvalidLifetime):
            Audit(ttl)


def test_the_command_lists_findings_and_ends_with_1_where_some_are_left(
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
