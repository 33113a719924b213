"""Links that lead out of the root, put there before a call or while it runs."""

from __future__ import annotations

import ctypes
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fs.enums import ResourceType
from fs.errors import FSError

from djpyfs import LinkNotFollowed, expire_objects, get_filesystem
from djpyfs.backends.osfs import DiskBackend
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import preview
from djpyfs.names import Entry
from tests.endless import Endless
from tests.faults.canary import SECRET, Canary
from tests.faults.conftest import Measured
from tests.faults.processes import Actor


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def led_astray(djfs: Callable[..., None], root: Path, canary: Canary) -> ExpiringFS:
    """A namespace with links to a file and to a directory outside, and to what is not there."""
    djfs(type="osfs", directory_root=root)
    files = get_filesystem("plots")
    files.writebytes("mine", b"mine")
    links = {"file": "secret", "directory": "deep", "dangling": "new"}
    for name, target in links.items():
        (root / "plots" / name).symlink_to(canary.directory / target)
    return files


BEHIND = ["file", "directory/secret", "directory/new", "dangling"]
OPENING: dict[str, Callable[[ExpiringFS, str], object]] = {
    "read": lambda files, name: files.readbytes(name),
    "download": lambda files, name: files.download(name, io.BytesIO()),
    "write": lambda files, name: files.writebytes(name, b"harm"),
    "append": lambda files, name: files.appendbytes(name, b"harm"),
    "change": lambda files, name: files.open(name, "r+b").close(),
    "make": lambda files, name: files.openbin(name, "wb").close(),
    "upload": lambda files, name: files.upload(name, io.BytesIO(b"harm")),
    "copy from": lambda files, name: files.copy(name, "copy"),
    "copy to": lambda files, name: files.copy("mine", name, overwrite=True),
}
LISTING: dict[str, Callable[[ExpiringFS, str], object]] = {
    "list": lambda files, name: files.listdir(name),
    "scan": lambda files, name: list(files.scandir(name)),
    "open": lambda files, name: files.opendir(name),
    "make in": lambda files, name: files.makedirs(f"{name}/new"),
    "make a file in": lambda files, name: files.touch(f"{name}/new"),
    "move into": lambda files, name: files.move("mine", f"{name}/mine"),
    "look into": lambda files, name: files.getinfo(f"{name}/secret"),
    "take from": lambda files, name: files.move(f"{name}/secret", "taken"),
    "remove from": lambda files, name: files.remove(f"{name}/secret"),
    "remove all of": lambda files, name: files.removetree(name),
    "remove in": lambda files, name: files.removedir(f"{name}/deep"),
    "set times in": lambda files, name: files.setinfo(
        f"{name}/secret", {"details": {"modified": 1}}
    ),
}


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize("act", OPENING)
def test_no_file_is_opened_through_a_link(led_astray: ExpiringFS, act: str, name: str) -> None:
    with pytest.raises(LinkNotFollowed):
        OPENING[act](led_astray, name)
    assert led_astray.expiration(name) is None


@pytest.mark.parametrize("act", LISTING)
def test_no_directory_is_entered_through_a_link(led_astray: ExpiringFS, act: str) -> None:
    with pytest.raises((LinkNotFollowed, FSError)) as raised:
        LISTING[act](led_astray, "directory")
    assert SECRET.decode() not in str(raised.value)
    assert led_astray.readbytes("mine") == b"mine"


def test_a_link_is_shown_moved_and_removed_as_what_it_is(
    led_astray: ExpiringFS, root: Path, canary: Canary
) -> None:
    info = led_astray.getinfo("file", ["details", "lstat", "link"])
    assert (info.type, info.is_dir) == (ResourceType.symlink, False)
    assert info.target == str(canary.directory / "secret")
    assert led_astray.islink("file")
    assert not led_astray.islink("mine")
    assert not led_astray.isdir("directory")
    led_astray.setinfo("file", {"details": {"modified": 1_000_000_000}})
    led_astray.move("file", "moved")
    assert (root / "plots" / "moved").is_symlink()
    led_astray.removetree("/")
    assert led_astray.listdir("/") == []


def test_a_sweep_deletes_a_link_and_nothing_behind_one(led_astray: ExpiringFS) -> None:
    led_astray.expire_many(["file", "directory/secret", "mine"], 0)
    report = expire_objects()
    assert (report.deleted, report.failed) == (2, 1)
    assert set(led_astray.listdir("/")) == {"directory", "dangling"}


def test_a_dry_run_measures_nothing_behind_a_link(led_astray: ExpiringFS) -> None:
    led_astray.expire_many(["directory/secret", "mine", "gone/long ago"], 0)
    found = preview()
    assert (found.files, found.bytes, found.unmeasured) == (3, len(b"mine"), 1)


def test_no_namespace_is_behind_a_link(
    djfs: Callable[..., None], root: Path, canary: Canary
) -> None:
    djfs(type="osfs", directory_root=root)
    opened_before = get_filesystem("was/here")
    opened_before.writebytes("secret", b"mine")
    os.rename(root / "was" / "here", root / "elsewhere")
    for name in "was/here", "linked":
        (root / name).symlink_to(canary.directory)
    for namespace in "linked", "linked/below":
        with pytest.raises(LinkNotFollowed):
            get_filesystem(namespace)
    with pytest.raises(LinkNotFollowed):
        opened_before.readbytes("secret")
    opened_before.expire("secret", 0)
    assert expire_objects().failed == 1


