"""Deletions that fail: retried after a back-off, postponed, or set aside."""

from __future__ import annotations

import pytest

from djpyfs.conf import SECOND
from djpyfs.expirations import Backoff, Expirations, Record, State, Verdict
from tests.records.steps import (
    LEASE,
    MINUTE,
    SHORT,
    A,
    claim,
    claim_later,
    due,
    fail,
    held,
    put_off,
    retrying,
    settle,
    state,
)


def pause_after_failure(store: Expirations, member: bytes) -> float:
    """Seconds until a member whose deletion fails once more is retried."""
    claim = held(store, member, store.reserve(member).token)
    backoff = Backoff(9, 400 * SECOND, 1_000 * SECOND)
    retrying(store, backoff).settle(claim, Verdict(failures=[(member, "no")]))
    return store.claim_one(member).wait / SECOND


def test_the_back_off_doubles_with_each_attempt_up_to_the_longest(store: Expirations) -> None:
    store.schedule([A], 0)
    for longest in 400, 800, 1_000, 1_000, 1_000:
        assert longest / 2 - 60 < pause_after_failure(store, A) <= longest


def test_files_that_failed_together_are_not_retried_together(store: Expirations) -> None:
    members = due(store, 20)
    shard = store.shard_of(members[0])
    failed = Verdict(failures=[(member, "no") for member in members])
    retrying(store, Backoff(2, 100 * SECOND)).settle(store.claim(shard, 20), failed)
    waits = [store.claim_one(member).wait / SECOND for member in members]
    assert max(waits) - min(waits) > 10


def test_a_failed_deletion_is_retried_and_in_the_end_set_aside(store: Expirations) -> None:
    scheduled = store.schedule([A], 0)
    fail(store, A, attempts=3)
    assert claim(store).members == []
    assert store.record(A) == Record(A, scheduled, State.RETRIED)
    reserved = store.reserve(A).token
    assert settle(store, A, reserved, "read-only", attempts=3) == (1, 0)
    again = claim_later(store)
    assert settle(store, A, again.token, "read-only", attempts=3) == (0, 1)
    assert store.record(A) == Record(A, scheduled, State.SET_ASIDE)


def test_a_postponed_file_waits_and_no_attempt_is_counted(store: Expirations) -> None:
    scheduled = store.schedule([A], 0)
    put_off(store, A, claim(store).token, MINUTE, State.POSTPONED)
    assert claim(store).members == []
    assert store.record(A) == Record(A, scheduled, State.POSTPONED)
    put_off(store, A, store.reserve(A).token, SHORT, State.HELD)
    assert state(store) == State.HELD
    assert settle(store, A, claim_later(store).token, "it failed") == (1, 0)


def test_a_file_that_was_not_tried_is_due_again_at_once(store: Expirations) -> None:
    scheduled = store.schedule([A], 0)
    put_off(store, A, claim(store).token, 0, State.DUE)
    assert store.record(A) == Record(A, scheduled)
    fail(store, A, attempts=3)
    put_off(store, A, store.reserve(A).token, 0, State.DUE)
    assert state(store) == State.RETRIED
    assert claim(store).members == [A]


def test_postponing_nothing_postpones_nothing(store: Expirations) -> None:
    [member] = due(store)
    store.settle(claim(store), Verdict(put_off={(0, State.DUE): []}))
    assert state(store, member) == State.CLAIMED


@pytest.mark.parametrize("attempts", [1, 2], ids=["set aside", "retried"])
def test_a_file_that_could_not_be_deleted_starts_a_new_life_once_it_is_written(
    store: Expirations, attempts: int
) -> None:
    store.schedule([A], 0)
    fail(store, A, attempts)
    write = store.begin(A, LEASE)
    assert write.overdue
    assert store.finish(A, write, MINUTE) == (0, False, True)
    assert store.record(A) is None
    assert store.counts().set_aside == 0


def test_a_broken_record_is_set_aside_at_once_beside_files_that_failed(store: Expirations) -> None:
    broken, failed = due(store, 2)
    shard = store.shard_of(broken)
    verdict = Verdict(failures=[(failed, "no")], broken=[(broken, "is none")])
    settled = retrying(store, Backoff(2)).settle(store.claim(shard, 9), verdict)
    assert settled[:2] == (1, 1)
    [given_up] = store.set_aside().records
    assert (given_up.member, given_up.reason, given_up.attempts) == (broken, "is none", 1)


def test_a_file_set_aside_starts_over_with_a_deadline(store: Expirations) -> None:
    store.schedule([A], 0)
    fail(store, A, attempts=1)
    assert not store.claim_one(A).token
    store.schedule([A], 0)
    assert claim(store).members == [A]
