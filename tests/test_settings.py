"""The DJFS setting: what is refused, and how it is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import storages

from djpyfs import ConfigurationError, UnknownBackend, conf, get_filesystem
from djpyfs.backends.memory import MemoryBackend
from djpyfs.expirations import store_for
from tests.servers import RedisServer, running_redis

DISK = {"type": "osfs", "directory_root": "/nonexistent"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({**DISK, "directory_rot": "x"}, "'directory_rot'.*did you mean 'directory_root'"),
    ({**DISK, "sweep_intervall": 5}, "did you mean 'sweep_interval'"),
    ({**DISK, "type": "tests.test_settings.Shelf", "sweep_intervall": 5}, "mean 'sweep_interval'"),
    ({**DISK, "type": "tests.test_settings.Shelf", "shelff": "top"}, "did you mean 'shelf'"),
    ({**DISK, "MAX_TTL": 5}, "did you mean 'max_ttl'"),
    ({"type": "osfs"}, "directory_root"),
    ({**DISK, "url_root": 5}, "url_root"),
    ({**DISK, "accel_redirect": "protected"}, "accel_redirect.*internal location"),
    ({**DISK, "x_sendfile": 1}, "x_sendfile.*True or False"),
    ({**DISK, "signed_urls": "yes"}, "signed_urls.*True or False"),
    ({**DISK, "follow_symlinks": "no"}, "follow_symlinks.*True or False"),
    ({**DISK, "shards": 0}, "shards.*1 to 1024"),
    ({**DISK, "shards": 1.5}, "whole number"),
    ({**DISK, "batch_size": "many"}, "give it a number"),
    ({**DISK, "batch_size": True}, "give it a number"),
    ({**DISK, "lease": 0}, "lease"),
    ({**DISK, "one_shot": "yes"}, "True or False"),
    ({**DISK, "default_ttl": -1}, "default_ttl"),
    ({**DISK, "default_ttl": 10, "max_ttl": 5}, "longer than"),
    ({**DISK, "key_prefix": "a{b}"}, "braces"),
    ({**DISK, "key_prefix": "a\0b"}, "key_prefix.*line break"),
    ({**DISK, "key_prefix": "\ud800"}, "key_prefix.*line break"),
    ({"type": "s3fs", "bucket": "b", "endpoint_url": "http://store:99999"}, "endpoint_url"),
    ({"type": "s3fs", "bucket": "b", "endpoint_url": "http://store?x=1"}, "endpoint_url.*query"),
    ({"type": "s3fs", "bucket": "b", "aws_access_key_id": "x\n"}, "aws_access_key_id.*line break"),
    ({**DISK, "redis_url": "http://127.0.0.1"}, "redis_url.*scheme"),
    ({**DISK, "redis_url": "redis://127.0.0.1:port"}, "redis_url"),
    ({**DISK, "redis_url": ""}, "redis_url"),
    ({**DISK, "redis_url": "redis://127.0.0.1/records"}, "redis_url.*database"),
    ({**DISK, "redis_url": "redis://127.0.0.1/0/1"}, "redis_url.*database"),
    ({**DISK, "redis_url": "redis://127.0.0.1?max_connections=-1"}, "redis_url.*options"),
    ({**DISK, "redis_url": "redis://127.0.0.1?socket_timeout=-1"}, "redis_url.*options"),
    ({**DISK, "type": "../x"}, "use one of"),
    ({"type": "storage", "alias": []}, "'storage' cannot take.*unhashable"),
    ({**DISK, "namespaces": []}, "dict of dicts"),
    ({**DISK, "namespaces": {"a": 5}}, "must be a dict"),
    ({**DISK, "namespaces": {"../a": {}}}, "leads out|segment"),
    *(
        ({**DISK, "namespaces": {it: {}}}, "use a namespace")
        for it in ("*", "a*", "a/*/b", "**", "*/*")
    ),
    ({**DISK, "namespaces": {"a": {"shards": 2}}}, "'shards', which counts for all"),
    ({**DISK, "namespaces": {"a": {"bucket_": "x"}}}, "did you mean 'bucket'"),
    ({**DISK, "directory_root": "pictures\0"}, "directory_root"),
    ({"type": "s3fs"}, "bucket"),
    ({"type": "s3fs", "bucket": "my bucket"}, "'my bucket': use the name"),
    ({"type": "s3fs", "bucket": "pictures\n"}, "ARN"),
    ({"type": "s3fs", "bucket": "b", "region": "us east"}, "region.*eu-central-1"),
    ({"type": "s3fs", "bucket": "b", "region": "us-east-1\n"}, "region.*line break"),
    ({"type": "s3fs", "bucket": "b", "prefix": b"x"}, "prefix.*put it in quotes"),
    ({"type": "s3fs", "bucket": "b", "aws_access_key_id": "x"}, "aws_secret_access_key"),
]


class Shelf(MemoryBackend):
    """A backend of somebody's own."""

    options = frozenset(["shelf"])


