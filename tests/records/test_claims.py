"""Claims: what a sweep may delete, and nobody else meanwhile."""

from __future__ import annotations

from djpyfs.conf import SECOND
from djpyfs.expirations import ClaimOne, Expirations, Record, State, Verdict
from tests.records.steps import AT_ONCE, LEASE, A, claim, claim_later, due, lapses, settle, state


def test_only_what_is_due_is_claimed_and_how_late_it_is(store: Expirations) -> None:
    store.schedule([b"n/due"], 0)
    store.schedule([b"n/later"], 100 * SECOND)
    found = claim(store)
    assert found.members == [b"n/due"]
    assert 0 <= found.lags[0] < 60 * SECOND


def test_nothing_is_claimed_twice_while_the_lease_lasts(store: Expirations) -> None:
    store.schedule([b"n/%d" % number for number in range(50)], 0)
    first, second, third = claim(store, 15), claim(store, 15), claim(store)
    assert not set(first.members) & set(second.members)
    assert len(first.members) + len(second.members) + len(third.members) == 50


def test_an_empty_claim_counts_what_is_overdue_and_not_being_written(store: Expirations) -> None:
    store.schedule([b"n/%d" % number for number in range(50)], 0)
    store.begin(b"n/7", LEASE)
    assert sum(store.claim(shard, 0).overdue for shard in store.shards) == 49


def test_a_claimed_member_keeps_its_true_deadline(store: Expirations) -> None:
    scheduled = store.schedule([A], 0)
    claim(store)
    assert store.record(A) == Record(A, scheduled, State.CLAIMED)


def test_no_two_claims_share_a_token(store: Expirations) -> None:
    members = [b"n/%d" % number for number in range(200)]
    store.schedule(members, 0)
    tokens = [store.claim_one(member).token for member in members]
    assert len(set(tokens)) == 200


def test_claim_one_takes_only_what_is_due(store: Expirations) -> None:
    assert store.claim_one(A) == ClaimOne()
    store.schedule([A], 100 * SECOND)
    early = store.claim_one(A)
    assert not early.token
    assert 50 * SECOND < early.wait <= 100 * SECOND
    store.schedule([A], 0)
    assert store.claim_one(A).token
    assert store.claim_one(A) == ClaimOne()


def test_claim_one_leaves_a_lapsed_claim_to_the_sweeps_that_count_it(dying: Expirations) -> None:
    dying.schedule([A], 0)
    dying.claim_one(A)
    lapses(dying)
    assert dying.claim_one(A) == ClaimOne()
    claim_later(dying, AT_ONCE)
    settle(dying, A, claim_later(dying, AT_ONCE).token, "no", attempts=3)
    assert dying.set_aside().records[0].attempts == 3


def test_settling_claims_the_next_batch_at_once(store: Expirations) -> None:
    one, other = due(store, 2)
    shard = store.shard_of(one)
    first = store.claim(shard, 1)
    then = store.settle(first, Verdict(done=[*first.members]), limit=1).claim
    assert then
    assert {*first.members, *then.members} == {one, other}


def test_a_claim_that_is_done_as_a_whole_is_settled_without_names_and_settles_no_other(
    store: Expirations,
) -> None:
    shard = store.shard_of(due(store, 2)[0])
    first, then = store.claim(shard, 1), store.claim(shard, 1)
    store.settle(first, Verdict(done=[*first.members], all_done=True))
    assert (state(store, *first.members), state(store, *then.members)) == ("none", State.CLAIMED)


def test_a_member_in_no_list_of_a_verdict_stays_claimed(store: Expirations) -> None:
    one, other = due(store, 2)
    claimed = store.claim(store.shard_of(one), 2)
    settle(store, one, claimed.token)
    assert (state(store, one), state(store, other)) == ("none", State.CLAIMED)
