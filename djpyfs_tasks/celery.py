"""The bundled Celery app, for sites that have none; Django's ``CELERY_*`` settings override it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from celery import Celery
from django.conf import settings
from kombu import Queue

from djpyfs import conf
from djpyfs.errors import ConfigurationError
from djpyfs.expirations.servers import Address, address_of

from . import timekeeper
from .schedule import beat_schedule

# A broker that is away must not hold up the web request that sends it a one-shot, and a result
# backend that is away must not hold up a sweep.
BROKER_TIMEOUT = 2  # s
FEW_RETRIES = {"retry_policy": {"max_retries": 1}}
# Not in the address: Flower reads nothing about TLS from it. Another broker needs none of this.
USE_TLS = {
    "CELERY_BROKER_URL": "broker_use_ssl",
    "CELERY_RESULT_BACKEND": "redis_backend_use_ssl",
}
NO_BROKER = (
    "DJFS['redis_url'] is a Redis Cluster, which cannot hold Celery's queues: "
    "set CELERY_BROKER_URL to another broker (and CELERY_RESULT_BACKEND, to keep results)"
)


def make_app() -> Celery:
    """Return an app whose broker and result store are ``DJFS["redis_url"]``.

    Raises `ConfigurationError` if that is a Redis Cluster, and the settings name no broker.
    """
    made = Celery("djpyfs", include=["djpyfs_tasks.tasks"])
    made.config_from_object("django.conf:settings", namespace="CELERY")
    # Celery ranks what an app brings along above the settings that it reads.
    left_to_us = {
        key: value
        for key, value in _configuration().items()
        if not hasattr(settings, f"CELERY_{key.upper()}")
    }
    made.add_defaults(lambda: left_to_us)
    return made


def _configuration() -> dict[str, Any]:
    # Two sites on one Redis are told apart by the prefix: neither takes the other's tasks.
    prefix = conf.current().key_prefix
    sweeps, one_shots = f"{prefix}.sweep", f"{prefix}.one_shot"
    return {
        # One-shots wait in worker memory for their time; sweeps must not wait behind them.
        "task_routes": {
            "djpyfs_tasks.expire_objects": {"queue": sweeps},
            "djpyfs_tasks.help_sweep": {"queue": sweeps},
            "djpyfs_tasks.delete_expired": {"queue": one_shots},
        },
        "task_queues": [Queue(sweeps), Queue(one_shots)],  # a worker takes both unless it has -Q
        "task_default_queue": sweeps,
        "worker_prefetch_multiplier": 1,  # else one-shots wait behind sweeps that wait as well
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_expires": 86_400,
        "result_backend_transport_options": FEW_RETRIES,
        "redis_socket_timeout": BROKER_TIMEOUT,  # of results
        "redis_socket_connect_timeout": BROKER_TIMEOUT,
        "result_extended": True,  # Flower shows arguments and worker of past sweeps
        "task_track_started": True,
        "worker_send_task_events": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": BROKER_TIMEOUT,
        "timezone": "UTC",
        "beat_schedule": beat_schedule(),
        **_broker(conf.current().redis_url),
    }


def _broker(redis_url: str) -> dict[str, Any]:
    """Return where the queues and the results are, in the form that Celery takes."""
    quickly = {"socket_timeout": BROKER_TIMEOUT}
    address = None if redis_url.startswith("memory://") else address_of(redis_url)
    if address and address.kind == "cluster":
        if not hasattr(settings, "CELERY_BROKER_URL"):
            raise ConfigurationError(NO_BROKER)
        return {"broker_transport_options": quickly}
    tls = _tls(address) if address else {}
    encrypted = {key: tls for url, key in USE_TLS.items() if tls and not hasattr(settings, url)}
    if address and address.kind == "sentinel":
        return {**_behind_sentinels(address, quickly, tls), **encrypted}
    url = _url(address) if address else redis_url
    results = url if address else "cache+memory://"
    return {
        "broker_url": url,
        "result_backend": results,
        "broker_transport_options": quickly,
        **encrypted,
    }


def _url(address: Address) -> str:
    """Return the URL of one server as Celery writes it.

    Its options apply to the records only: Celery and Flower take others than redis-py.
    """
    db, credentials = address.options.get("db", 0), _credentials(address.options)
    if path := address.options.get("path"):
        return f"redis+socket://{credentials}{quote(path)}?virtual_host={db}"
    [node] = map(_node, address.hosts)
    return f"{'rediss' if address.tls else 'redis'}://{credentials}{node}/{db}"


def _node(host: tuple[str, int]) -> str:
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _tls(address: Address) -> dict[str, Any]:
    """Have Celery check certificates unless the URL says otherwise, as redis-py does by itself."""
    if not address.tls:
        return {}
    options = {key: value for key, value in address.options.items() if key.startswith("ssl_")}
    return {"ssl_cert_reqs": "required", **options}


def _behind_sentinels(
    address: Address, quickly: dict[str, Any], tls: dict[str, Any]
) -> dict[str, Any]:
    sentinel = {**quickly, **tls, "ssl": address.tls, **address.guide_options}
    options = {**quickly, "master_name": address.master_name, "sentinel_kwargs": sentinel}
    db, credentials = address.options.get("db", 0), _credentials(address.options)
    nodes = map(_node, address.hosts)
    url = ";".join(f"sentinel://{credentials}{node}/{db}" for node in nodes)
    return {
        "broker_url": url,
        "result_backend": url,
        "broker_transport_options": options,
        "result_backend_transport_options": {**options, **FEW_RETRIES},
    }


def _credentials(options: Mapping[str, Any]) -> str:
    user, password = (quote(options.get(key, ""), safe="") for key in ("username", "password"))
    return f"{user}:{password}@" if user or password else ""


app = make_app()
timekeeper.listen()
