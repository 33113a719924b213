"""Every verb of the record store, on Redis, on Redis with shards, and in the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from djpyfs import ConfigurationError, RecordStoreError, conf, expirations
from djpyfs.conf import SECOND
from djpyfs.expirations import Backoff, Claim, ExpirationStore, store_for
from tests.conftest import records_of
from tests.servers import RedisServer, python, running_redis, wait_for

LEASE = 30 * SECOND
SHORT = SECOND // 5


@pytest.fixture(params=["memory", "redis", "redis-sharded", "cluster"])
def records(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The record stores of the other tests, and one that spreads its records."""
    return records_of(request)


@pytest.fixture
def store(djfs: Callable[..., None], records: dict[str, Any]) -> ExpirationStore:
    djfs(type="memory", **records)
    return store_for(conf.current())


def claim(store: ExpirationStore, limit: int = 100, lease: int = LEASE) -> Claim:
    """Claim from all shards, for tests that do not care where a member is."""
    claims = [store.claim(shard, limit, lease) for shard in store.shards]
    members = [member for one in claims for member in one.members]
    token = next((one.token for one in claims if one.members), 0)
    return Claim(token, members, [late for one in claims for late in one.late], 0)


def claim_later(store: ExpirationStore, lease: int = LEASE) -> Claim:
    """Wait until something can be claimed."""
    claims: list[Claim] = []

    def claimed() -> bool:
        claims.append(claim(store, lease=lease))
        return bool(claims[-1].members)

    wait_for(claimed)
    return claims[-1]


def settle(
    store: ExpirationStore, member: bytes, token: int, failure: str = "", attempts: int = 2
) -> tuple[int, int]:
    done = [] if failure else [member]
    failures = [(member, failure)] if failure else []
    settled = store.settle(store.shard_of(member), token, done, failures, Backoff(attempts, SHORT))
    return settled.retried, settled.set_aside


def another_member(store: ExpirationStore, member: bytes) -> bytes:
    """Return a member on another shard, where there is one."""
    others = [b"n\0other %d" % number for number in range(50)]
    elsewhere = [other for other in others if store.shard_of(other) != store.shard_of(member)]
    return (elsewhere or others)[0]


def fail(store: ExpirationStore, member: bytes, attempts: int) -> None:
    failures = [(member, "no")]
    backoff = Backoff(attempts, 100 * SECOND)
    store.settle(store.shard_of(member), claim(store).token, [], failures, backoff)


def test_schedule_replaces_the_deadline(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 100 * SECOND)
    deadline = store.schedule([b"n\0a"], 50 * SECOND)
    assert store.deadline(b"n\0a")[1] == deadline


