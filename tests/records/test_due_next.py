"""What is due next, who keeps the time, and how many may sweep."""

from __future__ import annotations

from collections.abc import Collection

from djpyfs.expirations import Expirations, ExpirationStore
from tests.records.steps import MINUTE, SHORT, A, At, B
from tests.servers import wait_for


def test_places_are_listed_once_they_are_introduced(all_records: ExpirationStore) -> None:
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


def test_it_says_how_much_can_be_claimed_if_something_is_waiting(
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


def test_it_says_what_is_due_next_and_leaves_out_what_is_being_written(
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


def test_one_worker_keeps_time_until_it_gives_that_up_or_is_late(
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


def test_the_timekeeper_learns_what_is_due_next_in_the_same_call(
    all_records: ExpirationStore, at: At
) -> None:
    here, there = at("here"), at("there")
    here.schedule([A], 0)
    there.schedule([A], 0)
    all_records.keep_time("another", 60_000, [there])
    kept = all_records.keep_time("one", 60_000, [here, there], [here, there])
    assert [it.records.place for it in kept.next_due if it.is_due] == ["here"]
