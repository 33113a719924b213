"""The rate at which all processes together delete from a place."""

from __future__ import annotations

import time
from typing import Any

import pytest

from djpyfs.expirations import ExpirationStore
from djpyfs.expirations.redis_store import RedisStore
from tests.servers import wait_for


@pytest.fixture
def elsewhere(all_records: ExpirationStore, records: dict[str, Any]) -> ExpirationStore:
    """The same records, as another process sees them."""
    if records["redis_url"] == "memory://":
        return all_records
    return RedisStore(*(records[name] for name in ("redis_url", "key_prefix", "shards")))


@pytest.mark.parametrize("records", ["memory", "redis", "sentinel", "cluster"], indirect=True)
def test_all_workers_together_keep_the_rate_of_a_place(
    all_records: ExpirationStore, elsewhere: ExpirationStore
) -> None:
    paces = [all_records.pace("here", 50), elsewhere.pace("here", 50)]
    start, given = time.monotonic(), 0

    def is_used_up() -> bool:
        nonlocal given
        shares = [pace.share(1_000) for pace in paces]
        given += sum(shares)
        return not any(shares)

    wait_for(is_used_up)
    # A second's worth was there at first, because it had not been used.
    assert 50 <= given <= 50 * (1 + time.monotonic() - start)
    assert all_records.pace("there", 200).share(1_000) == 20, "a tenth of a second's at once"


def test_without_a_rate_or_a_store_that_asks_for_less_everything_goes_at_once(
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


@pytest.mark.parametrize("records", ["memory", "redis"], indirect=True)
def test_requests_on_their_way_when_the_rate_was_halved_do_not_halve_it_again(
    all_records: ExpirationStore, elsewhere: ExpirationStore
) -> None:
    first, late = all_records.pace("here"), elsewhere.pace("here")
    assert first.rate() is late.rate() is None
    first.slow_down()
    time.sleep(1.1)  # from then on it counts again that the store asks
    late.slow_down()
    assert late.rate() == 1_000
    late.slow_down()
    assert late.rate() == 500
