"""Tickets: how often a link may be used."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from djpyfs.conf import SECOND
from djpyfs.expirations import Expirations
from tests.records.steps import A, now
from tests.servers import wait_for


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


def test_a_missing_ticket_is_not_the_same_as_a_used_one(store: Expirations) -> None:
    store.issue_ticket(A, "one", 1, now(store) + 60 * SECOND)
    assert [store.use_ticket(A, "one") for _ in range(2)] == [True, False]
    assert store.use_ticket(A, "never issued") is None


def test_holding_a_ticket_makes_it_last_longer_and_never_shorter(store: Expirations) -> None:
    for ticket in "free", "held":
        store.issue_ticket(A, ticket, 1, now(store) + SECOND)
    store.issue_ticket(A, "long", 1, now(store) + 60 * SECOND)
    assert store.use_ticket(A, "held", 0, hold=60 * SECOND)
    assert store.use_ticket(A, "long", 0, hold=1_000)
    wait_for(lambda: store.use_ticket(A, "free", 0) is None)
    assert store.use_ticket(A, "held")
    assert store.use_ticket(A, "long")


def test_a_use_that_many_ask_for_at_once_is_taken_once(store: Expirations) -> None:
    begun = now(store)
    start = threading.Barrier(20)

    def use(ticket: str) -> bool:
        start.wait(60)
        return bool(store.use_ticket(A, ticket))

    with ThreadPoolExecutor(20) as pool:
        for ticket in "one", "two", "three":
            store.issue_ticket(A, ticket, 1, begun + 60 * SECOND)
            assert sum(pool.map(use, [ticket] * 20)) == 1
