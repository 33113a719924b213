"""Leases that are kept alive while their holders work."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from djpyfs import conf, leases
from djpyfs.conf import SECOND
from djpyfs.expirations import Expirations, close_all, store_for
from djpyfs.leases import HeldLease
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, running_redis, wait_for

SHORT = SECOND
A, B = b"n/a", b"n/b"


@pytest.fixture
def store(djfs: Callable[..., None], records: dict[str, Any]) -> Expirations:
    djfs(type="memory", **records)
    return store_for(conf.current()).at("here", SHORT)


def write(store: Expirations, member: bytes = A, length: int = SHORT) -> HeldLease:
    """Begin a write to something overdue; return its lease."""
    store.schedule([member], 0)
    asked_at = leases.now()
    return leases.of_write(store, member, store.begin(member, length).token, length, asked_at)


def claimed(store: Expirations, **how: float) -> HeldLease:
    store.schedule([A], 0)
    asked_at = leases.now()
    return leases.of_claim(store, 0, store.claim_one(A).token, asked_at, **how)


@contextmanager
def kept(lease: HeldLease) -> Iterator[HeldLease]:
    """Keep a lease alive for as long as the block lasts."""
    leases.keep(lease)
    try:
        yield lease
    finally:
        leases.drop(lease)


def pause(seconds: float) -> None:
    end = leases.now() + seconds
    wait_for(lambda: leases.now() > end)


def test_a_lease_that_is_kept_outlasts_its_length_and_ends_soon_after_it_is_dropped(
    store: Expirations,
) -> None:
    with kept(write(store)) as lease:
        pause(3 * SHORT / SECOND)
        assert store.claim(0, 9).members == []
        assert lease.remaining() > 0
    wait_for(lambda: store.claim(0, 9).members == [A])


class Breaking:
    """Records whose every call raises an unforeseen error, as if the store had been closed."""

    def extend(self, *_: Any) -> None:
        raise AttributeError("'NoneType' object has no attribute 'readline'")


def test_trouble_with_one_lease_keeps_no_other_from_being_extended(
    store: Expirations, caplog: pytest.LogCaptureFixture
) -> None:
    broken: Any = Breaking()
    with kept(HeldLease(broken, 0, b"broken", SHORT, leases.now())):
        with kept(write(store)):
            pause(3 * SHORT / SECOND)
            assert store.claim(0, 9).members == []
        assert "leases were not extended" in caplog.text


def test_a_store_that_hangs_keeps_no_lease_elsewhere_from_being_extended(
    djfs: Callable[..., None], redis_server: RedisServer, records: dict[str, Any]
) -> None:
    proxy = Proxy(redis_server.port)
    djfs(type="memory", redis_url=proxy.url, key_prefix=uuid.uuid4().hex)
    hanging = write(store_for(conf.current()).at("here", SHORT))
    djfs(type="memory", **records)
    store = store_for(conf.current()).at("here", SHORT)
    with kept(hanging), kept(write(store)):
        proxy.silent = True
        pause(4 * SHORT / SECOND)
        assert hanging.remaining() <= 0
        assert store.claim(0, 9).members == []
    proxy.stop()
    close_all()


def test_leases_are_extended_while_no_thread_can_be_started(djfs: Callable[..., None]) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url, key_prefix=uuid.uuid4().hex)
        child = os.fork()  # where nobody else wants to start one
        if not child:
            signal.alarm(60)
            with kept(write(store_for(conf.current()).at("here", SHORT))) as lease:
                threading.stack_size(1 << 46)  # more than there is
                pause(3 * SHORT / SECOND)
                os._exit(lease.remaining() <= 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_leases_of_any_length_are_extended_in_time(store: Expirations) -> None:
    with kept(write(store, B, 3_600 * SECOND)):
        wait_for(lambda: leases._keeper._wakes_at < float("inf"))  # it sleeps for long
        with kept(write(store)):
            pause(2 * SHORT / SECOND)
            assert store.claim(0, 9).members == []


def test_a_claim_ends_here_before_it_ends_in_the_store(store: Expirations) -> None:
    def outlasts_itself_in_the_store() -> bool:
        lease = claimed(store)
        wait_for(lambda: lease.remaining() <= 0)
        return bool(store.counts().claimed)

    wait_for(outlasts_itself_in_the_store)  # this process may stand still between the two


def test_a_claim_leaves_some_time_for_requests_that_are_not_answered(
    store: Expirations,
) -> None:
    assert 0 < claimed(store, late=0.5).remaining() < SHORT / SECOND - 0.5


def test_a_claim_is_not_kept_for_longer_than_it_may_last(store: Expirations) -> None:
    with kept(claimed(store, longest=2 * SHORT / SECOND)) as lease:
        pause(1.5 * SHORT / SECOND)
        assert store.counts().claimed
        wait_for(lambda: not store.counts().claimed)
        assert lease.remaining() <= 0


def test_a_lease_that_the_store_does_not_know_any_more_is_over_here_too(
    store: Expirations,
) -> None:
    lease = write(store, length=10 * SECOND)
    with kept(lease):
        store.abandon(A, lease.name.partition(b"\0")[0].decode())
        assert lease.remaining() > 5
        wait_for(lambda: lease.remaining() <= 0)


def test_a_store_that_is_away_for_a_moment_ends_no_lease(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    proxy = Proxy(redis_server.port)
    djfs(type="memory", redis_url=proxy.url, key_prefix=uuid.uuid4().hex)
    store = store_for(conf.current()).at("here")
    with kept(write(store, length=2 * SECOND)) as lease:
        proxy.cuts = 6  # of three calls, each of which is tried twice
        wait_for(lambda: not proxy.cuts)
        pause(2.5)
        assert lease.remaining() > 0
        assert store.claim(0, 9).members == []
    close_all()
    proxy.stop()


def test_leases_of_one_shard_are_extended_in_one_round_trip(djfs: Callable[..., None]) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url, key_prefix=uuid.uuid4().hex)
        store = store_for(conf.current()).at("here")
        held = [write(store, b"n/%d" % number, 2 * SECOND) for number in range(50)]
        before = server.commands()
        for lease in held:
            leases.keep(lease)
        pause(3)
        asked = server.commands() - before
        for lease in held:
            leases.drop(lease)
        assert store.claim(0, 99).members == []
        assert asked < 50


def test_a_child_of_fork_keeps_leases_of_its_own(djfs: Callable[..., None]) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url, key_prefix=uuid.uuid4().hex)
        parents = write(store_for(conf.current()).at("here", SHORT))
        with kept(parents):
            child = os.fork()
            if not child:
                signal.alarm(60)
                own = store_for(conf.current()).at("here", SHORT)
                with kept(write(own, B)) as lease:
                    pause(3 * SHORT / SECOND)
                    os._exit(lease.remaining() <= 0 or parents.remaining() > 0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
