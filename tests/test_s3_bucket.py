"""What `check --deploy` says of a bucket, and which rights the docs give to our keys."""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote
from urllib.request import urlopen

import boto3
import pytest
from django.core.checks import CheckMessage, run_checks
from django.urls import include, path
from fs import errors

from djpyfs import expire_objects
from djpyfs.filesystem import ExpiringFS
from tests.conftest import BUCKET, KEYS, create_bucket
from tests.pages import examples
from tests.servers import Moto
from tests.test_commands import djpyfs
from tests.test_links import get

urlpatterns = [path("f/", include("djpyfs.urls"))]


def policy_in_the_docs() -> dict[str, str]:
    """Return the actions that the docs allow, and on what."""
    (text,) = examples("guides/s3.md", "json")[:1]
    policy = json.loads(text.replace("my-bucket", BUCKET).replace("my-prefix", "media"))
    allowed: dict[str, str] = {}
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        allowed |= dict.fromkeys(statement["Action"], statement["Resource"])
    return allowed


BUCKETS = {  # what is in the query -> the right that it needs
    "versioning": "GetBucketVersioning",
    "lifecycle": "{}LifecycleConfiguration",
    "cors": "{}BucketCORS",
    "delete": "DeleteObject",
    "list-type": "ListBucket",
}
OBJECTS = {
    "HEAD": "GetObject",
    "GET": "GetObject",
    "PUT": "PutObject",
    "POST": "PutObject",  # an upload in parts
    "DELETE": "DeleteObject",
}


