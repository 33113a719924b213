"""Tickets: how often a link may be used."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from djpyfs.conf import SECOND
from djpyfs.expirations import Expirations
from tests.records.steps import now
from tests.servers import wait_for


def test_a_ticket_is_good_for_its_uses_and_its_time(store: Expirations) -> None:
    begun = now(store)
    store.issue_ticket("two", 2, begun + 60 * SECOND)
    store.issue_ticket("late", 2, begun + SECOND // 5)
    assert [store.use_ticket("two", take) for take in (False, True, True, False, True)] == [
        *(True, True, True),
        *(False, False),
    ]
    assert not store.use_ticket("never issued")
    wait_for(lambda: not store.use_ticket("late", take=False))


def test_a_missing_ticket_is_not_the_same_as_a_used_one(store: Expirations) -> None:
    store.issue_ticket("one", 1, now(store) + 60 * SECOND)
    assert [store.use_ticket("one") for _ in range(2)] == [True, False]
    assert store.use_ticket("never issued") is None


def test_holding_a_ticket_makes_it_last_longer_and_never_shorter(store: Expirations) -> None:
    for ticket in "free", "held":
        store.issue_ticket(ticket, 1, now(store) + SECOND)
    store.issue_ticket("long", 1, now(store) + 60 * SECOND)
    assert store.use_ticket("held", take=False, hold=60 * SECOND)
    assert store.use_ticket("long", take=False, hold=1_000)
    wait_for(lambda: store.use_ticket("free", take=False) is None)
    assert store.use_ticket("held")
    assert store.use_ticket("long")


def test_a_use_that_many_ask_for_at_once_is_taken_once(store: Expirations) -> None:
    begun = now(store)
    start = threading.Barrier(20)

    def use(ticket: str) -> bool:
        start.wait(60)
        return bool(store.use_ticket(ticket))

    with ThreadPoolExecutor(20) as pool:
        for ticket in "one", "two", "three":
            store.issue_ticket(ticket, 1, begun + 60 * SECOND)
            assert sum(pool.map(use, [ticket] * 20)) == 1
