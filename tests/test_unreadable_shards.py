"""Onlookers when one shard of several cannot be read: they show the rest, and report the error."""

from __future__ import annotations

import json
import socketserver
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from prometheus_client import CollectorRegistry
from redis.crc import key_slot
from redis.exceptions import ResponseError

from djpyfs import conf, expire_objects, get_filesystem, inspection
from djpyfs.audit import Audit
from djpyfs.errors import RecordStoreError, RecordStoreUnavailable
from djpyfs.expirations import (
    Claim,
    State,
    Verdict,
)
from djpyfs.filesystem import ExpiringFS
from djpyfs.metrics import RecordStoreCollector
from tests.conftest import records_here
from tests.servers import HOST, RedisCluster, RedisServer, wait_for

NAMES = [f"{number}.png" for number in range(16)]
SHARD = 2
OTHERS = [b"{%02d}" % shard for shard in range(9)]


@pytest.fixture
def sharded(djfs: Callable[..., None], redis_server: RedisServer, prefix: str) -> ExpiringFS:
    """A filesystem with deadlines in each of four shards."""
    djfs(type="memory", redis_url=redis_server.url, key_prefix=prefix, shards=4)
    fs = get_filesystem("plots")
    fs.expire_many(NAMES, 600)
    return fs


@pytest.fixture
def prefix() -> str:
    return f"unreadable-{uuid.uuid4().hex}"


@pytest.fixture(params=["due", "claimed", "failed"])
def key(request: pytest.FixtureRequest, sharded: ExpiringFS, redis_server: RedisServer) -> str:
    """The key that somebody has replaced, of one shard."""
    return replaced(redis_server, SHARD, request.param)


def replaced(server: RedisServer, shard: int, name: str) -> str:
    """Replace a key of the records here by one of the wrong type; return its name."""
    key = f"{conf.current().key_prefix}:{{{shard:02}}}:{records_here().place}:{name}"
    with server.client() as client:
        client.set(key, "of the wrong type")
    return key


@pytest.fixture
def left(sharded: ExpiringFS) -> set[str]:
    """The files with their records in the other shards."""
    shard_of = records_here().shard_of
    left = {name for name in NAMES if shard_of(f"plots/{name}".encode()) != SHARD}
    assert 0 < len(left) < len(NAMES)
    return left


def run(*arguments: str) -> tuple[Any, str]:
    """Return what the command shows, and the error with which it ends."""
    out = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("djpyfs", *arguments, "--format", "json", stdout=out, stderr=StringIO())
    assert caught.value.returncode == 1
    return out.getvalue(), str(caught.value)


def names_the(key: str, told: str) -> bool:
    return f"shard {SHARD:02} " in told and key in told and "Delete that key" in told


def test_the_error_names_the_shard_the_key_and_the_cure(
    sharded: ExpiringFS, left: set[str], key: str
) -> None:
    lost = next(name for name in NAMES if name not in left)
    for act in records_here().counts, partial(sharded.expire, lost, 100):
        with pytest.raises(RecordStoreError) as caught:
            act()
        assert names_the(key, str(caught.value))


def test_status_counts_the_other_shards_and_ends_with_1(left: set[str], key: str) -> None:
    shown, told = run("status")
    assert json.loads(shown)["tracked"] == len(left)
    assert json.loads(shown)["unreadable"] == [told]
    assert names_the(key, told)


def test_ls_lists_the_other_shards_and_ends_with_1(left: set[str], key: str) -> None:
    for where in (), ("plots",):
        shown, told = run("ls", *where)
        assert {file["path"] for file in json.loads(shown)["files"]} == left
        assert names_the(key, told)


def test_a_dry_run_looks_at_the_other_shards_and_ends_with_1(
    sharded: ExpiringFS, left: set[str], key: str
) -> None:
    sharded.expire_many(left, 0)
    shown, told = run("sweep", "--dry-run")
    assert json.loads(shown)["files"] == len(left)
    assert names_the(key, told)