class Guarded(Moto):
    """An S3 endpoint that lets its clients do what a policy allows, and notes what they needed."""

    def __init__(self) -> None:
        self.allowed: dict[str, str] = {"s3:*": "*"}
        self.needed: set[str] = set()
        super().__init__()
        create_bucket(self.url)
        self.needed.clear()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        for action, resource in set(self._needs(environ)):
            self.needed.add(action)
            if not any(
                fnmatch(action, name) and fnmatch(resource, pattern)
                for name, pattern in self.allowed.items()
            ):
                start_response("403 Forbidden", [("Content-Type", "application/xml")])
                return [b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"]
        return super()._answer(environ, start_response)

    def _needs(self, environ: Any) -> Iterator[tuple[str, str]]:
        method, (bucket, _, key) = environ["REQUEST_METHOD"], _parts(environ["PATH_INFO"])
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        if not key:
            (right,) = [name for word, name in BUCKETS.items() if word in query] or ["CreateBucket"]
            if right != "DeleteObject":
                yield f"s3:{right.format('Get' if method == 'GET' else 'Put')}", _arn(bucket)
                return
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            for each in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                yield "s3:DeleteObject", _arn(bucket, each)
            return
        ends_upload = method == "DELETE" and "uploadId" in query
        right = "AbortMultipartUpload" if ends_upload else OBJECTS[method]
        yield f"s3:{right}", _arn(bucket, key)
        if source := environ.get("HTTP_X_AMZ_COPY_SOURCE"):
            bucket, _, key = _parts(unquote(source))
            yield "s3:GetObject", _arn(bucket, key)


def _parts(address: str) -> tuple[str, str, str]:
    return address.removeprefix("/").partition("/")


def _arn(*parts: str) -> str:
    return f"arn:aws:s3:::{'/'.join(parts)}"


@pytest.fixture(scope="module")
def shared_guarded() -> Iterator[Guarded]:
    server = Guarded()
    yield server
    server.stop()


@pytest.fixture
def guarded(shared_guarded: Guarded) -> Guarded:
    shared_guarded.allowed = policy_in_the_docs()
    shared_guarded.needed.clear()
    return shared_guarded


@pytest.fixture
def made(
    on_s3: Callable[..., ExpiringFS], guarded: Guarded, settings: Any
) -> Callable[..., ExpiringFS]:
    settings.ROOT_URLCONF = __name__

    def make(**options: Any) -> ExpiringFS:
        return on_s3(**{"prefix": "media", "endpoint_url": guarded.url, **options})

    return make


def told() -> dict[str, CheckMessage]:
    """Return what `check --deploy` says of places and links."""
    found = run_checks(include_deployment_checks=True)
    ids = "djpyfs.E008", "djpyfs.E009", "djpyfs.W009"
    return {str(each.id).partition(".")[2]: each for each in found if each.id in ids}


# -- rights


def use_everything(files: ExpiringFS, large: int = 9_000_000) -> None:
    files.writebytes("a.bin", b"a" * 1000)
    files.writebytes("large", bytes(large))
    with files.open("new", "xb") as file:
        file.write(bytes(large))
    with files.open("a.bin", "ab") as file:
        file.write(b"more")
    with files.open("a.bin", "rb") as file:
        file.seek(10)
        file.read(10)
    files.copy("a.bin", "b.bin")
    files.move("b.bin", "below.bin")
    files.makedirs("sub/dir").writebytes("c", b"c")
    assert files.exists("a.bin")
    assert not files.exists("nothing")
    assert list(files.walk.files())
    for url in files.get_url("a.bin"), files.get_url("a.bin", max_downloads=1):
        assert (urlopen if url.startswith("http") else get)(url).status in (200, 302)
    files.expire_many(["a.bin", "large"], 0)
    files.expire("below.bin", 0)
    assert expire_objects(limit=1).deleted == expire_objects().deleted - 1 == 1
    files.remove("new")
    files.opendir("sub").removetree("/")
    files.removetree("/")


def test_the_permissions_in_the_docs_are_those_that_are_needed(
    made: Callable[..., ExpiringFS], guarded: Guarded
) -> None:
    for options in {}, {"signed_urls": True}, {"signed_urls": True, "redirect": True}:
        use_everything(made(**options, max_ttl=86_400))
    with made().open("late", "xb") as late:  # somebody is faster: the parts are dropped
        late.write(bytes(9_000_000))
        made().writebytes("late", b"x")
        with pytest.raises(errors.FileExists):
            late.close()
    made(max_ttl=86_400).remove("late")
    djpyfs("audit", "plots")
    djpyfs("lifecycle", "--apply")
    made(upload_origins=["https://www.example.com"])
    djpyfs("cors", "--apply")
    assert told() == {}
    assert guarded.needed == guarded.allowed.keys()


@pytest.mark.parametrize("right", ["ListBucket", "PutObject", "GetObject", "DeleteObject"])
def test_check_deploy_reports_a_missing_permission(
    made: Callable[..., ExpiringFS], guarded: Guarded, right: str
) -> None:
    del guarded.allowed[f"s3:{right}"]
    made()
    assert told().keys() == {"E008"}
    assert f"refuses s3:{right}" in told()["E008"].msg


def test_credentials_without_permissions_are_reported_once(
    made: Callable[..., ExpiringFS], guarded: Guarded
) -> None:
    guarded.allowed = {}
    made()
    found = run_checks(include_deployment_checks=True)
    (message,) = [each.msg for each in found if each.id == "djpyfs.E008"]
    for right in "ListBucket", "PutObject", "GetObject", "DeleteObject":
        assert f"s3:{right}" in message


def test_permissions_for_another_prefix_are_reported(made: Callable[..., ExpiringFS]) -> None:
    made(prefix="elsewhere")
    assert "refuses s3:PutObject, s3:GetObject, s3:DeleteObject" in told()["E008"].msg


def test_missing_credentials_are_reported(
    made: Callable[..., ExpiringFS], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE":
        monkeypatch.delenv(name, raising=False)
    for name in "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE":
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made(aws_access_key_id="", aws_secret_access_key="")
    assert "NoCredentialsError" in told()["E008"].msg


# -- the bucket


def test_check_deploy_reports_a_missing_bucket(
    made: Callable[..., ExpiringFS], guarded: Guarded
) -> None:
    guarded.allowed = {"s3:*": "*"}
    made(bucket="not-there")
    assert "'not-there' cannot be used" in told()["E008"].msg
    assert "NoSuchBucket" in told()["E008"].msg


def test_check_deploy_reports_a_store_that_is_away(made: Callable[..., ExpiringFS]) -> None:
    made(endpoint_url="http://127.0.0.1:1")
    assert "cannot be used" in told()["E008"].msg


def test_the_trial_leaves_nothing_behind(made: Callable[..., ExpiringFS], guarded: Guarded) -> None:
    prefix = f"media/{uuid.uuid4()}"
    made(prefix=prefix)
    assert told() == {}
    assert "Contents" not in client(guarded).list_objects_v2(Bucket=BUCKET, Prefix=prefix)


def client(store: Moto) -> Any:
    session = boto3.Session("admin", "admin", region_name=KEYS["region"])
    return session.client("s3", endpoint_url=store.url)


# -- old versions


@pytest.fixture
def versioned(guarded: Guarded) -> tuple[Any, str]:
    guarded.allowed = {"s3:*": "*"}
    s3, name = client(guarded), f"bucket-{uuid.uuid4()}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return s3, name


def test_check_deploy_reports_a_bucket_that_keeps_deleted_files(
    made: Callable[..., ExpiringFS], versioned: tuple[Any, str]
) -> None:
    s3, name = versioned
    files = made(bucket=name)
    files.writebytes("a", b"secret")
    files.expire("a", 0)
    assert expire_objects().deleted == 1
    (version,) = s3.list_object_versions(Bucket=name)["Versions"]
    read = s3.get_object(Bucket=name, Key=version["Key"], VersionId=version["VersionId"])
    assert read["Body"].read() == b"secret"
    assert "old versions" in told()["W009"].msg


@pytest.mark.parametrize("days", [None, 7])
def test_check_deploy_accepts_such_a_bucket_with_noncurrent_days(
    made: Callable[..., ExpiringFS], versioned: tuple[Any, str], days: int | None
) -> None:
    made(bucket=versioned[1], noncurrent_days=days)
    assert told().keys() == ({"W009"} if days is None else set())


def test_a_missing_permission_to_ask_for_versions_is_reported(
    made: Callable[..., ExpiringFS], guarded: Guarded
) -> None:
    del guarded.allowed["s3:GetBucketVersioning"]
    made()
    assert "does not say" in told()["W009"].msg


# -- signed links


def test_check_deploy_reports_signed_links_that_nobody_answers(
    djfs: Callable[..., None], tmp_path: Path, settings: Any
) -> None:
    place = {"type": "osfs", "directory_root": tmp_path}
    for policies in {"signed_urls": True}, {"namespaces": {"a": {"signed_urls": True}}}:
        djfs(**place, **policies)
        settings.ROOT_URLCONF = "django.conf.urls.i18n"
        assert told().keys() == {"E009"}
        settings.ROOT_URLCONF = __name__
        assert told() == {}
