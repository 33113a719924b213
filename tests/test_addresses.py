"""Each form of ``redis_url``, for the records, the broker, the results and Flower."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from djpyfs import ConfigurationError, expire_objects, get_filesystem
from tests.servers import HOST, PATIENCE, RedisServer, wait_for
from tests.services import SWEEP, Service

MANY_OPTIONS = "?db=4&socket_timeout=3&protocol=3&health_check_interval=10&decode_responses=True"
FORMS = {  # and the database
    "redis://{host}": 0,
    "redis://{host}/4": 4,
    "redis://:@{host}/4": 4,
    "redis://{host}?db=4": 4,
    "redis://{host}/3?db=4": 4,
    "redis://{host}?socket_timeout=3": 0,
    "redis://{host}?socket_connect_timeout=3&socket_keepalive=True": 0,
    "redis://{host}?protocol=3": 0,
    "redis://{host}?health_check_interval=10": 0,
    "redis://{host}?decode_responses=True": 0,
    "redis://{host}?encoding=utf-16": 0,
    "redis://{host}?max_connections=20&client_name=site": 0,
    "unix://{socket}": 0,
    "unix://{socket}?db=4": 4,
    "unix://{socket}" + MANY_OPTIONS: 4,
    "redis://{host}" + MANY_OPTIONS: 4,
}


def at(form: str, server: RedisServer) -> str:
    socket = server.local_url.removeprefix("unix://")
    return form.format(host=f"{HOST}:{server.port}", socket=socket)


@pytest.mark.parametrize("form", FORMS)
def test_records_broker_and_results_take_the_same_forms_of_url(
    djfs: Callable[..., None], redis_server: RedisServer, form: str
) -> None:
    from djpyfs_tasks.celery import make_app

    prefix, url = f"test-{uuid.uuid4().hex}", at(form, redis_server)
    djfs(type="memory", redis_url=url, key_prefix=prefix)
    plots = get_filesystem("plots")
    plots.writebytes("overdue", b"")
    plots.expire("overdue", 0)
    assert expire_objects().deleted == 1
    with make_app() as app, app.connection_for_write() as broker:
        queue = broker.SimpleQueue(prefix)
        queue.put("a message")
        results: Any = app.backend
        results.client.set(f"{prefix}-result", "a result")
        with redis_server.client() as client:
            client.select(FORMS[form])
            assert client.llen(prefix) == 1
            assert client.get(f"{prefix}-result") == b"a result"
        assert queue.get(timeout=PATIENCE).payload == "a message"


@pytest.mark.parametrize("form", [form for form in FORMS if form.endswith(MANY_OPTIONS)])
def test_worker_beat_and_flower_run_with_such_a_url(
    djfs: Callable[..., None], redis_server: RedisServer, tmp_path: Path, form: str
) -> None:
    url = at(form, redis_server).replace("db=4", "db=6")
    service = Service(tmp_path, redis_server, redis_url=url)
    djfs(**service.djfs)
    files = get_filesystem("disk")
    with service.process("worker"), service.process("flower"):
        wait_for(service.flower_shows_a_worker, what="the worker in Flower")
        files.writebytes("swept", b"")
        files.expire("swept", 0)
        with service.process("beat"):
            wait_for(lambda: not files.exists("swept"), what="the sweep")
            wait_for(lambda: service.flower(f"tasks?taskname={SWEEP}&state=SUCCESS"))
        assert service.flower("queues/length")["active_queues"]
    service.close()


def test_an_option_of_another_kind_of_pool_is_refused(djfs: Callable[..., None]) -> None:
    djfs(type="memory", redis_url="redis://127.0.0.1:1?timeout=5")
    with pytest.raises(ConfigurationError, match="look at its hosts, ports, database and options"):
        get_filesystem("plots")
