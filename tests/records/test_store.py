"""The record store as a whole: reports of sweeps, its form, its scripts, a server that is full."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest

from djpyfs import ConfigurationError, RecordStoreError, conf, expirations
from djpyfs.conf import SECOND
from djpyfs.expirations import Expirations, ExpirationStore, Verdict, store_for
from tests.records.steps import LEASE, MINUTE, A, B
from tests.servers import RedisServer, python, running_redis


def test_sweeps_are_listed_newest_first(all_records: ExpirationStore) -> None:
    before = time.time()
    for number in range(3):
        all_records.record_sweep(f"{number}", {"deleted": number})
    listed = all_records.sweeps(2)
    assert [report["deleted"] for report in listed] == [2, 1]
    assert all_records.sweeps(0) == []
    assert before - 1 < listed[0]["finished"] < time.time() + 1


def test_what_many_workers_did_in_one_sweep_is_one_report(all_records: ExpirationStore) -> None:
    def record(sweep: str, deleted: int, lag: float, remaining: int) -> Mapping[str, float]:
        report = {"deleted": deleted, "lag": lag, "remaining": remaining, "duration": 0.01}
        return all_records.record_sweep(sweep, report, {"swept": 1})

    before = all_records.totals().get("swept", 0)
    record("one", 1, 3.5, 9)
    record("another", 10, 1, 0)
    time.sleep(0.05)
    whole = record("one", 2, 2.5, 0)
    assert (whole["deleted"], whole["lag"], whole["remaining"]) == (3, 3.5, 0)
    assert 0.05 < whole["duration"] < 10, "from its beginning to its end"
    assert list(whole) == ["deleted", "lag", "remaining", "duration"], "as Flower shows it"
    listed = all_records.sweeps(10)
    assert [report["deleted"] for report in listed] == [3, 10]
    assert all_records.totals()["swept"] == before + 3


def test_processes_learn_from_the_records_over_how_many_shards_they_are_spread(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    own = {"redis_url": redis_server.url, "key_prefix": "agree"}
    names = [b"n/%d" % number for number in range(99)]
    djfs(type="memory", shards=2, **own)
    first = store_for(conf.current()).at("here")
    first.schedule(names, MINUTE)
    for shards in 1, 4:
        djfs(type="memory", shards=shards, **own)
        other = store_for(conf.current()).at("here")
        assert other.deadline(A)[1] == first.deadline(A)[1]
        other.schedule(names, 2 * MINUTE)
        assert other.deadlines(names)[1] == first.deadlines(names)[1]
        assert other.counts().tracked == len(names)
        assert list(other.shards) == [0, 1]
    assert store_for(conf.current()).spread() == (2, 2)


def test_records_of_another_form_are_left_alone(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="newer")
    with redis_server.client() as client:
        client.set("newer:{00}:format", "99 1")
    store = store_for(conf.current())
    here = store.at("here")
    for call in here.counts, lambda: here.schedule([A], 1), lambda: store.places():
        with pytest.raises(ConfigurationError, match="the form 99, and this djpyfs knows"):
            call()
    found, [problem] = store.waiting([here])
    assert found == []
    assert isinstance(problem, ConfigurationError)


def test_a_shard_whose_records_have_another_form_is_left_alone(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="mixed", shards=2)
    with redis_server.client() as client:
        client.set("mixed:{01}:format", "99 2")
    store = store_for(conf.current())
    here = store.at("here")
    with pytest.raises(ConfigurationError, match="the form 99, and this djpyfs knows"):
        here.schedule([b"n/%d" % number for number in range(99)], 0)
    _, [problem] = store.waiting([here])
    assert isinstance(problem, ConfigurationError)


def test_a_shard_that_cannot_be_asked_hides_no_other(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="wrong", shards=3)
    store = store_for(conf.current())
    here = store.at("here")
    here.schedule([b"n/%d" % number for number in range(99)], 0)
    with redis_server.client() as client:
        client.set("wrong:{01}:here:due", "no sorted set")
    found, [problem] = store.waiting([here])
    assert sorted(it.shard for it in found) == [0, 2]
    assert isinstance(problem, RecordStoreError)


def test_a_redis_that_evicts_keys_is_refused(djfs: Callable[..., None]) -> None:
    with running_redis(**{"maxmemory-policy": "allkeys-lru"}) as server:
        djfs(type="memory", redis_url=server.url)
        with pytest.raises(ConfigurationError, match="noeviction"):
            store_for(conf.current()).at("here").schedule([A], SECOND)


def test_scripts_that_redis_has_forgotten_are_loaded_again(
    redis_store: Expirations, redis_server: RedisServer
) -> None:
    for _ in range(2):
        redis_store.schedule([A], 0)
        redis_server.client().script_flush()
        claim = redis_store.claim(0, 1)
        redis_server.client().script_flush()
        assert redis_store.settle(claim, Verdict(done=[A]), limit=1).claim
        redis_server.client().script_flush()
        assert not redis_store.retry([A])


def test_scripts_that_redis_forgets_again_and_again_are_loaded_whatever_the_shard(
    djfs: Callable[..., None],
) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url, shards=4)
        store = store_for(conf.current()).at("here")
        for number in range(8):
            server.client().script_flush()
            store.schedule([f"n/{number}".encode()], 50 * SECOND)
        assert store.counts().tracked == 8


def test_a_full_redis_refuses_deadlines_and_lets_sweeps_and_begun_writes_through(
    djfs: Callable[..., None],
) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
        store = store_for(conf.current()).at("here")
        store.schedule([A, b"n/removed"], 0)
        write = store.begin(B, LEASE, MINUTE)
        server.client().config_set("maxmemory", "1")
        with pytest.raises(RecordStoreError, match="full"):
            store.schedule([B], 0)
        server.client().delete("djpyfs:{00}:format")
        expirations.close_all()  # as a worker that has just started
        store_for(conf.current()).introduce("here", "as writers do first")
        store = store_for(conf.current()).at("here")
        token = store.reserve(b"n/removed").token
        store.pledge(b"n/removed", token, 0)
        store.release(b"n/removed", token)
        found = store.claim(0, 10)
        store.settle(found, Verdict(done=[*found.members]))
        assert found.members == [A]
        assert store.finish(B, write, SECOND, MINUTE).by_default
        assert store.deadlines([A, b"n/removed"])[1] == [0, 0]


FORK = """
import os, signal, sys, threading
from django.conf import settings
settings.configure(DJFS={"type": "memory", "redis_url": "memory://"})
from djpyfs import conf
from djpyfs.expirations import store_for

inside, go_on = threading.Event(), threading.Event()

class Slow(list):
    def __iter__(self):
        inside.set()
        go_on.wait()
        return super().__iter__()

schedule = lambda: store_for(conf.current()).at("here").schedule(Slow([b"n/a"]), 1)
threading.Thread(target=schedule).start()
inside.wait()
child = os.fork()
if not child:
    signal.alarm(30)
    store_for(conf.current()).at("here").schedule([b"n/b"], 1)
    os._exit(0)
status = os.waitpid(child, 0)[1]
go_on.set()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_fork_in_the_midst_of_a_call_leaves_the_child_a_store_that_works() -> None:
    process = python(FORK)
    process.communicate(timeout=120)
    assert process.returncode == 0
