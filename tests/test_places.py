"""Places: whose files a record is about, and who may touch it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

from djpyfs import ConfigurationError, SweepReport, expire_objects, get_filesystem
from djpyfs.inspection import status
from tests.servers import RedisServer, wait_for


@pytest.fixture
def site(djfs: Callable[..., None], redis_server: RedisServer, request: Any) -> Callable[..., None]:
    """Let this process be one of several sites that share a Redis and a key prefix."""

    def be(root: Path, **values: Any) -> None:
        djfs(
            type="osfs",
            directory_root=root,
            redis_url=redis_server.url,
            key_prefix=f"places-{request.node.name}",
            **values,
        )

    return be


def fill(namespace: str, name: str, seconds: float) -> None:
    files = get_filesystem(namespace)
    files.writebytes(name, b"picture")
    files.expire(name, seconds)


def forget_all(redis_server: RedisServer) -> None:
    client = redis_server.client()
    client.delete(*client.keys("places-*"))


def nothing(report: SweepReport) -> bool:
    return not (report.deleted or report.missing or report.failed or report.postponed)


def test_two_sites_on_one_redis_do_not_touch_each_others_files(
    site: Callable[..., None], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    site(first)
    fill("plots", "f", 0)
    fill("plots", "only here", 0)
    site(second)
    fill("plots", "f", 3_600)
    assert nothing(expire_objects())
    assert get_filesystem("plots").exists("f")
    site(first)
    assert expire_objects().deleted == 2
    site(second)
    assert get_filesystem("plots").exists("f")
    assert get_filesystem("plots").expiration("f")


def test_files_of_a_namespace_that_has_moved_are_deleted_from_where_they_are(
    site: Callable[..., None], tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    site(old)
    fill("exports", "before", 0)
    fill("plots", "here", 0)
    site(old, namespaces={"exports": {"directory_root": new}})
    fill("exports", "after", 0)
    site(old)  # a worker that still has the old settings
    assert expire_objects().deleted == 2
    assert not (old / "exports" / "before").exists()
    assert (new / "exports" / "after").exists()
    [(place, count)] = status().elsewhere.items()
    assert str(new) in place
    assert count == 1
    site(old, namespaces={"exports": {"directory_root": new}})
    assert status().elsewhere == {}
    assert expire_objects().deleted == 1


def test_a_place_that_was_swept_before_it_was_written_to_is_counted(
    site: Callable[..., None], tmp_path: Path, redis_server: RedisServer
) -> None:
    site(tmp_path)
    fill("plots", "f", 100)
    forget_all(redis_server)
    site(tmp_path, grace=2)  # a process that knows of no place yet
    expire_objects()
    get_filesystem("plots").expire("f", 100)
    assert status().tracked == 1


@pytest.mark.parametrize("gone", ["", ".djpyfs", ".djpyfs/place"])
def test_a_file_written_after_its_root_was_removed_goes_on_time(
    site: Callable[..., None], tmp_path: Path, gone: str
) -> None:
    root = tmp_path / "files"
    site(root)
    fill("plots", "before", 3_600)
    (root / gone).unlink() if gone.endswith("place") else rmtree(root / gone)
    root.mkdir(exist_ok=True)
    fill("plots", "after", 0)
    assert expire_objects().deleted == 1
    assert not (root / "plots" / "after").exists()


def test_a_call_that_only_asks_for_its_place_notices_that_the_root_was_removed(
    site: Callable[..., None], tmp_path: Path
) -> None:
    site(tmp_path / "files")
    fill("plots", "before", 3_600)
    rmtree(tmp_path / "files" / ".djpyfs")
    with get_filesystem("plots").temporary_file(seconds=0.001):
        """Its record is made before the disk is written to."""
    wait_for(lambda: expire_objects().deleted == 1)


def test_a_status_asks_for_each_place_once(
    site: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site(tmp_path / "not there")
    with caplog.at_level(logging.WARNING, "djpyfs"):
        status()
    assert caplog.text.count("backend 'osfs' is skipped") == 1


def test_a_storage_that_cannot_be_made_stops_no_other_backend(
    site: Callable[..., None], settings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"locatoin": "x"}
    settings.STORAGES = {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": options,
        }
    }
    site(tmp_path / "files", namespaces={"scans": {"type": "storage"}})
    fill("plots", "f", 0)
    assert expire_objects().deleted == 1
    assert "STORAGES['default'] cannot be made" in caplog.text
    with pytest.raises(ConfigurationError, match="locatoin"):
        get_filesystem("scans").writebytes("f", b"x")


def test_one_root_under_two_names_is_one_place(site: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "files")
    site(tmp_path / "files")
    fill("plots", "f", 0)
    site(tmp_path / "link")
    assert expire_objects().deleted == 1


@pytest.mark.parametrize("kind", ["osfs", "storage", "opener"])
def test_a_process_that_encodes_file_names_in_another_way_touches_none(
    kind: str,
    site: Callable[..., None],
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site(tmp_path / "files")
    fill("plots", "\N{LATIN SMALL LETTER U WITH DIAERESIS}.png", 0)
    own: dict[str, dict[str, Any]] = {
        "osfs": {},
        "storage": {"type": "storage", "alias": "here"},
        "opener": {"type": "opener", "url": f"osfs://{tmp_path}/link"},
    }
    (tmp_path / "link").symlink_to(tmp_path / "files")
    here = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": tmp_path / "link"},
    }
    settings.STORAGES = {**settings.STORAGES, "here": here}
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    site(tmp_path / "link", namespaces={"plots": own[kind]})
    with pytest.raises(ConfigurationError, match="PYTHONUTF8=1"):
        get_filesystem("plots").expire("f", 1)
    assert nothing(expire_objects())


def test_a_relative_root_is_another_place_in_another_directory(
    site: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "a", "b":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    site(Path("files"))
    fill("plots", "f", 0)
    monkeypatch.chdir(tmp_path / "b")
    site(Path("files"), grace=1)
    get_filesystem("plots").writebytes("other", b"")
    assert nothing(expire_objects())
    monkeypatch.chdir(tmp_path / "a")
    site(Path("files"))
    assert expire_objects().deleted == 1


def test_two_sites_on_one_redis_have_queues_of_their_own(djfs: Callable[..., None]) -> None:
    from djpyfs_tasks.celery import make_app

    queues = []
    for prefix in "one", "other":
        djfs(type="memory", key_prefix=prefix)
        app = make_app()
        routes = {route["queue"] for route in app.conf.task_routes.values()}
        assert set(app.amqp.queues) == routes
        queues.append(routes)
    assert not queues[0] & queues[1]
