"""Records of files that go only if no row owns them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from djpyfs.conf import SECOND
from djpyfs.expirations import Backoff, Expirations
from tests.records.steps import MINUTE, A, B, claim, deadline, fail, lapses, now, put_off, settle


def awaiting(store: Expirations, members: Sequence[bytes] = (A, B)) -> list[bytes]:
    """Which of the members, all of them due, a sweep is to ask for."""
    claims = [store.claim(shard, 100) for shard in store.shards]
    assert sorted(member for one in claims for member in one.members) == sorted(members)
    return sorted(member for one in claims for member in one.awaiting)


def has_left(store: Expirations, member: bytes = A) -> Any:
    """How many seconds a member has left; 0: no deadline."""
    at, deadline = store.deadline(member)
    return pytest.approx((deadline - at) / SECOND if deadline else 0, abs=30)


def is_permanent(store: Expirations, member: bytes = A) -> bool:
    return list(store.permanent([member])) == [member]


def test_a_claim_says_which_members_wait_for_an_owner(
    store: Expirations,
) -> None:
    store.schedule([A, B], 0)
    store.await_owner(A, 0, 0)
    assert awaiting(store) == [A]


def test_a_claim_of_one_member_says_whether_it_waits_for_an_owner(store: Expirations) -> None:
    store.schedule([A, B], 0)
    store.await_owner(A, 0, 0)
    assert [store.claim_one(member).awaiting for member in (A, B)] == [True, False]


def test_a_member_without_a_deadline_waits_for_no_owner(store: Expirations) -> None:
    store.keep(B)
    for member in A, B:
        store.await_owner(member, SECOND, 0)
        store.take_up(member)
        assert deadline(store, member) == 0
    assert is_permanent(store, B)
    assert not is_permanent(store, A)


@pytest.mark.parametrize(
    "verb",
    [lambda it: it.take_up(A, unawaited=True), lambda it: it.let_go(A, MINUTE)],
    ids=["take_up", "let_go"],
)
def test_what_a_row_does_to_a_member_whose_sweeper_has_died_counts_no_failed_attempt(
    dying: Expirations, verb: Callable[[Expirations], object]
) -> None:
    dying.schedule([A], 0)
    dying.claim_one(A)
    lapses(dying)
    verb(dying)
    assert claim(dying, backoff=Backoff(1)).members == [A]


@pytest.mark.parametrize(("ttl", "expected"), [(50, 100), (200, 200)])
def test_a_member_that_waits_for_an_owner_is_never_due_sooner(
    store: Expirations, ttl: int, expected: int
) -> None:
    store.schedule([A], 100 * SECOND)
    store.await_owner(A, ttl * SECOND, 0)
    assert has_left(store) == expected


def test_an_owned_member_is_permanent_or_has_its_lifetime(store: Expirations) -> None:
    store.schedule([A, B], 100 * SECOND)
    store.await_owner(A, 0, 0)
    store.await_owner(B, 0, 500 * SECOND)
    for _ in range(2):
        store.take_up(A)
        store.take_up(B)
        assert (has_left(store, A), has_left(store, B)) == (0, 500)
    assert is_permanent(store, A)
    store.schedule([A, B], 0)
    assert awaiting(store) == []


def test_an_owner_changes_nothing_about_what_did_not_wait_for_one(store: Expirations) -> None:
    before = store.schedule([A], 100 * SECOND)
    store.take_up(A)
    assert deadline(store) == before


@pytest.mark.parametrize("last_word", ["schedule", "keep", "place_at", "remove", "sweep"])
def test_a_deadline_set_by_hand_leaves_nothing_to_an_owner(
    store: Expirations, last_word: str
) -> None:
    store.schedule([A], 0)
    store.await_owner(A, 0, 500 * SECOND)
    if last_word == "schedule":
        store.schedule([A], 100 * SECOND)
    elif last_word == "keep":
        store.keep(A)
    elif last_word == "place_at":
        store.place_at(A, now(store) + 100 * SECOND)
    elif last_word == "remove":
        store.release(A, store.reserve(A).token, 0)
    else:
        settle(store, A, store.claim_one(A).token)
    before = deadline(store), is_permanent(store)
    store.take_up(A)
    assert (deadline(store), is_permanent(store)) == before
    store.schedule([A], 0)
    assert awaiting(store, [A]) == []


def test_a_postponed_failed_written_or_kept_member_still_waits_for_its_owner(
    store: Expirations,
) -> None:
    store.schedule([A], 0)
    store.await_owner(A, 0, 0)
    put_off(store, A, store.claim_one(A).token, 0)
    store.release(A, store.reserve(A).token)
    store.finish(A, store.begin(A, MINUTE), 0, 1)
    fail(store, A, attempts=1)
    store.retry([A])
    assert awaiting(store, [A]) == [A]


def test_a_member_that_was_set_aside_and_forgotten_waits_for_no_owner(store: Expirations) -> None:
    store.schedule([A], 0)
    store.await_owner(A, 0, 0)
    fail(store, A, attempts=1)
    store.forget([A])
    store.schedule([A], 0)
    assert awaiting(store, [A]) == []


@pytest.mark.parametrize(("before", "expected"), [(None, 50), (100, 50), (20, 20)])
def test_a_member_that_its_owner_lets_go_of_is_due_soon_and_waits_for_an_owner(
    store: Expirations, before: int | None, expected: int
) -> None:
    if before:
        store.schedule([A], before * SECOND)
    store.take_up(A, unawaited=True)
    store.let_go(A, 50 * SECOND)
    assert has_left(store) == expected
    store.take_up(A)
    assert has_left(store) == (before or 0)
    assert is_permanent(store) == (before is None)


@pytest.mark.parametrize("before", [0, 100])
def test_links_to_a_member_that_was_let_go_of_have_the_end_that_its_next_owner_gives_it(
    store: Expirations, before: int
) -> None:
    if before:
        store.schedule([A], before * SECOND)
    store.take_up(A, unawaited=True)
    until = store.deadline(A)[1]
    store.let_go(A, 10 * SECOND)
    assert [it.deadline for it in store.linked([A])[1]] == [until]
    store.schedule([A], 20 * SECOND)
    assert [it.deadline for it in store.linked([A])[1]] == [store.deadline(A)[1]]


@pytest.mark.parametrize("life", [0, 500 * SECOND])
def test_a_member_that_waits_for_its_first_owner_reads_as_if_it_had_one(
    store: Expirations, life: int
) -> None:
    store.schedule([A], 0)
    store.await_owner(A, 0, life)
    at, [linked] = store.linked([A])
    store.take_up(A)
    assert linked.deadline == store.deadline(A)[1]
    assert linked.deadline == 0 or linked.deadline > at


def test_a_row_that_names_a_file_with_a_deadline_may_let_go_of_it(store: Expirations) -> None:
    store.schedule([A], 100 * SECOND)
    store.await_owner(A, 500 * SECOND)
    assert has_left(store) == 100
    store.let_go(A, 10 * SECOND)
    assert has_left(store) == 10
    store.take_up(A)
    assert has_left(store) == 100


def test_a_member_let_go_of_twice_gets_its_first_deadline_back(store: Expirations) -> None:
    store.schedule([A], 1_000 * SECOND)
    store.take_up(A, unawaited=True)
    for ttl in 500, 50, 500:
        store.let_go(A, ttl * SECOND)
    assert has_left(store) == 50
    store.take_up(A)
    assert has_left(store) == 1_000


def test_nobody_can_let_go_of_a_member_that_waits_for_its_first_owner(store: Expirations) -> None:
    store.schedule([A], 100 * SECOND)
    store.await_owner(A, 0, 0)
    store.let_go(A, 10 * SECOND)
    assert has_left(store) == 100


def test_a_member_that_was_let_go_of_waits_for_a_new_owner_with_its_old_deadline(
    store: Expirations,
) -> None:
    store.schedule([A], 1_000 * SECOND)
    store.take_up(A, unawaited=True)
    store.await_owner(A, 5_000 * SECOND)
    assert has_left(store) == 1_000
    store.let_go(A, 10 * SECOND)
    store.await_owner(A, 100 * SECOND)
    store.let_go(A, 10 * SECOND)
    assert has_left(store) == 100
    store.take_up(A)
    assert has_left(store) == 1_000


@pytest.mark.parametrize("owned", ["from the first", "after it waited", "not yet"])
@pytest.mark.parametrize("said", ["keep", "schedule"])
def test_rows_do_not_change_a_deadline_that_was_set_by_hand(
    store: Expirations, owned: str, said: str
) -> None:
    store.schedule([A], 500 * SECOND)
    if owned == "from the first":
        store.take_up(A, unawaited=True)
    else:
        store.await_owner(A, 0, 0)
    if owned == "after it waited":
        store.take_up(A)
    store.keep(A) if said == "keep" else store.schedule([A], 100 * SECOND)
    store.take_up(A)
    store.let_go(A, 10 * SECOND)
    assert has_left(store) == (0 if said == "keep" else 100)
    assert is_permanent(store) == (said == "keep")
    store.schedule([A], 0)
    assert awaiting(store, [A]) == []


def test_a_file_kept_by_hand_stays_kept_when_it_is_saved_again(store: Expirations) -> None:
    store.keep(A)
    store.take_up(A, unawaited=True)
    store.let_go(A, 10 * SECOND)
    assert is_permanent(store)


def test_a_file_that_its_row_made_permanent_is_permanent_for_everybody(store: Expirations) -> None:
    store.schedule([A], 500 * SECOND)
    store.await_owner(A, 0, 0)
    store.take_up(A)
    assert store.begin(A, MINUTE, MINUTE).before == 0
    assert deadline(store) == 0
    assert store.adopt({A: now(store) + SECOND}) == []
    held = store.reserve(A)
    assert (held.permanent, held.owned) == (True, True)
    store.release(A, held.token, 0)
    assert not is_permanent(store)
    assert store.adopt({A: now(store) + SECOND}) == [A]


def test_a_reservation_says_whether_its_file_waits_for_an_owner(store: Expirations) -> None:
    store.schedule([A], 500 * SECOND)
    store.await_owner(A, 0, 0)
    waiting = store.reserve(A)
    store.release(A, waiting.token)
    store.take_up(A)
    taken = store.reserve(A)
    assert [(held.owned, held.awaits_owner) for held in (waiting, taken)] == [
        (False, True),
        (True, False),
    ]


def test_a_deadline_that_takes_the_place_of_permanence_is_not_permanent(
    store: Expirations,
) -> None:
    store.take_up(A, unawaited=True)
    held = store.reserve(A)
    assert store.pledge(A, held.token, now(store) + 100 * SECOND)
    store.release(A, held.token)
    assert has_left(store) == 100
    assert not is_permanent(store)


@pytest.mark.parametrize("verb", ["await_owner", "let_go", "take_up"])
def test_owners_wait_for_a_sweep_that_has_claimed_their_file(store: Expirations, verb: str) -> None:
    store.schedule([A], 0)
    store.await_owner(A, 0, 500 * SECOND)
    token = store.claim_one(A).token
    acts: dict[str, Callable[[], None]] = {
        "await_owner": lambda: store.await_owner(A, 0, 0),
        "let_go": lambda: store.let_go(A, 0),
        "take_up": lambda: store.take_up(A),
    }
    with ThreadPoolExecutor(1) as thread:
        waits = thread.submit(acts[verb])
        time.sleep(0.05)
        assert not waits.done()
        settle(store, A, token)
        waits.result()
