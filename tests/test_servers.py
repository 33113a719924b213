"""How Redis is reached: one server, behind Sentinels, or as a Cluster."""

from __future__ import annotations

import signal
import socket
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from django.core.checks import run_checks

from djpyfs import ConfigurationError, RecordStoreUnavailable, conf
from djpyfs.conf import SECOND
from djpyfs.errors import RecordStoreError
from djpyfs.expirations import (
    Backoff,
    Claim,
    Expirations,
    Verdict,
    store_for,
)
from djpyfs.expirations.redis_store import RedisStore
from djpyfs.expirations.servers import address_of
from tests.servers import (
    HOST,
    RedisCluster,
    RedisServer,
    SentinelSet,
    free_port,
    running_redis,
    wait_for,
)

SECRET = "hush"
LEASE = 30 * SECOND


@pytest.fixture
def store_at(djfs: Callable[..., None]) -> Callable[..., Expirations]:
    def made(url: str, **djfs_: Any) -> Expirations:
        djfs(type="memory", redis_url=url, **djfs_)
        return store_for(conf.current()).at("here", LEASE)

    return made


# -- addresses

THREE = [("a", 26379), ("b", 1), ("c", 2)]
FORMS: list[tuple[str, list[tuple[str, int]], str, dict[str, Any]]] = [
    ("redis+sentinel://a,b:1,c:2/main/", THREE, "main", {}),
    ("redis+sentinel://a,b:1,c:2/main/5", THREE, "main", {"db": 5}),
    ("redis+sentinel://a,b:1,c:2/5?master_name=main", THREE, "main", {"db": 5}),
    ("redis+sentinel://me:h%2Fsh@a,b:1,c:2/main", THREE, "main", {"password": "h/sh"}),
    ("sentinel://a/5;sentinel://b:1;sentinel://c:2?master_name=main", THREE, "main", {"db": 5}),
    ("sentinel://:x@a?master_name=main;sentinel://:x@b:1/5;c:2", THREE, "main", {"password": "x"}),
    ("sentinel://[::1]:3/0?master_name=main", [("::1", 3)], "main", {}),
    ("redis+cluster://a:3,[::1]", [("a", 3), ("::1", 6379)], "", {}),
    ("redis+cluster://me:x@a:3/0", [("a", 3)], "", {"username": "me", "password": "x"}),
    ("rediss+cluster://a:3?ssl_ca_certs=/ca", [("a", 3)], "", {"ssl_ca_certs": "/ca"}),
    ("unix:///run/redis.sock", [("localhost", 6379)], "", {"path": "/run/redis.sock"}),
]


@pytest.mark.parametrize(("url", "hosts", "master", "options"), FORMS, ids=[f[0] for f in FORMS])
def test_an_address_says_where_and_how(
    url: str, hosts: list[tuple[str, int]], master: str, options: dict[str, Any]
) -> None:
    address = address_of(url)
    assert (list(address.hosts), address.master_name) == (hosts, master)
    assert address.options.items() >= options.items()
    assert address.tls == url.startswith("rediss")


def test_sentinels_may_have_a_password_of_their_own() -> None:
    address = address_of("redis+sentinel://:x@a/main?sentinel_username=s&sentinel_password=y")
    assert address.options["password"] == "x"
    assert address.guide_options == {"username": "s", "password": "y"}


WRONG = [
    (f"redis://:{SECRET}/1@127.0.0.1:6379/0", "%2F"),
    (f"redis+cluster://:{SECRET}/1@127.0.0.1:1", "%2F"),
    (f"redis://:{SECRET}@a..b:6379", "hosts"),
    (f"redis+sentinel://:{SECRET}@a:b/main", "ports"),
    (f"redis+cluster://:{SECRET}@,", "ports"),
    (f"redis+cluster://:{SECRET}@a/main", "ports"),
    (f"redis+sentinel://:{SECRET}@a/main/other", "ports"),
    (f"redis+cluster://:{SECRET}@a?no_such_option=1", "options"),
    (f"redis+sentinel://:{SECRET}@a,b/0", "master_name"),
    (f"redis+cluster://:{SECRET}@a/3", "database"),
    (f"redis+clusters://:{SECRET}@a", "unknown scheme.*rediss.cluster://"),
]


@pytest.mark.parametrize(("url", "cure"), WRONG, ids=[cure for _, cure in WRONG])
def test_a_wrong_url_is_reported_without_the_password(
    store_at: Callable[..., Expirations], url: str, cure: str
) -> None:
    with pytest.raises(ConfigurationError, match=cure) as raised:
        store_at(url)
    assert SECRET not in "".join(traceback.format_exception(raised.value))


# -- servers that are away

FORMS_AWAY = [
    "redis+sentinel://:{s}@{h}:{p},{h}:{p}/main?sentinel_password={s}",
    "redis+cluster://:{s}@{h}:{p},{h}:{p}",
]


