"""What a view of a site spends on its files: to publish one, to set deadlines, to answer a link."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from django.test import override_settings

from djpyfs import get_filesystem
from tests.bench.goals import Explained, Goal, compared, explained, tell
from tests.bench.s3 import BUCKET, KEYS, REGION, client_of
from tests.bench.trips import in_round_trips, round_trips
from tests.bench.turns import Side, Turn, take_turns
from tests.servers import (
    HOST,
    RedisServer,
    Server,
    free_port,
    running_moto,
    running_redis,
)

MONTH = 30 * 86_400
PICTURE = os.urandom(20_000)
DOWNLOAD = os.urandom(100_000)
MANY = 10_000
SCORE = 1_800_000_000_000_000
CALLS = 10  # per turn: so short that few turns are interrupted
DISKS = {"tmpfs": "/dev/shm", "disk": None}
WHY = Explained.VIEWS


def goals() -> Iterator[Goal]:
    """Compare what views do with the bare calls that they need anyway."""
    with running_redis() as server, redis.Redis.from_url(server.url) as client:
        for name, place in DISKS.items():
            if place is None or os.path.isdir(place):
                with TemporaryDirectory(prefix="djpyfs-bench-", dir=place) as directory:
                    yield from _on_disk(name, Path(directory), server, client)
        yield _on_s3(server, client)


def _on_disk(name: str, root: Path, server: RedisServer, client: redis.Redis) -> Iterator[Goal]:
    bare = root / "bare"
    bare.mkdir()
    files = {"directory_root": str(root / "ours"), "redis_url": server.url}
    with override_settings(DJFS={"type": "osfs", "url_root": "/files/", **files}):
        if name == "tmpfs":
            yield _expire(server, client)
            yield _expire_many(client)
        yield _round(name, lambda path: (bare / path).write_bytes(PICTURE), 1.8, server, client)
    if name == "tmpfs":
        yield _link({"type": "osfs", **files}, server)


def _expire(server: RedisServer, client: redis.Redis) -> Goal:
    tell("Setting deadlines one by one")
    files = get_filesystem("plots")
    # Each side sets a new name each time, as views do.
    names = (f"{number:08}.png" for number in count())

    def expire() -> None:
        files.expire(next(names), seconds=MONTH)

    def zadd() -> None:
        client.zadd("bare", {f"plots/{next(names)}": SCORE})

    trips = round_trips(server, expire)
    turns = _turns(expire, zadd, 500)
    besides = in_round_trips(trips, 1)
    why = explained(WHY, 2.5)
    return compared("expire()", "one bare redis-py ZADD", turns, most=1.25, **why, **besides)


def _expire_many(client: redis.Redis) -> Goal:
    tell(f"Setting {MANY} deadlines at once")
    files, number = get_filesystem("plots"), count()

    def names() -> list[str]:
        return [f"{next(number):08}.png" for _ in range(MANY)]

    def expire_many() -> None:
        files.expire_many(names(), seconds=MONTH)

    def zadds() -> None:
        with client.pipeline(transaction=False) as pipeline:
            for name in names():
                pipeline.zadd("bare", {f"plots/{name}": SCORE})
            pipeline.execute()

    turns = take_turns(expire_many, zadds, 12)
    what = f"expire_many() of {MANY:,}"
    return compared(what, "as many ZADD in a pipeline", turns, least=0.8)


def _round(
    where: str,
    write: Callable[[str], object],
    most: float,
    server: RedisServer,
    client: redis.Redis,
    turns: int = 300,
) -> Goal:
    """Publish a new file as a view does, and write one and set a bare score."""
    tell(f"Publishing files of {len(PICTURE) // 1000} kB ({where})")
    numbers = count()

    def publish() -> None:
        with get_filesystem("plots").temporary_file(".png", seconds=300) as file:
            file.write(PICTURE)
        assert file.url

    def bare() -> None:
        name = f"{next(numbers):032x}.png"
        write(name)
        client.zadd("bare", {f"plots/{name}": SCORE})

    trips = round_trips(server, publish)
    return compared(
        f"temporary_file() of {len(PICTURE) // 1000} kB and its url ({where})",
        f"a bare {'PUT' if where == 'S3' else 'write'} and a ZADD",
        _turns(publish, bare, turns),
        most=most,
        **({} if where == "S3" else explained(WHY, 3.5)),
        **in_round_trips(trips, 2),
    )


def _on_s3(server: RedisServer, client: redis.Redis) -> Goal:
    with running_moto() as endpoint:
        store = client_of(endpoint)
        store.create_bucket(Bucket=BUCKET)
        place = {"bucket": BUCKET, "region": REGION, "endpoint_url": endpoint, **KEYS}
        with override_settings(DJFS={"type": "s3fs", "redis_url": server.url, **place}):

            def put(name: str) -> None:
                store.put_object(Bucket=BUCKET, Key=f"bare/{name}", Body=PICTURE)

            return _round("S3", put, 1.3, server, client, turns=40)


def _link(djfs: dict[str, str], server: RedisServer) -> Goal:
    tell(f"Downloading {len(DOWNLOAD) // 1000} kB through a signed link")
    with override_settings(DJFS=djfs, ROOT_URLCONF="tests.bench.site"):
        files = get_filesystem("plots")
        files.writebytes("a.png", DOWNLOAD)
        files.expire("a.png", MONTH)
        link = files.get_url("a.png")
    with _running_site(djfs) as port:
        download = _download(port, link)
        trips = round_trips(server, download)
        turns = _turns(download, _download(port, "/static/plots/a.png"), 100)
    what = f"signed link to {len(DOWNLOAD) // 1000} kB, by gunicorn"
    why = explained(WHY, 0.3)
    besides = in_round_trips(trips, 1)
    return compared(what, "Django's view of static files", turns, least=0.8, **why, **besides)


@contextmanager
def _running_site(djfs: dict[str, str]) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "tests.bench.site", f"--bind={HOST}:{port}"]
    site = Server([*command, "--no-control-socket"], port)
    os.environ["DJFS"] = json.dumps(djfs)
    site.start()
    try:
        yield port
    finally:
        del os.environ["DJFS"]
        site.stop()


def _download(port: int, path: str) -> Side:
    def download() -> None:
        connection = HTTPConnection(HOST, port)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, DOWNLOAD)
        connection.close()

    return download


def _turns(ours: Side, bare: Side, turns: int) -> list[Turn]:
    def several(side: Side) -> Side:
        def repeat() -> None:
            for _ in range(CALLS):
                side()

        return repeat

    take_turns(several(ours), several(bare), turns // 20)
    return take_turns(several(ours), several(bare), turns)
