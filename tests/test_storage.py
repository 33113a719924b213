"""djpyfs as a Django storage, on every backend."""

from __future__ import annotations

import errno
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.core.management import call_command
from django.db.migrations.writer import MigrationWriter
from django.utils import timezone

from djpyfs import InvalidLifetime, expire_objects, get_filesystem
from djpyfs.storage import ExpiringStorage
from tests.conftest import BUCKET, KEYS
from tests.servers import PATIENCE, python
from tests.test_storage_backend import IN_MEMORY, on_disk


@pytest.fixture
def storage(djfs: Callable[..., None], place: dict[str, Any]) -> ExpiringStorage:
    djfs(**place)
    return ExpiringStorage("uploads")


def test_a_saved_file_can_be_read_and_deleted(storage: ExpiringStorage) -> None:
    assert storage.save("a.txt", ContentFile(b"content")) == "a.txt"
    assert storage.exists("a.txt")
    assert storage.size("a.txt") == 7
    with storage.open("a.txt") as file:
        assert file.size == 7
        assert file.read() == b"content"
    storage.delete("a.txt")
    storage.delete("a.txt")
    assert not storage.exists("a.txt")


def test_directories_are_made_as_they_are_needed(storage: ExpiringStorage) -> None:
    assert storage.save("2026/11/ä.txt", ContentFile("täxt")) == "2026/11/ä.txt"
    storage.save("2026/b.txt", ContentFile(b""))
    assert storage.listdir("2026") == (["11"], ["b.txt"])
    assert storage.listdir("") == (["2026"], [])
    with storage.open("2026/11/ä.txt", "r") as file:
        assert file.read() == "täxt"


def test_a_name_that_is_taken_gets_a_suffix(storage: ExpiringStorage) -> None:
    first, second = (storage.save("d/a.tar.gz", ContentFile(text)) for text in (b"1", b"2"))
    assert first == "d/a.tar.gz"
    assert re.fullmatch(r"d/a_\w{7}\.tar\.gz|d/a\.tar_\w{7}\.gz", second)
    assert storage.open(first).read() == b"1"
    assert storage.open(second).read() == b"2"


def test_two_who_save_at_the_same_time_get_different_names(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    storage = ExpiringStorage("uploads")
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda n: storage.save("a", ContentFile(b"%d" % n)), range(40)))
    assert sorted(int(storage.open(name).read()) for name in names) == list(range(40))


class OnceOnly(ContentFile):  # type: ignore[type-arg]
    """Can be read once, as what comes through a pipe, and may break off."""

    def __init__(self, *parts: bytes | Exception) -> None:
        super().__init__(b"")
        self._parts = list(parts)

    def chunks(self, chunk_size: int | None = None) -> Any:
        while self._parts:
            part = self._parts.pop(0)
            if isinstance(part, Exception):
                raise part
            yield part


