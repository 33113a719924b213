"""Every hostile name through every call: it comes back as it was, or one error refuses it."""

from __future__ import annotations

import contextlib
import io
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.test import Client
from fs import errors

from djpyfs import ConfigurationError, InvalidName, conf, expire_objects, get_filesystem, links
from djpyfs.conf import SECOND
from djpyfs.filesystem import ExpiringFS
from djpyfs.inspection import status
from djpyfs.names import check_path
from djpyfs.storage import ExpiringStorage
from djpyfs_tasks.tasks import delete_expired
from tests.faults.conftest import Measured
from tests.faults.hostile_names import ACCEPTED, AS_FILES, REFUSED, ROOTS
from tests.servers import RedisServer, running_nginx

pytestmark = [
    pytest.mark.parametrize("place", ["osfs", "s3fs"], indirect=True),
    pytest.mark.usefixtures("canary"),
]

NO_NAMESPACES = {**REFUSED, **{what: name for what, (name, _) in AS_FILES.items()}, **ROOTS}
NAMES = len({*map(repr, NO_NAMESPACES.values()), *ACCEPTED.values()})


@pytest.fixture
def accepted(full: bool, place: dict[str, Any]) -> list[str]:
    """The names to try; over HTTP only some of them, except in the full form."""
    names = list(ACCEPTED.values())
    return names if full or place["type"] == "osfs" else names[:: random.randint(4, 6)]


@pytest.fixture
def refused(full: bool) -> list[str]:
    """The names to try with slow calls."""
    names = [name for name in REFUSED.values() if isinstance(name, str)]
    return names if full else names[:: random.randint(4, 6)]


@pytest.fixture(autouse=True)
def _served(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.faults.urls"


@pytest.fixture
def records(redis_server: RedisServer) -> dict[str, Any]:
    return {"redis_url": redis_server.url, "key_prefix": f"test-{os.urandom(8).hex()}"}


@pytest.fixture
def files(djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]) -> ExpiringFS:
    djfs(**place, **records)
    files = get_filesystem("plots")
    files.writebytes("mine", b"mine")
    return files


def tracked() -> int:
    return status().tracked


def assert_told_safely(error: BaseException) -> None:
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    for told in str(error), repr(error), *lines:
        assert told.isprintable()
        assert len(told) < 400
        assert os.environ["HOME"] not in told


def assert_refused(call: Callable[[], object], by: type[Exception] = InvalidName) -> None:
    with pytest.raises(by) as raised:
        call()
    assert_told_safely(raised.value)


def assert_untouched(files: ExpiringFS) -> None:
    assert files.listdir("/") == ["mine"]
    assert tracked() == 1


# -- refused


def calls_of_a_file(files: ExpiringFS, name: Any) -> Iterator[Callable[[], object]]:
    yield lambda: files.expire(name, 5)
    yield lambda: files.expire(name, expires=False)
    yield lambda: files.expire_many(["fine", name], 5)
    yield lambda: files.expiration(name)
    yield lambda: files.get_url(name)
    yield lambda: files.get_url(name, max_downloads=1)
    yield lambda: files.get_url("mine", download_as=name if name is not None else 5)  # type: ignore[arg-type]
    yield lambda: files.open(name)
    yield lambda: files.open(name, "wb")
    yield lambda: files.readbytes(name)
    yield lambda: files.writebytes(name, b"harm")
    yield lambda: files.upload(name, io.BytesIO(b"harm"))
    yield lambda: files.copy("mine", name)
    yield lambda: files.copy(name, "copy")
    yield lambda: files.move("mine", name)
    yield lambda: files.move(name, "moved")
    yield lambda: files.remove(name)
    yield lambda: files.removedir(name)
    yield lambda: files.removetree(name)
    yield lambda: files.makedirs(name)
    yield lambda: files.opendir(name)
    yield lambda: files.listdir(name)
    yield lambda: files.scandir(name)
    yield lambda: files.exists(name)
    yield lambda: files.getinfo(name)
    yield lambda: files.setinfo(name, {})
    yield lambda: delete_expired("plots", ["mine", name])


