"""Django storages as a backend."""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from time import sleep
from typing import Any
from unittest import TestCase

import pytest
from django.conf import settings as django_settings
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage, Storage, default_storage
from django.utils import timezone
from fs import errors
from storages.backends.s3 import S3Storage

from djpyfs import BackendUnavailable, ConfigurationError, expire_objects, get_filesystem
from djpyfs.backends import Outcome, locks
from djpyfs.backends.osfs import DiskBackend
from djpyfs.backends.storage import StorageBackend
from djpyfs.conformance import BackendTests, WholeFileTests
from djpyfs.filesystem import ExpiringFS
from djpyfs.names import RESERVED, Entry
from tests.conftest import KEYS
from tests.endless import Endless
from tests.servers import Moto, wait_for

IN_MEMORY = {"default": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}


def on_disk(
    directory: Path, backend: str = "django.core.files.storage.FileSystemStorage"
) -> dict[str, Any]:
    options = {"location": directory, "base_url": "/media/"}
    return {"default": {"BACKEND": backend, "OPTIONS": options}}


class TestInMemory(BackendTests, WholeFileTests, TestCase):
    djfs = {"type": "storage"}

    @pytest.fixture(autouse=True)
    def _storages(self, settings: Any) -> None:
        settings.STORAGES = IN_MEMORY


class TestOnDisk(BackendTests, WholeFileTests, TestCase):
    djfs = {"type": "storage", "alias": "default"}

    @pytest.fixture(autouse=True)
    def _storages(self, settings: Any, tmp_path: Path) -> None:
        settings.STORAGES = on_disk(tmp_path)


@cache
def s3_storage(**options: Any) -> S3Storage:
    """One for all tests, because making a client takes a third of a second."""
    storage = S3Storage(**options)
    storage.bucket.create()
    return storage


@pytest.fixture
def on_s3(moto: Moto, settings: Any) -> None:
    options = {
        "bucket_name": "storage",
        "location": "media",
        "endpoint_url": moto.url,
        "region_name": KEYS["region"],
        "access_key": KEYS["aws_access_key_id"],
        "secret_key": KEYS["aws_secret_access_key"],
    }
    backend = f"{__name__}.{s3_storage.__name__}"
    settings.STORAGES = {"default": {"BACKEND": backend, "OPTIONS": options}}


# Tests that a storage without directories might fail.
SHORT = """appendbytes copy exists getinfo getsize isdir isempty isfile listdir makedirs
    openbin_exclusive remove removedir scandir touch unicode_path upload writebytes""".split()


@pytest.mark.long(but=[f"test_{name}" for name in SHORT])
@pytest.mark.usefixtures("on_s3")
class TestOnS3(BackendTests, WholeFileTests, TestCase):
    djfs = {"type": "storage"}


@pytest.fixture
def on_moto(djfs: Callable[..., None], on_s3: None) -> ExpiringFS:
    """A filesystem on S3 through the storage, with a file in it."""
    djfs(type="storage")
    plots = get_filesystem(f"plots/{uuid.uuid4()}")
    plots.makedirs("sub")
    plots.writebytes("sub/a.png", b"picture")
    assert plots.exists("sub/a.png")  # from now on it is known that there are no directories
    return plots


def swept(files: ExpiringFS) -> None:
    files.expire("sub/a.png", 0)
    assert expire_objects().deleted == 1


@pytest.mark.parametrize(
    ("expected", "action"),
    [
        ("HEAD", lambda files: files.exists("sub/a.png")),
        ("HEAD LIST", lambda files: files.exists("sub/none.png")),
        ("HEAD", lambda files: files.isfile("sub/a.png")),
        ("HEAD", lambda files: files.getinfo("sub/a.png")),
        ("LIST", lambda files: list(files.scandir("sub"))),
        ("LIST", lambda files: files.listdir("sub")),
        ("HEAD PUT", lambda files: files.upload("sub/a.png", io.BytesIO(b"x"))),
        ("HEAD LIST PUT", lambda files: files.upload("sub/new.png", io.BytesIO(b"x"))),
        ("HEAD DELETE", lambda files: files.remove("sub/a.png")),
        ("HEAD DELETE", swept),
    ],
    ids="exists exists-not isfile getinfo scandir listdir replace write remove sweep".split(),
)
def test_no_question_about_a_file_lists_what_is_beside_it(
    on_moto: ExpiringFS, moto: Moto, expected: str, action: Callable[[ExpiringFS], object]
) -> None:
    assert moto.requests_of(lambda: action(on_moto)) == expected.split()


