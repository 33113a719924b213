"""Deadlines, in every record store: how they are set, moved and taken away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from djpyfs.conf import SECOND
from djpyfs.expirations import Expirations
from tests.records.steps import LEASE, MINUTE, A, At, B, claim, deadline, fail, now


def test_schedule_replaces_the_deadline(store: Expirations) -> None:
    for ttl in 0, 100 * SECOND, 50 * SECOND:
        replaced = store.schedule([A], ttl)
    assert deadline(store) == replaced
    assert claim(store).members == []


def test_schedule_takes_many_members_of_all_shards(store: Expirations) -> None:
    members = [b"n/%d" % number for number in range(12_000)]
    store.schedule(members, 0)
    found: list[bytes] = []
    while page := claim(store, limit=5_000).members:
        found += page
    assert sorted(found) == sorted(members)


def test_each_place_has_records_of_its_own(at: At) -> None:
    here, there = at("here"), at("there")
    kept = here.schedule([A], 100 * SECOND)
    there.schedule([A], 0)
    there.keep(B)
    assert claim(there).members == [A]
    assert claim(here).members == []
    assert (deadline(here), here.counts().tracked, there.counts().tracked) == (kept, 1, 1)
    assert here.adopt({B: kept}) == [B]


def test_keep_makes_permanent_and_no_default_life_or_adoption_changes_that(
    store: Expirations,
) -> None:
    store.schedule([A], 0)
    store.keep(A)
    write = store.begin(A, LEASE, 100 * SECOND)
    assert (write.before, deadline(store)) == (0, 0)
    assert not store.finish(A, write, MINUTE, 100 * SECOND).deadline
    assert store.adopt({A: now(store) + MINUTE}) == []
    assert claim(store).members == []


@pytest.mark.parametrize(
    "verb",
    [
        lambda store: store.schedule([A], MINUTE),
        lambda store: store.place_at(A, now(store) + MINUTE),
        lambda store: store.release(A, store.reserve(A).token, now(store) + MINUTE),
        lambda store: pledged(store, now(store) + MINUTE),
        lambda store: store.release(A, store.reserve(A).token, 0),
    ],
    ids="schedule place_at release pledge removal".split(),
)
def test_a_deadline_or_a_removal_ends_the_permanence_of_a_file(
    store: Expirations, verb: Callable[[Expirations], object]
) -> None:
    store.keep(A)
    verb(store)
    store.place_at(A, 0)  # as if its file were gone
    write = store.begin(A, LEASE, MINUTE)
    assert store.finish(A, write, 0, MINUTE).by_default


def pledged(store: Expirations, deadline: int) -> None:
    token = store.reserve(A).token
    store.pledge(A, token, deadline)
    store.release(A, token)


def test_place_at_gives_a_deadline_or_none(store: Expirations) -> None:
    store.place_at(A, 1_000)
    assert deadline(store) == 1_000
    store.place_at(A, 0)
    assert store.record(A) is None


def test_place_at_leaves_a_deadline_that_is_not_the_one_expected(store: Expirations) -> None:
    store.place_at(A, 1, expected=5)
    assert deadline(store) == 0
    store.place_at(A, 1, expected=0)
    renewed = store.schedule([A], 20 * SECOND)
    store.place_at(A, 1, expected=0)
    assert deadline(store) == renewed
    store.place_at(A, 0, expected=renewed)
    assert deadline(store) == 0


def test_renew_moves_a_deadline_on_but_not_beyond_the_latest(store: Expirations) -> None:
    scheduled = store.schedule([A], 100 * SECOND)
    assert store.renew(A, 50 * SECOND) == scheduled
    assert store.renew(A, 200 * SECOND) > scheduled + 99 * SECOND
    latest = scheduled + 150 * SECOND
    assert store.renew(A, 600 * SECOND, latest - 300 * SECOND, 300 * SECOND) == latest
    assert deadline(store) == latest


def test_a_file_dated_in_the_future_is_not_renewed(store: Expirations) -> None:
    scheduled = store.schedule([A], 50 * SECOND)
    assert store.renew(A, 100 * SECOND, now(store) + 10 * SECOND, 300 * SECOND) == 0
    assert deadline(store) == scheduled


def test_renew_leaves_alone_what_has_expired_or_has_no_deadline(store: Expirations) -> None:
    assert store.renew(A, SECOND) == 0
    store.schedule([A], 0)
    assert store.renew(A, SECOND) == 0
    fail(store, A, attempts=2)
    assert store.renew(A, MINUTE) == 0


def test_a_member_without_a_record_is_adopted_as_permanent(store: Expirations) -> None:
    store.schedule([B], MINUTE)
    assert store.adopt({A: 0, B: 0}) == [A]
    assert store.permanent([A, B]) == [A]
    assert deadline(store, A) == 0


def test_nothing_is_adopted_that_somebody_is_about_to_remove(store: Expirations) -> None:
    token = store.reserve(A).token
    assert store.adopt({A: 1, B: 1}) == [B]
    assert claim(store).members == [B]
    store.release(A, token)
    assert store.record(A) is None
