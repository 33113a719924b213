"""Django's system checks: they report at the start what cannot work.

Each message has a stable id, so that a project can silence it with SILENCED_SYSTEM_CHECKS.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain, combinations
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from . import conf, cors, links, owners
from .backends import Backend, backend_at, foreign_keys
from .conf import Settings
from .errors import ConfigurationError, RecordStoreError
from .expirations import Spread, store_for
from .phrases import counted


@register("djpyfs")
def check_settings(**_: Any) -> list[CheckMessage]:
    """Report what is wrong with ``DJFS``, without connecting to anything."""
    try:
        settings = conf.current()
        store_for(settings)
        backends = _backends(settings)
    except ConfigurationError as error:
        return [Error(str(error), obj="settings.DJFS", id="djpyfs.E001")]
    own = [message for backend in backends for message in backend.checks()]
    others = (
        _foreign(settings),
        _one_shots(settings),
        _overlaps(backends),
        _metrics(settings),
        _lifetimes(settings),
    )
    return [*own, *chain.from_iterable(others)]


@register(Tags.security, deploy=True)
def check_record_store(**_: Any) -> list[CheckMessage]:
    """Ask the record store whether it can be relied on, with ``check --deploy``."""
    if any(isinstance(message, Error) for message in check_settings()):
        return []  # there is nothing to ask
    settings = conf.current()
    store = store_for(settings)
    try:
        store.totals()  # which is kept in each shard
        durable, spread = store.keeps_each_change(), store.spread()
    except RecordStoreError as error:
        hint = "Start it, or correct DJFS['redis_url']."
        return [Error(str(error), hint=hint, obj="settings.DJFS", id="djpyfs.E003")]
    except ConfigurationError as error:
        return [Error(str(error), obj="settings.DJFS", id="djpyfs.E004")]
    return [
        *_durability(durable),
        *_shards(settings, spread),
        *_alone(settings, _backends(settings)),
    ]


@register(Tags.security, deploy=True)
def check_places(**_: Any) -> list[CheckMessage]:
    """Ask the backends whether files can be kept there, with ``check --deploy``."""
    if any(isinstance(message, Error) for message in check_settings()):
        return []
    settings = conf.current()
    told = [message for backend in _backends(settings) for message in backend.deploy_checks()]
    return [*told, *_signed_links(settings), *_cors()]


def _backends(settings: Settings) -> list[Backend]:
    return [backend_at(settings, placement) for placement in settings.placements]


def _foreign(settings: Settings) -> Iterator[CheckMessage]:
    if foreign := foreign_keys(settings):
        yield Warning(
            f"DJFS has keys that mean nothing to djpyfs: {', '.join(map(repr, foreign))}",
            hint="Leave them out, or keep them in a setting of their own.",
            obj="settings.DJFS",
            id="djpyfs.W008",
        )


def _one_shots(settings: Settings) -> Iterator[CheckMessage]:
    if settings.one_shot and not apps.is_installed("djpyfs_tasks"):
        yield Warning(
            "DJFS['one_shot'] is on, but nothing sends one-shots",
            hint="Add 'djpyfs_tasks' to INSTALLED_APPS, or leave the files to the sweep.",
            obj="settings.DJFS",
            id="djpyfs.W001",
        )


def _signed_links(settings: Settings) -> Iterator[CheckMessage]:
    policies = [settings.policy, *settings.namespaces.values()]
    if any(policy.signed_urls for policy in policies) and not links.is_included():
        yield Error(
            "DJFS['signed_urls'] is on, but nothing answers signed links",
            hint="Put path('links/', include('djpyfs.urls')) into the project's URLs.",
            obj="settings.DJFS",
            id="djpyfs.E009",
        )


def _cors() -> Iterator[CheckMessage]:
    for wanted in cors.plan():
        found = wanted.compare() if wanted.origins else None
        if found and (found.missing or found.problem):
            shut_out = f"{found.bucket} refuses files from pages of {', '.join(found.missing)}"
            unreadable = f"the CORS rules of {found.bucket} cannot be read: {found.problem}"
            yield Warning(
                unreadable if found.problem else shut_out,
                hint="Give the credentials the right s3:GetBucketCORS."
                if found.problem
                else "Run 'manage.py djpyfs cors --apply'.",
                obj="settings.DJFS",
                id="djpyfs.W010",
            )


def _overlaps(backends: list[Backend]) -> Iterator[CheckMessage]:
    roots = sorted({root.rstrip("/") for backend in backends for root in backend.roots()})
    for outer, inner in combinations(roots, 2):
        if inner.startswith(f"{outer}/"):
            yield Warning(
                f"{inner!r} lies within {outer!r}: two namespaces may write into the same place",
                hint="Give them roots of which neither contains the other.",
                obj="settings.DJFS",
                id="djpyfs.W003",
            )


def _metrics(settings: Settings) -> Iterator[CheckMessage]:
    if settings.metrics and not find_spec("prometheus_client"):
        yield Warning(
            "DJFS['metrics'] is on, but prometheus_client is not installed",
            hint="pip install djpyfs[metrics]",
            obj="settings.DJFS",
            id="djpyfs.W007",
        )


def _lifetimes(settings: Settings) -> Iterator[CheckMessage]:
    for field, error in owners.misfits(settings):
        yield Error(
            f"the storage of this field cannot save a file: {error}",
            hint="Correct the lifetimes of the storage, or DJFS.",
            obj=field,
            id="djpyfs.E010",
        )


def _durability(durable: bool) -> Iterator[CheckMessage]:
    if not durable:
        yield Warning(
            "the record store does not keep each change on disk: after a restart files whose "
            "records are lost stay forever, and files whose old deadlines come back may go early",
            hint="Switch on Redis' append-only file: appendonly yes.",
            obj="settings.DJFS",
            id="djpyfs.W004",
        )


def _shards(settings: Settings, spread: Spread) -> Iterator[CheckMessage]:
    if spread.moving:
        yield Warning(
            f"the records are on their way from {spread.shards} to {spread.soon} shards",
            hint=f"Call 'manage.py djpyfs reshard {spread.soon}', which finishes that.",
            obj="settings.DJFS",
            id="djpyfs.W011",
        )
    elif settings.shards != spread.shards and not settings.redis_url.startswith("memory://"):
        yield Warning(
            f"DJFS['shards'] is {settings.shards}, but the records are spread over "
            f"{counted(spread.shards, 'shard')}, and stay there",
            hint=f"Set it to {spread.shards}, or call "
            f"'manage.py djpyfs reshard {settings.shards}'.",
            obj="settings.DJFS",
            id="djpyfs.W012",
        )


def _alone(settings: Settings, backends: list[Backend]) -> Iterator[CheckMessage]:
    in_process = [type(backend).__name__ for backend in backends if not backend.shared]
    if settings.redis_url.startswith("memory://"):
        in_process.append("redis_url")
    if in_process:
        yield Warning(
            f"{', '.join(in_process)} keeps things in this process, where no worker finds them",
            hint="Use osfs or s3fs, and Redis.",
            obj="settings.DJFS",
            id="djpyfs.W005",
        )
