"""Lifecycle rules on S3, read back from the bucket."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any

import boto3
import pytest

from djpyfs import conf
from djpyfs.backends import backend_for
from djpyfs.errors import ConfigurationError
from djpyfs.lifecycle import plan
from tests.conftest import KEYS
from tests.servers import Moto
from tests.test_commands import djpyfs, read, refused

DAY = 86_400
OTHERS: dict[str, Any] = {
    "ID": "logs",
    "Status": "Enabled",
    "Filter": {"Prefix": "media/logs/"},
    "Expiration": {"Days": 90},
}


@cache
def client(endpoint: str) -> Any:
    session = boto3.Session("admin", "admin", region_name="us-east-1")
    return session.client("s3", endpoint_url=endpoint)


class Bucket:
    """A new bucket, and its settings."""

    def __init__(self, endpoint: str) -> None:
        self.name = f"bucket-{uuid.uuid4()}"
        self.client = client(endpoint)
        self.client.create_bucket(Bucket=self.name)
        self.place = {"bucket": self.name, "endpoint_url": endpoint, "prefix": "media", **KEYS}
        self.place["type"] = "s3fs"

    def rules(self) -> list[dict[str, Any]]:
        try:
            answer = self.client.get_bucket_lifecycle_configuration(Bucket=self.name)
        except self.client.exceptions.ClientError:  # which is how S3 says that there are none
            return []
        return list(answer["Rules"])

    def days(self) -> dict[str, int]:
        return {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in self.rules()}

    def put(self, *rules: dict[str, Any], **others: Any) -> None:
        self.client.put_bucket_lifecycle_configuration(
            Bucket=self.name, LifecycleConfiguration={"Rules": rules}, **others
        )


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    return Bucket(s3_endpoint)


@pytest.fixture
def namespaces(djfs: Callable[..., None], bucket: Bucket) -> Callable[..., None]:
    """Set policies for namespaces on the bucket, and others for all."""

    def set_(own: dict[str, dict[str, Any]], **others: Any) -> None:
        djfs(**{**bucket.place, **others}, namespaces=own)

    return set_


@pytest.fixture
def planned(djfs: Callable[..., None]) -> Callable[..., dict[str, int | str]]:
    """Return the rules for some policies: their days, or why they are left out."""

    def plan_(own: dict[str, dict[str, Any]]) -> dict[str, int | str]:
        djfs(type="s3fs", bucket="bucket", namespaces=own)
        [rules] = plan()
        return {
            **{rule.prefix: rule.days for rule in rules.rules},
            **{each.prefix: each.reason for each in rules.left_out},
        }

    return plan_


def test_applied_rules_are_a_day_longer_than_max_ttl_and_end_uploads(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    namespaces({"a": {"max_ttl": 60}, "b": {"max_ttl": 2 * DAY}, "c": {"max_ttl": 2 * DAY + 1}})
    djpyfs("lifecycle", "--apply")
    assert bucket.days() == {"media/a/": 2, "media/b/": 3, "media/c/": 4}
    for rule in bucket.rules():
        assert rule["Status"] == "Enabled"
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


def test_nothing_is_set_unless_it_is_asked_for(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    namespaces({"a": {"max_ttl": 60}})
    assert refused("lifecycle").returncode == 1
    assert bucket.rules() == []
    djpyfs("lifecycle", "--apply")
    assert "keep" in djpyfs("lifecycle")


def test_rules_of_others_stay_and_ours_are_replaced_and_removed(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    namespaces({"a": {"max_ttl": 60}, "b": {"max_ttl": 60}})
    djpyfs("lifecycle", "--apply")
    bucket.put(OTHERS, *bucket.rules())
    namespaces({"a": {"max_ttl": 5 * DAY}, "c": {"max_ttl": 60}})
    [found] = read("lifecycle", "--apply")
    assert found["others"] == 1
    assert {change["prefix"]: change["action"] for change in found["changes"]} == {
        "media/a/": "change",
        "media/b/": "remove",
        "media/c/": "add",
    }
    assert bucket.days() == {"media/logs/": 90, "media/a/": 6, "media/c/": 2}
    namespaces({})
    djpyfs("lifecycle", "--apply")
    assert [rule["ID"] for rule in bucket.rules()] == ["logs"]


def test_sites_that_share_a_bucket_leave_each_others_rules_alone(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    for prefix in "", "media", "media/more":
        namespaces({"a": {"max_ttl": 60}}, prefix=prefix)
        djpyfs("lifecycle", "--apply")
    assert bucket.days() == {"a/": 2, "media/a/": 2, "media/more/a/": 2}
    namespaces({}, prefix="")
    djpyfs("lifecycle", "--apply")
    assert bucket.days() == {"media/a/": 2, "media/more/a/": 2}


def test_the_last_rule_can_go_too(namespaces: Callable[..., None], bucket: Bucket) -> None:
    namespaces({"a": {"max_ttl": 60}})
    djpyfs("lifecycle", "--apply")
    namespaces({})
    assert "remove" in djpyfs("lifecycle", "--apply")
    assert bucket.rules() == []


@pytest.mark.parametrize(
    "meddling",
    [
        {"Status": "Disabled"},
        {"Filter": {"And": {"Prefix": "media/a/", "Tags": [{"Key": "x", "Value": "y"}]}}},
    ],
    ids=str,
)
def test_a_rule_of_ours_that_somebody_has_changed_is_mended(
    namespaces: Callable[..., None], bucket: Bucket, meddling: dict[str, Any]
) -> None:
    namespaces({"a": {"max_ttl": 60}})
    djpyfs("lifecycle", "--apply")
    ours = bucket.rules()
    bucket.put({**ours[0], **meddling})
    djpyfs("lifecycle", "--apply")
    assert bucket.rules() == ours


def test_rules_of_the_old_form_are_kept_in_the_new_one(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    bucket.put({"ID": "old", "Status": "Enabled", "Prefix": "old/", "Expiration": {"Days": 9}})
    namespaces({"a": {"max_ttl": 60}})
    djpyfs("lifecycle", "--apply")
    assert bucket.days() == {"old/": 9, "media/a/": 2}


class Legacy(Moto):
    """An endpoint whose buckets move small objects too, and that remembers what it was told."""

    HEADER = "x-amz-transition-default-minimum-object-size"

    def __init__(self) -> None:
        self.told: list[str | None] = []
        super().__init__()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        if environ["QUERY_STRING"] == "lifecycle" and environ["REQUEST_METHOD"] == "PUT":
            self.told.append(environ.get("HTTP_" + self.HEADER.replace("-", "_").upper()))

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            own = [(name, value) for name, value in headers if name.lower() != self.HEADER]
            return start_response(status, [*own, (self.HEADER, "varies_by_storage_class")], *more)

        return super()._answer(environ, start)


def test_other_settings_beside_the_rules_stay(djfs: Callable[..., None]) -> None:
    legacy = Legacy()
    try:
        bucket = Bucket(legacy.url)
        bucket.put(OTHERS)
        djfs(**bucket.place, namespaces={"a": {"max_ttl": 60}})
        djpyfs("lifecycle", "--apply")
    finally:
        legacy.stop()
    assert legacy.told == [None, "varies_by_storage_class"]


NONE = "it would take files of {!r}, which has no max_ttl"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"a/*": {"max_ttl": DAY}, "a/b": {"max_ttl": 9 * DAY}}, {"a/": 10}),
        ({"a/*": {"max_ttl": 9 * DAY}, "a/b": {"max_ttl": DAY}}, {"a/": 10, "a/b/": 2}),
        ({"a": {"max_ttl": DAY}, "a/*": {"max_ttl": 9 * DAY}}, {"a/": 10}),
        ({"a/*": {"max_ttl": DAY}, "a/b": {}}, {"a/": NONE.format("a/b")}),
        (
            {"a/*": {"max_ttl": DAY}, "a/b/*": {}, "a/c": {"max_ttl": DAY}},
            {"a/": NONE.format("a/b/*"), "a/c/": 2},
        ),
        ({"a": {"max_ttl": DAY}, "a/*": {}}, {"a/": NONE.format("a/*")}),
        ({"a": {"max_ttl": DAY}, "ab": {}}, {"a/": 2}),
    ],
    ids=str,
)
def test_a_rule_is_as_long_as_the_longest_life_below_it_or_is_left_out(
    planned: Callable[..., dict[str, int | str]],
    own: dict[str, dict[str, Any]],
    expected: dict[str, int | str],
) -> None:
    assert planned(own) == expected


@pytest.mark.parametrize("held", ["a", "a/*", "a/b", "a/b/*", "a/b/c", "a/b/c/*"])
def test_a_namespace_on_hold_is_under_no_rule(
    planned: Callable[..., dict[str, int | str]], held: str
) -> None:
    own = {"a/b": {"max_ttl": DAY}, "z": {"max_ttl": DAY}}
    found = planned({**own, held: {"max_ttl": DAY, "hold": True}})
    assert found.pop("z/") == 2
    assert set(found.values()) == {f"it would take files of {held!r}, which is on hold"}


def test_a_max_ttl_of_all_is_one_rule_for_the_prefix(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    namespaces({"a": {"default_ttl": 5}, "b": {"max_ttl": 9 * DAY}, "c": {}}, max_ttl=DAY)
    djpyfs("lifecycle", "--apply")
    assert bucket.days() == {"media/": 10, "media/a/": 2, "media/c/": 2}
    namespaces({"a": {"default_ttl": 5}}, max_ttl=DAY)
    djpyfs("lifecycle", "--apply")
    assert bucket.days() == {"media/": 2}
    namespaces({"a": {"hold": True}}, max_ttl=DAY)
    djpyfs("lifecycle", "--apply")
    assert bucket.days() == {}


def test_a_whole_bucket_is_taken_only_with_an_option(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    namespaces({}, max_ttl=DAY, prefix="")
    assert "--whole-bucket" in djpyfs("lifecycle", "--apply")
    assert bucket.days() == {}
    djpyfs("lifecycle", "--apply", "--whole-bucket")
    assert bucket.days() == {"": 2}


def test_each_bucket_gets_the_rules_of_all_that_is_in_it(
    namespaces: Callable[..., None], bucket: Bucket, s3_endpoint: str
) -> None:
    other = Bucket(s3_endpoint)
    namespaces(
        {
            "a": {"max_ttl": DAY},
            "b": {"max_ttl": DAY, "bucket": other.name},
            "c": {"max_ttl": DAY, "prefix": "more", "endpoint_url": f"{s3_endpoint}/"},
            "d": {"max_ttl": DAY, "type": "memory"},
        }
    )
    djpyfs("lifecycle", "--apply")
    assert bucket.days() == {"media/a/": 2, "more/c/": 2}
    assert other.days() == {"media/b/": 2}


def test_it_says_which_namespaces_without_an_entry_a_rule_takes_too(
    namespaces: Callable[..., None], bucket: Bucket, djfs: Callable[..., None]
) -> None:
    short = {"max_ttl": DAY}
    own = {"a": short, "a/b": short, "b/*": short, "c": short, "c/*": {"max_ttl": 5}}
    namespaces(own)
    [rules] = plan()
    assert [list(rule.besides) for rule in rules.rules] == [[], ["b"], []]
    assert "for b/*; also takes b" in djpyfs("lifecycle", "--apply")
    djfs(type="memory", namespaces={"a": {**short, **bucket.place}})
    [rules] = plan()
    assert not rules.rules[0].besides


def test_a_bucket_that_cannot_be_reached_does_not_stop_the_others(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    namespaces({"a": {"max_ttl": DAY}, "b": {"max_ttl": DAY, "bucket": "not-there"}})
    assert refused("lifecycle", "--apply").returncode == 1
    assert bucket.days() == {"media/a/": 2}


def test_without_s3_there_is_nothing_to_do(djfs: Callable[..., None]) -> None:
    djfs(type="memory", max_ttl=DAY)
    assert json.loads(djpyfs("lifecycle", "--format", "json")) == []


def test_the_printed_rules_are_those_that_s3_takes(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    namespaces({"a": {"max_ttl": DAY}})
    djpyfs("lifecycle", "--apply")
    [found] = read("lifecycle")
    assert found["rules"] == bucket.rules()
    assert backend_for(conf.current(), "a").bucket()


def old_versions(bucket: Bucket) -> dict[str, int]:
    return {
        rule["Filter"]["Prefix"]: rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
        for rule in bucket.rules()
        if "NoncurrentVersionExpiration" in rule
    }


def test_old_versions_below_the_prefix_go_after_so_many_days(
    namespaces: Callable[..., None], bucket: Bucket
) -> None:
    namespaces({"a": {"max_ttl": 60}}, noncurrent_days=7, max_ttl=DAY)
    assert refused("lifecycle").returncode == 1
    assert "7 days for old versions" in djpyfs("lifecycle", "--apply")
    assert old_versions(bucket) == {"media/": 7}
    assert {rule["Expiration"].get("Days") for rule in bucket.rules()} == {2, None}
    assert "\nadd " not in djpyfs("lifecycle")
    namespaces({}, noncurrent_days=1)
    djpyfs("lifecycle", "--apply")
    assert old_versions(bucket) == {"media/": 1}
    namespaces({})
    assert "1 day for old versions" in djpyfs("lifecycle", "--apply")
    assert bucket.rules() == []


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"a": {"prefix": "media/more", "noncurrent_days": 3}}, {"media/": 7, "media/more/": 3}),
        ({"a": {"prefix": "media/more", "noncurrent_days": 9}}, {"media/more/": 9}),
        ({"a": {"prefix": "media/more", "noncurrent_days": None}}, {}),
        ({"a": {"prefix": "other", "noncurrent_days": None}}, {"media/": 7}),
        ({"a": {"hold": True}}, {}),
        ({"a": {"prefix": "", "noncurrent_days": None, "hold": True}}, {"media/": 7}),
        ({"media/a": {"prefix": "", "noncurrent_days": None, "hold": True}}, {}),
        ({"a": {"prefix": ""}}, {"media/": 7}),
    ],
    ids=str,
)
def test_old_versions_that_are_to_stay_are_under_no_rule(
    namespaces: Callable[..., None],
    bucket: Bucket,
    own: dict[str, dict[str, Any]],
    expected: dict[str, int],
) -> None:
    namespaces(own, noncurrent_days=7)
    djpyfs("lifecycle", "--apply")
    assert old_versions(bucket) == expected


@pytest.mark.parametrize("days", [0, -1, 1.5, "7", True], ids=repr)
def test_days_that_cannot_be_counted_are_refused(djfs: Callable[..., None], days: Any) -> None:
    djfs(type="s3fs", bucket="b", noncurrent_days=days)
    with pytest.raises(ConfigurationError, match="noncurrent_days"):
        plan()