def test_an_outage_is_one_error_in_time_and_without_the_password(
    store_at: Callable[..., Expirations],
) -> None:
    with socket.socket() as refuses, socket.socket() as hangs, ThreadPoolExecutor(64) as at_once:
        for server in refuses, hangs:
            server.bind((HOST, 0))
        hangs.listen()
        ports = [server.getsockname()[1] for server in (refuses, hangs)]
        stores = [
            store_at(form.format(s=SECRET, h=HOST, p=p)) for form in FORMS_AWAY for p in ports
        ]
        start = time.monotonic()
        tries = [at_once.submit(store.schedule, [b"n/a"], SECOND) for store in stores * 15]
        errors = [tried.exception() for tried in tries]
        assert time.monotonic() - start < 20  # on a machine that is busy; it is 5 s for one call
    for error in errors:
        assert isinstance(error, RecordStoreUnavailable)
        assert SECRET not in "".join(traceback.format_exception(error))
    assert SECRET not in repr(conf.current())


def test_a_node_of_a_cluster_is_not_taken_for_a_single_server(
    store_at: Callable[..., Expirations], redis_cluster: RedisCluster
) -> None:
    node = next(node for node in redis_cluster.nodes if node not in redis_cluster.masters())
    with pytest.raises(RecordStoreError, match=r"redis\+cluster://"):
        store_at(node.url).schedule([b"n/a"], SECOND)


def test_a_single_server_is_not_taken_for_a_cluster(
    store_at: Callable[..., Expirations], redis_server: RedisServer
) -> None:
    url = redis_server.url.replace("redis://", "redis+cluster://")
    with pytest.raises(RecordStoreError, match="cluster support disabled"):
        store_at(url).schedule([b"n/a"], SECOND)


def test_one_node_of_a_cluster_leads_to_the_others(
    store_at: Callable[..., Expirations], redis_cluster: RedisCluster
) -> None:
    url = f"redis+cluster://{HOST}:{free_port()},{HOST}:{redis_cluster.nodes[5].port}"
    store = store_at(url, key_prefix="leads", shards=9)
    members = [b"n/%d" % number for number in range(100)]
    store.schedule(members, SECOND)
    assert store.counts().tracked == 100
    owners = {redis_cluster.master(b"{%02d}" % shard).port for shard in store.shards}
    assert len(owners) == 3


def test_a_slot_that_moves_is_followed(
    store_at: Callable[..., Expirations], redis_cluster: RedisCluster
) -> None:
    store = store_at(redis_cluster.url, key_prefix="moving")
    deadline = store.schedule([b"n/a"], 100 * SECOND)
    say, key = redis_cluster.say, b"moving:{00}:here:due"
    source = redis_cluster.master(key)
    target = next(node for node in redis_cluster.masters() if node is not source)
    with source.client() as client:
        slot = client.execute_command("CLUSTER KEYSLOT", key)
    for giver, taker in (source, target), (target, source):
        names = [say(node, "MYID").decode() for node in (giver, taker)]
        say(taker, "SETSLOT", slot, "IMPORTING", names[0])
        say(giver, "SETSLOT", slot, "MIGRATING", names[1])
        with giver.client() as client:
            keys = say(giver, "GETKEYSINSLOT", slot, 1_000)
            client.execute_command("MIGRATE", HOST, taker.port, "", 0, 5_000, "KEYS", *keys)
        for node in (taker, giver):
            say(node, "SETSLOT", slot, "NODE", names[1])
        assert store.deadline(b"n/a")[1] == deadline
        assert store.counts().tracked == 1


def test_a_replica_that_takes_over_is_followed(
    store_at: Callable[..., Expirations], redis_cluster: RedisCluster
) -> None:
    store = store_at(redis_cluster.url, key_prefix="following", wait_replicas=1)
    key = b"following:{00}:here:due"
    deadline = store.schedule([b"n/a"], 100 * SECOND)
    old = redis_cluster.master(key)
    redis_cluster.hand_over(key)
    redis_cluster.take_back(old)  # who is to confirm what follows
    assert store.schedule([b"n/a"], 200 * SECOND) > deadline
    assert store.deadline(b"n/a")[1] > deadline


@pytest.mark.parametrize("kind", ["sentinels", "redis_cluster"])
def test_the_rate_of_deletions_is_kept_by_the_master_that_takes_over(
    djfs: Callable[..., None], request: pytest.FixtureRequest, kind: str
) -> None:
    servers: RedisCluster | SentinelSet = request.getfixturevalue(kind)
    djfs(type="memory", redis_url=servers.url, key_prefix="paced")
    here, there = store_for(conf.current()), RedisStore(servers.url, "paced", 1)
    paces = [store.pace("here", 200) for store in (here, there)]
    paces[0].slow_down()
    assert [pace.rate() for pace in paces] == [100, 100]
    assert [pace.share(1_000) for pace in paces] == [10, 10]
    key = b"paced:{00}:pace"
    old = servers.master(key)
    with old.client() as client:
        client.set(key, "written after the counts")
        assert client.wait(1, 5_000) == 1
    servers.hand_over(key)
    servers.take_back(old)
    assert [store.pace("here", 200).rate() for store in (here, there)] == [100, 100]
    assert wait_for(lambda: paces[0].share(1_000)) == 10
    assert wait_for(lambda: paces[1].share(1_000)) == 10


