"""New files have the lifetime that the settings give them."""

from __future__ import annotations

import errno
import io
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fs import errors

from djpyfs import InvalidLifetime, get_filesystem
from djpyfs.filesystem import ExpiringFS
from tests.filesystem.steps import WRITES, Unreadable, left, overdue
from tests.servers import RedisServer


@pytest.fixture
def memos(djfs: Callable[..., None], place: dict[str, Any], records: dict[str, Any]) -> ExpiringFS:
    """A filesystem with a default life of 100 s."""
    djfs(**place, **records, namespaces={"memos/*": {"default_ttl": 100, "max_ttl": 1_000}})
    return get_filesystem("memos/of/today")


@pytest.mark.parametrize("write", WRITES)
def test_every_write_registers_the_default_life(memos: ExpiringFS, write: str) -> None:
    memos.writebytes("other", b"other")
    overdue(memos, "a.png")
    WRITES[write](memos, "a.png")
    assert left(memos, "a.png") == pytest.approx(100, abs=40)


def test_a_rewrite_keeps_a_deadline_that_was_set_by_hand(memos: ExpiringFS) -> None:
    memos.writebytes("a.png", b"old")
    memos.expire("a.png", 500)
    memos.writebytes("a.png", b"new")
    assert left(memos, "a.png") > 400


def test_a_record_is_there_before_the_first_byte(memos: ExpiringFS) -> None:
    with memos.open("a.png", "wb"):
        assert memos.expiration("a.png") is not None


def test_the_default_life_begins_when_the_write_has_ended(memos: ExpiringFS) -> None:
    with memos.open("a.png", "wb"):
        begun = memos.expiration("a.png")
    ended = memos.expiration("a.png")
    assert begun
    assert ended
    assert ended > begun


def test_a_write_that_fails_leaves_no_record(memos: ExpiringFS) -> None:
    with pytest.raises((errors.FSError, OSError)):
        memos.upload("a.png", Unreadable())
    assert memos.expiration("a.png") is None


def test_what_was_made_permanent_stays_if_redis_is_emptied_while_it_is_written_again(
    djfs: Callable[..., None], redis_server: RedisServer
) -> None:
    prefix = uuid.uuid4().hex
    djfs(type="memory", redis_url=redis_server.url, key_prefix=prefix, default_ttl=100)
    memos = get_filesystem("memos")
    memos.writebytes("a.png", b"old")
    memos.expire("a.png", expires=False)
    with memos.open("a.png", "wb") as file, redis_server.client() as client:
        file.write(b"new")
        client.delete(*client.scan_iter(f"{prefix}:*"))
    assert memos.expiration("a.png") is None


SET_BY_HAND: dict[str, Callable[[ExpiringFS], object]] = {
    "extended": lambda fs: fs.expire("a.png", 500),
    "permanent": lambda fs: fs.expire("a.png", expires=False),
}


@pytest.mark.parametrize("by_hand", SET_BY_HAND)
def test_a_deadline_set_by_hand_during_a_long_write_counts_from_then_on(
    djfs: Callable[..., None], records: dict[str, Any], by_hand: str
) -> None:
    djfs(type="memory", **records, grace=1, default_ttl=100)
    memos = get_filesystem("memos")
    with memos.open("a.png", "wb") as file:
        SET_BY_HAND[by_hand](memos)
        expected = memos.expiration("a.png")
        file.write(b"more")
    assert memos.expiration("a.png") == expected


def test_a_long_write_that_fails_leaves_an_extension_as_it_is(
    djfs: Callable[..., None], records: dict[str, Any]
) -> None:
    djfs(type="memory", **records, grace=1)
    plots = get_filesystem("plots")

    class Extending(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            if left(plots, "a.png") > 400:
                raise OSError(errno.EIO, "the client hung up")
            plots.expire("a.png", 500)
            return b"more"

    plots.expire("a.png", 100)
    with pytest.raises(OSError, match="hung up"):
        plots.upload("a.png", Extending())
    assert left(plots, "a.png") > 400


def test_a_life_longer_than_the_longest_is_refused(memos: ExpiringFS) -> None:
    with pytest.raises(InvalidLifetime, match="max_ttl"):
        memos.expire("a.png", 1_001)
    assert memos.expiration("a.png") is None


def test_other_namespaces_have_no_default_lifetime(memos: ExpiringFS) -> None:
    others = get_filesystem("others")
    others.writebytes("a.png", b"picture")
    assert others.expiration("a.png") is None


def test_an_entry_for_a_prefix_is_not_for_the_directory_itself(memos: ExpiringFS) -> None:
    above = get_filesystem("memos")
    above.makedirs("of/today", recreate=True)
    for name in "a.png", "of/today/b.png":
        above.writebytes(name, b"picture")
    assert above.expiration("a.png") is None
    assert above.expiration("of/today/b.png") == memos.expiration("b.png")
    assert memos.expiration("b.png")


def test_a_default_life_of_0_is_refused_and_changes_nothing(plots: ExpiringFS) -> None:
    plots.set_default_life(100)
    with pytest.raises(InvalidLifetime, match="seconds is 0"):
        plots.set_default_life(0)
    plots.writebytes("a.png", b"picture")
    assert left(plots, "a.png") == pytest.approx(100, abs=40)


def test_a_directory_gives_new_files_the_life_that_was_set_above_it(plots: ExpiringFS) -> None:
    plots.set_default_life(100)
    below = plots.makedir("d")
    below.writebytes("a.png", b"picture")
    assert left(below, "a.png") == pytest.approx(100, abs=40)
    below.set_default_life(1_000)
    below.writebytes("b.png", b"picture")
    plots.writebytes("d/c.png", b"picture")
    assert left(below, "b.png") > 900
    assert left(below, "c.png") < 101
