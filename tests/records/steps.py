"""Steps that the tests of the verbs share."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from djpyfs.conf import SECOND
from djpyfs.expirations import BACKOFF, Backoff, Claim, Expirations, State, Verdict
from tests.servers import wait_for

LEASE = 60 * SECOND


SHORT = SECOND // 10
AHEAD = SECOND  # of a deadline before which something begins, even on a busy machine


MINUTE = 60 * SECOND


AT_ONCE = Backoff(10, 1, 1)


A, B = b"n/a", b"n/b"


At = Callable[..., Expirations]


def retrying(store: Expirations, backoff: Backoff) -> Expirations:
    """The same records, for somebody with such a back-off."""
    own = copy(store)
    own.backoff = backoff
    return own


def claim(store: Expirations, limit: int = 100, backoff: Backoff = BACKOFF) -> Claim:
    """Claim from all shards, for tests that do not care where a member is."""
    own = retrying(store, backoff)
    claims = [own.claim(shard, limit) for shard in store.shards]
    members = [member for one in claims for member in one.members]
    found = next((one for one in claims if one.members), Claim(0, 0))
    return found._replace(
        members=members, lags=[lag for one in claims for lag in one.lags], overdue=0
    )


def held(store: Expirations, member: bytes, token: int) -> Claim:
    """The claim on a member, wherever that is."""
    return Claim(store.shard_of(member), token)


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
    own = retrying(store, Backoff(attempts, SHORT))
    settled = own.settle(held(store, member, token), verdict)
    return settled.retried, settled.set_aside


def put_off(
    store: Expirations, member: bytes, token: int, delay: int, state: State = State.HELD
) -> None:
    store.settle(held(store, member, token), Verdict(put_off={(delay, state): [member]}))


def fail(store: Expirations, member: bytes, attempts: int) -> None:
    """Let one deletion of a member that is due fail."""
    verdict = Verdict(failures=[(member, "no")])
    own = retrying(store, Backoff(attempts, 100 * SECOND))
    own.settle(held(store, member, store.claim_one(member).token), verdict)


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
