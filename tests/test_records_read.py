"""What the record store says of itself: counts, listings, and files set aside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from djpyfs import RecordStoreUnavailable, conf, get_filesystem
from djpyfs.conf import SECOND
from djpyfs.expirations import (
    SCANNED,
    Backoff,
    Expirations,
    ExpirationStore,
    Found,
    Record,
    State,
    Verdict,
    find,
    store_for,
)
from djpyfs.inspection import status
from tests.conftest import RECORDS, record_settings
from tests.records.steps import held, retrying
from tests.servers import running_redis, wait_for

LEASE = 60 * SECOND


@pytest.fixture(params=["memory", *RECORDS])
def all_records(request: pytest.FixtureRequest, djfs: Callable[..., None]) -> ExpirationStore:
    djfs(type="memory", **record_settings(request))
    return store_for(conf.current())


@pytest.fixture
def store(all_records: ExpirationStore) -> Expirations:
    return all_records.at("here", LEASE)


def set_aside(store: Expirations, *members: bytes, reason: str = "read-only") -> int:
    """Let the only attempt to delete ``members`` fail; return their deadline."""
    deadline = store.schedule(members, 0)
    for member in members:
        settle(store, member, Verdict(failures=[(member, reason)]))
    return deadline


def settle(store: Expirations, member: bytes, verdict: Verdict, attempts: int = 1) -> None:
    claim = held(store, member, store.claim_one(member).token)
    retrying(store, Backoff(attempts)).settle(claim, verdict)


def in_every_state(store: Expirations) -> list[Record]:
    """Make a record in each state; return them by their members."""
    at = {
        name: store.schedule([b"n/" + name.encode()], 0)
        for name in "claimed held postponed retried set-aside".split()
    }
    at["due"] = store.schedule([b"n/due"], 100 * SECOND)
    states = {name: State(name.replace("-", " ")) for name in sorted(at)}
    store.claim_one(b"n/claimed")
    for name in "held", "postponed":
        member = b"n/" + name.encode()
        settle(store, member, Verdict(put_off={(LEASE, states[name]): [member]}))
    settle(store, b"n/retried", Verdict(failures=[(b"n/retried", "no")]), attempts=2)
    settle(store, b"n/set-aside", Verdict(failures=[(b"n/set-aside", "no")]))
    return [Record(b"n/" + name.encode(), at[name], states[name]) for name in states]


def names(records: Any) -> list[bytes]:
    return [record.member for record in records]


def look(store: Expirations, prefix: bytes, limit: int, looks: int, text: bytes = b"") -> Found:
    return find(store.scan(prefix, text), limit, looks)


def test_an_empty_store_counts_nothing(store: Expirations) -> None:
    counts = store.counts()
    assert counts.now > 0
    assert not any(counts[1:])


def test_records_are_counted_by_state(store: Expirations) -> None:
    store.schedule([b"n/%d" % number for number in range(20)], 100 * SECOND)
    store.schedule([b"n/overdue", b"m/overdue"], 0)
    store.schedule([b"n/claimed"], 0)
    store.claim_one(b"n/claimed")
    set_aside(store, b"n/failed")
    _, tracked, overdue, claimed, failed, *_ = store.counts()
    assert (tracked, overdue, claimed, failed) == (23, 2, 1, 1)


def test_a_status_without_deadlines_reads_no_records(djfs: Callable[..., None]) -> None:
    with running_redis() as server, server.client() as client:  # nobody else asks this one
        djfs(type="memory", redis_url=server.url)
        get_filesystem("plots").expire_many([f"{number}.png" for number in range(5_000)], 100)
        sent = []
        for _ in range(2):
            assert status(upcoming=0).next_deadlines == []
            stats: Any = client.info("stats")
            sent.append(stats["total_net_output_bytes"])
    assert sent[1] - sent[0] < 50_000


def test_a_file_that_waits_for_a_retry_is_overdue_since_its_deadline(store: Expirations) -> None:
    states = {record.state for record in in_every_state(store)}
    store.place_at(b"n/retried", store.counts().now - 50 * SECOND)
    settle(store, b"n/retried", Verdict(failures=[(b"n/retried", "no")]), attempts=2)
    _, tracked, overdue, claimed, failed, oldest, *_ = store.counts()
    assert states == {*State}
    assert (tracked, overdue, claimed, failed) == (5, 3, 1, 1)
    assert oldest >= 50 * SECOND


def test_a_file_that_waits_for_a_retry_is_counted_by_what_it_waits_for(store: Expirations) -> None:
    in_every_state(store)
    store.schedule([b"n/held too"], 0)
    settle(store, b"n/held too", Verdict(put_off={(LEASE, State.HELD): [b"n/held too"]}))
    counts = store.counts()
    assert (counts.retried, counts.held, counts.postponed) == (1, 2, 1)
    store.schedule([b"n/retried", b"n/held", b"n/postponed"], 100 * SECOND)
    counts = store.counts()
    assert (counts.retried, counts.held, counts.postponed) == (0, 1, 0)


def test_the_age_of_the_oldest_overdue_record_is_reported(store: Expirations) -> None:
    now, _ = store.deadline(b"n/a")
    store.place_at(b"n/a", now - 50 * SECOND)
    store.place_at(b"n/b", now - 20 * SECOND)
    store.schedule([b"n/c"], 100 * SECOND)
    assert 50 * SECOND <= store.counts().oldest < 110 * SECOND


def test_a_lapsed_claim_counts_as_overdue_again(
    store: Expirations, all_records: ExpirationStore
) -> None:
    store.schedule([b"n/a"], 0)
    all_records.at("here", 1).claim_one(b"n/a")
    wait_for(lambda: store.counts().overdue)
    _, tracked, overdue, claimed, _, oldest, *_ = store.counts()
    assert (tracked, overdue, claimed) == (1, 1, 0)
    assert oldest > 0


def test_the_earliest_deadlines_come_first(store: Expirations) -> None:
    for number in 3, 1, 2, 4:
        store.schedule([b"n/%d" % number], number * 10 * SECOND)
    earliest = store.earliest(3)
    assert names(earliest) == [b"n/1", b"n/2", b"n/3"]
    assert earliest[0] == Record(b"n/1", store.deadline(b"n/1")[1], State.DUE)


def test_records_are_found_by_the_beginning_of_their_name(store: Expirations) -> None:
    for member in b"plots/x/a", b"other/plots/a", b"plotsx/a", b"plots/a":
        store.schedule([member], 100 * SECOND)
    store.schedule([b"plots/b"], 50 * SECOND)
    found = look(store, b"plots/", limit=10, looks=1_000)
    assert found.complete
    assert names(found.records) == [b"plots/b", b"plots/x/a", b"plots/a"]


def test_records_are_found_in_every_state_with_their_true_deadlines(store: Expirations) -> None:
    known = in_every_state(store)
    records, complete = look(store, b"n/", limit=10, looks=100_000)
    assert complete
    assert sorted(records) == known


def test_the_earliest_are_listed_in_every_state_but_set_aside_with_their_true_deadlines(
    store: Expirations,
) -> None:
    known = [record for record in in_every_state(store) if record.state != State.SET_ASIDE]
    assert list(store.earliest(10)) == sorted(known, key=lambda record: record.deadline)


def test_records_are_found_by_one_of_several_beginnings(store: Expirations) -> None:
    names_ = b"a^]-\\/x", b"b/y", b"longer/z", b"a/x", b"bb/y", b"lon/z", b"\xff/x", b"b^/x"
    store.schedule(list(names_), SECOND)
    wanted = (b"a^]-\\/", b"b/", b"longer/", b"\xff/")
    found = {record.member for _, step in store.scan(wanted) for record in step}
    assert found == {b"a^]-\\/x", b"b/y", b"longer/z", b"\xff/x"}
    everything = {record.member for _, step in store.scan((b"", b"b/")) for record in step}
    assert everything == set(names_)


@pytest.mark.parametrize("name", [b"a*", b"a?", b"[ab]", b"a\\b", b"^a-b]", "zoë".encode()])
def test_names_that_look_like_patterns_are_taken_literally(store: Expirations, name: bytes) -> None:
    store.schedule([name + b"/x", b"ab/x", b"a/x", b"axb/x"], SECOND)
    assert names(look(store, name + b"/", 10, 1_000).records) == [name + b"/x"]


def test_a_list_cut_at_its_limit_says_that_it_is_not_complete(store: Expirations) -> None:
    store.schedule([b"n/%d" % number for number in range(10)], SECOND)
    assert look(store, b"n/", limit=10, looks=1_000).complete
    records, complete = look(store, b"n/", limit=9, looks=1_000)
    assert (len(records), complete) == (9, False)


def test_a_search_ends_once_it_has_looked_at_enough(store: Expirations) -> None:
    store.schedule([b"m/%d" % number for number in range(30_000)], SECOND)
    assert not look(store, b"n/", limit=10, looks=1).complete
    assert look(store, b"n/", limit=10, looks=100_000).complete


def test_one_step_of_a_scan_is_no_longer_if_there_are_more_shards(store: Expirations) -> None:
    store.schedule([b"n/%d" % number for number in range(9_000)], 100 * SECOND)
    steps = [(looked, len(list(found))) for looked, found in store.scan(b"")]
    assert max(found for _, found in steps) < 1.2 * SCANNED
    looked, found = map(sum, zip(*steps, strict=True))
    assert 9_000 <= found <= looked < 15_000, "as many as it says are looked at"


def test_records_set_aside_are_listed_with_their_reasons(store: Expirations) -> None:
    deadline = set_aside(store, b"n/a", reason="it is “read-only”")
    now, _ = store.deadline(b"n/a")
    [record] = store.set_aside().records
    assert (record.member, record.reason, record.attempts) == (b"n/a", "it is “read-only”", 1)
    assert record.deadline == deadline
    assert 0 <= now / SECOND - record.at < 60


def test_records_set_aside_are_listed_page_by_page(store: Expirations) -> None:
    members = {b"n/%d" % number for number in range(40)}
    set_aside(store, b"other/a", *members)
    found: list[bytes] = []
    cursor, pages = "", 0
    while cursor or not pages:
        page, cursor = store.set_aside(b"n/", cursor, limit=7)
        found += names(page)
        pages += 1
    assert set(found) == members


def test_deadlines_are_counted_between_edges_each_of_which_begins_a_part(
    store: Expirations,
) -> None:
    for number in range(10):
        store.place_at(b"n/%d" % number, 2_000_000_000_000_000 + number)
    edges = [2_000_000_000_000_000 + offset for offset in (1, 2, 2, 6, 100)]
    assert list(store.due_between(edges)) == [1, 0, 4, 4]


def test_a_text_is_searched_in_file_names_and_taken_literally(store: Expirations) -> None:
    store.schedule([b"a*b/x", b"n/a*b/c", b"n/aXb", b"m/n/a*b", b"n/xa*b"], 100 * SECOND)
    for prefix, found in (b"", [b"m/n/a*b", b"n/xa*b"]), (b"n/", [b"n/xa*b"]):
        assert sorted(names(look(store, prefix, 10, 1_000, b"a*b").records)) == found
    assert names(look(store, b"a*b/", 10, 1_000, b"*").records) == []


def test_one_record_is_read_in_every_state_with_its_true_deadline(store: Expirations) -> None:
    known = in_every_state(store)
    assert [store.record(record.member) for record in known] == known
    members = [record.member for record in known]
    assert store.deadlines(members)[1] == [record.deadline for record in known]
    assert store.record(b"n/never") is None


def test_a_file_that_a_sweep_died_of_counts_as_retried(
    store: Expirations, all_records: ExpirationStore
) -> None:
    deadline = store.schedule([b"n/a"], 0)
    all_records.at("here", 1).claim_one(b"n/a")
    wait_for(lambda: store.counts().overdue)
    store.claim(store.shard_of(b"n/a"), 9)
    assert store.record(b"n/a") == Record(b"n/a", deadline, State.RETRIED)
    assert store.counts().retried == 1


def test_no_other_place_knows_of_a_record(store: Expirations, all_records: ExpirationStore) -> None:
    in_every_state(store)
    there = all_records.at("there")
    assert not any(there.counts()[1:])
    assert (list(there.earliest(9)), look(there, b"", 9, 100_000).records) == ([], [])
    assert (there.record(b"n/due"), list(there.set_aside().records)) == (None, [])
    assert there.retry([b"n/set-aside"]) == there.forget([b"n/set-aside"]) == []


def test_a_file_set_aside_can_be_retried(store: Expirations) -> None:
    set_aside(store, b"n/b")
    deadline = set_aside(store, b"n/a")
    assert store.retry([b"n/a", b"n/never"]) == [b"n/a"]
    assert store.record(b"n/a") == Record(b"n/a", deadline)
    assert names(store.set_aside().records) == [b"n/b"]
    assert store.claim_one(b"n/a").token


def test_a_file_set_aside_can_be_forgotten(store: Expirations) -> None:
    set_aside(store, b"n/a", b"n/b")
    assert sorted(store.forget([b"n/a", b"n/b", b"n/never"])) == [b"n/a", b"n/b"]
    assert not any(store.counts()[1:])


def test_a_new_deadline_ends_a_failure(store: Expirations) -> None:
    for attempts in 2, 1:
        store.schedule([b"n/a"], 0)
        settle(store, b"n/a", Verdict(failures=[(b"n/a", "no")]), attempts)
        deadline = store.schedule([b"n/a"], 100 * SECOND)
        assert store.record(b"n/a") == Record(b"n/a", deadline)
        assert store.counts().set_aside == 0


def test_only_files_set_aside_are_retried_or_forgotten(store: Expirations) -> None:
    deadline = store.schedule([b"n/a"], 100 * SECOND)
    assert store.retry([b"n/a"]) == store.forget([b"n/a"]) == []
    assert store.deadline(b"n/a")[1] == deadline


def test_deadlines_are_adopted_if_there_is_no_record(store: Expirations) -> None:
    known = store.schedule([b"n/known"], 100 * SECOND)
    store.schedule([b"n/claimed"], 0)
    store.claim_one(b"n/claimed")
    set_aside(store, b"n/failed")
    members = [b"n/known", b"n/claimed", b"n/failed", b"n/new", b"n/old"]
    assert sorted(store.adopt(dict.fromkeys(members, known + 1))) == [b"n/new", b"n/old"]
    assert store.deadline(b"n/known")[1] == known
    assert store.deadline(b"n/new")[1] == known + 1
    assert store.adopt({}) == []


def test_a_redis_that_is_away_is_one_error(djfs: Callable[..., None]) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
    store = store_for(conf.current()).at("here")
    for asked in store.counts, store.set_aside, lambda: look(store, b"", 1, 1):
        with pytest.raises(RecordStoreUnavailable):
            asked()


def test_counts_and_the_earliest_take_one_round_trip_each(
    djfs: Callable[..., None],
) -> None:
    with running_redis() as server:
        djfs(type="memory", redis_url=server.url)
        store = store_for(conf.current()).at("here")
        store.counts()
        before = server.commands()
        store.counts()
        store.earliest(10)
        assert server.commands() - before <= 3