def test_a_ticket_is_good_for_its_uses_and_its_time(store: ExpirationStore) -> None:
    now, _ = store.deadline(b"n\0a")
    store.issue_ticket(b"n\0a", "two", 2, now + 60 * SECOND)
    store.issue_ticket(b"n\0a", "late", 2, now + SECOND // 5)
    assert [store.use_ticket(b"n\0a", "two", uses) for uses in (0, 1, 1, 0, 1)] == [
        *(True, True, True),
        *(False, False),
    ]
    assert not store.use_ticket(b"n\0a", "never issued")
    wait_for(lambda: not store.use_ticket(b"n\0a", "late", 0))


def test_a_use_that_many_ask_for_at_a_time_is_taken_once(store: ExpirationStore) -> None:
    now, _ = store.deadline(b"n\0a")
    start = threading.Barrier(20)

    def use(ticket: str) -> bool:
        start.wait(60)
        return store.use_ticket(b"n\0a", ticket)

    with ThreadPoolExecutor(20) as pool:
        for ticket in "one", "two", "three":
            store.issue_ticket(b"n\0a", ticket, 1, now + 60 * SECOND)
            assert sum(pool.map(use, [ticket] * 20)) == 1


def test_schedule_takes_many_members_of_all_shards(store: ExpirationStore) -> None:
    members = [b"n\0%d" % number for number in range(12_000)]
    store.schedule(members, 0)
    found = claim(store, limit=12_000)
    assert sorted(found.members) == sorted(members)


def test_cancel_forgets_the_member(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    store.cancel(b"n\0a")
    assert store.deadline(b"n\0a")[1] == 0
    assert not claim(store).members


def test_cancel_leaves_a_deadline_that_is_not_the_one_expected(store: ExpirationStore) -> None:
    seen = store.schedule([b"n\0a"], 50 * SECOND)
    renewed = store.schedule([b"n\0a"], 60 * SECOND)
    store.cancel(b"n\0a", expected=seen)
    assert store.deadline(b"n\0a")[1] == renewed


def test_only_what_is_due_is_claimed_and_how_late_it_is(store: ExpirationStore) -> None:
    store.schedule([b"n\0due"], 0)
    store.schedule([b"n\0later"], 100 * SECOND)
    found = claim(store)
    assert found.members == [b"n\0due"]
    assert 0 <= found.late[0] < 60 * SECOND


def test_nothing_is_claimed_twice_while_the_lease_lasts(store: ExpirationStore) -> None:
    store.schedule([b"n\0%d" % number for number in range(50)], 0)
    first, second, third = claim(store, 15), claim(store, 15), claim(store)
    assert not set(first.members) & set(second.members)
    assert len(first.members) + len(second.members) + len(third.members) == 50


def test_a_claim_of_none_counts_what_is_overdue(store: ExpirationStore) -> None:
    store.schedule([b"n\0%d" % number for number in range(50)], 0)
    assert sum(store.claim(shard, 0, LEASE).overdue for shard in store.shards) == 50


def test_a_lapsed_claim_is_claimed_anew(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    first = claim(store, lease=SHORT)
    second = claim_later(store)
    assert second.members == [b"n\0a"]
    assert second.token > first.token


def test_the_token_of_a_lapsed_claim_settles_nothing(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    lapsed = claim(store, lease=SHORT)
    renewed = claim_later(store, SHORT)
    settle(store, b"n\0a", lapsed.token)
    assert settle(store, b"n\0a", lapsed.token, "it failed") == (0, 0)
    again = claim_later(store)
    settle(store, b"n\0a", again.token)
    assert renewed.token != lapsed.token
    assert store.deadline(b"n\0a")[1] == 0


@pytest.mark.parametrize(
    "verb",
    [
        lambda store: store.schedule([b"n\0a"], SECOND),
        lambda store: store.schedule([b"n\0a", b"n\0b", b"n\0c"], SECOND),
        lambda store: store.cancel(b"n\0a"),
        lambda store: store.touch(b"n\0a", SECOND),
        lambda store: store.carry(b"n\0a", b"n\0b"),
        lambda store: store.carry(b"n\0b", b"n\0a"),
        lambda store: store.carry(b"n\0a", another_member(store, b"n\0a")),
        lambda store: store.place(b"n\0a", 1),
        lambda store: store.reserve(b"n\0a", LEASE),
    ],
    ids="""schedule schedule_many cancel touch
        carry_from carry_to carry_across place reserve""".split(),
)
def test_a_writer_waits_until_the_claim_has_ended(
    store: ExpirationStore, verb: Callable[[ExpirationStore], Any]
) -> None:
    store.schedule([b"n\0b"], 100 * SECOND)
    store.schedule([b"n\0a"], 0)
    token = claim(store).token
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(verb, store)
        with pytest.raises(TimeoutError):
            writing.result(0.2)
        settle(store, b"n\0a", token)
        writing.result(60)


def test_a_writer_waits_no_longer_than_the_lease(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    started = time.monotonic()
    claim(store, lease=SHORT)
    store.schedule([b"n\0a"], SECOND)
    assert time.monotonic() - started >= SHORT / SECOND * 0.9
    assert not claim(store).members


def test_touch_gives_a_record_that_is_near_its_end_the_grace(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 30 * SECOND)
    deadline, before, *_ = store.touch(b"n\0a", 60 * SECOND)
    assert 30 * SECOND <= deadline - before < 60 * SECOND


def test_touch_leaves_a_later_deadline_alone(store: ExpirationStore) -> None:
    scheduled = store.schedule([b"n\0a"], 100 * SECOND)
    assert store.touch(b"n\0a", 60 * SECOND)[:2] == (scheduled, scheduled)


def test_touch_makes_no_record_where_there_is_none(store: ExpirationStore) -> None:
    assert store.touch(b"n\0a", 60 * SECOND)[:2] == (0, 0)


def test_touch_forgets_what_is_overdue(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    deadline, before, *_ = store.touch(b"n\0a", 60 * SECOND)
    assert not deadline
    assert before
    assert not claim(store).members


def test_what_is_overdue_stays_so_until_its_new_life_has_been_written(
    store: ExpirationStore,
) -> None:
    store.schedule([b"n\0a"], 0)
    first = store.touch(b"n\0a", SECOND, unfinished=SHORT)
    assert first.unfinished
    repeated = store.touch(b"n\0a", SECOND, unfinished=60 * SECOND)
    assert repeated.unfinished
    assert repeated.deadline > first.deadline
    now, deadline = store.deadline(b"n\0a")
    assert 0 < deadline <= now
    assert not claim(store).members
    assert store.touch(b"n\0a", SECOND)[0] == 0
    assert store.deadline(b"n\0a")[1] == 0


def test_a_new_life_that_was_never_finished_ends(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    store.touch(b"n\0a", SECOND, unfinished=SHORT)
    assert claim_later(store).members == [b"n\0a"]


def test_a_new_life_that_comes_to_nothing_can_be_taken_back(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    touch = store.touch(b"n\0a", SECOND, unfinished=60 * SECOND)
    store.place(b"n\0a", touch.before, expected=touch.deadline)
    assert claim(store).members == [b"n\0a"]


def test_touch_forgets_a_lapsed_claim(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    claim(store, lease=1)
    assert store.touch(b"n\0a", 60 * SECOND)[0] == 0
    assert not claim(store).members


def test_touch_forgets_a_deletion_that_waits_for_its_next_attempt(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    settle(store, b"n\0a", claim(store).token, "it failed")
    assert store.touch(b"n\0a", 60 * SECOND)[0] == 0


def test_touch_registers_the_default_life_and_renews_only_its_own(store: ExpirationStore) -> None:
    registered, *_ = store.touch(b"n\0a", SECOND, 100 * SECOND)
    renewed, *_ = store.touch(b"n\0a", SECOND, 100 * SECOND, registered)
    assert renewed > registered
    explicit = store.schedule([b"n\0a"], 50 * SECOND)
    assert store.touch(b"n\0a", SECOND, 100 * SECOND, renewed)[0] == explicit


def test_touch_registers_nothing_where_somebody_has_cancelled_meanwhile(
    store: ExpirationStore,
) -> None:
    registered = store.touch(b"n\0a", SECOND, 100 * SECOND).deadline
    store.cancel(b"n\0a")
    assert store.touch(b"n\0a", SECOND, 100 * SECOND, registered).deadline == 0


def test_touch_renews_what_the_same_write_has_registered_even_overdue(
    store: ExpirationStore,
) -> None:
    registered = store.schedule([b"n\0a"], 0)
    deadline, *_ = store.touch(b"n\0a", 60 * SECOND, None, registered)
    assert deadline - registered > 59 * SECOND


def test_renew_moves_a_deadline_on_but_not_beyond_the_latest(store: ExpirationStore) -> None:
    scheduled = store.schedule([b"n\0a"], 100 * SECOND)
    assert store.renew(b"n\0a", 50 * SECOND) == scheduled
    assert store.renew(b"n\0a", 200 * SECOND) > scheduled + 99 * SECOND
    latest = scheduled + 150 * SECOND
    assert store.renew(b"n\0a", 600 * SECOND, latest) == latest
    assert store.deadline(b"n\0a")[1] == latest


def test_renew_leaves_what_is_over_or_has_no_deadline(store: ExpirationStore) -> None:
    assert store.renew(b"n\0a", SECOND) == 0
    store.schedule([b"n\0a"], 0)
    assert store.renew(b"n\0a", SECOND) == 0
    settle(store, b"n\0a", claim(store).token, "it failed")
    assert store.renew(b"n\0a", 60 * SECOND) == 0


def test_carry_gives_both_the_deadline_of_the_source(store: ExpirationStore) -> None:
    source = store.schedule([b"n\0a"], 50 * SECOND)
    target = store.schedule([b"n\0b"], 10 * SECOND)
    assert store.carry(b"n\0a", b"n\0b") == (source, source, target)
    assert store.deadlines([b"n\0a", b"n\0b"])[1] == [source, source]


def test_carry_without_a_deadline_changes_nothing(store: ExpirationStore) -> None:
    target = store.schedule([b"n\0b"], 10 * SECOND)
    assert store.carry(b"n\0a", b"n\0b") == (0, 0, target)
    assert store.deadlines([b"n\0a", b"n\0b"])[1] == [0, target]


def test_carry_lets_neither_be_due_before_the_grace_has_passed(store: ExpirationStore) -> None:
    source, destination = b"n\0a", another_member(store, b"n\0a")
    deadline = store.schedule([source], 0)
    carried = store.carry(source, destination, grace=100 * SECOND)
    now, deadlines = store.deadlines([source, destination])
    assert deadlines == [carried.deadline] * 2
    assert (carried.had >= deadline, carried.replaced) == (True, 0)
    assert carried.deadline > now + 50 * SECOND
    assert not claim(store).members


@pytest.mark.parametrize(
    "became",
    [
        lambda store: claim(store, lease=1),
        lambda store: fail(store, b"n\0a", attempts=2),
        lambda store: fail(store, b"n\0a", attempts=1),
    ],
    ids=["claimed and left", "put off", "set aside"],
)
def test_carry_takes_along_what_could_not_be_deleted(
    store: ExpirationStore, became: Callable[[ExpirationStore], object]
) -> None:
    store.schedule([b"n\0a"], 0)
    became(store)

    destination = another_member(store, b"n\0a")
    carried, *_ = store.carry(b"n\0a", destination)
    store.cancel(b"n\0a", carried)

    now, deadline = store.deadline(destination)
    assert 0 < carried == deadline <= now
    assert store.record(b"n\0a") is None
    assert claim(store).members == [destination]


def test_what_waits_for_its_next_attempt_counts_as_overdue_to_a_writer(
    store: ExpirationStore,
) -> None:
    store.schedule([b"n\0a"], 0)
    fail(store, b"n\0a", attempts=2)
    assert store.claim_one(b"n\0a", LEASE).wait > 0
    before = store.touch(b"n\0a", SECOND).before
    assert 0 < before <= store.deadline(b"n\0a")[0]


def test_a_reservation_whose_reply_was_lost_can_be_repeated(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(redis_url=redis_server.url, key_prefix="reserve")
    store = store_for(conf.current())
    for _ in range(20):
        store.schedule([b"n\0a"], 60 * SECOND)
        first = store.claim_one(b"n\0a", LEASE, early=1234)
        now, _ = store.deadline(b"")
        assert LEASE / 2 < first.token - now <= LEASE
        assert store.claim_one(b"n\0a", LEASE, early=4321).busy
        assert store.claim_one(b"n\0a", LEASE, early=1234).token == first.token
        store.acknowledge(b"n\0a", first.token)


def test_claim_one_takes_only_what_is_due(store: ExpirationStore) -> None:
    assert store.claim_one(b"n\0a", LEASE) == (0, 0, 0, 0)
    store.schedule([b"n\0a"], 100 * SECOND)
    early = store.claim_one(b"n\0a", LEASE)
    assert not early.token
    assert 50 * SECOND < early.wait <= 100 * SECOND
    store.schedule([b"n\0a"], 0)
    assert store.claim_one(b"n\0a", LEASE).token
    assert store.claim_one(b"n\0a", LEASE).busy > 0


def test_a_reserved_record_can_be_put_back(store: ExpirationStore) -> None:
    deadline = store.schedule([b"n\0a"], 10 * SECOND)
    reserved = store.reserve(b"n\0a", LEASE)
    assert reserved.deadline == deadline
    store.place(b"n\0a", deadline, reserved.token)
    assert store.deadline(b"n\0a")[1] == deadline


def test_a_record_is_not_put_back_under_a_token_that_is_not_its_own(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 10 * SECOND)
    reserved = store.reserve(b"n\0a", SHORT)
    renewed = store.schedule([b"n\0a"], 20 * SECOND)
    store.place(b"n\0a", 1, reserved.token)
    assert store.deadline(b"n\0a")[1] == renewed


def test_a_record_is_not_put_back_over_a_deadline_that_is_not_the_one_expected(
    store: ExpirationStore,
) -> None:
    store.place(b"n\0a", 1, expected=5)
    assert store.deadline(b"n\0a")[1] == 0
    store.place(b"n\0a", 1, expected=0)
    renewed = store.schedule([b"n\0a"], 20 * SECOND)
    store.place(b"n\0a", 1, expected=0)
    assert store.deadline(b"n\0a")[1] == renewed


def test_the_token_of_a_lapsed_claim_puts_nothing_off(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    lapsed = claim(store, lease=1)
    renewed = claim_later(store)
    put_off = {SECOND: [b"n\0a"]}
    store.settle(store.shard_of(b"n\0a"), lapsed.token, [], put_off=put_off)
    settle(store, b"n\0a", renewed.token)
    assert store.record(b"n\0a") is None


def pause_after_failure(store: ExpirationStore, member: bytes) -> float:
    """Seconds until a member, whose deletion fails once more, is tried again."""
    token = store.claim_one(member, LEASE, early=1).token
    backoff = Backoff(9, 400 * SECOND, 1_000 * SECOND)
    store.settle(store.shard_of(member), token, [], [(member, "no")], backoff)
    return store.claim_one(member, LEASE).wait / SECOND


def test_the_pause_doubles_with_each_attempt_up_to_the_longest(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    for longest in 400, 800, 1_000, 1_000, 1_000:
        assert longest / 2 - 60 < pause_after_failure(store, b"n\0a") <= longest


def test_what_failed_together_is_not_tried_again_together(store: ExpirationStore) -> None:
    members = [b"n\0%d" % number for number in range(20)]
    store.schedule(members, 0)
    for shard in store.shards:
        found = store.claim(shard, 20, LEASE)
        failures = [(member, "no") for member in found.members]
        store.settle(shard, found.token, [], failures, Backoff(2, 100 * SECOND))
    waits = [store.claim_one(member, LEASE).wait / SECOND for member in members]
    assert max(waits) - min(waits) > 10


def test_a_failed_deletion_is_put_off_and_set_aside_at_last(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    fail(store, b"n\0a", attempts=3)
    assert not claim(store).members
    reserved = store.claim_one(b"n\0a", LEASE, early=1).token
    assert settle(store, b"n\0a", reserved, "read-only", attempts=3) == (1, 0)
    again = claim_later(store)
    assert settle(store, b"n\0a", again.token, "read-only", attempts=3) == (0, 1)
    now, deadline = store.deadline(b"n\0a")
    assert deadline == now


def test_what_is_put_off_is_due_later_and_no_attempt_is_counted(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    token, shard = claim(store).token, store.shard_of(b"n\0a")
    store.settle(shard, token, [], put_off={LEASE: [b"n\0a"]})
    assert claim(store).members == []
    token = store.claim_one(b"n\0a", LEASE, early=1).token
    assert store.settle(shard, token, [], put_off={SHORT: [b"n\0a"]}) == (0, 0, None)
    assert settle(store, b"n\0a", claim_later(store).token, "it failed") == (1, 0)


def test_what_is_put_off_counts_as_overdue_for_a_writer(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    store.settle(store.shard_of(b"n\0a"), claim(store).token, [], put_off={LEASE: [b"n\0a"]})
    assert store.touch(b"n\0a", SHORT).deadline == 0
    assert store.deadline(b"n\0a")[1] == 0


def test_what_is_broken_is_set_aside_at_once_beside_what_has_failed(store: ExpirationStore) -> None:
    for member in b"n\0a", b"broken":
        store.schedule([member], 0)
    claims = {shard: store.claim(shard, 10, LEASE) for shard in store.shards}
    retried = set_aside = 0
    for shard, (token, members, *_) in claims.items():
        broken = [(b"broken", "is none")] if b"broken" in members else []
        failures = [(b"n\0a", "no")] if b"n\0a" in members else []
        settled = store.settle(shard, token, [], failures, Backoff(2), broken)
        retried, set_aside = retried + settled.retried, set_aside + settled.set_aside
    assert (retried, set_aside) == (1, 1)
    [given_up] = store.set_aside().records
    assert (given_up.member, given_up.reason, given_up.attempts) == (b"broken", "is none", 1)


def test_a_record_set_aside_starts_anew_with_a_deadline(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    store.settle(store.shard_of(b"n\0a"), claim(store).token, [], [(b"n\0a", "no")], Backoff(1))
    assert not store.claim_one(b"n\0a", LEASE).token
    store.schedule([b"n\0a"], 0)
    assert claim(store).members == [b"n\0a"]


def test_a_whole_claim_is_forgotten_without_naming_its_members(store: ExpirationStore) -> None:
    members = [b"n\0%d" % number for number in range(9)]
    store.schedule(members, 0)
    shard = max(store.shards, key=lambda shard: store.claim(shard, 0, LEASE).overdue)
    first, second = (store.claim(shard, 2, LEASE) for _ in range(2))
    assert len(second.members) == min(2, sum(store.shard_of(m) == shard for m in members) - 2)
    store.settle(shard, first.token, None)
    assert [store.deadline(member)[1] for member in first.members] == [0, 0]
    assert all(store.deadline(member)[1] for member in second.members)


def test_no_two_claims_share_a_token(store: ExpirationStore) -> None:
    members = [b"n\0%d" % number for number in range(200)]
    store.schedule(members, 0)
    tokens = [store.claim_one(member, LEASE).token for member in members]
    assert len(set(tokens)) == 200


def test_settling_claims_the_next_batch_at_once(store: ExpirationStore) -> None:
    store.schedule([b"n\0%d" % number for number in range(9)], 0)
    shard = next(shard for shard in store.shards if store.claim(shard, 0, LEASE).overdue > 1)
    first = store.claim(shard, 1, LEASE)
    then = store.settle(shard, first.token, first.members, then=(1, LEASE)).claim
    assert then
    assert len(then.members) == 1
    assert then.members != first.members


def test_sweeps_are_listed_newest_first(store: ExpirationStore) -> None:
    before = time.time()
    for number in range(3):
        store.record_sweep({"deleted": number})
    listed = store.sweeps(2)
    assert [report["deleted"] for report in listed] == [2, 1]
    assert before - 1 < listed[0]["finished"] < time.time() + 1


def test_processes_must_agree_on_the_number_of_shards(
    djfs: Callable[..., None], redis_server: Any
) -> None:
    for shards in 2, 4:
        djfs(type="memory", redis_url=redis_server.url, key_prefix="agree", shards=shards)
        other = store_for(conf.current())
        if shards == 2:
            other.schedule([b"n\0a"], SECOND)
    with pytest.raises(ConfigurationError, match=r"DJFS\['shards'\] is 4, .* over 2"):
        other.schedule([b"n\0a"], SECOND)


def test_a_redis_that_evicts_keys_is_refused(djfs: Callable[..., None]) -> None:
    with running_redis(**{"maxmemory-policy": "allkeys-lru"}) as server:
        djfs(type="memory", redis_url=server.url)
        with pytest.raises(ConfigurationError, match="noeviction"):
            store_for(conf.current()).schedule([b"n\0a"], SECOND)


def test_scripts_that_redis_has_forgotten_are_loaded_again(
    djfs: Callable[..., None], redis_server: Any
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="forgotten")
    store = store_for(conf.current())
    for ttl in 0, 0:
        store.schedule([b"n\0a"], ttl)
        redis_server.client().script_flush()
        token = store.claim(0, 1, LEASE).token
        redis_server.client().script_flush()
        assert store.settle(0, token, [b"n\0a"], then=(1, LEASE)).claim


def test_a_full_redis_refuses_deadlines_and_still_lets_sweeps_through(
    djfs: Callable[..., None],
) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
        store = store_for(conf.current())
        store.schedule([b"n\0a"], 0)
        server.client().config_set("maxmemory", "1")
        with pytest.raises(RecordStoreError, match="full"):
            store.schedule([b"n\0b"], 0)
        server.client().delete("djpyfs:shards")
        expirations.close_all()  # as a worker that has just started
        store = store_for(conf.current())
        found = store.claim(0, 10, LEASE)
        store.settle(0, found.token, found.members)
        assert store.deadline(b"n\0a")[1] == 0


FORK = """
import os, signal, sys, threading
from django.conf import settings
settings.configure(DJFS={"type": "memory", "redis_url": "memory://"})
from djpyfs import conf
from djpyfs.expirations import store_for

inside, go_on = threading.Event(), threading.Event()

class Slow(list):
    def __iter__(self):
        inside.set()
        go_on.wait()
        return super().__iter__()

schedule = lambda: store_for(conf.current()).schedule(Slow([b"n\\0a"]), 1)
threading.Thread(target=schedule).start()
inside.wait()
child = os.fork()
if not child:
    signal.alarm(30)
    store_for(conf.current()).schedule([b"n\\0b"], 1)
    os._exit(0)
status = os.waitpid(child, 0)[1]
go_on.set()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_fork_in_the_midst_of_a_call_leaves_the_child_a_store_that_works() -> None:
    process = python(FORK)
    process.communicate(timeout=120)
    assert process.returncode == 0