@pytest.mark.parametrize("option", [{}, {"accel_redirect": "/protected/"}, {"x_sendfile": True}])
def test_a_signed_link_leads_to_no_other_link(
    djfs: Callable[..., None],
    led_astray: ExpiringFS,
    root: Path,
    option: dict[str, Any],
    client: Any,
    settings: Any,
) -> None:
    settings.ROOT_URLCONF = "tests.faults.urls"
    djfs(type="osfs", directory_root=root, **option)
    files = get_filesystem("plots")
    for name in BEHIND:
        url = files.get_url(name)
        answers = [client.get(url), client.head(url)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert all("X-Accel-Redirect" not in answer for answer in answers)


def test_a_site_may_choose_to_follow_links(
    djfs: Callable[..., None], root: Path, tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=root, follow_symlinks=True)
    outside = tmp_path / "other disk"
    outside.mkdir()
    root.mkdir()
    (root / "plots").symlink_to(outside)
    files = get_filesystem("plots")
    (outside / "link").symlink_to(outside / "deep" / "file")
    files.makedir("deep").writebytes("file", b"1")
    files.writebytes("link", b"2")
    assert files.readbytes("deep/file") == b"2"
    assert files.getinfo("link", ["details"]).size == 1
    files.expire_many(["link", "deep/file"], 0)
    assert expire_objects().deleted == 2
    assert list(outside.iterdir()) == []


def test_the_root_may_be_a_link(djfs: Callable[..., None], root: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    root.symlink_to(tmp_path / "disk")
    djfs(type="osfs", directory_root=root)
    files = get_filesystem("plots")
    files.makedir("deep").writebytes("file", b"1")
    assert files.readbytes("deep/file") == b"1"
    files.move("deep/file", "file")
    files.expire("file", 0)
    assert expire_objects().deleted == 1


# -- while it runs


EXCHANGE = 2  # of renameat2: there is no moment without either of them


def swap_for_ever(directory: Path, link: Path) -> None:
    """Swap the link and the directory back and forth, until the process is killed."""
    system: Any = ctypes.CDLL(None, use_errno=True)
    here = os.open("/", os.O_RDONLY)  # which absolute paths make no use of
    while system.renameat2(here, os.fsencode(directory), here, os.fsencode(link), EXCHANGE) == 0:
        pass
    raise OSError(ctypes.get_errno(), "renameat2")


@pytest.fixture
def files(djfs: Callable[..., None], root: Path) -> ExpiringFS:
    djfs(type="osfs", directory_root=root)
    return get_filesystem("plots")


@pytest.fixture
def swapped(files: ExpiringFS, root: Path, canary: Canary) -> Iterator[Path]:
    """A path through a directory that another process swaps with a link, again and again."""
    files.makedir("swapped").touch("stays")  # so that no sweep prunes it
    link = root / "plots" / "link"
    link.symlink_to(canary.directory)
    inside = os.open(root / "plots" / "swapped", os.O_RDONLY)
    swapper = Actor({}, swap_for_ever, root / "plots" / "swapped", link)
    yield Path(f"/proc/self/fd/{inside}")
    swapper.kill()
    os.close(inside)


@pytest.mark.fault("a link swapped in while a file is deleted", "10,000 tries, 0 followed")
def test_a_deletion_follows_no_link_that_is_swapped_in_while_it_runs(
    swapped: Path, root: Path, canary: Canary, full: bool, measured: Measured
) -> None:
    backend = DiskBackend({"directory_root": root})
    tries = 10_000 if full else 300
    seen: Counter[str] = Counter()
    while seen.total() < tries or not {"deleted", "failed"} <= seen.keys():
        (swapped / "victim").write_bytes(b"mine")
        outcome = backend.delete([Entry("plots", "swapped/victim")], Endless())
        for what in "deleted", "missing", "failed":
            seen[what] += len(getattr(outcome, what))
    canary.assert_unharmed()
    measured(f"{seen.total():,} tries, {seen['deleted']:,} deleted, 0 followed")


@pytest.mark.fault("a link swapped in while a file is opened", "10,000 tries, 0 followed")
def test_nothing_is_read_written_or_removed_through_a_link_that_is_swapped_in(
    files: ExpiringFS, swapped: Path, full: bool, measured: Measured, canary: Canary
) -> None:
    def read() -> None:
        assert files.readbytes("swapped/victim") != SECRET

    def list_() -> None:
        assert "secret" not in files.listdir("swapped")

    acts: list[Callable[[], object]] = [
        lambda: files.writebytes("swapped/victim", b"mine"),
        read,
        lambda: files.appendbytes("swapped/victim", b"mine"),
        lambda: files.makedir("swapped/new"),
        list_,
        lambda: files.remove("swapped/victim"),
        lambda: files.removedir("swapped/new"),
    ]
    tries = 10_000 if full else 300
    seen: Counter[str] = Counter()
    while seen.total() < tries or not {"done", "LinkNotFollowed"} <= seen.keys():
        for act in acts:
            try:
                act()
            except FSError as error:
                seen[type(error).__name__] += 1
            else:
                seen["done"] += 1
    canary.assert_unharmed()
    measured(f"{seen.total():,} tries, {seen['LinkNotFollowed']:,} refused, 0 followed")
