"""Records that move to another number of shards, under writers, readers and sweeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import Any

import pytest
from redis import Redis

from djpyfs import conf
from djpyfs.conf import SECOND
from djpyfs.errors import ConfigurationError
from djpyfs.expirations import (
    Backoff,
    Begun,
    Claim,
    Counts,
    Expirations,
    ExpirationStore,
    Move,
    Spread,
    State,
    Verdict,
    claim_lease,
    store_for,
    write_lease,
)
from djpyfs.expirations.layout import Layout
from djpyfs.expirations.redis_store import RedisStore
from tests.conftest import record_settings
from tests.records.steps import (
    LEASE,
    SHORT,
    held,
    retrying,
)
from tests.servers import RedisServer, wait_for

HOUR = 3_600 * SECOND
NAMES = [b"n/%d" % number for number in range(60)]
A = NAMES[0]

Stores = Callable[[], RedisStore]


@pytest.fixture(params=["redis", "cluster"])
def records(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**record_settings(request), "shards": 2}


@pytest.fixture
def process(records: dict[str, Any]) -> Iterator[Stores]:
    """Return the records as one more process sees them."""
    made: list[RedisStore] = []

    def make() -> RedisStore:
        made.append(RedisStore(*(records[it] for it in ("redis_url", "key_prefix", "shards"))))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(process: Stores) -> ExpirationStore:
    """The process that moves them."""
    return process()


@pytest.fixture
def here(store: ExpirationStore) -> Expirations:
    return store.at("here", LEASE)


@pytest.fixture
def there(process: Stores) -> Expirations:
    """What another process sees that has looked before anything moves."""
    records = process().at("here", LEASE)
    records.counts()
    return records


@pytest.fixture
def leaving(here: Expirations) -> bytes:
    """A member whose shard is another one when there are three of two."""
    return next(moving(here))


def moving(here: Expirations) -> Iterator[bytes]:
    """Members that have the second shard of two, and the third of three."""
    three = Layout(0, 3, 3)
    for member in (b"m/%d" % number for number in count()):
        if (here.shard_of(member), three.shard_of(member)) == (1, 2):
            yield member


def reshard(store: ExpirationStore, shards: int) -> int:
    return sum(step.moved for step in store.reshard(shards))


def kept_by(store: RedisStore) -> list[dict[bytes, Any]]:
    """What Redis keeps of a store, for each server."""

    def dump(client: Redis) -> dict[bytes, Any]:
        keys = client.scan_iter(store._scripts.key(0, "").partition(b"{")[0] + b"*")
        return {key: client.dump(key) for key in keys}

    return store._scripts.all_servers(dump)


def come_back(store: RedisStore, kept: list[dict[bytes, Any]]) -> None:
    """Have Redis keep nothing else than this, as after a restart."""
    lost, back = iter(kept_by(store)), iter(kept)

    def restore(client: Redis) -> None:
        for key in next(lost):
            client.delete(key)
        for key, value in next(back).items():
            client.restore(key, 0, value)

    store._scripts.all_servers(restore)


def until_in_transit(moves: Iterator[Move]) -> None:
    """Go on until the first records have left a shard, and not arrived in another one."""
    assert next(step for step in moves if step == Move())


@pytest.fixture
def written(here: Expirations) -> dict[bytes, Begun]:
    """Let there be records of every kind; return writes that go on."""
    here.schedule(NAMES, HOUR)
    for kept, owned in zip(NAMES[:8], NAMES[8:16], strict=True):
        here.keep(kept)
        here.revoke(owned)
        here.await_owner(owned, HOUR, 2 * HOUR)
    here.schedule(NAMES[24:40], 0)
    for number, name in enumerate(NAMES[24:40]):
        why = [(name, "why")]
        verdict = Verdict(broken=why) if number % 2 else Verdict(failures=why)
        claim = held(here, name, here.claim_one(name).token)
        retrying(here, Backoff(5, HOUR, HOUR)).settle(claim, verdict)
    return {name: here.begin(name, LEASE) for name in NAMES[16:24]}


def test_everything_known_about_a_file_moves_with_it(
    store: ExpirationStore, here: Expirations, there: Expirations, written: dict[bytes, Begun]
) -> None:
    def known(records: Expirations) -> tuple[Any, ...]:
        return (
            records.deadlines(NAMES)[1],
            records.linked(NAMES)[1],
            records.permanent(NAMES),
            [records.record(name) for name in NAMES],
            sorted(records.set_aside().records),
            records.counts()._replace(now=0, oldest=0),
            sorted(record for _, found in records.scan(b"") for record in found),
            records.earliest(100),
        )

    before = known(here)
    for shards in 5, 3, 1:
        assert reshard(store, shards) > 0
        assert store.spread() == Spread(shards, shards)
        assert known(there) == before
        assert list(there.shards) == list(range(shards))
    for name, write in written.items():
        assert there.extend(0, {write_lease(write.token, name): LEASE}) == []
        assert there.finish(name, write, SECOND).unbroken
    for name in NAMES[8:16]:
        there.take_up(name)
        assert there.deadline(name)[1] > before[0][0] + HOUR


def test_it_can_be_stopped_at_any_step_and_goes_on_with_the_rest(
    store: ExpirationStore, process: Stores, here: Expirations, there: Expirations
) -> None:
    here.schedule(NAMES, HOUR)
    before = here.deadlines(NAMES)[1]
    for steps in range(2, 40):
        list(islice(process().reshard(3), steps))  # and then it dies
        assert there.deadlines(NAMES[: steps // 2])[1] == before[: steps // 2]
        if not store.spread().moving:
            break
    assert reshard(store, 3) == 0
    assert there.deadlines(NAMES)[1] == here.deadlines(NAMES)[1] == before


def test_a_process_that_knows_the_old_number_of_shards_still_does_the_right_thing(
    store: ExpirationStore, process: Stores, here: Expirations, there: Expirations
) -> None:
    here.schedule(NAMES, HOUR)
    there.deadlines(NAMES)
    reshard(store, 3)
    there.schedule(NAMES, 2 * HOUR)
    now, deadlines = here.deadlines(NAMES)
    assert min(deadlines) > now + HOUR
    assert deadlines == process().at("here").deadlines(NAMES)[1]
    assert here.counts().tracked == len(NAMES)


def test_an_arrival_undoes_nothing_that_happened_since_the_file_left(
    store: ExpirationStore, here: Expirations, there: Expirations
) -> None:
    here.schedule(NAMES, HOUR)
    moves = store.reshard(3)
    until_in_transit(moves)
    there.schedule(NAMES, 2 * HOUR)
    there.keep(A)
    _, deadlines = there.deadlines(NAMES)
    assert list(moves)
    assert here.deadlines(NAMES)[1] == deadlines
    assert min(deadlines[1:]) > here.deadline(A)[0] + HOUR
    assert here.permanent(NAMES) == [A]


def test_a_claimed_file_stays_where_it_is_until_its_claim_ends(
    store: ExpirationStore, here: Expirations, there: Expirations, leaving: bytes
) -> None:
    due = here.schedule([leaving], 0)
    claim, shard = here.claim_one(leaving), here.shard_of(leaving)
    moves = store.reshard(3)
    assert any(step.waiting for step in islice(moves, 60))
    assert there.deadline(leaving)[1] == due
    assert there.record(leaving) == (leaving, due, State.CLAIMED)
    assert there.linked([leaving])[1][0].deadline == due
    assert there.permanent([leaving]) == []
    assert there.renew(leaving, HOUR) == 0
    assert there.adopt({leaving: due}) == []
    assert not there.claim_one(leaving).token
    assert there.reserve_free([leaving])[1] == [leaving]
    assert here.extend(shard, {claim_lease(claim.token): LEASE}) == []
    assert store.spread().moving
    here.settle(Claim(shard, claim.token), Verdict(done=[leaving]))
    list(moves)
    counts = there.counts()
    assert counts == Counts(counts.now)


def test_a_writer_fences_a_lapsed_claim_in_the_shard_that_a_file_leaves(
    process: Stores, store: ExpirationStore, here: Expirations, leaving: bytes
) -> None:
    fenced: list[bytes] = []
    here.schedule([leaving], 0)
    claim, shard = store.at("here", SHORT).claim_one(leaving), here.shard_of(leaving)
    moves = store.reshard(3)
    next(moves)
    lease = {claim_lease(claim.token): 1}
    wait_for(lambda: here.extend(shard, lease))
    assert next(step for step in moves if step.waiting)
    there = process().at("here", SHORT, fenced.append)
    deadline = there.schedule([leaving], HOUR)
    assert fenced == [leaving], "the claim had lapsed, and who held it may still act"
    assert here.deadline(leaving)[1] == deadline
    assert here.counts().claimed == 0


def test_a_writer_waits_until_a_claim_ends_where_its_file_was(
    store: ExpirationStore, here: Expirations, there: Expirations, leaving: bytes
) -> None:
    here.schedule([leaving], 0)
    claim, shard = here.claim_one(leaving), here.shard_of(leaving)
    moves = store.reshard(3)
    list(islice(moves, 3))
    with ThreadPoolExecutor() as pool:
        writer = pool.submit(there.schedule, [leaving], HOUR)
        time.sleep(0.1)
        assert not writer.done()
        here.settle(Claim(shard, claim.token), Verdict(done=[leaving]))
        deadline = writer.result(60)
    list(moves)
    assert here.deadline(leaving)[1] == deadline


def test_a_reservation_is_held_to_its_end_in_the_shard_in_which_it_began(
    store: ExpirationStore, here: Expirations, there: Expirations, leaving: bytes
) -> None:
    here.schedule([leaving], HOUR)
    token = here.reserve(leaving).token
    moves = store.reshard(3)
    list(islice(moves, 60))
    assert there.pledge(leaving, token, 1_000)
    there.release(leaving, token)
    assert there.deadline(leaving)[1] == 1_000
    list(moves)
    assert store.spread() == Spread(3, 3)
    assert here.deadline(leaving)[1] == 1_000


@pytest.mark.parametrize(
    "how", ["fails", "is put off", "lapses", "is released", "is released with others"]
)
def test_a_member_claimed_during_the_pass_through_its_shard_is_not_overlooked(
    store: ExpirationStore, process: Stores, here: Expirations, leaving: bytes, how: str
) -> None:
    """It is claimed when its place is looked at, and back there afterwards."""
    here.schedule([leaving], 0)
    shard, dying = here.shard_of(leaving), store.at("here", SHORT)
    if how == "lapses":
        token = dying.reserve(leaving).token
    elif how == "is released with others":
        token, _ = here.reserve_free([leaving])
    else:
        token = here.claim_one(leaving).token
    steps = store.reshard(3)
    assert next(step for step in steps if step.waiting)
    if how == "fails":
        failed = Verdict(failures=[(leaving, "no")])
        retrying(here, Backoff(5, HOUR, HOUR)).settle(Claim(shard, token), failed)
    elif how == "is put off":
        here.settle(Claim(shard, token), Verdict(put_off={(0, State.DUE): [leaving]}))
    elif how == "is released":
        here.release(leaving, token)
    elif how == "is released with others":
        here.release_all([shard], token, gone=False)
    else:
        wait_for(lambda: here.extend(shard, {claim_lease(token): 1}))
        here.claim(shard, 0)
    list(steps)
    other = process().at("here")
    assert other.deadline(leaving)[1] > 0
    assert other.schedule([leaving], HOUR)
    assert other.counts().tracked == 1


def test_a_write_goes_on_while_its_file_moves(
    store: ExpirationStore, here: Expirations, there: Expirations
) -> None:
    names = list(islice(moving(here), 6))
    begun = [here.begin(name, LEASE, HOUR) for name in names[:2]]
    fresh = [here.begin_new(name, HOUR) for name in names[2:4]]
    moves = store.reshard(3)
    until_in_transit(moves)
    leases = {
        write_lease(write.token, name): LEASE
        for name, write in zip(names, [*begun, *fresh], strict=False)
    }
    assert there.extend(1, leases, list(leases)[2:]) == []
    there.abandon(names[0], begun[0].token)
    assert there.finish(names[1], begun[1], SECOND, HOUR).unbroken
    there.abandon(names[2], fresh[0].token)
    assert list(moves)
    assert there.extend(1, dict.fromkeys(leases, 1)) == [*leases][:3]
    late = here.begin(names[4], LEASE)
    assert here.extend(1, {write_lease(late.token, names[4]): LEASE}) == []
    assert [bool(deadline) for deadline in here.deadlines(names)[1]] == [0, 1, 1, 1, 0, 0]


def test_sweeps_claim_in_all_shards_and_in_each_but_once(
    store: ExpirationStore, here: Expirations, there: Expirations
) -> None:
    here.schedule(NAMES, 0)
    seen: list[bytes] = []

    def sweep(records: Expirations) -> None:
        for shard in records.shards:
            claim = records.claim(shard, 1)
            seen.extend(claim.members)
            records.settle(claim, Verdict(done=list(claim.members)))

    for _ in store.reshard(4):
        sweep(there)
    while there.counts().tracked:
        sweep(there)
    assert sorted(seen) == sorted(NAMES)


def test_one_time_links_and_totals_outlast_it(
    store: ExpirationStore, here: Expirations, there: Expirations, leaving: bytes
) -> None:
    here.issue_ticket("one", 1, here.schedule([leaving], HOUR))
    here.settle(Claim(1, 0), Verdict(tally={"deleted": 3}))
    moves = store.reshard(1)
    until_in_transit(moves)
    assert there.use_ticket("one")
    assert not here.use_ticket("one")
    assert list(moves)
    assert not there.use_ticket("one")
    assert store.totals() == {"deleted": 3}


def test_places_that_were_never_introduced_move_as_well(
    store: ExpirationStore, process: Stores
) -> None:
    store.at("a:b-uploads").schedule(NAMES, HOUR)
    _, deadlines = store.at("a:b-uploads").deadlines(NAMES)
    reshard(store, 3)
    assert process().at("a:b-uploads").deadlines(NAMES)[1] == deadlines


def test_a_shard_that_has_lost_the_last_layout_is_told_it_again(
    store: ExpirationStore, here: Expirations, there: Expirations, leaving: bytes
) -> None:
    """As if its master had failed before a replica got the change."""
    here.schedule([leaving], HOUR)
    key = store._scripts.key(2, "format")  # type: ignore[attr-defined]
    list(islice(store.reshard(3), 2))
    client = store._scripts._server_of(2)  # type: ignore[attr-defined]
    now = client.get(key)
    client.set(key, Layout(0, 2, 2).form)
    assert there.schedule([leaving], 2 * HOUR) == here.deadline(leaving)[1]
    assert client.get(key) == now


@pytest.mark.parametrize("comes_back", ["as it was before", "empty"])
def test_a_process_takes_the_word_of_a_redis_that_has_lost_the_last_layout(
    records: dict[str, Any], store: RedisStore, process: Stores, comes_back: str
) -> None:
    """Else it makes second records, and sweeps find the first ones."""
    here, before = store.at("here", LEASE), kept_by(store)
    reshard(store, 3)
    come_back(store, before if comes_back == "as it was before" else [{} for _ in before])
    records["shards"] = 1
    other = process().at("here", LEASE)
    other.schedule(NAMES, SECOND)
    here.schedule(NAMES, HOUR)
    for one in here, other, process().at("here"):
        now, deadlines = one.deadlines(NAMES)
        assert min(deadlines) > now + HOUR - 60 * SECOND
    assert other.counts().tracked == len(NAMES)


def test_a_process_that_wrote_at_once_after_redis_had_lost_all_has_told_the_next_one_the_layout(
    records: dict[str, Any], store: RedisStore, process: Stores
) -> None:
    here = store.at("here", LEASE)
    reshard(store, 3)
    come_back(store, [{} for _ in kept_by(store)])
    here.schedule(NAMES, HOUR)
    records["shards"] = 1
    assert all(process().at("here").deadlines(NAMES)[1])
    assert process().spread() == store.spread() == Spread(3, 3)


def test_a_number_of_shards_in_settings_that_were_changed_counts_only_for_a_new_store(
    records: dict[str, Any], store: RedisStore, process: Stores
) -> None:
    here = store.at("here", LEASE)
    here.schedule(NAMES, HOUR)
    come_back(store, [{} for _ in kept_by(store)])
    records["shards"] = 4
    there = process().at("here", LEASE)
    there.schedule(NAMES, HOUR)
    here.schedule(NAMES, 2 * HOUR)
    now, deadlines = there.deadlines(NAMES)
    assert min(deadlines) > now + HOUR


def test_a_record_that_comes_back_where_it_has_left_takes_no_file(
    store: RedisStore, here: Expirations, there: Expirations
) -> None:
    """As after a failover to a replica that lags behind."""
    here.schedule(NAMES, 0)
    before = kept_by(store)
    reshard(store, 3)
    here.schedule(NAMES, HOUR)
    now = kept_by(store)
    form = store._scripts.key(1, "format")
    lags = store._scripts.key(1, "")
    come_back(
        store,
        [
            {key: kept for key, kept in new.items() if not key.startswith(lags) or key == form}
            | {key: kept for key, kept in old.items() if key.startswith(lags) and key != form}
            for old, new in zip(before, now, strict=True)
        ],
    )
    belong = [name for name in NAMES if here.shard_of(name) == 1]
    claimed = [it for shard in there.shards for it in there.claim(shard, 100).members]
    assert sorted(claimed) == [name for name in sorted(belong) if Layout(0, 2, 2).shard_of(name)]
    assert not there.claim(1, 100).members


def test_no_process_falls_back_to_an_old_layout_while_a_shard_is_away(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    djfs(type="memory", redis_url=redis_server.url, key_prefix="away", shards=2)
    here = (store := store_for(conf.current())).at("here")
    here.schedule(NAMES, HOUR)
    with redis_server.client() as client:
        old = client.get("away:{01}:format")
        reshard(store, 3)
        new = client.get("away:{01}:format")
        for shard in "00", "01":
            client.set(f"away:{{{shard}}}:format", old)
        client.delete("away:{02}:format")
        client.rpush("away:{02}:format", "not to be read")
        member = next(name for name in NAMES if here.shard_of(name) == 1)
        assert here.deadline(member)[1] > 0
        assert client.get("away:{01}:format") == new


def test_another_number_has_to_wait_until_it_has_finished(store: ExpirationStore) -> None:
    list(islice(store.reshard(3), 1))
    with pytest.raises(ConfigurationError, match=r"from 2 to 3 shards.*reshard 3"):
        reshard(store, 4)
    reshard(store, 3)
    reshard(store, 4)
    assert store.spread() == Spread(4, 4)


def test_it_leaves_nothing_behind(store: ExpirationStore, here: Expirations) -> None:
    here.schedule(NAMES, HOUR)
    reshard(store, 3)
    kinds = {
        key.rpartition(b":")[2]
        for keys in store._scripts.all_servers(  # type: ignore[attr-defined]
            lambda client: client.keys(store._scripts.key(0, "").replace(b"{00}:", b"*"))  # type: ignore[attr-defined]
        )
        for key in keys
    }
    assert kinds == {b"due", b"format"}


def test_records_in_a_process_have_no_shards(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    store = store_for(conf.current())
    assert store.spread() == Spread(1, 1)
    with pytest.raises(ConfigurationError, match="memory://"):
        store.reshard(2)
