"""The user of docker-compose.yml's Redis: what the service needs, on its own keys, and no more."""

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
from redis.exceptions import NoPermissionError

from djpyfs import RecordStoreUnavailable, get_filesystem
from tests.servers import HOST, RedisServer, free_port, installed, wait_for
from tests.services import Service, run_client
from tests.test_compose import SERVICES, filled_in

ADMIN = ["--user", "admin", "on", ">admin", "~*", "&*", "+@all"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis with the users of docker-compose.yml, and one that may look."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), appendonly="yes")
    command = SERVICES["redis"]["command"]
    server.arguments += map(filled_in, command[command.index("--user") :])
    server.arguments += ADMIN
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def url(server: RedisServer) -> str:
    wanted = filled_in(SERVICES["worker"]["environment"]["DJFS_REDIS_URL"])
    return wanted.replace("@redis:6379", f"@{HOST}:{server.port}")


@pytest.fixture
def denied(server: RedisServer) -> Iterator[Callable[[], list[str]]]:
    """What somebody was not allowed to do, since the test began."""
    client: Any = redis.Redis(host=HOST, port=server.port, username="admin", password="admin")
    with contextlib.closing(client):
        client.acl_log_reset()
        yield lambda: [f"{entry['reason']} {entry['object']}" for entry in client.acl_log()]


CLIENT = """
from djpyfs import RecordStoreUnavailable, get_filesystem
fs = get_filesystem("disk")
for name, seconds in ("one-shot", 1), ("swept", 0):
    fs.writebytes(name, b"")
    fs.expire(name, seconds=seconds)
"""


def test_the_whole_service_runs_with_it(
    server: RedisServer, url: str, tmp_path: Path, denied: Callable[[], list[str]]
) -> None:
    service = Service(tmp_path, server, redis_url=url)
    files = tmp_path / "files" / "disk"
    with service.process("worker"), service.process("flower"), service.process("beat"):
        run_client(CLIENT, service.environ(one_shot=True))
        wait_for(lambda: not list(files.iterdir()) or denied(), 60, "both deletions")
        wait_for(lambda: any(answering(service)) or denied(), 30, "the worker in Flower")
        ping = "from djpyfs_tasks import app; print(app.control.inspect(timeout=5).ping())"
        assert "pong" in run_client(ping, service.environ())  # as the container's health check does
    service.close()
    assert denied() == []
    for name in "worker", "flower":
        assert "secret" not in service.log(name).read_text()


def answering(service: Service) -> list[Any]:
    with contextlib.suppress(OSError):
        return list(service.flower("workers?status=true").values())
    return []


def test_every_check_and_command_works_with_it(
    url: str, djfs: Callable[..., None], tmp_path: Path, denied: Callable[[], list[str]]
) -> None:
    djfs(type="osfs", directory_root=tmp_path, redis_url=url, shards=1)
    get_filesystem("plots").writebytes("a", b"")
    ids = {message.id for message in run_checks(include_deployment_checks=True)}
    assert not {id_ for id_ in ids if id_ and id_.startswith("djpyfs")}
    assert denied() == []


def test_it_can_touch_nothing_else(url: str) -> None:
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


def test_nobody_comes_in_without_the_password(server: RedisServer) -> None:
    with contextlib.closing(server.client()) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


# -- TLS


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis that talks TLS alone, under a certificate of its own."""
    here, port = tmp_path_factory.mktemp("tls"), str(free_port())
    make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    out = ["-addext", f"subjectAltName=IP:{HOST}", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([installed("openssl"), *make, *out], cwd=here, check=True, capture_output=True)
    files = {"tls-cert-file": f"{here}/cert.pem", "tls-key-file": f"{here}/key.pem"}
    options = {**files, "tls-ca-cert-file": f"{here}/cert.pem", "tls-auth-clients": "no"}
    server = RedisServer(here, **{"port": "0", "tls-port": port, **options})
    server.port = int(port)
    server.start()
    yield f"rediss://{HOST}:{port}/0?ssl_ca_certs={here}/cert.pem"
    server.stop()


def test_the_service_runs_over_tls(encrypted: str, tmp_path: Path, server: RedisServer) -> None:
    service = Service(tmp_path, server, redis_url=encrypted)
    files = tmp_path / "files" / "disk"
    with service.process("worker"), service.process("beat"):
        run_client(CLIENT, service.environ(one_shot=True))
        wait_for(lambda: not list(files.iterdir()), 60, "both deletions")
    service.close()


def test_a_certificate_that_nobody_trusts_is_refused(
    encrypted: str, djfs: Callable[..., None]
) -> None:
    djfs(type="memory", redis_url=encrypted.partition("?")[0])
    with pytest.raises(RecordStoreUnavailable, match="certificate verify failed"):
        get_filesystem("plots").expire("a", 5)


def test_flower_lets_nobody_in_without_the_password(
    server: RedisServer, url: str, tmp_path: Path
) -> None:
    service = Service(tmp_path, server, redis_url=url)
    site = f"http://{HOST}:{service.flower_port}"

    def status(path: str, **headers: str) -> int:
        try:
            with urlopen(Request(site + path, headers=headers), timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0  # not there yet

    locked = {"FLOWER_BASIC_AUTH": "admin:secret", "FLOWER_UNAUTHENTICATED_API": "false"}
    with service.process("flower", **locked):
        wait_for(lambda: status("/healthcheck") == 200, 60, "Flower")
        paths = ["/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"]
        assert {path: status(path) for path in paths} == dict.fromkeys(paths, 401)
        key = b64encode(b"admin:secret").decode()
        assert status("/workers", Authorization=f"Basic {key}") == 200
        assert status("/workers", Authorization=f"Basic {key[:-4]}") == 401
    service.close()
