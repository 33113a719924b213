"""Writes: from when they begin until they are finished or abandoned."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest

from djpyfs.conf import SECOND
from djpyfs.expirations import Begun, Expirations, Verdict, write_lease
from tests.records.steps import (
    AHEAD,
    AT_ONCE,
    LEASE,
    MINUTE,
    SHORT,
    A,
    At,
    B,
    claim,
    claim_later,
    deadline,
    due,
    held,
    now,
    retrying,
    settle,
)
from tests.servers import wait_for


def test_a_file_being_written_is_not_claimed_whatever_its_deadline(store: Expirations) -> None:
    due_members = due(store, 3)
    written, retried, other = due_members
    shard = store.shard_of(written)
    tried = held(store, retried, store.claim_one(retried).token)
    retrying(store, AT_ONCE).settle(tried, Verdict(failures=[(retried, "no")]))
    writes = {member: store.begin(member, LEASE) for member in (written, retried)}
    assert store.claim(shard, 9).members == [other]
    assert not store.claim_one(written).token
    for member, write in writes.items():
        store.abandon(member, write.token)
    assert sorted(store.claim(shard, 9).members) == sorted([written, retried])


def test_a_file_being_written_takes_no_room_in_a_claim(store: Expirations) -> None:
    *written, other = due(store, 6)
    for member in written:
        store.begin(member, LEASE)
    store.place_at(other, 0)
    store.schedule([other], 0)
    assert store.claim(store.shard_of(other), 1).members == [other]


def test_a_write_keeps_a_deadline_that_lies_ahead(store: Expirations) -> None:
    scheduled = store.schedule([A], 100 * SECOND)
    write = store.begin(A, LEASE, 300 * SECOND)
    assert (write.before, write.overdue) == (scheduled, False)
    assert store.finish(A, write, MINUTE, 300 * SECOND) == (scheduled, False, True)
    assert deadline(store) == scheduled


def test_a_write_without_a_default_lifetime_makes_no_record(store: Expirations) -> None:
    write = store.begin(A, LEASE)
    assert store.finish(A, write, MINUTE) == (0, False, True)
    assert store.record(A) is None


def test_a_deadline_that_passes_during_a_write_waits_for_the_grace(store: Expirations) -> None:
    store.schedule([A], AHEAD)
    write = store.begin(A, LEASE)
    wait_for(lambda: now(store) > write.before)
    assert claim(store).members == []
    finished = store.finish(A, write, MINUTE)
    assert now(store) + 30 * SECOND < finished.deadline == deadline(store)


def test_an_overdue_file_starts_a_new_life_when_the_write_is_done_and_not_before(
    store: Expirations,
) -> None:
    for life in 0, 100 * SECOND:
        scheduled = store.schedule([A], 0)
        write = store.begin(A, LEASE, life)
        assert (write.before, write.overdue, deadline(store)) == (scheduled, True, scheduled)
        finished = store.finish(A, write, MINUTE, life)
        assert finished == (deadline(store), bool(life), True)
        assert not life or finished.deadline >= scheduled + life
    assert finished.deadline


def test_a_failed_write_of_an_overdue_file_leaves_it_overdue(store: Expirations) -> None:
    store.schedule([A], 0)
    store.abandon(A, store.begin(A, LEASE).token)
    assert claim(store).members == [A]


def test_a_default_life_is_registered_first_and_starts_again_at_the_end(
    store: Expirations,
) -> None:
    write = store.begin(A, LEASE, 100 * SECOND)
    registered = deadline(store)
    assert registered > now(store) + 50 * SECOND
    finished = store.finish(A, write, SECOND, 100 * SECOND)
    assert finished == (deadline(store), True, True)
    assert finished.deadline > registered


def test_a_write_that_was_given_up_leaves_no_record_of_its_own(store: Expirations) -> None:
    store.abandon(A, store.begin(A, LEASE, 100 * SECOND).token)
    assert store.record(A) is None
    scheduled = store.schedule([A], 100 * SECOND)
    store.abandon(A, store.begin(A, LEASE, 300 * SECOND).token)
    assert deadline(store) == scheduled


def test_a_write_after_a_removal_registers_its_default_life_beside_an_older_write(
    store: Expirations,
) -> None:
    older = store.begin(A, LEASE, 100 * SECOND)
    store.release(A, store.reserve(A).token, 0)
    store.begin(A, LEASE, 100 * SECOND)
    assert deadline(store)
    store.abandon(A, older.token)
    assert deadline(store)


def test_of_two_writers_the_one_who_gives_up_leaves_the_other_its_record(
    store: Expirations,
) -> None:
    first, second = (store.begin(A, LEASE, 100 * SECOND) for _ in range(2))
    assert (second.before, second.overdue) == (0, False)
    store.abandon(A, first.token)
    assert deadline(store)
    finished = store.finish(A, second, SECOND, 100 * SECOND)
    assert finished.by_default
    assert deadline(store) == finished.deadline
    third = store.begin(A, LEASE, 100 * SECOND)
    store.abandon(A, third.token)
    assert deadline(store) == finished.deadline


def test_of_two_writers_the_one_who_gives_up_last_leaves_what_the_other_has_written(
    store: Expirations,
) -> None:
    first, second = (store.begin(A, LEASE, 100 * SECOND) for _ in range(2))
    finished = store.finish(A, second, SECOND, 100 * SECOND)
    store.abandon(A, first.token)
    assert deadline(store) == finished.deadline


def test_a_file_is_written_until_the_last_of_its_writers_has_ended(store: Expirations) -> None:
    store.schedule([A], 0)
    first, second = (store.begin(A, LEASE) for _ in range(2))
    store.abandon(A, first.token)
    assert claim(store).members == []
    store.abandon(A, second.token)
    assert claim(store).members == [A]


def test_the_default_lifetime_of_another_write_makes_nothing_overdue(store: Expirations) -> None:
    store.begin(A, LEASE, 1)
    wait_for(lambda: deadline(store) < now(store))
    assert not store.begin(A, LEASE, 1).overdue


def by_hand(store: Expirations) -> Mapping[str, Callable[[], object]]:
    return {
        "schedule": lambda: store.schedule([A], 200 * SECOND),
        "place_at": lambda: store.place_at(A, now(store) + 200 * SECOND),
        "release": lambda: store.release(A, store.reserve(A).token, now(store) + 200 * SECOND),
        "pledge": lambda: pledged_and_released(store),
    }


def pledged_and_released(store: Expirations) -> None:
    token = store.reserve(A).token
    store.pledge(A, token, now(store) + 200 * SECOND)
    store.release(A, token)


@pytest.mark.parametrize("verb", ["schedule", "place_at", "release", "pledge"])
@pytest.mark.parametrize("end", ["finish", "abandon"])
def test_a_deadline_set_by_hand_during_a_write_stays(
    store: Expirations, verb: str, end: str
) -> None:
    write = store.begin(A, LEASE, 100 * SECOND)
    by_hand(store)[verb]()
    known = deadline(store)
    if end == "finish":
        assert store.finish(A, write, SECOND, 100 * SECOND) == (known, False, True)
    else:
        store.abandon(A, write.token)
    assert known == deadline(store) > now(store) + 150 * SECOND


def test_a_deadline_set_by_hand_during_a_write_to_an_overdue_file_stays(store: Expirations) -> None:
    store.schedule([A], 0)
    write = store.begin(A, LEASE)
    known = store.schedule([A], 200 * SECOND)
    assert store.finish(A, write, SECOND).deadline == known == deadline(store)


def test_a_file_made_permanent_during_a_write_stays_permanent(store: Expirations) -> None:
    store.schedule([B], 100 * SECOND)
    for member in A, B:
        write = store.begin(member, LEASE, 100 * SECOND)
        store.keep(member)
        assert store.finish(member, write, SECOND, 100 * SECOND) == (0, False, True)
        assert store.record(member) is None


def test_a_file_removed_during_a_write_gets_the_default_lifetime_or_none(
    store: Expirations,
) -> None:
    store.schedule([A, B], MINUTE)
    for member, life in (A, 0), (B, 100 * SECOND):
        write = store.begin(member, LEASE, life)
        store.release(member, store.reserve(member).token, 0)
        assert store.finish(member, write, SECOND, life).by_default == bool(life)
    assert deadline(store, A) == 0


def test_a_write_that_is_given_up_while_its_file_is_reserved_leaves_the_reservation(
    store: Expirations,
) -> None:
    write = store.begin(A, LEASE, 100 * SECOND)
    token = store.reserve(A).token
    store.abandon(A, write.token)
    store.pledge(A, token, 1_000)
    store.release(A, token)
    assert deadline(store) == 1_000


def test_a_write_that_is_given_up_takes_its_record_even_from_a_reservation(
    store: Expirations,
) -> None:
    write = store.begin(A, LEASE, 100 * SECOND)
    token = store.reserve(A).token
    store.abandon(A, write.token)
    store.release(A, token)
    assert store.record(A) is None


def test_a_write_whose_lease_has_lapsed_keeps_no_sweep_away(store: Expirations) -> None:
    store.schedule([A], 0)
    store.begin(A, AHEAD)
    assert claim(store).members == []
    assert claim_later(store).members == [A]


def test_a_write_lasts_for_as_long_as_its_lease_is_extended(store: Expirations) -> None:
    store.schedule([A], 0)
    lease = write_lease(store.begin(A, SECOND).token, A)
    assert store.extend(store.shard_of(A), {lease: LEASE}) == []
    end = time.monotonic() + 1.2
    wait_for(lambda: time.monotonic() > end)
    assert claim(store).members == []


def test_a_crash_during_a_write_leaves_the_default_life_that_was_registered(
    store: Expirations,
) -> None:
    store.begin(A, 1, 2 * SHORT)
    assert claim_later(store).members == [A]


def test_a_deadline_that_vanished_under_a_lapsed_write_is_put_back(store: Expirations) -> None:
    write = write_that_a_sweep_ended(store)
    finished = store.finish(A, write, MINUTE)
    assert not finished.unbroken
    assert now(store) + 30 * SECOND < finished.deadline == deadline(store)


def test_no_deadline_is_put_back_if_the_file_was_made_permanent_under_a_lapsed_write(
    store: Expirations,
) -> None:
    write = write_that_a_sweep_ended(store)
    store.keep(A)
    assert store.finish(A, write, MINUTE) == (0, False, False)


def test_what_was_permanent_gets_no_default_life_if_the_store_has_lost_that(at: At) -> None:
    store, emptied = at("here"), at("emptied")
    store.keep(A)
    store.schedule([B], MINUTE)
    store.await_owner(B, 0, 0)
    store.take_up(B)
    for member in A, B:
        write = store.begin(member, LEASE, 100 * SECOND)
        assert emptied.finish(member, write, MINUTE, 100 * SECOND) == (0, False, False)


def write_that_a_sweep_ended(store: Expirations) -> Begun:
    store.schedule([A], AHEAD)
    write = store.begin(A, 1)
    assert not write.overdue
    settle(store, A, claim_later(store).token)
    assert store.record(A) is None
    return write


def test_a_write_that_lapsed_and_was_given_up_forgets_nothing(store: Expirations) -> None:
    write = store.begin(A, 1, 100 * SECOND)
    wait_for(lambda: store.extend(store.shard_of(A), {write_lease(write.token, A): 1}))
    claim(store)
    store.abandon(A, write.token)
    assert deadline(store)