def calls_of_a_namespace(namespace: Any) -> Iterator[Callable[[], object]]:
    yield lambda: get_filesystem(namespace)
    yield lambda: delete_expired(namespace, ["mine"])


def calls_of_a_storage(namespace: str, name: str) -> Iterator[Callable[[], object]]:
    storage = ExpiringStorage(namespace, 5)
    yield lambda: storage.open(name)
    yield lambda: storage.exists(name)
    yield lambda: storage.delete(name)
    yield lambda: storage.size(name)
    yield lambda: storage.listdir(name)
    yield lambda: storage.url(name)


def calls_of_commands(namespace: str, *names: str) -> Iterator[Callable[[], object]]:
    def call(*arguments: str) -> Callable[[], object]:
        return lambda: call_command("djpyfs", *arguments, stdout=io.StringIO())

    yield call("expire", "--seconds=5", "--", namespace, "fine", *names)
    yield call("expire", "--never", "--", namespace, "fine", *names)
    yield call("failed", "--forget", "--", namespace, *names)
    if not names:
        yield call("ls", "--", namespace)
        yield call("failed", "--", namespace)
        yield call("audit", "--adopt=5", "--", namespace)


@pytest.mark.fault("hostile names, refused", "one error, nothing touched")
def test_a_name_that_is_refused_is_the_same_error_everywhere(
    files: ExpiringFS, measured: Measured, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "djpyfs")
    files.expire("mine", 0)
    calls = [
        *chain(*(calls_of_a_file(files, name) for name in REFUSED.values())),
        *chain(*map(calls_of_a_namespace, REFUSED.values())),
    ]
    for call in calls:
        assert_refused(call)
    assert_untouched(files)
    assert caplog.text.replace("\n", "").isprintable()
    measured(f"{len(REFUSED)} names, {len(calls):,} calls")


def test_a_storage_refuses_bad_names_with_the_errors_of_django(
    files: ExpiringFS, refused: list[str]
) -> None:
    files.expire("mine", 0)
    for name in refused:
        for call in calls_of_a_storage(name, "mine"):
            assert_refused(call, SuspiciousFileOperation)
        # A backslash is a separator to Django.
        if "\\" not in name or ".." in name:
            for call in calls_of_a_storage("plots", name):
                assert_refused(call, SuspiciousFileOperation)
    assert_untouched(files)


def test_a_storage_gives_a_new_file_a_name_that_is_accepted_or_refuses_it(
    files: ExpiringFS, refused: list[str]
) -> None:
    storage = ExpiringStorage("plots", 5)
    for name in refused:
        for propose in storage.generate_filename, storage.get_available_name, save(storage):
            try:
                proposed = propose(name)
            except SuspiciousFileOperation as error:
                assert_told_safely(error)
            else:
                assert proposed.isprintable()
                assert check_path(proposed) == proposed
                storage.delete(proposed)
    assert files.readbytes("mine") == b"mine"


def save(storage: ExpiringStorage) -> Callable[[str], str]:
    return lambda name: storage.save(name, ContentFile(b"harm"))


def test_a_command_refuses_bad_names(files: ExpiringFS, refused: list[str]) -> None:
    files.expire("mine", 0)
    for name in refused:
        for call in (*calls_of_commands("plots", name), *calls_of_commands(name)):
            assert_refused(call, CommandError)
    assert_untouched(files)


def test_a_namespace_is_refused_where_a_file_name_would_be_normalized(
    files: ExpiringFS, djfs: Callable[..., None], place: dict[str, Any]
) -> None:
    for name in NO_NAMESPACES.values():
        for call in calls_of_a_namespace(name):
            assert_refused(call)
        djfs(**place, namespaces={name if name.__hash__ else str(name): {}})
        if name.__hash__:
            assert_refused(conf.current, ConfigurationError)


def test_other_spellings_are_one_file(files: ExpiringFS) -> None:
    for name, file in AS_FILES.values():
        files.makedirs(os.path.dirname(file) or "/", recreate=True)
        files.writebytes(name, name.encode())
        assert files.readbytes(file) == name.encode()
        files.expire(name, 60)
        assert files.expiration(file)
        files.remove(f"./{file}")
        assert tracked() == 0