def test_no_time_is_lost_on_more_than_one_connection_to_a_master_that_froze(
    store_at: Callable[..., Expirations], sentinels: SentinelSet
) -> None:
    store = store_at(sentinels.url, key_prefix="frozen")
    store.schedule([b"n/a"], SECOND)
    frozen = sentinels.master()
    with frozen.client() as client, ThreadPoolExecutor(9) as at_once:  # a connection for each
        client.client_pause(500)
        list(at_once.map(lambda _: store.schedule([b"n/a"], SECOND), range(9)))
    frozen.send(signal.SIGSTOP)
    try:
        sentinels.hand_over()
        assert store.schedule([b"n/a"], SECOND)
    finally:
        frozen.send(signal.SIGCONT)
        sentinels.take_back(frozen)


def test_scripts_that_the_nodes_have_forgotten_are_loaded_again(
    store_at: Callable[..., Expirations], redis_cluster: RedisCluster
) -> None:
    store = store_at(redis_cluster.url, key_prefix="forgotten", shards=6)
    members = [b"n/%d" % number for number in range(50)]
    for _ in range(2):
        store.schedule(members, 0)
        for node in redis_cluster.masters():
            with node.client() as client:
                client.script_flush()
    assert store.counts().overdue == 50


# -- replicas that confirm


def test_a_change_that_no_replica_confirms_is_an_error_and_so_is_a_claim(
    store_at: Callable[..., Expirations], redis_server: RedisServer
) -> None:
    unconfirmed = store_at(redis_server.url, key_prefix="confirm")
    confirmed = store_at(redis_server.url, key_prefix="confirm", wait_replicas=1)
    member = b"n/a"
    verbs: list[Callable[[], Any]] = [
        lambda: confirmed.schedule([member], 0),
        lambda: confirmed.claim(0, 1),
        lambda: confirmed.claim_one(member),
        lambda: confirmed.settle(Claim(0, 1), Verdict(), limit=1),
    ]
    for verb in verbs:
        with pytest.raises(RecordStoreUnavailable, match=r"only 0 of the 1 replicas.*try again"):
            verb()
        counts = confirmed.counts()  # what only reads needs nobody to confirm it
        assert (counts.overdue, counts.claimed) == (1, 0), "nobody is at what was not confirmed"
    unconfirmed.backoff = Backoff(1)
    assert unconfirmed.claim(0, 9).members == [member]


def test_a_master_that_wants_replicas_and_has_none_is_away(
    store_at: Callable[..., Expirations],
) -> None:
    with running_redis(**{"min-replicas-to-write": "1"}) as server:
        store = store_at(server.url)
        with pytest.raises(RecordStoreUnavailable, match="NOREPLICAS"):
            store.schedule([b"n/a"], SECOND)


# -- Celery


def test_behind_sentinels_celery_finds_its_queues_and_results_too(
    djfs: Callable[..., None], sentinels: SentinelSet
) -> None:
    from djpyfs_tasks.celery import make_app

    hosts = [("127.0.0.1", sentinel.port) for sentinel in sentinels.sentinels]
    djfs(type="memory", redis_url=sentinels.url.replace("/0", "/7"))
    app = make_app()
    app.send_task("djpyfs_tasks.expire_objects")
    backend: Any = app.backend
    backend.client.set("result", 5)
    assert app.conf.broker_url == ";".join(f"sentinel://{host}:{port}/7" for host, port in hosts)
    with redis.Redis(host=HOST, port=sentinels.master().port, db=7) as client:
        assert client.llen("djpyfs.sweep") == 1
        assert client.get("result") == b"5"
        client.flushdb()
    app.close()


def test_celery_takes_the_passwords_along(djfs: Callable[..., None]) -> None:
    from djpyfs_tasks.celery import make_app

    djfs(type="memory", redis_url="rediss+sentinel://me:h%2Fsh@a,[::1]:1/main?sentinel_password=y")
    app_conf = make_app().conf
    assert app_conf.broker_url == "sentinel://me:h%2Fsh@a:26379/0;sentinel://me:h%2Fsh@[::1]:1/0"
    assert app_conf.result_backend == app_conf.broker_url
    assert app_conf.broker_transport_options["master_name"] == "main"
    assert app_conf.broker_transport_options["sentinel_kwargs"]["password"] == "y"
    assert app_conf.broker_use_ssl == {"ssl_cert_reqs": "required"}


def test_with_a_cluster_celery_needs_another_broker(
    djfs: Callable[..., None], settings: Any
) -> None:
    from djpyfs_tasks import celery, checks  # noqa: F401

    djfs(type="memory", redis_url="redis+cluster://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="CELERY_BROKER_URL"):
        celery.make_app()
    assert "djpyfs.E005" in {message.id for message in run_checks()}

    settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    assert celery.make_app().conf.broker_url == "redis://127.0.0.1:1/0"
    assert "djpyfs.E005" not in {message.id for message in run_checks()}
