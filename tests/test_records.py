"""Every verb of the record store, on Redis, on Redis with shards, and in the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from djpyfs import ConfigurationError, FileBusy, RecordStoreError, conf, expirations
from djpyfs.conf import SECOND
from djpyfs.expirations import (
    BACKOFF,
    Backoff,
    Begun,
    Claim,
    ClaimOne,
    Expirations,
    ExpirationStore,
    GivenUp,
    Record,
    State,
    Verdict,
    claim_lease,
    store_for,
    write_lease,
)
from djpyfs.expirations.redis_store import RedisStore
from tests.conftest import record_settings
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, python, running_redis, wait_for

LEASE = 60 * SECOND
SHORT = SECOND // 10
MINUTE = 60 * SECOND
AT_ONCE = Backoff(10, 1, 1)
A, B = b"n/a", b"n/b"
At = Callable[..., Expirations]


@pytest.fixture(params=["memory", "redis", "redis-sharded", "cluster"])
def records(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The record stores of the other tests, and one that spreads its records."""
    return record_settings(request)


@pytest.fixture
def all_records(djfs: Callable[..., None], records: dict[str, Any]) -> ExpirationStore:
    djfs(type="memory", **records)
    return store_for(conf.current())


@pytest.fixture
def at(all_records: ExpirationStore) -> At:
    """Return the records of a place, for somebody with such a lease and such a fence."""

    def at(place: str = "here", lease: int = LEASE, **options: Any) -> Expirations:
        return all_records.at(place, lease, **options)

    return at


@pytest.fixture
def store(at: At) -> Expirations:
    return at()


@pytest.fixture
def dying(at: At) -> Expirations:
    """What a process sees whose leases nobody extends."""
    return at(lease=SHORT)


@pytest.fixture
def redis_store(djfs: Callable[..., None], redis_server: RedisServer) -> Expirations:
    djfs(type="memory", redis_url=redis_server.url, key_prefix=f"once-{time.monotonic_ns()}")
    return store_for(conf.current()).at("here", LEASE)


@pytest.fixture
def losing(redis_server: RedisServer, djfs: Callable[..., None]) -> Iterator[tuple[Any, Proxy]]:
    """The records behind a proxy that may lose a reply; the call is repeated then."""
    proxy = Proxy(redis_server.port)
    djfs(type="memory", redis_url=proxy.url, key_prefix=f"lost-{time.monotonic_ns()}")
    store = store_for(conf.current()).at("here", LEASE)
    store.counts()
    yield store, proxy
    expirations.close_all()
    proxy.stop()


def claim(store: Expirations, limit: int = 100, backoff: Backoff = BACKOFF) -> Claim:
    """Claim from all shards, for tests that do not care where a member is."""
    claims = [store.claim(shard, limit, backoff) for shard in store.shards]
    members = [member for one in claims for member in one.members]
    token = next((one.token for one in claims if one.members), 0)
    return Claim(token, members, [late for one in claims for late in one.late], 0)


def claim_later(store: Expirations, backoff: Backoff = BACKOFF) -> Claim:
    """Wait until something can be claimed."""
    claims: list[Claim] = []

    def claimed() -> bool:
        claims.append(claim(store, backoff=backoff))
        return bool(claims[-1].members)

    wait_for(claimed)
    return claims[-1]


def settle(
    store: Expirations, member: bytes, token: int, failure: str = "", attempts: int = 2
) -> tuple[int, int]:
    verdict = Verdict(failures=[(member, failure)]) if failure else Verdict(done=[member])
    settled = store.settle(store.shard_of(member), token, verdict, Backoff(attempts, SHORT))
    return settled.retried, settled.set_aside


def put_off(
    store: Expirations, member: bytes, token: int, delay: int, state: State = State.HELD
) -> None:
    store.settle(store.shard_of(member), token, Verdict(put_off={(delay, state): [member]}))


def fail(store: Expirations, member: bytes, attempts: int) -> None:
    """Let one deletion of a member that is due fail."""
    verdict = Verdict(failures=[(member, "no")])
    backoff = Backoff(attempts, 100 * SECOND)
    store.settle(store.shard_of(member), store.claim_one(member).token, verdict, backoff)


def due(store: Expirations, count: int = 1) -> list[bytes]:
    """Let some members of one shard be due."""
    numbered = [b"n/%d" % number for number in range(count * 30)]
    shard = store.shard_of(numbered[0])
    members = [member for member in numbered if store.shard_of(member) == shard][:count]
    store.schedule(members, 0)
    return members


def deadline(store: Expirations, member: bytes = A) -> int:
    return store.deadline(member)[1]


def state(store: Expirations, member: bytes = A) -> str:
    record = store.record(member)
    return record.state if record else "none"


def lapses(store: Expirations, member: bytes = A) -> None:
    """Wait until a claim has lapsed, and no sweep has noticed yet."""
    wait_for(lambda: not store.counts().claimed)


def now(store: Expirations) -> int:
    return store.deadline(A)[0]


# -- deadlines


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


def test_places_are_told_once_they_are_introduced(all_records: ExpirationStore) -> None:
    all_records.introduce("disk:1", "/srv/files")
    all_records.introduce("disk:1", "/srv/moved")
    all_records.introduce("s3:2", "bucket")
    assert all_records.places() == {"disk:1": "/srv/moved", "s3:2": "bucket"}