def test_the_root_is_not_a_file(files: ExpiringFS) -> None:
    for name in ROOTS.values():
        for call in (
            lambda: files.expire(name, 5),  # noqa: B023
            lambda: files.get_url(name),  # noqa: B023
            lambda: files.open(name, "wb"),  # noqa: B023
            lambda: files.expiration(name),  # noqa: B023
        ):
            assert_refused(call, errors.FileExpected)
        assert files.listdir(name) == ["mine"]


def test_a_signed_link_to_an_impossible_file_is_a_404(files: ExpiringFS) -> None:
    client, end = Client(), int(time.time() + 60) * SECOND
    for name in REFUSED.values():
        if not isinstance(name, bytes):  # which JSON does not hold
            for link in links.Link("plots", name, end), links.Link(name, "mine", end):
                assert client.get(f"/f/{links.sign(link)}").status_code == 404


# -- accepted


@pytest.fixture
def browsed(place: dict[str, Any], tmp_path: Path) -> Iterator[Callable[[str], bytes]]:
    """What a browser gets from the server that serves the files."""

    def browse(url: str) -> bytes:
        with urlopen(urljoin(base, url), timeout=10) as answer:
            return bytes(answer.read())

    static: Any = contextlib.nullcontext("")  # S3 serves them itself
    if place["type"] == "osfs":
        location = f"location {place['url_root']} {{ alias {place['directory_root']}/; }}"
        static = running_nginx(tmp_path / "nginx", location)
    with static as base:
        yield browse


@pytest.mark.fault("hostile names, accepted", "back byte for byte, and gone on time")
def test_a_name_that_is_accepted_is_taken_literally(
    files: ExpiringFS,
    browsed: Callable[[str], bytes],
    place: dict[str, Any],
    accepted: list[str],
    measured: Measured,
) -> None:
    assert NAMES >= 80
    for name in accepted:
        files.makedirs(os.path.dirname(name) or "/", recreate=True)
        files.writebytes(name, name.encode())
    assert set(files.walk.files("/")) == {f"/{name}" for name in [*accepted, "mine"]}
    storage = ExpiringStorage("plots")
    for name in accepted:
        content = name.encode()
        assert browsed(files.get_url(name)) == content
        limited = Client().get(files.get_url(name, max_downloads=1))
        assert b"".join(limited) == content
        assert storage.open(name).read() == content
        assert browsed(storage.url(name)) == content
        if place["type"] == "osfs":
            path = os.path.join(os.fsencode(place["directory_root"]), b"plots", content)
            with open(path, "rb") as file:
                assert file.read() == content
    call_command("djpyfs", "expire", "--seconds=0", "--", "plots", *accepted, stdout=io.StringIO())
    half = len(accepted) // 2
    delete_expired("plots", accepted[:half])
    assert set(files.walk.files("/")) == {f"/{name}" for name in [*accepted[half:], "mine"]}
    assert expire_objects().deleted == len(accepted) - half
    assert set(files.walk.files("/")) == {"/mine"}
    measured(f"{len(accepted)} of {NAMES} names")


def test_a_namespace_that_is_accepted_is_taken_literally(
    files: ExpiringFS,
    browsed: Callable[[str], bytes],
    place: dict[str, Any],
    accepted: list[str],
) -> None:
    for name in accepted:
        own = get_filesystem(name)
        own.writebytes("a", name.encode())
        own.expire("a", 60)
    for name in accepted:
        own = get_filesystem(name)
        assert own.listdir("/")[-1:] != ["mine"]
        assert browsed(own.get_url("a")) == name.encode()
        if place["type"] == "osfs":
            root = os.fsencode(place["directory_root"])
            assert os.path.isfile(os.path.join(root, name.encode(), b"a"))
        own.expire("a", 0)
        delete_expired(name, ["a"])
        assert not own.exists("a")
    assert tracked() == 0
    assert files.listdir("/") == ["mine"]