@pytest.fixture(params=["osfs", "s3fs", "memory", "storage", "storage-on-disk", "opener"])
def anywhere(
    request: pytest.FixtureRequest, djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> ExpiringStorage:
    """A storage on every backend there is."""
    settings.STORAGES = on_disk(tmp_path) if request.param == "storage-on-disk" else IN_MEMORY
    own: dict[str, Any] = {"type": request.param.partition("-")[0]}
    if request.param == "osfs":
        own["directory_root"] = tmp_path
    if request.param == "opener":
        own["url"] = "mem://"
    if request.param == "s3fs":
        endpoint = request.getfixturevalue("s3_endpoint")
        own |= {"bucket": BUCKET, "prefix": uuid.uuid4().hex, "endpoint_url": endpoint, **KEYS}
    djfs(**own)
    return ExpiringStorage(f"uploads/{uuid.uuid4().hex}")


def test_fifty_who_save_one_name_at_once_each_find_their_own_content(
    anywhere: ExpiringStorage,
) -> None:
    start = Barrier(50)

    def save(number: int) -> str:
        start.wait(60)
        return anywhere.save("report.csv", OnceOnly(b"number ", b"%d" % number))

    with ThreadPoolExecutor(50) as threads:
        names = list(threads.map(save, range(50)))
    assert [anywhere.open(name).read() for name in names] == [b"number %d" % n for n in range(50)]
    assert set(anywhere.listdir("")[1]) == set(names)


@pytest.mark.parametrize("allow_overwrite", [False, True])
def test_content_that_breaks_off_stores_nothing(
    anywhere: ExpiringStorage, allow_overwrite: bool
) -> None:
    storage = ExpiringStorage(anywhere.namespace, 60, allow_overwrite)
    storage.save("a", ContentFile(b"the old contents"))
    for name in "a", "b":
        with pytest.raises(OSError, match="gone"):
            storage.save(name, OnceOnly(b"half", OSError("the client has gone")))
    assert storage.open("a").read() == b"the old contents"
    assert storage.listdir("")[1] == ["a"]
    assert get_filesystem(storage.namespace).expiration("b") is None


class LateStorage(ExpiringStorage):
    """Somebody else takes a name after it was found free."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        found = super().get_available_name(name, max_length)
        if found == "a":
            ExpiringStorage(self.namespace).save("a", ContentFile(b"theirs"))
        return found


def test_a_file_saved_in_between_is_not_overwritten(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    storage = LateStorage("uploads")
    name = storage.save("a", ContentFile(b"ours"))
    assert storage.open("a").read() == b"theirs"
    assert storage.open(name).read() == b"ours"


def test_a_name_that_leads_out_is_a_suspicious_operation(storage: ExpiringStorage) -> None:
    for name in "../a", "d/../../a", "..\\a":
        for act in storage.open, storage.exists, storage.size, storage.delete, storage.url:
            with pytest.raises(SuspiciousFileOperation):
                act(name)
    for name in "../a", "/a", "..\\a", "d/", "":
        with pytest.raises(SuspiciousFileOperation):
            storage.save(name, ContentFile(b""))
    with pytest.raises(ValueError, match="must be given"):
        storage.delete("")


def test_a_very_long_name_is_refused_in_a_short_message(storage: ExpiringStorage) -> None:
    flood = "../" * 10_000 + "a"
    for act in storage.generate_filename, storage.get_available_name:
        with pytest.raises(SuspiciousFileOperation) as raised:
            act(flood)
        assert len(str(raised.value)) < 400


LONG = "ж" * 140  # 280 bytes


@pytest.mark.parametrize(
    ("uploaded", "name"),
    [
        ("a\tb.txt", "ab.txt"),
        ("a\u200eb.txt", "ab.txt"),
        ("a\ud800b.txt", "ab.txt"),
        (f"{LONG}.txt", f"{'ж' * 125}.txt"),
        (f"d/{LONG}", f"d/{'ж' * 127}"),
    ],
    ids=["tab", "direction", "surrogate", "long", "long without an ending"],
)
def test_a_name_is_cleaned_and_shortened_for_a_new_file(
    storage: ExpiringStorage, uploaded: str, name: str
) -> None:
    assert storage.generate_filename(uploaded) == name
    assert storage.save(uploaded, ContentFile(b"first")) == name
    other = storage.save(uploaded, ContentFile(b"second"))
    assert other != name
    assert len(other.rpartition("/")[2].encode()) <= 255
    assert (storage.open(name).read(), storage.open(other).read()) == (b"first", b"second")
    overwriting = ExpiringStorage("uploads", allow_overwrite=True)
    assert overwriting.save(uploaded, ContentFile(b"third")) == name


def test_a_name_is_as_short_as_its_column(storage: ExpiringStorage) -> None:
    for _ in range(2):
        name = storage.save(f"2026/{LONG}.txt", ContentFile(b""), max_length=100)
        assert re.fullmatch(r"2026/ж{83}_\w{7}\.txt", name)
        assert storage.exists(name)


def test_an_ending_that_is_too_long_is_a_suspicious_operation(storage: ExpiringStorage) -> None:
    storage.save(f"a.{'x' * 250}", ContentFile(b""))
    for name in f"a.{'x' * 250}", f"a.{'x' * 260}":
        with pytest.raises(SuspiciousFileOperation):
            storage.save(name, ContentFile(b""))


def test_a_file_that_is_not_there_is_not_found(storage: ExpiringStorage) -> None:
    acts: list[Callable[[str], Any]] = [storage.open, storage.size, storage.get_modified_time]
    for act in acts:
        with pytest.raises(FileNotFoundError):
            act("a")


def test_a_name_may_be_a_path_object(storage: ExpiringStorage) -> None:
    name: Any = Path("d/a")
    assert storage.save(name, ContentFile(b"content")) == "d/a"
    assert storage.open(name).read() == b"content"
    storage.delete(name)
    assert not storage.exists(name)


def test_an_absolute_name_is_a_suspicious_operation(storage: ExpiringStorage) -> None:
    for name in "/a", "\\a", "//host/a", "/":
        for act in storage.open, storage.exists, storage.delete, storage.url, storage.listdir:
            with pytest.raises(SuspiciousFileOperation):
                act(name)


def test_a_wrong_kind_of_entry_raises_what_the_system_raises(
    storage: ExpiringStorage, place: dict[str, Any]
) -> None:
    storage.save("d/a", ContentFile(b""))
    if place["type"] != "s3fs":  # where a file may have a directory's name, and the reverse
        with pytest.raises(IsADirectoryError):
            storage.open("d")
        for act in (
            lambda: storage.save("d/a/b", ContentFile(b"")),
            lambda: storage.open("d/a/b", "w"),
        ):
            with pytest.raises(FileExistsError):
                act()
    with pytest.raises(NotADirectoryError):
        storage.listdir("d/a")
    with pytest.raises(IsADirectoryError):
        storage.url(None)
    with pytest.raises(FileNotFoundError):
        storage.listdir("none")
    with pytest.raises(FileNotFoundError):
        storage.open("none/b", "r+")
    assert not storage.exists("none")


def test_a_directory_goes_only_when_it_is_empty(djfs: Callable[..., None], tmp_path: Path) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    storage = ExpiringStorage("uploads")
    storage.save("d/a", ContentFile(b""))
    with pytest.raises(OSError, match="not empty") as raised:
        storage.delete("d")
    assert raised.value.errno == errno.ENOTEMPTY
    storage.delete("d/a")
    storage.delete("d")
    assert not storage.exists("d")


def test_a_file_on_hold_cannot_be_deleted(djfs: Callable[..., None]) -> None:
    djfs(type="memory", namespaces={"uploads": {"hold": True}})
    storage = ExpiringStorage("uploads")
    storage.save("a", ContentFile(b""))
    with pytest.raises(PermissionError, match="on hold"):
        storage.delete("a")


def test_a_link_takes_its_name_but_is_not_followed(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "uploads/d").symlink_to(tmp_path)
    djfs(type="osfs", directory_root=tmp_path)
    storage = ExpiringStorage("uploads")
    assert storage.save("a", ContentFile(b"")).startswith("a_")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(PermissionError):
        storage.save("d/a", ContentFile(b""))


@pytest.mark.parametrize("mode", ["wb", "w", "ab"])
def test_a_block_that_raises_leaves_the_file_as_it_was(storage: ExpiringStorage, mode: str) -> None:
    storage.save("a.txt", ContentFile(b"old"))
    for name in "a.txt", "b.txt":
        with pytest.raises(ZeroDivisionError), storage.open(name, mode) as file:  # noqa: PT012
            file.write(b"half" if "b" in mode else "half")
            raise ZeroDivisionError
    with storage.open("a.txt") as file:
        assert file.read() == b"old"
    assert not storage.exists("b.txt")


def test_a_file_can_be_opened_again(storage: ExpiringStorage) -> None:
    storage.save("a", ContentFile(b"content"))
    file = storage.open("a")
    before = file.file
    assert file.read() == file.open().read() == b"content"
    assert file.file is before
    file.close()
    with file.open() as again:
        assert again.read() == b"content"
    with file.open("r") as text:
        assert text.read() == "content"
    text = storage.open("a", "r")
    text.close()
    with text.open() as again:
        assert again.read() == "content"


def test_opening_for_writing_makes_the_directories(storage: ExpiringStorage) -> None:
    with storage.open("d/e/a", "w") as file:
        file.write("täxt")
    with storage.open("d/e/a", "r") as file:
        assert file.read() == "täxt"


def test_an_upload_leaves_no_temporary_file(storage: ExpiringStorage) -> None:
    with TemporaryUploadedFile("a", "text/plain", 7, None) as upload:
        upload.write(b"content")
        upload.seek(0)
        storage.save("a", upload)
        assert not Path(upload.temporary_file_path()).exists()
    assert storage.open("a").read() == b"content"


def test_a_storage_that_overwrites_keeps_names_and_starts_a_new_life(
    djfs: Callable[..., None], place: dict[str, Any]
) -> None:
    djfs(**place)
    storage = ExpiringStorage("uploads", default_ttl=100, allow_overwrite=True)
    uploads = get_filesystem("uploads")
    for content in b"long content", b"short":
        assert storage.save("d/a", ContentFile(content)) == "d/a"
        assert storage.open("d/a").read() == content
        deadline = uploads.expiration("d/a")
        assert deadline is not None
        assert (deadline - datetime.now(UTC)).total_seconds() == pytest.approx(100, abs=40)
        uploads.expire("d/a", 1_000)
    assert storage.save("a-long-name.txt", ContentFile(b""), max_length=8) == "a-lo.txt"


def test_naive_times_are_in_the_zone_of_the_site_and_not_of_the_visitor(
    storage: ExpiringStorage, settings: Any
) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "Africa/Nairobi"
    storage.save("a", ContentFile(b""))
    here = storage.get_modified_time("a")
    with timezone.override("America/Lima"):
        assert storage.get_modified_time("a") == here


@pytest.mark.parametrize("aware", [True, False])
def test_the_time_of_the_last_change_is_reported(
    storage: ExpiringStorage, settings: Any, aware: bool
) -> None:
    settings.USE_TZ = aware
    settings.TIME_ZONE = "Africa/Nairobi"  # UTC + 3 h
    storage.save("a", ContentFile(b""))
    expected = datetime.now(UTC)
    if not aware:
        expected = expected.replace(tzinfo=None) + timedelta(hours=3)
    assert abs(storage.get_modified_time("a") - expected) < timedelta(seconds=60)


def test_a_file_has_the_address_of_its_namespace(
    djfs: Callable[..., None], tmp_path: Path, settings: Any
) -> None:
    djfs(type="osfs", directory_root=tmp_path, url_root="/files/")
    assert ExpiringStorage("uploads").url("a b.txt") == "/files/uploads/a%20b.txt"
    settings.ROOT_URLCONF = None
    djfs(type="memory")
    with pytest.raises(ValueError, match="no URL"):
        ExpiringStorage("uploads").url("a")


def test_an_upload_lives_as_long_as_the_storage_says(
    djfs: Callable[..., None], place: dict[str, Any]
) -> None:
    djfs(**place, namespaces={"uploads": {"default_ttl": 1_000, "max_ttl": 2_000}})
    uploads = get_filesystem("uploads")
    for ttl, expected in (None, 1_000), (100, 100):
        name = ExpiringStorage("uploads", default_ttl=ttl).save("d/a", ContentFile(b""))
        deadline = uploads.expiration(name)
        assert deadline is not None
        assert (deadline - datetime.now(UTC)).total_seconds() == pytest.approx(expected, abs=40)
    with pytest.raises(InvalidLifetime, match="max_ttl"):
        ExpiringStorage("uploads", default_ttl=3_000).save("d/b", ContentFile(b""))
    uploads.expire(name, 0)
    expire_objects()
    assert not ExpiringStorage("uploads").exists(name)


def test_django_makes_it_from_its_settings_and_writes_it_into_migrations(
    djfs: Callable[..., None], settings: Any
) -> None:
    djfs(type="memory")
    options = {"namespace": "uploads", "default_ttl": 60}
    settings.STORAGES = {
        "default": {"BACKEND": "djpyfs.storage.ExpiringStorage", "OPTIONS": options}
    }
    made = storages["default"]
    assert isinstance(made, ExpiringStorage)
    text, imports = MigrationWriter.serialize(made)
    assert text == "djpyfs.storage.ExpiringStorage(default_ttl=60, namespace='uploads')"
    assert imports == {"import djpyfs.storage"}


def test_static_files_are_collected_into_it(
    djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "css").mkdir()
    (tmp_path / "css/page.css").write_text("a {}")
    djfs(type="memory")
    settings.INSTALLED_APPS = ["django.contrib.staticfiles"]
    settings.STATIC_URL = "/static/"
    settings.STATICFILES_DIRS = [tmp_path]
    settings.STORAGES = {
        "staticfiles": {
            "BACKEND": "djpyfs.storage.ExpiringStorage",
            "OPTIONS": {"namespace": "static"},
        }
    }
    call_command("collectstatic", interactive=False, verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0, clear=True)
    assert get_filesystem("static").readtext("css/page.css") == "a {}"


MODEL = """
import io, django
from django.conf import settings
settings.configure(
    DJFS={"type": "memory", "redis_url": "memory://"}, INSTALLED_APPS=["djpyfs"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    USE_TZ=True,
)
django.setup()
from django.core.files.base import ContentFile
from django.db import connection, models
from PIL import Image
from djpyfs import expire_objects, get_filesystem
from djpyfs.storage import ExpiringStorage

class Upload(models.Model):
    file = models.FileField(storage=ExpiringStorage("uploads", 60), upload_to="files/%Y")
    image = models.ImageField(storage=ExpiringStorage("uploads"))
    class Meta:
        app_label = "tests"

with connection.schema_editor() as editor:
    editor.create_model(Upload)
picture = io.BytesIO()
Image.new("RGB", (3, 2)).save(picture, "PNG")
upload = Upload(file=ContentFile(b"content", "a.txt"))
upload.image.save("a.png", ContentFile(picture.getvalue()))
upload = Upload.objects.get()
assert upload.image.width == 3
assert upload.file.read() == b"content" and upload.file.size == 7
uploads = get_filesystem("uploads")
assert uploads.expiration(upload.file.name) and not uploads.expiration("a.png")
uploads.expire(upload.file.name, 0)
assert expire_objects().deleted == 1
assert not upload.file.storage.exists(upload.file.name)
upload.image.delete()
assert not uploads.exists("a.png")
for name in "ж" * 140 + ".txt", "a\\tb.txt", "a\\u200eb.txt":
    upload = Upload(file=ContentFile(b"content", name))
    upload.save()
    assert Upload.objects.get(pk=upload.pk).file.read() == b"content"
print("done")
"""


def test_fields_of_a_model_keep_their_files_in_it() -> None:
    assert python(MODEL).communicate(timeout=PATIENCE)[0] == b"done\n"


def test_a_file_that_replaces_another_keeps_its_deadline_however_long_that_takes(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records)
    storage = ExpiringStorage("uploads", allow_overwrite=True)
    storage.save("a", ContentFile(b"old"))
    get_filesystem("uploads").expire("a", 1)

    class Slow(ContentFile):  # type: ignore[type-arg]
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            time.sleep(1.2)
            assert expire_objects().deleted == 0
            yield b"new"

    storage.save("a", Slow(b"new"))
    assert get_filesystem("uploads").expiration("a")
    assert storage.open("a").read() == b"new"


def test_a_life_of_a_storage_that_a_stricter_policy_forbids_stores_nothing(
    djfs: Callable[..., None],
) -> None:
    djfs(type="memory", namespaces={"c/d": {"max_ttl": 100}})
    for overwrite in False, True:
        storage = ExpiringStorage("c", default_ttl=5_000, allow_overwrite=overwrite)
        with pytest.raises(InvalidLifetime, match="max_ttl"):
            storage.save("d/f", ContentFile(b"new"))
        assert not storage.exists("d/f")
