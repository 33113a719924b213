"""Leases of claims and writes: they last for as long as somebody extends them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from djpyfs import conf
from djpyfs.conf import SECOND
from djpyfs.expirations import Expirations, State, claim_lease, store_for, write_lease
from tests.records.steps import (
    AT_ONCE,
    LEASE,
    MINUTE,
    SHORT,
    A,
    At,
    claim,
    claim_later,
    deadline,
    due,
    lapses,
    now,
    settle,
    state,
)
from tests.servers import wait_for


def test_a_claim_lasts_for_as_long_as_its_lease_is_extended(at: At) -> None:
    store, dying = at(), at(lease=SECOND)
    [member] = due(store)
    shard, token = store.shard_of(member), claim(dying).token
    end = time.monotonic() + 2 * SHORT / SECOND
    assert store.extend(shard, {claim_lease(token): LEASE}) == []
    wait_for(lambda: time.monotonic() > end)
    assert claim(store).members == []
    assert store.extend(shard, {claim_lease(token): 1}) == []
    assert claim_later(store, AT_ONCE).members == [member]


def test_extend_says_which_leases_are_over(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    [member] = due(store)
    token, shard = claim(dying).token, store.shard_of(member)
    written = b"w/%d" % next(n for n in range(99) if store.shard_of(b"w/%d" % n) == shard)
    goes_on = write_lease(store.begin(written, LEASE).token, written)
    gone = [claim_lease(token), b"123", write_lease("abc", member)]
    lapses(store)
    leases = dict.fromkeys([*gone, goes_on], LEASE)
    assert sorted(store.extend(shard, leases)) == sorted(gone)
    assert state(store, member) == State.CLAIMED
    assert store.counts().claimed == 0


def test_a_new_write_is_like_any_other_once_its_lease_is_extended(at: At) -> None:
    store = at()
    write, shard = store.begin_new(A, SHORT), store.shard_of(A)
    lease = write_lease(write.token, A)
    assert store.extend(shard, {lease: LEASE}) == [lease], "it is none yet"
    assert store.extend(shard, {lease: LEASE}, [lease]) == []
    assert store.extend(shard, {lease: LEASE}, [lease]) == [], "where the first reply was lost"
    wait_for(lambda: now(store) > write.before)
    assert store.claim(shard, 9).members == []
    finished = store.finish(A, write, MINUTE, 100 * SECOND)
    assert finished == (deadline(store), True, True)
    assert store.extend(shard, {lease: LEASE}) == [lease]


def test_a_new_write_whose_record_was_claimed_no_longer_begins(at: At) -> None:
    store = at()
    write, shard = store.begin_new(A, 0), store.shard_of(A)
    token, lease = claim_later(store).token, write_lease(write.token, A)
    assert store.extend(shard, {lease: LEASE}, [lease]) == [lease]
    settle(store, A, token)
    finished = store.finish(A, write, MINUTE, 100 * SECOND)
    assert finished == (deadline(store), True, False), "its record is there again"


def test_nobody_can_have_deleted_what_was_never_due(store: Expirations) -> None:
    write = store.begin_new(A, 100 * SECOND)
    assert store.finish(A, write, MINUTE, 100 * SECOND).unbroken
    again = store.begin_new(A, 100 * SECOND)
    store.schedule([A], 200 * SECOND)
    assert not store.finish(A, again, MINUTE, 100 * SECOND).unbroken


def test_a_settled_claim_has_no_lease(store: Expirations) -> None:
    [member] = due(store)
    token = claim(store).token
    settle(store, member, token)
    lease = claim_lease(token)
    assert store.extend(store.shard_of(member), {lease: LEASE}) == [lease]


def test_a_claim_whose_lease_nobody_extends_is_over_even_if_the_clock_was_set_back(
    at: At,
) -> None:
    fenced: list[bytes] = []
    store, frozen = at(lease=SHORT, fence=fenced.append), at()
    [member] = due(store)
    lease, shard = claim_lease(claim(frozen).token), store.shard_of(member)
    frozen.extend(shard, {lease: 3_600 * SECOND})  # what is left after an hour back
    started = time.monotonic()
    renewed = store.schedule([member], 100 * SECOND)
    assert SHORT / SECOND / 2 < time.monotonic() - started < 30
    assert fenced == [member]
    assert store.extend(shard, {lease: LEASE}) == [lease], "a thawed process learns it"
    assert claim(store).members == []
    assert deadline(store, member) == renewed


def test_a_writer_waits_for_a_claim_whose_lease_is_extended_even_if_the_clock_was_set_back(
    redis_store: Expirations,
) -> None:
    redis_store.schedule([A], 0)
    token = redis_store.claim_one(A).token
    lease, left = claim_lease(token), iter(range(3_600, 0, -1))
    writer = store_for(conf.current()).at("here", SECOND)
    with ThreadPoolExecutor(1) as pool:
        redis_store.extend(0, {lease: next(left) * SECOND})
        writing = pool.submit(writer.schedule, [A], SECOND)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert redis_store.extend(0, {lease: next(left) * SECOND}) == []
            with pytest.raises(TimeoutError):
                writing.result(0.3)
        settle(redis_store, A, token)
        writing.result(60)