def test_an_audit_judges_the_files_of_the_other_shards_and_reports_the_broken_one(
    sharded: ExpiringFS, left: set[str], redis_server: RedisServer
) -> None:
    for name in NAMES:
        sharded.writebytes(name, b"picture")
    foreign = min(left)
    sharded.expire(foreign, expires=False)
    records_here().place_at(f"plots/{foreign}".encode(), 1)
    records_here().place_at(f"plots/{foreign}".encode(), 0)
    key = replaced(redis_server, SHARD, "due")
    shown, told = run("audit")
    first, second, totals = map(json.loads, shown.splitlines())
    assert first["kind"] == "not read"
    assert names_the(key, first["path"])
    assert (second["kind"], second["path"]) == ("no record", foreign)
    assert (totals["unreadable"], totals["no_record"], totals["no_file"]) == (1, 1, 0)
    assert "differences left: 2" in told
    run("audit", "--adopt", "600")
    assert sharded.expiration(foreign)


def test_files_set_aside_in_the_other_shards_are_listed_and_retried(
    sharded: ExpiringFS, left: set[str], redis_server: RedisServer
) -> None:
    key = replaced(redis_server, SHARD, "notes")
    for name in left:
        set_aside(f"plots/{name}".encode())
    shown, told = run("failed")
    assert {file["path"] for file in json.loads(shown)["files"]} == left
    assert names_the(key, told)
    with pytest.raises(RecordStoreError, match=f"shard {SHARD:02} "):
        inspection.retry("plots")
    assert {file.path for file in inspection.tracked_files("plots").files} == left
    assert inspection.files_set_aside().files == []


def set_aside(member: bytes) -> None:
    """Give up on a deletion, as a sweep does if the record is broken."""
    records = records_here()
    records.schedule([member], 0)
    claim = Claim(records.shard_of(member), records.claim_one(member).token)
    records.settle(claim, Verdict(broken=[(member, "broken")]))
    record = records.record(member)
    assert record is not None
    assert record.state is State.SET_ASIDE


def test_metrics_count_the_other_shards_and_the_one_that_cannot_be_read(
    left: set[str], key: str
) -> None:
    registry = CollectorRegistry()
    registry.register(RecordStoreCollector())
    assert registry.get_sample_value("djpyfs_files_tracked") == len(left)
    assert registry.get_sample_value("djpyfs_shards_unreadable") == 1
    assert registry.get_sample_value("djpyfs_deletions_total", {"outcome": "deleted"}) == 0


