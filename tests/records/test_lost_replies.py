"""Verbs whose reply is lost and that are called again."""

from __future__ import annotations

from typing import Any

from djpyfs.conf import SECOND
from tests.faults.proxy import Proxy
from tests.records.steps import LEASE, MINUTE, A, B, deadline, now, settle


def test_a_claim_whose_reply_was_lost_is_claimed_once(losing: tuple[Any, Proxy]) -> None:
    store, proxy = losing
    scheduled = store.schedule([A], 0)
    store.claim(0, 0)
    proxy.cuts = 1
    found = store.claim(0, 9)
    assert found.members == [A]
    assert 0 <= found.lags[0] <= now(store) - scheduled
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
    token, known, *_ = store.reserve(A)
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