@pytest.mark.parametrize(("djfs_", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_setting_is_reported_with_its_key_and_the_cure(
    settings: Any, djfs_: dict[str, Any], message: str
) -> None:
    settings.DJFS = djfs_
    errors = run_checks()
    assert [error.id for error in errors] == ["djpyfs.E001"]
    with pytest.raises(ConfigurationError, match=message) as raised:
        get_filesystem("plots")
    assert isinstance(raised.value, ImproperlyConfigured)
    assert errors[0].msg == str(raised.value)


@pytest.mark.parametrize("type_", ["memory", "s3fs", "tests.test_settings.Shelf"])
@pytest.mark.parametrize(
    "key", ["region_name", "use_proxy", "proxy_root", "remove_signature", "foo"]
)
def test_a_key_that_resembles_no_known_one_is_a_warning(
    djfs: Callable[..., None], type_: str, key: str
) -> None:
    known = {"bucket": "b", "directory_root": "x"}
    djfs(type=type_, **known, namespaces={"plots": {key: "x"}})
    [warning] = run_checks()
    assert warning.id == "djpyfs.W008"
    assert warning.msg.endswith(f": '{key}'")
    get_filesystem("plots")


def test_settings_that_are_not_a_dict_are_refused(settings: Any) -> None:
    settings.DJFS = ["osfs"]
    with pytest.raises(ConfigurationError, match="give it a dict"):
        get_filesystem("plots")


@pytest.mark.parametrize("type_", ["bogusfs", "no.such.module", "os.path", "pathlib.Path"])
def test_an_unknown_type_is_an_attribute_error_too(settings: Any, type_: str) -> None:
    settings.DJFS = {"type": type_}
    with pytest.raises(UnknownBackend, match=type_) as raised:
        get_filesystem("plots")
    assert isinstance(raised.value, AttributeError)


def ids(**how: Any) -> list[str]:
    return sorted(str(message.id) for message in run_checks(**how) if "djpyfs" in str(message.id))


@pytest.fixture
def durable() -> Iterator[str]:
    with running_redis(appendonly="yes") as server:
        yield server.url


def test_a_working_configuration_gets_no_message(
    djfs: Callable[..., None], tmp_path: Path, durable: str
) -> None:
    djfs(type="osfs", directory_root=tmp_path / "new", url_root="/m/", redis_url=durable)
    assert ids(include_deployment_checks=True) == []
    assert not (tmp_path / "new").exists()


def test_a_root_that_cannot_be_written_is_reported(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    djfs(type="osfs", directory_root=tmp_path / "file" / "root")
    assert ids() == ["djpyfs.E002"]


def test_a_url_root_that_is_a_path_is_reported(djfs: Callable[..., None], tmp_path: Path) -> None:
    for root in tmp_path, tmp_path / "new":
        djfs(type="osfs", directory_root=root, url_root=f"{root}/")
        assert ids() == ["djpyfs.W002"]


@pytest.mark.parametrize("inner", ["root/inner", "root"])
def test_overlapping_roots_are_reported(
    djfs: Callable[..., None], tmp_path: Path, inner: str
) -> None:
    namespaces = {"exports": {"directory_root": tmp_path / inner, "url_root": "/exports/"}}
    djfs(type="osfs", directory_root=tmp_path / "root", namespaces=namespaces)
    assert ids() == (["djpyfs.W003"] if inner == "root/inner" else [])


ON_DISK = "django.core.files.storage.FileSystemStorage"
ON_S3 = "storages.backends.s3.S3Storage"
SECRET = "sesame"


def overlapping(tmp_path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    s3 = {"type": "s3fs", "bucket": "b", "prefix": "media", "endpoint_url": "http://127.0.0.1:1/"}
    return [
        (
            {"type": "opener", "url": f"osfs://{tmp_path}"},
            {"type": "osfs", "directory_root": tmp_path / "x"},
        ),
        (
            {"type": "storage", "alias": "disk"},
            {"type": "osfs", "directory_root": tmp_path / "media/x"},
        ),
        ({"type": "storage", "alias": "s3"}, s3),
        (
            {"type": "opener", "url": f"ftp://me:{SECRET}@127.0.0.1/files"},
            {"type": "opener", "url": f"ftp://me:x@{SECRET}@127.0.0.1/files/more?key={SECRET}"},
        ),
    ]


@pytest.mark.parametrize("case", range(4))
def test_overlapping_places_are_reported_without_a_secret(
    djfs: Callable[..., None], settings: Any, tmp_path: Path, case: int
) -> None:
    s3 = {
        "bucket_name": "b",
        "access_key": "key",
        "secret_key": SECRET,
        "endpoint_url": f"http://me:{SECRET}@127.0.0.1:1",
    }
    settings.STORAGES = {
        "disk": {"BACKEND": ON_DISK, "OPTIONS": {"location": tmp_path / "media"}},
        "s3": {"BACKEND": ON_S3, "OPTIONS": s3},
    }
    outer, inner = overlapping(tmp_path)[case]
    djfs(**outer, namespaces={"inner": {**inner, "url_root": "/"}})
    [message] = [message for message in run_checks() if message.id == "djpyfs.W003"]
    assert SECRET not in str(message)


@pytest.mark.parametrize("url", ["mem://", "temp://a", "zip:///a.zip"])
def test_places_that_are_never_shared_or_written_overlap_nothing(
    djfs: Callable[..., None], url: str
) -> None:
    djfs(type="opener", url=url, namespaces={"a": {"url": f"{url}/b"}})
    assert ids() == []


def test_a_storage_that_keeps_its_files_in_djpyfs_is_refused_as_a_backend(
    djfs: Callable[..., None], settings: Any
) -> None:
    options = {"namespace": "uploads"}
    settings.STORAGES = {
        "default": {"BACKEND": "djpyfs.storage.ExpiringStorage", "OPTIONS": options}
    }
    djfs(type="storage")
    assert ids() == ["djpyfs.E006"]
    with pytest.raises(ConfigurationError, match="in djpyfs"):
        storages["default"].exists("a")


@pytest.mark.parametrize(
    "storage",
    [
        {"BACKEND": "no.such.Storage"},
        {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"locatoin": "x"}},
    ],
    ids=str,
)
def test_a_storage_that_cannot_be_made_is_reported(
    djfs: Callable[..., None], settings: Any, storage: dict[str, Any]
) -> None:
    settings.STORAGES = {"default": storage}
    djfs(type="storage")
    assert ids() == ["djpyfs.E006"]


def test_check_deploy_reports_a_redis_that_forgets(
    djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer
) -> None:
    djfs(type="osfs", directory_root=tmp_path, redis_url=redis_server.url, key_prefix="checks")
    assert ids() == []
    assert ids(include_deployment_checks=True) == ["djpyfs.W004"]


def test_check_deploy_reports_a_redis_that_goes_back_to_its_last_snapshot(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    with running_redis(save="3600 1") as server:
        djfs(type="osfs", directory_root=tmp_path, redis_url=server.url)
        assert ids(include_deployment_checks=True) == ["djpyfs.W004"]


def test_check_deploy_reports_a_redis_that_is_away(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path, redis_url="redis://127.0.0.1:1")
    assert ids(include_deployment_checks=True) == ["djpyfs.E003"]


def test_check_deploy_reports_a_redis_that_evicts(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    with running_redis(**{"maxmemory-policy": "allkeys-lru"}) as server:
        djfs(type="osfs", directory_root=tmp_path, redis_url=server.url)
        assert ids(include_deployment_checks=True) == ["djpyfs.E004"]


def test_check_deploy_reports_another_number_of_shards_and_a_reshard_that_has_stopped(
    djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer
) -> None:
    own = {"type": "osfs", "directory_root": tmp_path, "redis_url": redis_server.url}
    djfs(**own, key_prefix="reshards", shards=2)
    next(iter(store_for(conf.current()).reshard(3)))
    assert ids(include_deployment_checks=True) == ["djpyfs.W004", "djpyfs.W011"]
    list(store_for(conf.current()).reshard(3))
    assert ids(include_deployment_checks=True) == ["djpyfs.W004", "djpyfs.W012"]
    djfs(**own, key_prefix="reshards", shards=3)
    assert ids(include_deployment_checks=True) == ["djpyfs.W004"]


@pytest.mark.parametrize(
    "place",
    [{"type": "memory"}, {"type": "opener", "url": "mem://"}, {"type": "storage"}],
    ids=str,
)
def test_check_deploy_reports_files_that_no_worker_can_see(
    djfs: Callable[..., None], settings: Any, redis_server: RedisServer, place: dict[str, str]
) -> None:
    settings.STORAGES = {"default": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
    djfs(**place, redis_url=redis_server.url, key_prefix="unseen")
    assert ids(include_deployment_checks=True) == ["djpyfs.W004", "djpyfs.W005"]


def test_check_deploy_reports_records_that_no_worker_can_see(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    djfs(type="osfs", directory_root=tmp_path)
    assert ids(include_deployment_checks=True) == ["djpyfs.W004", "djpyfs.W005"]


def test_one_shots_that_nobody_sends_are_reported(settings: Any, tmp_path: Path) -> None:
    settings.DJFS = {"type": "memory", "one_shot": True}
    assert run_checks() == []
    settings.INSTALLED_APPS = ["djpyfs"]
    assert [warning.id for warning in run_checks()] == ["djpyfs.W001"]


def test_without_a_setting_the_defaults_of_the_ancestor_hold(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    del settings.DJFS
    filesystem = get_filesystem("plots")
    assert filesystem.get_url("a.png") == "/static/django-pyfs/plots/a.png"
    filesystem.makedir("d")
    assert (tmp_path / "django-pyfs/static/django-pyfs/plots/d").is_dir()


def test_an_overridden_setting_starts_with_empty_memory(djfs: Callable[..., None]) -> None:
    for _ in range(2):
        djfs(type="memory")
        filesystem = get_filesystem("plots")
        assert filesystem.listdir("/") == []
        assert filesystem.expiration("a") is None
        filesystem.writebytes("a", b"")
        filesystem.expire("a", 5)


def test_no_secret_shows_where_settings_are_shown(settings: Any) -> None:

    settings.DJFS = {
        "type": "s3fs",
        "bucket": "b",
        "aws_access_key_id": "sesame",
        "aws_secret_access_key": "sesame",
        "redis_url": "redis://:sesame@127.0.0.1/0",
    }
    assert "sesame" not in repr(conf.current())
    assert "sesame" not in repr(get_filesystem("plots"))


def test_a_life_in_the_settings_may_be_a_timedelta() -> None:
    policy = conf.parse({**DISK, "default_ttl": timedelta(minutes=5), "max_ttl": 600}).policy
    assert (policy.default_ttl, policy.max_ttl) == (300 * conf.SECOND, 600 * conf.SECOND)
    with pytest.raises(ConfigurationError, match="default_ttl"):
        conf.parse({**DISK, "default_ttl": timedelta(-1)})