def test_only_places_with_something_to_do_are_waiting(all_records: ExpirationStore, at: At) -> None:
    places = {name: at(name) for name in ("idle", "due", "later", "lapsed")}
    places["due"].schedule([A], 0)
    places["later"].schedule([A], MINUTE)
    at("lapsed", SHORT).reserve(B)

    def waiting() -> set[str]:
        found, problems = all_records.waiting(list(places.values()))
        assert problems == []
        return {it.records.place for it in found}

    wait_for(lambda: waiting() == {"due", "lapsed"})


def test_it_is_told_how_much_can_be_claimed_where_something_is_waiting(
    all_records: ExpirationStore, store: Expirations
) -> None:
    members = [b"n/%d" % number for number in range(20)]
    store.schedule(members[:12], 0)
    store.schedule(members[12:], MINUTE)
    store.begin(members[0], MINUTE)
    found, _ = all_records.waiting([store])
    assert sum(it.overdue for it in found) == 11


def test_a_seat_is_free_when_it_is_given_up_or_its_lease_is_over(
    all_records: ExpirationStore,
) -> None:
    def take(name: str, lease: int = 60_000, seats: str = "here") -> set[str]:
        return {*all_records.take_seat(seats, name, lease, 2)}

    assert take("first") == {"first"}
    assert take("second") == take("third") == take("first") == {"first", "second"}
    assert take("third", seats="there") == {"third"}
    assert take("second", lease=0) == {"first"}
    assert take("third", lease=1) == {"first", "third"}
    wait_for(lambda: "fourth" in take("fourth"), what="the end of a lease")
    assert take("", lease=0) == {"first", "fourth"}


def test_what_is_due_next_is_told_and_what_is_being_written_is_left_out(
    all_records: ExpirationStore, store: Expirations
) -> None:
    def next_due() -> int | None:
        found, problems = all_records.next_due([store])
        assert problems == []
        return min((it.due for it in found if it.due is not None), default=None)

    assert next_due() is None
    later, soon = store.schedule([A], MINUTE), store.schedule([B], 2)
    assert next_due() == soon
    write = store.begin(B, 2 * MINUTE)
    assert next_due() == later
    store.abandon(B, write.token)
    assert next_due() == soon


def test_one_keeps_time_until_it_gives_it_up_or_is_late(
    all_records: ExpirationStore, at: At
) -> None:
    here, there = at("here"), at("there")

    def keeps_time(name: str, *records: Expirations, lease: int = 60_000) -> Collection[str]:
        kept = all_records.keep_time(name, lease, records)
        assert kept.problems == []
        return set(kept.places)

    assert keeps_time("first", here) == {"here"}
    assert keeps_time("second", here, there) == {"there"}
    assert keeps_time("first", here, there) == {"here"}
    assert all_records.timekeepers([here, there]) == {"here": "first", "there": "second"}
    assert keeps_time("second", here, there, lease=0) == set()
    assert all_records.timekeepers([here, there]) == {"here": "first"}
    assert keeps_time("first", here, lease=1) == {"here"}
    wait_for(lambda: keeps_time("second", here))


def test_who_keeps_time_is_told_what_is_due_next_in_the_same_call(
    all_records: ExpirationStore, at: At
) -> None:
    here, there = at("here"), at("there")
    here.schedule([A], 0)
    there.schedule([A], 0)
    all_records.keep_time("another", 60_000, [there])
    kept = all_records.keep_time("one", 60_000, [here, there], [here, there])
    assert [it.records.place for it in kept.next_due if it.is_due] == ["here"]


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
def test_whoever_gives_a_permanent_file_a_deadline_or_removes_it_ends_its_permanence(
    store: Expirations, verb: Callable[[Expirations], object]
) -> None:
    store.keep(A)
    verb(store)
    store.place_at(A, 0)  # as if its file were gone
    write = store.begin(A, LEASE, MINUTE)
    assert store.finish(A, write, 0, MINUTE).by_default


# -- what waits for an owner


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


def test_what_waits_for_an_owner_is_told_from_the_others_when_it_is_claimed(
    store: Expirations,
) -> None:
    store.schedule([A, B], 0)
    store.await_owner(A, 0, 0)
    assert awaiting(store) == [A]


def test_what_is_claimed_by_itself_is_told_to_wait_for_an_owner(store: Expirations) -> None:
    store.schedule([A, B], 0)
    store.await_owner(A, 0, 0)
    assert [store.claim_one(member).awaiting for member in (A, B)] == [True, False]


def test_what_has_no_deadline_waits_for_no_owner(store: Expirations) -> None:
    store.keep(B)
    for member in A, B:
        store.await_owner(member, SECOND, 0)
        store.take_up(member)
        assert deadline(store, member) == 0
    assert is_permanent(store, B)
    assert not is_permanent(store, A)


@pytest.mark.parametrize(("ttl", "expected"), [(50, 100), (200, 200)])
def test_what_waits_for_an_owner_is_never_due_sooner(
    store: Expirations, ttl: int, expected: int
) -> None:
    store.schedule([A], 100 * SECOND)
    store.await_owner(A, ttl * SECOND, 0)
    assert has_left(store) == expected


