"""CORS rules for uploads to S3, read back from the bucket, and the checks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.checks import run_checks

from djpyfs import conf
from djpyfs.backends import backend_for
from djpyfs.cors import missing
from djpyfs.errors import ConfigurationError
from tests.servers import Moto
from tests.test_commands import djpyfs, noted, read, refused
from tests.test_lifecycle import Bucket

SITE, OTHER = "https://www.example.com", "http://127.0.0.1:8000"
OTHERS: dict[str, Any] = {
    "ID": "fonts",
    "AllowedMethods": ["GET"],
    "AllowedOrigins": ["*"],
}


@pytest.fixture
def bucket(moto: Moto) -> Bucket:
    return Bucket(moto.url)


def rules(bucket: Bucket) -> list[dict[str, Any]]:
    try:
        answer = bucket.client.get_bucket_cors(Bucket=bucket.name)
    except bucket.client.exceptions.ClientError:  # which is how S3 says that there are none
        return []
    return list(answer["CORSRules"])


def put(bucket: Bucket, *rules: dict[str, Any]) -> None:
    bucket.client.put_bucket_cors(Bucket=bucket.name, CORSConfiguration={"CORSRules": rules})


def told() -> list[str]:
    found = run_checks(include_deployment_checks=True)
    return [each.msg for each in found if each.id == "djpyfs.W010"]


def test_check_deploy_reports_a_page_that_is_shut_out_until_the_command_lets_it_in(
    djfs: Callable[..., None], bucket: Bucket
) -> None:
    djfs(**bucket.place, upload_origins=[SITE, OTHER])
    put(bucket, OTHERS)
    assert SITE in told()[0]
    assert OTHER in told()[0]
    (found,) = read("cors", amiss=True)
    assert (found["action"], found["missing"], found["others"]) == ("add", [SITE, OTHER], 1)
    assert rules(bucket) == [OTHERS]
    assert f"let in  {SITE}" in djpyfs("cors", "--apply")
    assert told() == []
    others, ours = rules(bucket)
    assert others == OTHERS
    assert ours["AllowedMethods"] == ["POST"]
    assert ours["AllowedOrigins"] == [SITE, OTHER]
    assert "rule of djpyfs: keep" in djpyfs("cors")


def test_a_rule_of_ours_follows_the_setting_and_goes_with_it(
    djfs: Callable[..., None], bucket: Bucket
) -> None:
    djfs(**bucket.place, upload_origins=[SITE, OTHER])
    djpyfs("cors", "--apply")
    djfs(**bucket.place, upload_origins=[SITE])
    assert read("cors", amiss=True)[0]["action"] == "change"
    djpyfs("cors", "--apply")
    assert [rule["AllowedOrigins"] for rule in rules(bucket)] == [[SITE]]
    djfs(**bucket.place)
    assert read("cors", amiss=True)[0]["action"] == "remove"
    djpyfs("cors", "--apply")
    assert rules(bucket) == []
    assert "names no page" in noted("cors")


def test_two_sites_in_one_bucket_leave_the_rules_of_each_other(
    djfs: Callable[..., None], bucket: Bucket
) -> None:
    for prefix, origin in ("one", SITE), ("two", OTHER):
        djfs(**{**bucket.place, "prefix": prefix}, upload_origins=[origin])
        djpyfs("cors", "--apply")
    assert [rule["AllowedOrigins"] for rule in rules(bucket)] == [[SITE], [OTHER]]


def test_our_rule_is_not_needed_if_the_rules_of_others_allow_it_already(
    djfs: Callable[..., None], bucket: Bucket
) -> None:
    put(bucket, {"AllowedMethods": ["PUT", "POST"], "AllowedOrigins": ["https://*.example.com"]})
    djfs(**bucket.place, upload_origins=[SITE])
    assert told() == []
    assert "rule of djpyfs: not needed; 1 other rule" in djpyfs("cors")


@pytest.mark.parametrize(
    ("pattern", "lets_in"),
    [
        (SITE, True),
        ("*", True),
        ("https://*", True),
        ("https://*.example.com", True),
        ("http://*", False),
        ("https://www.example.com*m", False),
        ("https://example.com", False),
    ],
)
def test_an_origin_fits_a_pattern_as_s3_says(pattern: str, lets_in: bool) -> None:
    rule = {"AllowedMethods": ["POST"], "AllowedOrigins": [pattern]}
    assert missing([SITE], [rule]) == ([] if lets_in else [SITE])
    assert missing([SITE], [{**rule, "AllowedMethods": ["PUT"]}]) == [SITE]


def test_a_bucket_that_cannot_be_asked_is_reported(
    djfs: Callable[..., None], bucket: Bucket
) -> None:
    djfs(**{**bucket.place, "bucket": "not-there"}, upload_origins=[SITE])
    assert "NoSuchBucket" in told()[0]
    assert "NoSuchBucket" in djpyfs("cors", "--apply", amiss=True)


def test_without_a_bucket_there_is_nothing_to_set(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    assert told() == []
    assert djpyfs("cors", "--apply") == ""


@pytest.mark.parametrize(
    "origins",
    [SITE, [f"{SITE}/"], ["www.example.com"], ["https://"], ["*"], ["https://me@example.com"], [1]],
)
def test_a_bad_origin_is_refused(
    djfs: Callable[..., None], bucket: Bucket, origins: object
) -> None:
    djfs(**bucket.place, upload_origins=origins)
    with pytest.raises(ConfigurationError, match="upload_origins"):
        backend_for(conf.current(), "plots")
    assert refused("cors").returncode == 2
