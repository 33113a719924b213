"""Sweeping objects in S3, and reading one from end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import boto3
from django.test import override_settings

from djpyfs import expire_objects, get_filesystem
from tests.bench import ancestor
from tests.bench.goals import Explained, Goal, compared, explained, tell
from tests.bench.turns import Turn, seconds, take_turns
from tests.servers import running_late_store, running_moto, running_redis

OBJECTS, NAMESPACES = 20_000, 2_000
BATCH = 1_000
ROUNDS = 5
ANSWERS_AFTER = 0.1  # s, of the store that answers late
BUCKET = "pictures"
ANCESTORS_OBJECTS = 50
LARGE = 128 << 20
CHUNK = 64 << 10
KEYS = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench"}
REGION = "us-east-1"


def goals() -> Iterator[Goal]:
    """Compare sweeps with `delete_objects`, and with the ancestor's."""
    yield from _on_a_late_store()
    with running_redis() as server, running_moto() as endpoint:
        client = client_of(endpoint)
        client.create_bucket(Bucket=BUCKET)
        place = {"type": "s3fs", "bucket": BUCKET, "region": REGION, **KEYS}
        djfs = {**place, "endpoint_url": endpoint, "redis_url": server.url}
        before = _ancestor(place, endpoint)
        with override_settings(DJFS=djfs):
            turns = list(_sweeps(client, lambda keys: put(endpoint, keys)))
            assert not client.list_objects_v2(Bucket=BUCKET).get("KeyCount")
            read = _read(client)
        after = _ancestor(place, endpoint)
    what = f"sweep of {OBJECTS:,} S3 objects in {NAMESPACES:,} namespaces on moto"
    why = explained(Explained.SWEEPS, 0.5)
    yield compared(what, "bare delete_objects in thousands", turns, least=1, **why)
    rate = OBJECTS / median(turn.ours for turn in turns)
    yield Goal(what, ancestor.NAME, rate * median([before, after]), least=200)
    yield compared(f"reading {LARGE >> 20} MiB from S3", "bare get_object", read, most=1.1)


def _on_a_late_store() -> Iterator[Goal]:
    with running_late_store(ANSWERS_AFTER) as port, running_redis() as server:
        endpoint = f"http://127.0.0.1:{port}"
        place = {"type": "s3fs", "bucket": BUCKET, "region": REGION, **KEYS}
        with override_settings(DJFS={**place, "endpoint_url": endpoint, "redis_url": server.url}):
            turns = list(_sweeps(client_of(endpoint), lambda keys: _tell(port, "PUT", keys)))
        left, requests = map(int, _tell(port, "GET").split())
    least = ROUNDS * 2 * -(-OBJECTS // BATCH)
    yield compared(
        f"sweep of {OBJECTS:,} S3 objects in {NAMESPACES:,} namespaces, "
        f"{1_000 * ANSWERS_AFTER:g} ms to each answer",
        "bare delete_objects in thousands",
        turns,
        least=3,
        **explained(Explained.SWEEPS, 1),
        besides="keys / 1,000 requests",
        besides_holds=requests == least and not left,
    )


def _tell(port: int, method: str, keys: Sequence[str] = ()) -> bytes:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request(method, "/", "\n".join(keys))
    answer = connection.getresponse().read()
    connection.close()
    return answer


def _sweeps(client: Any, fill: Callable[[Sequence[str]], object]) -> Iterator[Turn]:
    each = OBJECTS // NAMESPACES
    names = [f"{number}.png" for number in range(each)]
    due = [f"users/{user}/{name}" for user in range(NAMESPACES) for name in names]
    bare = [f"bare/{key}" for key in due]
    batches = [[{"Key": key} for key in bare[i : i + BATCH]] for i in range(0, OBJECTS, BATCH)]

    def sweep() -> None:
        assert expire_objects().deleted == OBJECTS

    def delete() -> None:
        for batch in batches:
            told = client.delete_objects(Bucket=BUCKET, Delete={"Objects": batch, "Quiet": True})
            assert "Errors" not in told

    # Both sides make their connections first.
    client.delete_object(Bucket=BUCKET, Key="warm-up")
    get_filesystem("users").expire("warm-up", 0)
    assert expire_objects().deleted == 1
    for number in range(ROUNDS):
        tell(f"Sweeping {OBJECTS:,} objects in S3, {number + 1} of {ROUNDS}")
        fill([*due, *bare])
        for user in range(NAMESPACES):
            get_filesystem(f"users/{user}").expire_many(names, 0)
        expire_first = number % 2
        ours = seconds(sweep) if expire_first else 0
        others = seconds(delete)
        yield Turn(ours or seconds(sweep), others)


def _read(client: Any) -> list[Turn]:
    tell(f"Reading {LARGE >> 20} MiB from S3")
    client.put_object(Bucket=BUCKET, Key="plots/large", Body=bytes(LARGE))

    def ours() -> None:
        with get_filesystem("plots").open("large", "rb") as file:
            _drain(file)

    def bare() -> None:
        _drain(client.get_object(Bucket=BUCKET, Key="plots/large")["Body"])

    turns = take_turns(ours, bare, 12)
    client.delete_object(Bucket=BUCKET, Key="plots/large")
    return turns


def _drain(file: Any) -> None:
    assert sum(iter(lambda: len(file.read(CHUNK)), 0)) == LARGE


def client_of(endpoint: str) -> Any:
    keys: dict[str, Any] = {**KEYS}
    return boto3.client("s3", endpoint_url=endpoint, region_name=REGION, **keys)


def put(endpoint: str, keys: Sequence[str]) -> None:
    # boto3 would take as long again as the server; this one asks for no signature.
    connection = HTTPConnection(urlsplit(endpoint).netloc)
    for key in keys:
        connection.request("PUT", f"/{BUCKET}/{key}", body=b"picture")
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    connection.close()


def _ancestor(place: dict[str, str], endpoint: str) -> float:
    tell(f"Sweeping {ANCESTORS_OBJECTS} objects in S3 with {ancestor.NAME}")
    return ancestor.seconds_per_file(place, ANCESTORS_OBJECTS, AWS_ENDPOINT_URL=endpoint)