def test_totals_that_are_only_partly_known_are_left_out_of_the_metrics(
    sharded: ExpiringFS, prefix: str, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.set(f"{prefix}:{{01}}:totals", "of the wrong type")
    registry = CollectorRegistry()
    registry.register(RecordStoreCollector())
    assert registry.get_sample_value("djpyfs_files_tracked") == len(NAMES)
    assert registry.get_sample_value("djpyfs_deletions_total", {"outcome": "deleted"}) is None


def test_a_sweep_names_the_shard_and_the_key_in_its_log(
    sharded: ExpiringFS,
    left: set[str],
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sharded.expire_many(left, 0)
    key = replaced(redis_server, SHARD, "due")
    expire_objects()
    assert names_the(key, caplog.text)


def test_once_the_key_is_deleted_all_is_well(
    sharded: ExpiringFS, key: str, redis_server: RedisServer
) -> None:
    run("status")
    with redis_server.client() as client:
        client.delete(key)
    assert inspection.status().unreadable == []
    sharded.expire_many(NAMES, 600)
    assert inspection.status().tracked == len(NAMES)


def test_if_no_shard_can_be_read_there_is_only_the_error(
    sharded: ExpiringFS, redis_server: RedisServer
) -> None:
    for shard in range(4):
        replaced(redis_server, shard, "due")
    for look in inspection.status, partial(inspection.tracked_files, None), Audit().run:
        with pytest.raises(RecordStoreError, match="shard 00 cannot be used: its key"):
            look()


@pytest.mark.parametrize("name", ["places", "sweeps"])
def test_information_that_only_the_broken_shard_has_is_left_out(
    sharded: ExpiringFS, prefix: str, redis_server: RedisServer, name: str
) -> None:
    with redis_server.client() as client:
        key = f"{prefix}:{{00}}:{name}"
        client.delete(key)
        client.set(key, "of the wrong type")
    assert inspection.status().tracked == len(NAMES)


def test_a_shard_whose_master_is_away_is_named_and_the_others_are_counted(
    djfs: Callable[..., None], redis_cluster: RedisCluster
) -> None:
    djfs(type="memory", redis_url=redis_cluster.url, key_prefix="unreadable", shards=5)
    get_filesystem("plots").expire_many(NAMES, 600)
    lost = redis_cluster.master(b"{02}")
    shards = [number for number in range(5) if redis_cluster.master(b"{%02d}" % number) is lost]
    assert 0 not in shards  # which knows of the places
    shard_of = records_here().shard_of
    left = [name for name in NAMES if shard_of(f"plots/{name}".encode()) not in shards]
    lost.stop()
    try:
        found = inspection.status()
    finally:
        lost.start()
        wait_for(redis_cluster.is_whole, what="the Cluster")
    assert found.tracked == len(left)
    named = ", ".join(f"{shard:02}" for shard in shards)
    assert f"shard {named} cannot be used: its master" in found.unreadable[0]
    assert "Start it" in found.unreadable[0]


def test_a_shard_whose_slot_is_moving_stops_no_other_on_the_same_master(
    djfs: Callable[..., None], redis_cluster: RedisCluster
) -> None:
    djfs(type="memory", redis_url=redis_cluster.url, key_prefix="moving", shards=9)
    plots = get_filesystem("plots")
    shard_of = records_here().shard_of
    there = [name for name in NAMES if shard_of(f"plots/{name}".encode()) == SHARD]
    format_, slot = f"moving:{{{SHARD:02}}}:format", key_slot(f"{SHARD:02}".encode())
    owner = redis_cluster.master(b"{%02d}" % SHARD)
    other = next(it for it in map(redis_cluster.master, OTHERS) if it is not owner)
    with owner.client() as source, other.client() as target:
        ids = [client.cluster("myid") for client in (source, target)]

        def begin_to_move() -> bool:
            target.cluster("setslot", slot, "importing", ids[0])
            source.cluster("setslot", slot, "migrating", ids[1])
            source.migrate(HOST, other.port, format_, 0, 5_000, replace=True)
            with suppress(ResponseError):
                source.get(format_)
                return False
            return True

        def move_back() -> None:
            target.cluster("setslot", slot, "importing", ids[0])
            source.cluster("setslot", slot, "stable")
            target.migrate(HOST, owner.port, format_, 0, 5_000, replace=True)
            target.cluster("setslot", slot, "stable")

        def is_the_only_one_stopped() -> bool:
            move_back()
            for name in NAMES:
                plots.touch(name)
            plots.expire_many(NAMES, 0)
            return begin_to_move() and expire_objects().unreachable == 1

        try:
            # What the nodes tell each other may undo the beginning of a move at any moment.
            wait_for(is_the_only_one_stopped)
            assert sorted(plots.listdir("/")) == sorted(there)
            with pytest.raises(RecordStoreUnavailable, match="02 cannot be used while its slot"):
                plots.expire(there[0], 1)
        finally:
            move_back()
    assert expire_objects().deleted == len(there)


class Silent(socketserver.BaseRequestHandler):
    """Never answers; counts the connections."""

    server: Any

    def handle(self) -> None:
        self.server.asked += 1
        while self.request.recv(65_536):
            pass


def test_the_count_of_a_redis_that_never_answers_ends_with_the_first_request(
    djfs: Callable[..., None], tmp_path: Path
) -> None:
    with socketserver.ThreadingTCPServer((HOST, 0), Silent) as server:
        server.asked, server.daemon_threads = 0, True  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"redis://{HOST}:{server.server_address[1]}/0?socket_timeout=0.2"
        djfs(type="osfs", directory_root=tmp_path, redis_url=address)

        def asked(call: Callable[[], object]) -> int:
            before = server.asked  # type: ignore[attr-defined]
            with pytest.raises(RecordStoreUnavailable):
                call()
            return server.asked - before  # type: ignore[attr-defined,no-any-return]

        once = asked(lambda: get_filesystem("plots").expiration("a.png"))
        assert asked(inspection.status) == once
        server.shutdown()
