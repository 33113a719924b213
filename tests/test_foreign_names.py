"""Files that others have put there, under names that every call refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from djpyfs import InvalidName, NamespaceHeld, get_filesystem
from djpyfs.audit import Audit, Kind
from djpyfs.filesystem import ExpiringFS
from tests.conftest import BUCKET, KEYS

ON_DISK = [b"caf\xe9.png", b"new\nline", b"back\\slash", b"d\xff/inner", b"d/new\nline", b"fine"]
ON_S3 = "/x a/../b a/./b a/.. a/. ./z ../../escape/x x/../../../y a// // c\x01 fine".split(" ")


@pytest.fixture(params=["disk", "storage", "s3"])
def foreign(
    request: pytest.FixtureRequest, djfs: Callable[..., None], tmp_path: Path, settings: Any
) -> Callable[..., ExpiringFS]:
    """Make files of others in ``plots``; return a function that sets a policy and opens it."""
    place: dict[str, Any] = {"type": "osfs", "directory_root": tmp_path}
    if request.param == "s3":
        place = _on_s3(request.getfixturevalue("s3_endpoint"), f"foreign/{tmp_path.name}")
    elif request.param == "storage":
        where = {"location": tmp_path}
        on_disk = "django.core.files.storage.FileSystemStorage"
        settings.STORAGES = {"disk": {"BACKEND": on_disk, "OPTIONS": where}}
        place = {"type": "storage", "alias": "disk"}

    def make(**policy: Any) -> ExpiringFS:
        djfs(**place, **policy)
        plots = get_filesystem("plots")
        plots.writebytes("fine", b"ours")
        if request.param == "s3":
            _put(place, ON_S3)
        else:
            _write(os.fsencode(tmp_path / "plots"))
        return plots

    return make


def _on_s3(endpoint: str, prefix: str) -> dict[str, Any]:
    return {
        "type": "s3fs",
        "bucket": BUCKET,
        "endpoint_url": endpoint,
        "prefix": prefix,
        **KEYS,
    }


def _put(place: dict[str, Any], keys: list[str]) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=place["endpoint_url"],
        region_name=KEYS["region"],
        aws_access_key_id=KEYS["aws_access_key_id"],
        aws_secret_access_key=KEYS["aws_secret_access_key"],
    )
    for key in keys:
        client.put_object(Bucket=BUCKET, Key=f"{place['prefix']}/plots/{key}", Body=b"theirs")


def _write(directory: bytes) -> None:
    for name in ON_DISK:
        file = os.path.join(directory, name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as new:
            new.write(b"theirs")


@pytest.mark.parametrize("hide_expired", [False, True])
def test_names_of_others_are_listed(foreign: Callable[..., ExpiringFS], hide_expired: bool) -> None:
    plots = foreign(hide_expired=hide_expired)
    names = plots.listdir("/")
    assert "fine" in names
    assert len(names) > 3
    assert {info.name for info in plots.scandir("/")} == set(names)
    plots.expire("fine", 0)
    assert len(plots.listdir("/")) == len(names) - hide_expired


@pytest.mark.parametrize("hide_expired", [False, True])
def test_a_walk_goes_through_directories_of_others(
    foreign: Callable[..., ExpiringFS], hide_expired: bool
) -> None:
    plots = foreign(hide_expired=hide_expired)
    found = {*plots.walk.files()}
    on_disk = "caf\udce9.png" in plots.listdir("/")
    files = len(ON_DISK) if on_disk else len(ON_S3) - 2  # two end with a slash
    assert len(found) == files
    plots.expire("fine", 0)
    assert found - {*plots.walk.files()} == ({"/fine"} if hide_expired else set())
    assert plots.glob("**/*").count().files == len(found) - hide_expired
    for name in found - {"/fine"}:
        with pytest.raises(InvalidName):
            plots.walk(name)


def test_an_audit_reports_each_and_ends(foreign: Callable[..., ExpiringFS]) -> None:
    foreign()
    for wheres in ["plots"], []:
        audit = Audit(adopt=1_000)
        findings = list(audit.run(*wheres))
        refused = {f"{it.namespace}/{it.path}" for it in findings if it.kind == Kind.REFUSED}
        assert audit.totals.refused == len(refused) >= 5
        assert all(name.startswith("plots/") for name in refused)
        assert audit.totals.files == len(refused) + 1


def test_a_tree_goes_as_a_whole(foreign: Callable[..., ExpiringFS]) -> None:
    plots = foreign()
    plots.removetree("/")
    assert plots.listdir("/") == []


def test_a_directory_that_holds_them_moves_as_a_whole_or_not_at_all(
    foreign: Callable[..., ExpiringFS],
) -> None:
    plots = foreign()
    source = "a" if "a" in plots.listdir("/") else "d"
    plots.writebytes(f"{source}/fine", b"ours")
    names = {source: sorted(plots.listdir(source)), "/": sorted(plots.listdir("/"))}
    with pytest.raises(InvalidName):
        plots.movedir(source, "elsewhere", create=True)
    assert {where: sorted(plots.listdir(where)) for where in names} == names


def test_a_tree_on_hold_stays(foreign: Callable[..., ExpiringFS]) -> None:
    foreign()
    plots = foreign(namespaces={"plots/d": {"hold": True}, "plots/a": {"hold": True}})
    with pytest.raises(NamespaceHeld):
        plots.removetree("/")
    assert {"a", "d"} & set(plots.listdir("/"))
