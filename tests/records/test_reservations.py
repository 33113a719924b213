"""Reservations: the claims of writers that remove or replace files, one or many."""

from __future__ import annotations

from typing import Any

from djpyfs.conf import SECOND
from djpyfs.expirations import BACKOFF, Backoff, Expirations, Record, State, Verdict
from tests.faults.proxy import Proxy
from tests.records.steps import (
    LEASE,
    MINUTE,
    SHORT,
    A,
    At,
    B,
    claim,
    claim_later,
    deadline,
    fail,
    lapses,
    now,
    retrying,
    settle,
    state,
)
from tests.servers import wait_for


def test_a_reserved_member_is_claimed_by_nobody_else_and_keeps_its_deadline(
    store: Expirations,
) -> None:
    scheduled = store.schedule([A], 0)
    token, known, *_ = store.reserve(A)
    assert known == scheduled
    assert claim(store).members == []
    assert state(store) == State.CLAIMED
    store.release(A, token)
    assert store.record(A) == Record(A, scheduled)


def test_a_reservation_is_released_with_another_deadline_or_none(store: Expirations) -> None:
    store.schedule([A, B], MINUTE)
    store.release(A, store.reserve(A).token, 1_000)
    store.release(B, store.reserve(B).token, 0)
    assert (deadline(store, A), store.record(B)) == (1_000, None)


def test_a_reservation_says_whether_somebody_made_its_member_permanent(store: Expirations) -> None:
    store.keep(A)
    assert [store.reserve(member).permanent for member in (A, B)] == [True, False]


def test_a_reservation_of_what_has_no_record_leaves_none(store: Expirations) -> None:
    token, known, *_ = store.reserve(A)
    assert (known, store.record(A)) == (0, None)
    store.release(A, token)
    assert store.record(A) is None
    assert store.counts().tracked == 0


def test_failed_attempts_outlast_a_reservation(store: Expirations) -> None:
    store.schedule([A], 0)
    fail(store, A, attempts=3)
    store.release(A, store.reserve(A).token)
    assert state(store) == State.RETRIED
    assert settle(store, A, claim(store).token, "no", attempts=2) == (0, 1)


def test_a_pledged_deadline_counts_when_the_reservation_lapses(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    store.schedule([A, B], 0)
    pledges = {A: now(store) + MINUTE, B: 0}
    for member, pledge in pledges.items():
        dying.pledge(member, dying.reserve(member).token, pledge)
    wait_for(lambda: not store.counts().claimed)
    assert claim(store).members == []
    assert store.deadlines([A, B])[1] == list(pledges.values())


def test_a_pledged_deadline_counts_when_the_reservation_is_released(store: Expirations) -> None:
    pledge = store.schedule([A], MINUTE) + 1
    fail_and_reserve = store.reserve(A).token
    store.pledge(A, fail_and_reserve, pledge)
    store.release(A, fail_and_reserve)
    assert store.record(A) == Record(A, pledge)


def test_the_token_of_a_lapsed_reservation_pledges_and_releases_nothing(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    store.schedule([A], 10 * SECOND)
    token = dying.reserve(A).token
    renewed = store.schedule([A], 20 * SECOND)
    assert not store.pledge(A, token, 1)
    store.release(A, token, 0)
    store.release(A, token)
    assert store.record(A) == Record(A, renewed)


def test_many_are_reserved_together_except_those_with_more_than_a_deadline(at: At) -> None:
    store = at()
    plain, unknown, permanent, swept, failed, given_up = (b"m/%d" % n for n in range(6))
    for member, backoff in (failed, BACKOFF), (given_up, Backoff(1)):
        store.schedule([member], 0)
        tried = Verdict(failures=[(member, "why")])
        retrying(store, backoff).settle(claim_later(store), tried)
    store.schedule([swept], 0)
    assert claim_later(store).members == [swept]
    scheduled = store.schedule([plain], MINUTE)
    store.keep(permanent)
    everyone = [plain, unknown, permanent, swept, failed, given_up]
    token, left_alone = store.reserve_free(everyone)
    assert sorted(left_alone) == [swept, failed, given_up]
    assert deadline(store, plain) == scheduled
    assert state(store, plain) == State.CLAIMED
    assert sorted(store.reserve_free(everyone)[1]) == sorted(everyone)
    store.release_all({store.shard_of(member) for member in everyone}, token, gone=False)
    assert (state(store, plain), deadline(store, plain)) == (State.DUE, scheduled)
    assert state(store, swept) == State.CLAIMED
    assert store.permanent([unknown, permanent]) == [permanent]


def test_many_that_are_removed_together_are_forgotten(at: At) -> None:
    store = at()
    store.schedule([A], MINUTE)
    store.keep(B)
    written = b"n/written"
    older = store.begin(written, LEASE, MINUTE)
    token, left_alone = store.reserve_free([A, B, written])
    assert left_alone == []
    store.release_all(store.shards, token, gone=True)
    assert [state(store, member) for member in (A, B, written)] == ["none"] * 3
    assert store.permanent([B]) == []
    store.begin(written, LEASE, MINUTE)
    store.abandon(written, older.token)
    assert deadline(store, written), "the later write has a record of its own"


def test_members_reserved_together_for_nothing_are_as_they_were(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    scheduled = store.schedule([A], MINUTE)
    assert dying.reserve_free([A, B])[1] == []
    lapses(store)
    assert claim(store).members == []
    assert (state(store), deadline(store), state(store, B)) == (State.DUE, scheduled, "none")


def test_a_reservation_of_many_whose_reply_was_lost_is_made_once(
    losing: tuple[Any, Proxy],
) -> None:
    store, proxy = losing
    store.schedule([A], MINUTE)
    proxy.cuts = 1
    token, left_alone = store.reserve_free([A, B])
    assert left_alone == []
    proxy.cuts = 1
    store.release_all([0], token, gone=True)
    assert store.record(A) is None