def test_a_directory_is_looked_for_once_until_it_is_removed(
    on_moto: ExpiringFS, moto: Moto
) -> None:
    def write(name: str) -> None:
        on_moto.upload(f"implied/{name}", io.BytesIO(b"x"))

    default_storage.save(f"{on_moto.namespace}/implied/a", ContentFile(b""))
    write("b")
    assert moto.requests_of(lambda: write("c")) == ["HEAD", "LIST", "PUT"]
    on_moto.removetree("implied")
    with pytest.raises(errors.ResourceNotFound):
        write("d")


def test_a_storage_that_replaces_files_always_has_the_old_or_the_new_one(
    on_moto: ExpiringFS,
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        on_moto.upload("sub/a.png", Broken())
    assert on_moto.readbytes("sub/a.png") == b"picture"
    on_moto.writebytes("sub/a.png", b"new")
    assert on_moto.readbytes("sub/a.png") == b"new"


class OvertakenStorage(FileSystemStorage):
    """Somebody else is always faster."""

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        super().save(name, ContentFile(b"theirs"))
        return super().save(name, content)


def test_a_file_that_somebody_else_was_faster_to_store_is_left_alone(
    djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    settings.STORAGES["default"]["BACKEND"] = f"{__name__}.{OvertakenStorage.__name__}"
    djfs(type="storage")
    files = get_filesystem("plots")
    with pytest.raises(errors.ResourceLocked):
        files.writebytes("a.png", b"ours")
    assert files.listdir("/") == ["a.png"]
    assert files.readbytes("a.png") == b"theirs"


class PrunedStorage(FileSystemStorage):
    """Somebody else removes the empty directory ``d``, and those above it, once it was listed."""

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        found = super().listdir(path)
        if path.endswith("/d"):
            shutil.rmtree(Path(self.path(path)).parent)
        return found


def test_a_directory_that_goes_while_it_is_listed_does_not_mean_that_there_are_none(
    djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    settings.STORAGES["default"]["BACKEND"] = f"{__name__}.{PrunedStorage.__name__}"
    djfs(type="storage")
    plots = get_filesystem("plots")
    (tmp_path / "plots/d").mkdir(parents=True)
    assert not plots.exists("d")
    (tmp_path / "plots/e").mkdir(parents=True)
    assert plots.isdir("e")


def test_an_expired_file_is_gone_from_the_storage(
    djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    djfs(type="storage")
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 0)
    with default_storage.open("plots/a.png") as file:
        assert file.read() == b"picture"
    assert plots.get_url("a.png") == "/media/plots/a.png"
    assert expire_objects().deleted == 1
    assert not default_storage.exists("plots/a.png")


def test_files_that_others_have_put_into_the_storage_are_there(
    djfs: Callable[..., None], settings: Any
) -> None:
    settings.STORAGES = IN_MEMORY
    djfs(type="storage")
    default_storage.save("plots/d/a.png", ContentFile(b"picture"))
    plots = get_filesystem("plots")
    assert list(plots.walk.files()) == ["/d/a.png"]
    assert plots.getsize("d/a.png") == 7
    assert plots.getdetails("d/a.png").modified == default_storage.get_modified_time(
        "plots/d/a.png"
    )


@pytest.mark.parametrize("kind", ["memory", "disk", "s3"])
def test_times_are_right_without_time_zones_whatever_the_zone_of_the_visitor(
    djfs: Callable[..., None],
    settings: Any,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
) -> None:
    if kind == "s3":
        request.getfixturevalue("on_s3")
    else:
        settings.STORAGES = on_disk(tmp_path) if kind == "disk" else IN_MEMORY
    settings.USE_TZ = False
    settings.TIME_ZONE = "Africa/Nairobi"
    djfs(type="storage")
    plots = get_filesystem("plots")
    for visitor in None, "Pacific/Auckland", "America/Lima":
        with timezone.override(visitor):
            plots.writebytes("a", b"")
            modified = plots.getinfo("a", ["details"]).modified
        assert modified is not None
        assert abs(modified - datetime.now(UTC)) < timedelta(seconds=60)


def test_a_storage_that_is_not_on_disk_is_never_taken_for_a_disk_that_is_away(
    djfs: Callable[..., None], settings: Any
) -> None:
    settings.STORAGES = {"default": {**IN_MEMORY["default"], "OPTIONS": {"location": "/none"}}}
    djfs(type="storage")
    get_filesystem("plots").expire("a", 0)
    assert expire_objects().missing == 1


class FullStorage(FileSystemStorage):
    """Its disk has no room for more than the beginning of a file."""

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        super().save(name, ContentFile(content.read(1)))
        raise OSError(errno.ENOSPC, "no space left on device")


def test_a_part_that_a_write_leaves_on_a_full_disk_has_a_deadline(
    djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path, f"{__name__}.{FullStorage.__name__}")
    djfs(type="storage", grace=1)
    plots = get_filesystem("plots")
    with pytest.raises(OSError, match="no space"), plots.temporary_file(seconds=0.1) as file:
        file.write(b"picture")
    assert len(plots.listdir("/")) == 1
    wait_for(lambda: expire_objects().deleted == 1)


def test_a_write_that_is_refused_gives_the_file_that_is_there_no_deadline(
    djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    djfs(type="storage")
    get_filesystem("plots").writebytes("a", b"picture")
    djfs(type="storage", default_ttl=100)
    with pytest.raises(errors.FileExists):
        get_filesystem("plots").open("a", "xb")
    assert get_filesystem("plots").expiration("a") is None


class TroubledStorage(FileSystemStorage):
    """One of its files cannot be deleted in time."""

    def delete(self, name: str) -> None:
        if name.endswith("bad"):
            raise TimeoutError("no answer")
        super().delete(name)


TROUBLED = f"{__name__}.{TroubledStorage.__name__}"


class RemoteStorage(Storage):
    """Keeps its files behind a network, which may be cut."""

    is_away = False

    def __init__(self, **options: Any) -> None:
        self._files = InMemoryStorage()

    def delete(self, name: str) -> None:
        if self.is_away or name.endswith("bad"):
            raise TimeoutError("no answer")
        self._files.delete(name)

    def exists(self, name: str) -> bool:
        if self.is_away and name.startswith(RESERVED):
            raise RuntimeError("the library's own")
        return self._files.exists(name)

    def listdir(self, path: str) -> Any:
        return self._files.listdir(path)

    def _save(self, name: str, content: Any) -> str:
        return self._files.save(name, content)


class Elsewhere(RemoteStorage):
    """Another one."""


REMOTE = f"{__name__}.{RemoteStorage.__name__}"


def outcome_of(*names: str) -> Outcome:
    """The outcome of deleting files as one batch."""
    backend = StorageBackend({})
    backend.place(make=True)
    for name in names:
        backend.storage().save(f"plots/{name}", ContentFile(b"picture"))
    return backend.delete([Entry("plots", name) for name in names], Endless())


def test_one_file_in_trouble_on_disk_may_still_go_and_postpones_no_other(
    settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path, TROUBLED)
    outcome = outcome_of("a", "bad", "b")
    assert [entry.path for entry in outcome.deleted] == ["a", "b"]
    assert [entry.path for entry, _ in outcome.unanswered] == ["bad"]


def test_one_file_in_trouble_elsewhere_may_still_go_and_postpones_no_other(settings: Any) -> None:
    settings.STORAGES = {"default": {"BACKEND": REMOTE}}
    outcome = outcome_of("a", "bad", "b")
    assert [entry.path for entry in outcome.deleted] == ["a", "b"]
    assert [entry.path for entry, _ in outcome.unanswered] == ["bad"]


def test_a_storage_that_is_away_postpones_what_is_left(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.STORAGES = {"default": {"BACKEND": REMOTE}}
    monkeypatch.setattr(RemoteStorage, "is_away", True)
    outcome = outcome_of("a", "b", "c")
    assert [entry.path for entry, _ in outcome.unanswered] == ["a"]  # it was asked for
    assert [entry.path for entry, _ in outcome.away] == ["b", "c"]


def test_a_sweep_follows_no_link_out_of_a_storage(
    djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> None:
    media, outside = tmp_path / "media", tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"precious")
    (media / "plots").mkdir(parents=True)
    (media / "plots/directory").symlink_to(outside)
    (media / "plots/file").symlink_to(outside / "a")
    settings.STORAGES = on_disk(media)
    backend = StorageBackend({})
    backend.place(make=True)
    entries = [Entry("plots", name) for name in ("directory/a", "file", "directory")]
    outcome = backend.delete(entries, Endless())
    assert outcome.deleted == entries[1:]
    [(entry, why)] = outcome.failed
    assert entry == entries[0]
    assert "a link, which is not followed" in why
    assert (outside / "a").read_bytes() == b"precious"


def test_a_storage_with_a_delete_of_its_own_is_led_out_by_no_link(
    settings: Any, tmp_path: Path
) -> None:
    media, outside = tmp_path / "media", tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"precious")
    (media / "plots").mkdir(parents=True)
    (media / "plots/directory").symlink_to(outside)
    settings.STORAGES = on_disk(media, TROUBLED)
    outcome = StorageBackend({}).delete([Entry("plots", "directory/a")], Endless())
    assert len(outcome.failed) == 1
    assert (outside / "a").read_bytes() == b"precious"


def test_a_sweep_makes_no_directory(settings: Any, tmp_path: Path) -> None:
    settings.STORAGES = on_disk(tmp_path)
    backend = StorageBackend({})
    backend.place(make=True)
    outcome = backend.delete([Entry("plots/d", "a")], Endless())
    assert len(outcome.missing) == 1
    assert not (tmp_path / "plots").exists()


def test_directories_on_disk_that_a_sweep_empties_go(settings: Any, tmp_path: Path) -> None:
    settings.STORAGES = on_disk(tmp_path)
    settings.DJFS = {"type": "storage", "redis_url": "memory://"}
    users, plots = get_filesystem("users/7/plots"), get_filesystem("plots")
    for files in users, plots:
        files.makedirs("a/b")
        files.writebytes("a/b/x", b"")
        files.expire("a/b/x", 0)
    plots.writebytes("kept", b"")
    assert expire_objects().deleted == 2
    assert sorted(it.name for it in tmp_path.iterdir()) == [RESERVED, "plots"]
    assert sorted(plots.listdir("/")) == ["a", "kept"]  # which this process has made
    assert users.listdir("/") == ["a"]
    for files in users, plots:
        files.writebytes("a/b/y", b"")
        assert files.listdir("a/b") == ["y"]


class PrunedWhileSaving(FileSystemStorage):
    """A sweep prunes the directory in the midst of the first tries to save a file."""

    errors: list[OSError] = []

    def _save(self, name: str, content: Any) -> str:
        if self.errors:
            raise self.errors.pop()
        return super()._save(name, content)  # type: ignore[misc,no-any-return]


def test_a_directory_on_disk_that_goes_while_a_file_is_saved_is_made_again(
    settings: Any, tmp_path: Path
) -> None:
    backend = f"{__name__}.{PrunedWhileSaving.__name__}"
    settings.STORAGES = {"default": {"BACKEND": backend, "OPTIONS": {"location": tmp_path}}}
    settings.DJFS = {"type": "storage", "redis_url": "memory://"}
    PrunedWhileSaving.errors = [FileNotFoundError("to open"), FileExistsError("not a directory")]
    get_filesystem("plots").writebytes("a", b"picture")
    assert get_filesystem("plots").readbytes("a") == b"picture"


def test_a_directory_whose_disk_is_not_mounted_is_no_place(settings: Any, tmp_path: Path) -> None:
    media = tmp_path / "media"
    settings.STORAGES = on_disk(media)
    backend = StorageBackend({})
    backend.open("plots").writebytes("a", b"picture")
    assert backend.place() == DiskBackend({"directory_root": media}).place()
    media.rename(tmp_path / "unmounted")
    media.mkdir()
    with pytest.raises(BackendUnavailable):
        backend.place()
    assert not backend.is_there()
    with pytest.raises(BackendUnavailable):
        backend.delete([Entry("plots", "a")], Endless())
    media.rmdir()
    (tmp_path / "unmounted").rename(media)
    assert backend.delete([Entry("plots", "a")], Endless()).deleted


def test_with_a_delete_of_its_own_nothing_is_missing_from_a_disk_that_is_not_mounted(
    settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path, TROUBLED)
    entries = [Entry("plots", name) for name in "ab"]
    outcome = StorageBackend({}).delete(entries, Endless())
    assert [entry for entry, _ in outcome.away] == entries
    assert not outcome.missing


def test_a_write_waits_for_a_sweeper_that_is_about_to_delete_whatever_became_of_its_claim(
    settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    backend = StorageBackend({})
    files = backend.open("plots")
    files.writebytes("a", b"old")
    directory = os.open(tmp_path / "plots", os.O_RDONLY)
    locks.take(directory, shared=True)  # as a sweeper does, which then freezes
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(files.writebytes, "a", b"new")
        fencing = pool.submit(backend.fence, Entry("plots", "a"))
        assert not wait([writing, fencing], timeout=0.3, return_when=FIRST_COMPLETED).done
        (tmp_path / "plots/a").unlink()
        locks.give_back(directory)
    os.close(directory)
    writing.result()
    fencing.result()
    assert files.readbytes("a") == b"new"


@pytest.mark.parametrize("how", ["replaced", "in place"])
def test_a_file_that_was_written_since_it_was_claimed_is_not_attempted(
    settings: Any, tmp_path: Path, how: str
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    backend = StorageBackend({})
    files = backend.open("plots")

    def claim() -> Endless:
        lease = Endless()
        sleep(0.02)  # longer than a tick of the clock that dates files
        lease.mark = backend.mark()
        sleep(0.02)
        return lease

    for name in "ab":
        files.writebytes(name, b"old")
    backend.delete([Entry("plots", "b")], claim())  # it has seen that the disk dates directories
    lease = claim()
    if how == "replaced":
        files.writebytes("a", b"new")
    else:  # as a storage does that overwrites
        (tmp_path / "plots/a").write_bytes(b"new")
    assert backend.delete([Entry("plots", "a")], lease) == Outcome()
    assert files.readbytes("a") == b"new"


def place_with(settings: Any, backend: str, **options: Any) -> str:
    settings.STORAGES = {"default": {"BACKEND": backend, "OPTIONS": options}}
    return StorageBackend({}).place()


def test_the_place_of_a_storage_is_how_it_is_configured(settings: Any) -> None:
    ours = partial(place_with, settings, REMOTE)
    assert ours(location="a", secret_key="1") == ours(secret_key="2", location="a")
    assert ours(location="a") != ours(location="b")
    assert ours(auth=object()) == ours(auth=object())
    assert ours(session=object()) == ours(session=object())
    assert ours() != place_with(settings, f"{__name__}.{Elsewhere.__name__}")


class BySettings(Elsewhere):
    """Has its place from the settings of the site, as those of django-storages may."""

    @property
    def location(self) -> str:
        return str(django_settings.FILES_AT)


def test_the_place_of_a_storage_may_come_from_settings_of_its_own(settings: Any) -> None:
    def place(files_at: str) -> str:
        settings.FILES_AT = files_at
        return place_with(settings, f"{__name__}.{BySettings.__name__}")

    assert place("ftp://ann:old@host/a") == place("ftp://ann:new@host/a")
    assert place("ftp://ann:old@host/a") != place("ftp://ann:old@host/b")


def test_each_storage_in_memory_is_a_place_of_its_own(settings: Any) -> None:
    in_memory = partial(place_with, settings, IN_MEMORY["default"]["BACKEND"])
    assert in_memory() != in_memory()


@pytest.mark.usefixtures("on_s3")
def test_the_place_on_s3_is_the_bucket_and_the_location_in_it(settings: Any) -> None:
    options = settings.STORAGES["default"]["OPTIONS"]
    ours = partial(place_with, settings, settings.STORAGES["default"]["BACKEND"])
    assert ours(**options) == ours(**options, querystring_auth=False)
    assert ours(**options) != ours(**{**options, "location": "elsewhere"})


def test_an_unknown_alias_is_reported_with_the_known_ones(
    djfs: Callable[..., None], settings: Any
) -> None:
    settings.STORAGES = IN_MEMORY
    djfs(type="storage", alias="defalt")
    with pytest.raises(ConfigurationError, match=r"'defalt'.*use 'default'"):
        get_filesystem("plots")
