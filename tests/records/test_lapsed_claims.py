"""Claims that lapse, because their sweeper has died or hangs."""

from __future__ import annotations

from collections.abc import Sequence

from djpyfs.conf import SECOND
from djpyfs.expirations import Backoff, Expirations, GivenUp, Record, State, Verdict
from tests.records.steps import (
    AT_ONCE,
    MINUTE,
    SHORT,
    A,
    At,
    B,
    claim,
    claim_later,
    due,
    held,
    lapses,
    put_off,
    retrying,
    settle,
    state,
)
from tests.servers import wait_for


def test_a_lapsed_claim_counts_as_a_failed_attempt(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    [member] = due(store)
    claim(dying)
    found = claim_later(store, AT_ONCE)
    assert found.members == [member]
    assert settle(store, member, found.token, "no", attempts=2) == (0, 1)


def test_a_file_that_kills_its_sweepers_is_set_aside_in_the_end(dying: Expirations) -> None:
    scheduled, claims = dying.schedule([A], 0), 0

    def given_up_on() -> Sequence[GivenUp]:
        nonlocal claims
        claims += len(claim(dying, backoff=Backoff(3, 1, 1)).members)
        return dying.set_aside().records

    [given_up] = wait_for(given_up_on)
    assert claims == 3
    assert (given_up.member, given_up.attempts, given_up.deadline) == (A, 3, scheduled)
    assert "did not end in time" in given_up.reason


def test_a_file_that_killed_a_sweeper_alone_is_retried_after_a_pause(dying: Expirations) -> None:
    dying.schedule([A], 0)
    dying.claim_one(A)
    lapses(dying)
    assert claim(dying, backoff=Backoff(5, 400 * SECOND)).members == []
    assert 100 * SECOND < dying.claim_one(A).wait <= 400 * SECOND


def test_members_of_a_lapsed_claim_are_claimed_one_by_one_and_after_all_others(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    *suspects, fresh, tried = due(store, 5)
    shard = store.shard_of(fresh)
    for member in fresh, tried:
        store.place_at(member, 0)
    assert len(dying.claim(shard, 9).members) == 3
    lapses(store)
    store.schedule([fresh, tried], 0)
    settle(store, tried, store.claim_one(tried).token, "no")
    wait_for(lambda: store.claim_one(tried).token)
    claims = [store.claim(shard, 9) for _ in range(5)]
    assert claims[0].members == [fresh]
    assert sorted(len(one.members) for one in claims[1:4]) == [1, 1, 1]
    assert sorted(m for one in claims[1:4] for m in one.members) == sorted(suspects)
    assert [one.overdue for one in claims[1:]] == [2, 1, 0, 0]


def test_a_suspect_is_not_claimed_by_a_sweep_that_is_deleting_something_else(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    suspects = due(store, 2)
    shard = store.shard_of(suspects[0])
    dying.claim(shard, 2)
    lapses(store)
    assert store.claim(shard, 9, alone=False).members == []
    assert store.claim(shard, 9).members == suspects[:1]


def test_a_file_that_was_retried_does_not_wait_behind_suspects(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    retried, suspect = due(store, 2)
    shard = store.shard_of(suspect)
    hasty = retrying(store, AT_ONCE)
    tried = held(store, retried, store.claim_one(retried).token)
    hasty.settle(tried, Verdict(failures=[(retried, "no")]))
    dying.claim_one(suspect)
    lapses(store)
    found = [hasty.claim(shard, 9).members for _ in range(2)]
    assert found == [[retried], [suspect]]


def test_an_excused_claim_lapses_without_an_attempt_and_is_claimed_together_again(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    members = due(store, 2)
    shard = store.shard_of(members[0])
    dying.settle(dying.claim(shard, 9), Verdict(excused=members))
    assert store.claim(shard, 9).members == []
    wait_for(lambda: not store.counts().claimed)
    assert sorted(claim(store, backoff=Backoff(1)).members) == members
    assert store.counts().set_aside == 0


def test_members_that_others_have_claimed_are_not_excused(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    [member] = due(store)
    lapsed = claim(dying)
    lapses(store)
    again = claim_later(dying, AT_ONCE)
    store.settle(lapsed, Verdict(excused=[member]))
    lapses(store)
    assert again.members == [member]
    assert claim(store, backoff=Backoff(2)).members == []
    assert store.counts().set_aside == 1


def test_a_reserved_member_gets_its_deadline_back_when_the_reservation_lapses(
    at: At,
) -> None:
    store, dying = at(), at(lease=SHORT)
    overdue, later = store.schedule([A], 0), store.schedule([B], 100 * SECOND)
    assert [dying.reserve(member).deadline for member in (A, B)] == [overdue, later]
    wait_for(lambda: not store.counts().claimed)
    assert claim(store, backoff=Backoff(1)).members == [A]
    assert store.record(B) == Record(B, later)
    assert store.counts().set_aside == 0


def test_the_token_of_a_lapsed_claim_settles_nothing(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    store.schedule([A], 0)
    lapsed = dying.claim_one(A)
    renewed = claim_later(store, AT_ONCE)
    settle(store, A, lapsed.token)
    assert settle(store, A, lapsed.token, "it failed") == (0, 0)
    put_off(store, A, lapsed.token, MINUTE)
    assert state(store) == State.CLAIMED
    settle(store, A, renewed.token)
    assert store.record(A) is None
