"""Writers that meet a claim on their file."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from djpyfs import FileBusy, expirations
from djpyfs.conf import SECOND
from djpyfs.expirations import Backoff, Begun, Expirations
from tests.records.steps import LEASE, MINUTE, SHORT, A, At, B, claim, lapses, settle


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

    def test_a_writer_waits_no_longer_than_the_lease_and_fences_its_holder(
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

    def test_a_writer_fences_the_holder_of_a_claim_that_a_sweep_has_ended(
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


def test_a_writer_gives_up_on_a_file_that_sweeps_never_let_go(
    redis_store: Expirations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expirations, "PATIENCE", 0.2)
    redis_store.schedule([A], 0)
    redis_store.claim_one(A)
    with pytest.raises(FileBusy, match=r"held the file for 0\.2 s"):
        redis_store.schedule([A], 0)


@pytest.mark.parametrize("verb", ["schedule", "keep"])
def test_extending_a_file_soon_says_that_a_request_of_a_dead_sweeper_may_still_act(
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
