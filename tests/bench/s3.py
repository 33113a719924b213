"""Sweeping objects in S3, and reading one from end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import boto3
from django.test import override_settings

from djpyfs import expire_objects, get_filesystem
from tests.bench import ancestor
from tests.bench.goals import Goal, tell
from tests.bench.turns import Turn, sweep_in_turns, take_turns, times_as_long, times_the_rate
from tests.servers import running_moto, running_redis

OBJECTS = 5_000
BATCH = 1_000
ROUNDS = 2
BUCKET = "pictures"
ANCESTORS_OBJECTS = 50
LARGE = 128 << 20
CHUNK = 64 << 10
KEYS = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench"}
REGION = "us-east-1"


def goals() -> Iterator[Goal]:
    """Compare a sweep with `delete_objects`, and with the ancestor's."""
    with running_redis() as server, running_moto() as endpoint:
        client = client_of(endpoint)
        client.create_bucket(Bucket=BUCKET)
        place = {"type": "s3fs", "bucket": BUCKET, "region": REGION, **KEYS}
        djfs = {**place, "endpoint_url": endpoint, "redis_url": server.url}
        before = _ancestor(place, endpoint)
        with override_settings(DJFS=djfs):
            turns = [turn for _ in range(ROUNDS) for turn in _sweep(client, endpoint)]
            read = times_as_long(_read(client))
        after = _ancestor(place, endpoint)
    what = f"sweep of {OBJECTS:,} S3 objects"
    yield Goal(what, "bare delete_objects in thousands", times_the_rate(turns), least=0.8)
    rate = BATCH / median(turn.ours for turn in turns)
    yield Goal(what, ancestor.NAME, rate * median([before, after]), least=200)
    yield Goal(f"reading {LARGE >> 20} MiB from S3", "bare get_object", read, most=1.1)


def _sweep(client: Any, endpoint: str) -> list[Turn]:
    delete_batch = _batches(client, [f"bare/{number:06}.png" for number in range(OBJECTS)])
    _warm_up(client)
    names = [f"{number:06}.png" for number in range(OBJECTS)]
    tell(f"Putting {2 * OBJECTS} objects into S3")
    put(endpoint, [f"{top}/{name}" for name in names for top in ("plots", "bare")])
    get_filesystem("plots").expire_many(names, 0)
    tell(f"Sweeping {OBJECTS} objects in S3")
    turns = sweep_in_turns(delete_batch)
    assert len(turns) == OBJECTS // BATCH
    assert not client.list_objects_v2(Bucket=BUCKET).get("KeyCount")
    return turns


def _read(client: Any) -> list[Turn]:
    tell(f"Reading {LARGE >> 20} MiB from S3")
    client.put_object(Bucket=BUCKET, Key="plots/large", Body=bytes(LARGE))

    def ours() -> None:
        with get_filesystem("plots").open("large", "rb") as file:
            _drain(file)

    def bare() -> None:
        _drain(client.get_object(Bucket=BUCKET, Key="plots/large")["Body"])

    return take_turns(ours, bare, 12)


def _drain(file: Any) -> None:
    assert sum(iter(lambda: len(file.read(CHUNK)), 0)) == LARGE


def client_of(endpoint: str) -> Any:
    keys: dict[str, Any] = {**KEYS}
    return boto3.client("s3", endpoint_url=endpoint, region_name=REGION, **keys)


def _warm_up(client: Any) -> None:
    """Let both sides make their connections."""
    _batches(client, ["bare/warm-up"])()
    get_filesystem("plots").expire("warm-up", 0)
    assert expire_objects().deleted == 1


def put(endpoint: str, keys: list[str]) -> None:
    # boto3 would take as long again as the server; this one asks for no signature.
    connection = HTTPConnection(urlsplit(endpoint).netloc)
    for key in keys:
        connection.request("PUT", f"/{BUCKET}/{key}", body=b"picture")
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    connection.close()


def _batches(client: Any, keys: list[str]) -> Callable[[], None]:
    batches = iter(
        [{"Key": key} for key in keys[first : first + BATCH]]
        for first in range(0, len(keys), BATCH)
    )

    def delete_batch() -> None:
        answer = client.delete_objects(
            Bucket=BUCKET, Delete={"Objects": next(batches), "Quiet": True}
        )
        assert "Errors" not in answer

    return delete_batch


def _ancestor(place: dict[str, str], endpoint: str) -> float:
    tell(f"Sweeping {ANCESTORS_OBJECTS} objects in S3 with {ancestor.NAME}")
    return ancestor.seconds_per_file(place, ANCESTORS_OBJECTS, AWS_ENDPOINT_URL=endpoint)
