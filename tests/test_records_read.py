"""What the record store tells of itself: counts, listings, and what was set aside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from djpyfs import RecordStoreUnavailable, conf
from djpyfs.conf import SECOND
from djpyfs.expirations import Backoff, ExpirationStore, Record, State, store_for
from tests.conftest import RECORDS, records_of
from tests.servers import running_redis, wait_for

LEASE = 30 * SECOND


@pytest.fixture(params=["memory", *RECORDS])
def store(request: pytest.FixtureRequest, djfs: Callable[..., None]) -> ExpirationStore:
    djfs(type="memory", **records_of(request))
    return store_for(conf.current())


def set_aside(store: ExpirationStore, *members: bytes, reason: str = "read-only") -> None:
    """Let the only attempt to delete ``members`` fail."""
    for member in members:
        token = store.reserve(member, LEASE).token or _claimed(store, member)
        store.settle(store.shard_of(member), token, [], [(member, reason)], Backoff(1))


def _claimed(store: ExpirationStore, member: bytes) -> int:
    store.schedule([member], 0)
    return store.claim_one(member, LEASE).token


def names(records: Any) -> list[bytes]:
    return [record.member for record in records]


def test_an_empty_store_counts_nothing(store: ExpirationStore) -> None:
    counts = store.counts()
    assert counts.now > 0
    assert counts[1:] == (0, 0, 0, 0, 0)


def test_records_are_counted_by_what_is_to_come_of_them(store: ExpirationStore) -> None:
    store.schedule([b"n\0%d" % number for number in range(20)], 100 * SECOND)
    store.schedule([b"n\0overdue", b"m\0overdue"], 0)
    _claimed(store, b"n\0claimed")
    set_aside(store, b"n\0failed")
    _, tracked, overdue, claimed, failed, _ = store.counts()
    assert (tracked, overdue, claimed, failed) == (23, 2, 1, 1)


def test_the_age_of_the_oldest_overdue_record_is_told(store: ExpirationStore) -> None:
    now, _ = store.deadline(b"n\0a")
    store.place(b"n\0a", now - 50 * SECOND)
    store.place(b"n\0b", now - 20 * SECOND)
    store.schedule([b"n\0c"], 100 * SECOND)
    assert 50 * SECOND <= store.counts().oldest < 110 * SECOND


def test_a_lapsed_claim_counts_as_overdue_again(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    store.claim_one(b"n\0a", 1)
    wait_for(lambda: store.counts().overdue)
    _, tracked, overdue, claimed, _, oldest = store.counts()
    assert (tracked, overdue, claimed) == (1, 1, 0)
    assert oldest > 0


def test_the_earliest_deadlines_come_first(store: ExpirationStore) -> None:
    for number in 3, 1, 2, 4:
        store.schedule([b"n\0%d" % number], number * 10 * SECOND)
    earliest = store.earliest(3)
    assert names(earliest) == [b"n\x001", b"n\x002", b"n\x003"]
    assert earliest[0] == Record(b"n\x001", store.deadline(b"n\x001")[1], State.DUE)


def test_records_are_found_by_the_beginning_of_their_name(store: ExpirationStore) -> None:
    store.schedule([b"plots\0a", b"plots/x\0a", b"other\0a"], 100 * SECOND)
    store.schedule([b"plots\0b"], 50 * SECOND)
    found = store.find(b"plots\0", limit=10, looks=1_000)
    assert found.complete
    assert names(found.records) == [b"plots\0b", b"plots\0a"]


def test_what_is_claimed_or_set_aside_is_found_as_well(store: ExpirationStore) -> None:
    _claimed(store, b"n\0claimed")
    set_aside(store, b"n\0failed")
    records, complete = store.find(b"n\0", limit=10, looks=1_000)
    assert complete
    assert records == [
        Record(b"n\0claimed", 0, State.CLAIMED),
        Record(b"n\0failed", 0, State.SET_ASIDE),
    ]


@pytest.mark.parametrize("name", [b"a*", b"a?", b"[ab]", b"a\\b", b"^a-b]", "zoë".encode()])
def test_names_that_look_like_patterns_are_taken_literally(
    store: ExpirationStore, name: bytes
) -> None:
    store.schedule([name + b"\0x", b"ab\0x", b"a\0x", b"axb\0x"], SECOND)
    assert names(store.find(name + b"\0", 10, 1_000).records) == [name + b"\0x"]


def test_more_records_than_the_limit_are_told_not_to_be_all(store: ExpirationStore) -> None:
    store.schedule([b"n\0%d" % number for number in range(10)], SECOND)
    assert store.find(b"n\0", limit=10, looks=1_000).complete
    records, complete = store.find(b"n\0", limit=9, looks=1_000)
    assert (len(records), complete) == (9, False)


def test_a_search_ends_where_it_has_looked_at_enough(store: ExpirationStore) -> None:
    store.schedule([b"m\0%d" % number for number in range(30_000)], SECOND)
    assert not store.find(b"n\0", limit=10, looks=1).complete
    assert store.find(b"n\0", limit=10, looks=100_000).complete


def test_records_set_aside_are_listed_with_their_reasons(store: ExpirationStore) -> None:
    set_aside(store, b"n\0a", reason="it is “read-only”")
    now, _ = store.deadline(b"n\0a")
    [record] = store.set_aside().records
    assert (record.member, record.reason, record.attempts) == (b"n\0a", "it is “read-only”", 1)
    assert 0 <= now / SECOND - record.at < 60


def test_records_set_aside_are_listed_page_by_page(store: ExpirationStore) -> None:
    members = {b"n\0%d" % number for number in range(40)}
    set_aside(store, b"other\0a", *members)
    found: list[bytes] = []
    cursor, pages = "", 0
    while cursor or not pages:
        page, cursor = store.set_aside(b"n\0", cursor, limit=7)
        found += names(page)
        pages += 1
    assert set(found) == members


def test_deadlines_are_counted_between_edges_each_of_which_begins_a_part(
    store: ExpirationStore,
) -> None:
    for number in range(10):
        store.place(b"n\0%d" % number, 2_000_000_000_000_000 + number)
    edges = [2_000_000_000_000_000 + offset for offset in (1, 2, 2, 6, 100)]
    assert list(store.due_between(edges)) == [1, 0, 4, 4]


def test_a_text_is_looked_for_in_the_path_alone_and_taken_literally(store: ExpirationStore) -> None:
    store.schedule([b"a*b\0x", b"n\0a*b/c", b"n\0aXb", b"m/n\0a*b"], 100 * SECOND)
    for prefix, found in (b"", [b"m/n\0a*b", b"n\0a*b/c"]), (b"n\0", [b"n\0a*b/c"]):
        assert sorted(names(store.find(prefix, 10, 1_000, b"a*b").records)) == found
    assert names(store.find(b"m/", 10, 1_000, b"*").records) == [b"m/n\0a*b"]


def test_one_record_is_told_with_where_it_is(store: ExpirationStore) -> None:
    deadline = store.schedule([b"n\0due"], 100 * SECOND)
    _claimed(store, b"n\0claimed")
    set_aside(store, b"n\0failed")
    assert store.record(b"n\0due") == Record(b"n\0due", deadline)
    assert store.record(b"n\0claimed") == Record(b"n\0claimed", 0, State.CLAIMED)
    assert store.record(b"n\0failed") == Record(b"n\0failed", 0, State.SET_ASIDE)
    assert store.record(b"n\0never") is None


def test_what_was_set_aside_can_be_tried_again(store: ExpirationStore) -> None:
    set_aside(store, b"n\0a", b"n\0b")
    assert store.retry([b"n\0a", b"n\0never"]) == [b"n\0a"]
    assert names(store.set_aside().records) == [b"n\0b"]
    assert store.claim_one(b"n\0a", LEASE).token


def test_what_was_set_aside_can_be_forgotten(store: ExpirationStore) -> None:
    set_aside(store, b"n\0a", b"n\0b")
    assert sorted(store.forget([b"n\0a", b"n\0b", b"n\0never"])) == [b"n\0a", b"n\0b"]
    assert store.counts()[1:] == (0, 0, 0, 0, 0)


def test_a_deadline_ends_what_had_failed(store: ExpirationStore) -> None:
    store.schedule([b"n\0a"], 0)
    shard = store.shard_of(b"n\0a")
    token = store.claim(shard, 1, LEASE).token
    store.settle(shard, token, [], [(b"n\0a", "no")], Backoff(2))
    deadline = store.schedule([b"n\0a"], 100 * SECOND)
    assert store.deadline(b"n\0a")[1] == deadline


def test_only_what_was_set_aside_is_tried_again_or_forgotten(store: ExpirationStore) -> None:
    deadline = store.schedule([b"n\0a"], 100 * SECOND)
    assert store.retry([b"n\0a"]) == store.forget([b"n\0a"]) == []
    assert store.deadline(b"n\0a")[1] == deadline


def test_deadlines_are_adopted_where_there_is_no_record(store: ExpirationStore) -> None:
    known = store.schedule([b"n\0known"], 100 * SECOND)
    _claimed(store, b"n\0claimed")
    set_aside(store, b"n\0failed")
    members = [b"n\0known", b"n\0claimed", b"n\0failed", b"n\0new", b"n\0old"]
    assert sorted(store.adopt(dict.fromkeys(members, known + 1))) == [b"n\0new", b"n\0old"]
    assert store.deadline(b"n\0known")[1] == known
    assert store.deadline(b"n\0new")[1] == known + 1
    assert store.adopt({}) == []


def test_a_redis_that_is_away_is_one_error(djfs: Callable[..., None]) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
    store = store_for(conf.current())
    for look in store.counts, store.set_aside, lambda: store.find(b"", 1, 1):
        with pytest.raises(RecordStoreUnavailable):
            look()


def test_counts_and_the_earliest_take_one_round_trip_each(
    djfs: Callable[..., None],
) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
        store = store_for(conf.current())
        store.counts()
        before = server.commands()
        store.counts()
        store.earliest(10)
        assert server.commands() - before <= 3