def test_what_is_owned_is_permanent_or_has_its_life(store: Expirations) -> None:
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
def test_who_has_the_last_word_on_a_file_leaves_nothing_to_an_owner(
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


def test_what_is_put_off_fails_is_written_or_is_not_removed_waits_for_its_owner_still(
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


def test_what_is_set_aside_and_forgotten_waits_for_no_owner(store: Expirations) -> None:
    store.schedule([A], 0)
    store.await_owner(A, 0, 0)
    fail(store, A, attempts=1)
    store.forget([A])
    store.schedule([A], 0)
    assert awaiting(store, [A]) == []


@pytest.mark.parametrize(("before", "expected"), [(None, 50), (100, 50), (20, 20)])
def test_what_an_owner_lets_go_of_is_due_soon_and_asked_for(
    store: Expirations, before: int | None, expected: int
) -> None:
    store.keep(A) if before is None else store.schedule([A], before * SECOND)
    store.let_go(A, 50 * SECOND)
    assert has_left(store) == expected
    store.take_up(A)
    assert has_left(store) == (before or 0)
    assert is_permanent(store) == (before is None)


def test_what_is_let_go_of_twice_has_its_first_deadline_again(store: Expirations) -> None:
    store.schedule([A], 1_000 * SECOND)
    for ttl in 500, 50, 500:
        store.let_go(A, ttl * SECOND)
    assert has_left(store) == 50
    store.take_up(A)
    assert has_left(store) == 1_000


def test_what_awaits_its_first_owner_is_nobodys_to_let_go_of(store: Expirations) -> None:
    store.schedule([A], 100 * SECOND)
    store.await_owner(A, 0, 0)
    store.let_go(A, 10 * SECOND)
    assert has_left(store) == 100


def test_what_was_let_go_of_awaits_a_new_owner_with_the_deadline_that_it_had(
    store: Expirations,
) -> None:
    store.schedule([A], 1_000 * SECOND)
    store.await_owner(A, 5_000 * SECOND)
    assert has_left(store) == 1_000
    store.let_go(A, 10 * SECOND)
    store.await_owner(A, 100 * SECOND)
    store.let_go(A, 10 * SECOND)
    assert has_left(store) == 100
    store.take_up(A)
    assert has_left(store) == 1_000


@pytest.mark.parametrize("verb", ["await_owner", "let_go", "take_up"])
def test_owners_wait_for_a_sweep_that_is_at_their_file(store: Expirations, verb: str) -> None:
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
    assert store.renew(A, 600 * SECOND, latest) == latest
    assert deadline(store) == latest


def test_renew_leaves_what_is_over_or_has_no_deadline(store: Expirations) -> None:
    assert store.renew(A, SECOND) == 0
    store.schedule([A], 0)
    assert store.renew(A, SECOND) == 0
    fail(store, A, attempts=2)
    assert store.renew(A, MINUTE) == 0


def test_nothing_is_adopted_that_somebody_is_about_to_remove(store: Expirations) -> None:
    token = store.reserve(A).token
    assert store.adopt({A: 1, B: 1}) == [B]
    assert claim(store).members == [B]
    store.release(A, token)
    assert store.record(A) is None


# -- tickets


def test_a_ticket_is_good_for_its_uses_and_its_time(store: Expirations) -> None:
    begun = now(store)
    store.issue_ticket(A, "two", 2, begun + 60 * SECOND)
    store.issue_ticket(A, "late", 2, begun + SECOND // 5)
    assert [store.use_ticket(A, "two", uses) for uses in (0, 1, 1, 0, 1)] == [
        *(True, True, True),
        *(False, False),
    ]
    assert not store.use_ticket(A, "never issued")
    wait_for(lambda: not store.use_ticket(A, "late", 0))


def test_a_use_that_many_ask_for_at_a_time_is_taken_once(store: Expirations) -> None:
    begun = now(store)
    start = threading.Barrier(20)

    def use(ticket: str) -> bool:
        start.wait(60)
        return store.use_ticket(A, ticket)

    with ThreadPoolExecutor(20) as pool:
        for ticket in "one", "two", "three":
            store.issue_ticket(A, ticket, 1, begun + 60 * SECOND)
            assert sum(pool.map(use, [ticket] * 20)) == 1


# -- claims


def test_only_what_is_due_is_claimed_and_how_late_it_is(store: Expirations) -> None:
    store.schedule([b"n/due"], 0)
    store.schedule([b"n/later"], 100 * SECOND)
    found = claim(store)
    assert found.members == [b"n/due"]
    assert 0 <= found.late[0] < 60 * SECOND


def test_nothing_is_claimed_twice_while_the_lease_lasts(store: Expirations) -> None:
    store.schedule([b"n/%d" % number for number in range(50)], 0)
    first, second, third = claim(store, 15), claim(store, 15), claim(store)
    assert not set(first.members) & set(second.members)
    assert len(first.members) + len(second.members) + len(third.members) == 50


def test_a_claim_of_none_counts_what_is_overdue_and_not_being_written(store: Expirations) -> None:
    store.schedule([b"n/%d" % number for number in range(50)], 0)
    store.begin(b"n/7", LEASE)
    assert sum(store.claim(shard, 0).overdue for shard in store.shards) == 49


def test_what_is_claimed_keeps_its_true_deadline(store: Expirations) -> None:
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
    then = store.settle(shard, first.token, Verdict(done=[*first.members]), limit=1).claim
    assert then
    assert {*first.members, *then.members} == {one, other}


def test_a_claim_that_is_done_as_a_whole_is_settled_without_names_and_no_other_with_it(
    store: Expirations,
) -> None:
    shard = store.shard_of(due(store, 2)[0])
    first, then = store.claim(shard, 1), store.claim(shard, 1)
    store.settle(shard, first.token, Verdict(done=[*first.members], all_done=True))
    assert (state(store, *first.members), state(store, *then.members)) == ("none", State.CLAIMED)


def test_what_is_in_no_list_of_a_verdict_stays_claimed(store: Expirations) -> None:
    one, other = due(store, 2)
    claimed = store.claim(store.shard_of(one), 2)
    settle(store, one, claimed.token)
    assert (state(store, one), state(store, other)) == ("none", State.CLAIMED)


# -- leases


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


def test_extend_tells_which_leases_are_over(at: At) -> None:
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


def test_a_new_write_is_one_as_any_other_once_its_lease_is_extended(at: At) -> None:
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


def test_a_new_write_whose_record_was_claimed_begins_no_more(at: At) -> None:
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


def test_a_claim_is_over_whose_lease_nothing_moves_although_the_clock_was_set_back(
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
    assert store.extend(shard, {lease: LEASE}) == [lease], "who thaws is told"
    assert claim(store).members == []
    assert deadline(store, member) == renewed


def test_a_claim_whose_lease_moves_is_waited_for_although_the_clock_was_set_back(
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


# -- claims that lapse


def test_a_lapsed_claim_counts_as_a_failed_attempt(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    [member] = due(store)
    claim(dying)
    found = claim_later(store, AT_ONCE)
    assert found.members == [member]
    assert settle(store, member, found.token, "no", attempts=2) == (0, 1)


def test_what_ends_its_sweepers_is_set_aside_in_the_end(dying: Expirations) -> None:
    scheduled, claims = dying.schedule([A], 0), 0

    def given_up_on() -> Sequence[GivenUp]:
        nonlocal claims
        claims += len(claim(dying, backoff=Backoff(3, 1, 1)).members)
        return dying.set_aside().records

    [given_up] = wait_for(given_up_on)
    assert claims == 3
    assert (given_up.member, given_up.attempts, given_up.deadline) == (A, 3, scheduled)
    assert "did not end in time" in given_up.reason


def test_what_ended_a_sweeper_alone_is_tried_again_after_a_pause(dying: Expirations) -> None:
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


def test_a_suspect_is_not_claimed_by_who_deletes_something_else_meanwhile(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    suspects = due(store, 2)
    shard = store.shard_of(suspects[0])
    dying.claim(shard, 2)
    lapses(store)
    assert store.claim(shard, 9, alone=False).members == []
    assert store.claim(shard, 9).members == suspects[:1]


def test_one_that_was_retried_does_not_wait_behind_suspects(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    retried, suspect = due(store, 2)
    shard = store.shard_of(suspect)
    store.settle(
        shard, store.claim_one(retried).token, Verdict(failures=[(retried, "no")]), AT_ONCE
    )
    dying.claim_one(suspect)
    lapses(store)
    found = [store.claim(shard, 9, AT_ONCE).members for _ in range(2)]
    assert found == [[retried], [suspect]]


def test_an_excused_claim_lapses_without_an_attempt_and_is_claimed_together_again(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    members = due(store, 2)
    shard = store.shard_of(members[0])
    dying.settle(shard, dying.claim(shard, 9).token, Verdict(excused=members))
    assert store.claim(shard, 9).members == []
    wait_for(lambda: not store.counts().claimed)
    assert sorted(store.claim(shard, 9, Backoff(1)).members) == members
    assert store.counts().set_aside == 0


def test_what_others_have_claimed_is_not_excused(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    [member] = due(store)
    lapsed = claim(dying).token
    lapses(store)
    again = claim_later(dying, AT_ONCE)
    store.settle(store.shard_of(member), lapsed, Verdict(excused=[member]))
    lapses(store)
    assert again.members == [member]
    assert claim(store, backoff=Backoff(2)).members == []
    assert store.counts().set_aside == 1


def test_a_reserved_member_has_its_deadline_again_when_the_reservation_lapses(
    at: At,
) -> None:
    store, dying = at(), at(lease=SHORT)
    overdue, later = store.schedule([A], 0), store.schedule([B], 100 * SECOND)
    assert [dying.reserve(member).deadline for member in (A, B)] == [overdue, later]
    wait_for(lambda: not store.counts().claimed)
    assert claim(store, backoff=Backoff(1)).members == [A]
    assert store.record(B) == Record(B, later)
    assert store.counts().set_aside == 0


# -- writers and claims


@pytest.mark.parametrize(
    "verb",
    [
        lambda store, write: store.schedule([A], SECOND),
        lambda store, write: store.schedule([A, B, b"n/c"], SECOND),
        lambda store, write: store.keep(A),
        lambda store, write: store.begin(A, LEASE),
        lambda store, write: store.finish(A, write, SECOND),
        lambda store, write: store.reserve(A),
        lambda store, write: store.place_at(A, 1),
    ],
    ids="schedule schedule_many keep begin finish reserve place_at".split(),
)
class TestWriters:
    def test_a_writer_waits_until_the_claim_has_ended(
        self, store: Expirations, verb: Callable[[Expirations, Begun], Any]
    ) -> None:
        write = lapsed_write(store)
        store.schedule([A], 0)
        token = store.claim_one(A).token
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(verb, store, write)
            with pytest.raises(TimeoutError):
                writing.result(0.1)
            settle(store, A, token)
            writing.result(60)

    def test_a_writer_waits_no_longer_than_the_lease_and_makes_sure_of_who_held_it(
        self, at: At, verb: Callable[[Expirations, Begun], Any]
    ) -> None:
        fenced: list[bytes] = []
        store, dying = at(fence=fenced.append), at(lease=SHORT)
        write = lapsed_write(store)
        store.schedule([A], 0)
        started = time.monotonic()
        dying.claim_one(A)
        verb(store, write)
        assert time.monotonic() - started >= SHORT / SECOND * 0.9
        assert fenced == [A]
        assert claim(store, backoff=Backoff(1)).members in ([A], [])
        assert store.counts().set_aside == 0, "a writer who came first counts no attempt"

    def test_a_writer_makes_sure_of_who_held_a_claim_that_a_sweep_has_ended(
        self, at: At, verb: Callable[[Expirations, Begun], Any]
    ) -> None:
        fenced: list[bytes] = []
        store, dying = at(fence=fenced.append), at(lease=SHORT)
        write = lapsed_write(store)
        store.schedule([A], 0)
        dying.claim_one(A)
        lapses(store)
        assert claim(store).members == []
        verb(store, write)
        assert fenced == [A]


def lapsed_write(store: Expirations) -> Begun:
    """Begin a write whose lease lapses at once, and let a sweep notice."""
    write = store.begin(A, 1)
    time.sleep(0.001)
    claim(store)
    return write


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


def test_a_writer_gives_up_on_what_sweeps_never_let_go(
    redis_store: Expirations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expirations, "PATIENCE", 0.2)
    redis_store.schedule([A], 0)
    redis_store.claim_one(A)
    with pytest.raises(FileBusy):
        redis_store.schedule([A], 0)


@pytest.mark.parametrize("verb", ["schedule", "keep"])
def test_whoever_extends_a_file_hears_soon_that_a_request_of_a_dead_sweeper_may_still_act(
    redis_store: Expirations, verb: str
) -> None:
    def call() -> None:
        if verb == "keep":
            redis_store.keep(A)
        else:
            redis_store.schedule([A], MINUTE)

    before = redis_store.schedule([A], 0)
    redis_store.claim_one(A)
    began = time.monotonic()
    with pytest.raises(FileBusy, match=r"died .* try again in 5[0-9] s"):
        call()
    assert time.monotonic() - began < LEASE / SECOND / 2
    assert redis_store.deadline(A)[1] == before


# -- reservations


def test_a_reserved_member_is_nobody_elses_and_has_its_deadline_afterwards(
    store: Expirations,
) -> None:
    scheduled = store.schedule([A], 0)
    token, known, _ = store.reserve(A)
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


def test_a_reservation_tells_whether_somebody_made_its_member_permanent(store: Expirations) -> None:
    store.keep(A)
    assert [store.reserve(member).permanent for member in (A, B)] == [True, False]


def test_a_reservation_of_what_has_no_record_leaves_none(store: Expirations) -> None:
    token, known, _ = store.reserve(A)
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


def test_what_is_pledged_holds_when_the_reservation_lapses(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    store.schedule([A, B], 0)
    pledges = {A: now(store) + MINUTE, B: 0}
    for member, pledge in pledges.items():
        dying.pledge(member, dying.reserve(member).token, pledge)
    wait_for(lambda: not store.counts().claimed)
    assert claim(store).members == []
    assert store.deadlines([A, B])[1] == list(pledges.values())


def test_what_is_pledged_holds_when_the_reservation_is_released(store: Expirations) -> None:
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


# -- failed deletions


def pause_after_failure(store: Expirations, member: bytes) -> float:
    """Seconds until a member, whose deletion fails once more, is tried again."""
    token = store.reserve(member).token
    backoff = Backoff(9, 400 * SECOND, 1_000 * SECOND)
    failed = Verdict(failures=[(member, "no")])
    store.settle(store.shard_of(member), token, failed, backoff)
    return store.claim_one(member).wait / SECOND


def test_the_pause_doubles_with_each_attempt_up_to_the_longest(store: Expirations) -> None:
    store.schedule([A], 0)
    for longest in 400, 800, 1_000, 1_000, 1_000:
        assert longest / 2 - 60 < pause_after_failure(store, A) <= longest


def test_what_failed_together_is_not_tried_again_together(store: Expirations) -> None:
    members = due(store, 20)
    shard = store.shard_of(members[0])
    failed = Verdict(failures=[(member, "no") for member in members])
    store.settle(shard, store.claim(shard, 20).token, failed, Backoff(2, 100 * SECOND))
    waits = [store.claim_one(member).wait / SECOND for member in members]
    assert max(waits) - min(waits) > 10


def test_a_failed_deletion_is_retried_and_set_aside_at_last(store: Expirations) -> None:
    scheduled = store.schedule([A], 0)
    fail(store, A, attempts=3)
    assert claim(store).members == []
    assert store.record(A) == Record(A, scheduled, State.RETRIED)
    reserved = store.reserve(A).token
    assert settle(store, A, reserved, "read-only", attempts=3) == (1, 0)
    again = claim_later(store)
    assert settle(store, A, again.token, "read-only", attempts=3) == (0, 1)
    assert store.record(A) == Record(A, scheduled, State.SET_ASIDE)


def test_what_is_put_off_waits_and_no_attempt_is_counted(store: Expirations) -> None:
    scheduled = store.schedule([A], 0)
    put_off(store, A, claim(store).token, MINUTE, State.POSTPONED)
    assert claim(store).members == []
    assert store.record(A) == Record(A, scheduled, State.POSTPONED)
    put_off(store, A, store.reserve(A).token, SHORT, State.HELD)
    assert state(store) == State.HELD
    assert settle(store, A, claim_later(store).token, "it failed") == (1, 0)


def test_what_was_not_tried_is_due_again_at_once(store: Expirations) -> None:
    scheduled = store.schedule([A], 0)
    put_off(store, A, claim(store).token, 0, State.DUE)
    assert store.record(A) == Record(A, scheduled)
    fail(store, A, attempts=3)
    put_off(store, A, store.reserve(A).token, 0, State.DUE)
    assert state(store) == State.RETRIED
    assert claim(store).members == [A]


def test_putting_off_nothing_puts_nothing_off(store: Expirations) -> None:
    [member] = due(store)
    token = claim(store).token
    store.settle(store.shard_of(member), token, Verdict(put_off={(0, State.DUE): []}))
    assert state(store, member) == State.CLAIMED


@pytest.mark.parametrize("attempts", [1, 2], ids=["set aside", "retried"])
def test_what_could_not_be_deleted_has_a_new_life_once_it_is_written(
    store: Expirations, attempts: int
) -> None:
    store.schedule([A], 0)
    fail(store, A, attempts)
    write = store.begin(A, LEASE)
    assert write.overdue
    assert store.finish(A, write, MINUTE) == (0, False, True)
    assert store.record(A) is None
    assert store.counts().set_aside == 0


def test_what_is_broken_is_set_aside_at_once_beside_what_has_failed(store: Expirations) -> None:
    broken, failed = due(store, 2)
    shard = store.shard_of(broken)
    verdict = Verdict(failures=[(failed, "no")], broken=[(broken, "is none")])
    settled = store.settle(shard, store.claim(shard, 9).token, verdict, Backoff(2))
    assert settled[:2] == (1, 1)
    [given_up] = store.set_aside().records
    assert (given_up.member, given_up.reason, given_up.attempts) == (broken, "is none", 1)


def test_what_was_set_aside_starts_again_with_a_deadline(store: Expirations) -> None:
    store.schedule([A], 0)
    fail(store, A, attempts=1)
    assert not store.claim_one(A).token
    store.schedule([A], 0)
    assert claim(store).members == [A]


# -- writes


def test_what_is_being_written_is_not_claimed_whatever_its_deadline(store: Expirations) -> None:
    due_members = due(store, 3)
    written, retried, other = due_members
    shard = store.shard_of(written)
    store.settle(
        shard, store.claim_one(retried).token, Verdict(failures=[(retried, "no")]), AT_ONCE
    )
    writes = {member: store.begin(member, LEASE) for member in (written, retried)}
    assert store.claim(shard, 9).members == [other]
    assert not store.claim_one(written).token
    for member, write in writes.items():
        store.abandon(member, write.token)
    assert sorted(store.claim(shard, 9).members) == sorted([written, retried])


def test_what_is_being_written_takes_no_room_in_a_claim(store: Expirations) -> None:
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


def test_a_write_makes_no_record_where_there_is_none(store: Expirations) -> None:
    write = store.begin(A, LEASE)
    assert store.finish(A, write, MINUTE) == (0, False, True)
    assert store.record(A) is None


def test_a_deadline_that_passes_during_a_write_waits_for_the_grace(store: Expirations) -> None:
    store.schedule([A], SHORT)
    write = store.begin(A, LEASE)
    wait_for(lambda: now(store) > write.before)
    assert claim(store).members == []
    finished = store.finish(A, write, MINUTE)
    assert now(store) + 30 * SECOND < finished.deadline == deadline(store)


def test_what_was_overdue_has_a_new_life_when_the_write_is_done_and_not_before(
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


def test_a_new_life_that_comes_to_nothing_leaves_the_file_overdue(store: Expirations) -> None:
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


def test_a_default_life_that_others_write_under_makes_nothing_overdue(store: Expirations) -> None:
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
def test_what_is_set_by_hand_during_a_write_holds(store: Expirations, verb: str, end: str) -> None:
    write = store.begin(A, LEASE, 100 * SECOND)
    by_hand(store)[verb]()
    known = deadline(store)
    if end == "finish":
        assert store.finish(A, write, SECOND, 100 * SECOND) == (known, False, True)
    else:
        store.abandon(A, write.token)
    assert known == deadline(store) > now(store) + 150 * SECOND


def test_what_is_set_by_hand_during_a_write_to_something_overdue_holds(store: Expirations) -> None:
    store.schedule([A], 0)
    write = store.begin(A, LEASE)
    known = store.schedule([A], 200 * SECOND)
    assert store.finish(A, write, SECOND).deadline == known == deadline(store)


def test_what_is_made_permanent_during_a_write_stays_so(store: Expirations) -> None:
    store.schedule([B], 100 * SECOND)
    for member in A, B:
        write = store.begin(member, LEASE, 100 * SECOND)
        store.keep(member)
        assert store.finish(member, write, SECOND, 100 * SECOND) == (0, False, True)
        assert store.record(member) is None


def test_what_is_removed_during_a_write_has_a_default_life_or_none(store: Expirations) -> None:
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


def test_a_write_that_is_given_up_takes_its_record_also_from_a_reservation(
    store: Expirations,
) -> None:
    write = store.begin(A, LEASE, 100 * SECOND)
    token = store.reserve(A).token
    store.abandon(A, write.token)
    store.release(A, token)
    assert store.record(A) is None


def test_a_write_whose_lease_has_lapsed_keeps_no_sweep_away(store: Expirations) -> None:
    store.schedule([A], 0)
    store.begin(A, SHORT)
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


def test_nothing_is_put_back_that_was_made_permanent_under_a_lapsed_write(
    store: Expirations,
) -> None:
    write = write_that_a_sweep_ended(store)
    store.keep(A)
    assert store.finish(A, write, MINUTE) == (0, False, False)


def write_that_a_sweep_ended(store: Expirations) -> Begun:
    store.schedule([A], SHORT)
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


# -- replies that are lost


def test_a_claim_whose_reply_was_lost_is_claimed_once(losing: tuple[Any, Proxy]) -> None:
    store, proxy = losing
    scheduled = store.schedule([A], 0)
    store.claim(0, 0)
    proxy.cuts = 1
    found = store.claim(0, 9)
    assert found.members == [A]
    assert 0 <= found.late[0] <= now(store) - scheduled
    assert settle(store, A, found.token, "no", attempts=2) == (1, 0)
    store.schedule([B], 0)
    proxy.cuts = 1
    token = store.claim_one(B).token
    settle(store, B, token)
    assert store.record(B) is None


def test_a_reservation_whose_reply_was_lost_is_made_once(losing: tuple[Any, Proxy]) -> None:
    store, proxy = losing
    scheduled = store.schedule([A], MINUTE)
    proxy.cuts = 1
    token, known, _ = store.reserve(A)
    store.release(A, token)
    assert known == deadline(store) == scheduled


def test_a_write_whose_replies_were_lost_begins_and_ends_once(losing: tuple[Any, Proxy]) -> None:
    store, proxy = losing
    proxy.cuts = 1
    write = store.begin(A, LEASE, 100 * SECOND)
    assert write.before == 0
    proxy.cuts = 1
    store.abandon(A, write.token)
    assert store.record(A) is None
    write = store.begin(A, LEASE, 100 * SECOND)
    proxy.cuts = 1
    finished = store.finish(A, write, SECOND, 100 * SECOND)
    assert finished.deadline == deadline(store) > now(store) + 50 * SECOND


# -- many at once


def test_many_are_reserved_together_but_those_of_which_more_is_known(at: At) -> None:
    store = at()
    plain, unknown, permanent, swept, failed, given_up = (b"m/%d" % n for n in range(6))
    for member, backoff in (failed, BACKOFF), (given_up, Backoff(1)):
        store.schedule([member], 0)
        token = claim_later(store).token
        store.settle(
            store.shard_of(member), token, Verdict(failures=[(member, "why")]), backoff=backoff
        )
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


def test_what_many_are_reserved_for_and_never_done_is_as_it_was(at: At) -> None:
    store, dying = at(), at(lease=SHORT)
    scheduled = store.schedule([A], MINUTE)
    assert dying.reserve_free([A, B])[1] == []
    lapses(store)
    assert claim(store).members == []
    assert (state(store), deadline(store), state(store, B)) == (State.DUE, scheduled, "none")


def test_many_that_are_reserved_in_a_reply_that_was_lost_are_known_again(
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


# -- the servers


def test_sweeps_are_listed_newest_first(all_records: ExpirationStore) -> None:
    before = time.time()
    for number in range(3):
        all_records.record_sweep(f"{number}", {"deleted": number})
    listed = all_records.sweeps(2)
    assert [report["deleted"] for report in listed] == [2, 1]
    assert before - 1 < listed[0]["finished"] < time.time() + 1


def test_what_many_workers_did_in_one_sweep_is_one_report(all_records: ExpirationStore) -> None:
    def record(sweep: str, deleted: int, lag: float, remaining: int) -> Mapping[str, float]:
        report = {"deleted": deleted, "lag": lag, "remaining": remaining, "duration": 0.01}
        return all_records.record_sweep(sweep, report, {"swept": 1})

    before = all_records.totals().get("swept", 0)
    record("one", 1, 3.5, 9)
    record("another", 10, 1, 0)
    time.sleep(0.05)
    whole = record("one", 2, 2.5, 0)
    assert (whole["deleted"], whole["lag"], whole["remaining"]) == (3, 3.5, 0)
    assert 0.05 < whole["duration"] < 10, "from its beginning to its end"
    listed = all_records.sweeps(10)
    assert [report["deleted"] for report in listed] == [3, 10]
    assert all_records.totals()["swept"] == before + 3


@pytest.fixture
def elsewhere(all_records: ExpirationStore, records: dict[str, Any]) -> ExpirationStore:
    """The same records, as another process sees them."""
    if records["redis_url"] == "memory://":
        return all_records
    return RedisStore(*(records[name] for name in ("redis_url", "key_prefix", "shards")))


@pytest.mark.parametrize("records", ["memory", "redis", "sentinel", "cluster"], indirect=True)
def test_all_who_delete_from_a_place_keep_its_rate_together(
    all_records: ExpirationStore, elsewhere: ExpirationStore
) -> None:
    paces = [all_records.pace("here", 200), elsewhere.pace("here", 200)]
    start, given = time.monotonic(), 0

    def all_given() -> bool:
        nonlocal given
        given += sum(pace.share(1_000) for pace in paces)
        return given >= 500

    wait_for(all_given)
    # A second's worth was there at first, for it had not been used.
    assert time.monotonic() - start > 1
    assert all_records.pace("there", 200).share(1_000) == 20, "a tenth of a second's at once"


def test_without_a_rate_and_a_store_that_asks_for_less_all_goes_at_once(
    all_records: ExpirationStore,
) -> None:
    pace = all_records.pace("here")
    assert pace.rate() is None
    assert pace.share(1_000_000) == 1_000_000


@pytest.mark.parametrize("records", ["memory", "redis"], indirect=True)
@pytest.mark.parametrize(("most", "rates"), [(None, [1_000, 500]), (30, [15, 10])])
def test_a_store_that_asks_for_less_halves_the_rate_of_all_once_a_second(
    all_records: ExpirationStore,
    elsewhere: ExpirationStore,
    most: int | None,
    rates: list[float],
) -> None:
    here, there = all_records.pace("here", most), elsewhere.pace("here", most)
    assert here.rate() == there.rate() == most
    for pace in here, there, here:
        pace.slow_down()
    assert here.rate() == there.rate() == rates[0]

    def is_slower() -> bool:
        here.slow_down()
        return here.rate() == rates[1]

    wait_for(is_slower)


def test_processes_must_agree_on_the_number_of_shards_whichever_they_use(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    own = {"redis_url": redis_server.url, "key_prefix": "agree"}
    djfs(type="memory", shards=2, **own)
    store_for(conf.current()).at("here").schedule([A, B], SECOND)
    djfs(type="memory", shards=4, **own)
    other = store_for(conf.current()).at("here")
    used = {other.shard_of(b"n/%d" % number): b"n/%d" % number for number in range(99)}
    for shard in 3, 2, 1, 0:
        with pytest.raises(ConfigurationError, match=r"DJFS\['shards'\] is 4, .* over 2"):
            other.schedule([used[shard]], SECOND)


def test_records_of_another_form_are_left_alone(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="newer")
    with redis_server.client() as client:
        client.set("newer:{00}:format", "99 1")
    store = store_for(conf.current())
    here = store.at("here")
    for call in here.counts, lambda: here.schedule([A], 1), lambda: store.places():
        with pytest.raises(ConfigurationError, match="the form 99, and this djpyfs knows"):
            call()
    found, [problem] = store.waiting([here])
    assert found == []
    assert isinstance(problem, ConfigurationError)


def test_a_shard_whose_records_have_another_form_is_left_alone(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="mixed", shards=2)
    with redis_server.client() as client:
        client.set("mixed:{01}:format", "99 2")
    store = store_for(conf.current())
    here = store.at("here")
    with pytest.raises(ConfigurationError, match="the form 99, and this djpyfs knows"):
        here.schedule([b"n/%d" % number for number in range(99)], 0)
    _, [problem] = store.waiting([here])
    assert isinstance(problem, ConfigurationError)


def test_a_shard_that_cannot_be_asked_keeps_no_other_from_being_told_of(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="wrong", shards=3)
    store = store_for(conf.current())
    here = store.at("here")
    here.schedule([b"n/%d" % number for number in range(99)], 0)
    with redis_server.client() as client:
        client.set("wrong:{01}:here:due", "no sorted set")
    found, [problem] = store.waiting([here])
    assert sorted(it.shard for it in found) == [0, 2]
    assert isinstance(problem, RecordStoreError)


def test_a_redis_that_evicts_keys_is_refused(djfs: Callable[..., None]) -> None:
    with running_redis(**{"maxmemory-policy": "allkeys-lru"}) as server:
        djfs(type="memory", redis_url=server.url)
        with pytest.raises(ConfigurationError, match="noeviction"):
            store_for(conf.current()).at("here").schedule([A], SECOND)


def test_scripts_that_redis_has_forgotten_are_loaded_again(
    redis_store: Expirations, redis_server: RedisServer
) -> None:
    for _ in range(2):
        redis_store.schedule([A], 0)
        redis_server.client().script_flush()
        token = redis_store.claim(0, 1).token
        redis_server.client().script_flush()
        assert redis_store.settle(0, token, Verdict(done=[A]), limit=1).claim


def test_a_full_redis_refuses_deadlines_and_still_lets_sweeps_and_what_has_begun_through(
    djfs: Callable[..., None],
) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
        store = store_for(conf.current()).at("here")
        store.schedule([A, b"n/removed"], 0)
        write = store.begin(B, LEASE, MINUTE)
        server.client().config_set("maxmemory", "1")
        with pytest.raises(RecordStoreError, match="full"):
            store.schedule([B], 0)
        server.client().delete("djpyfs:{00}:format")
        expirations.close_all()  # as a worker that has just started
        store = store_for(conf.current()).at("here")
        token = store.reserve(b"n/removed").token
        store.pledge(b"n/removed", token, 0)
        store.release(b"n/removed", token)
        found = store.claim(0, 10)
        store.settle(0, found.token, Verdict(done=[*found.members]))
        assert found.members == [A]
        assert store.finish(B, write, SECOND, MINUTE).by_default
        assert store.deadlines([A, b"n/removed"])[1] == [0, 0]


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

schedule = lambda: store_for(conf.current()).at("here").schedule(Slow([b"n/a"]), 1)
threading.Thread(target=schedule).start()
inside.wait()
child = os.fork()
if not child:
    signal.alarm(30)
    store_for(conf.current()).at("here").schedule([b"n/b"], 1)
    os._exit(0)
status = os.waitpid(child, 0)[1]
go_on.set()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_fork_in_the_midst_of_a_call_leaves_the_child_a_store_that_works() -> None:
    process = python(FORK)
    process.communicate(timeout=120)
    assert process.returncode == 0
