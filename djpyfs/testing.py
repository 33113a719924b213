"""For the tests of a project: files and records of their own, and a clock that they move.

In memory the clock of records and files is `time.time`, even if freezegun or time-machine have
replaced it, plus what `advance` has added in an `isolated` block. Leases, which tell whether a
writer or a sweep is still alive, go by a clock that none of these move.
"""

from __future__ import annotations

from asyncio import Task, current_task
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any

from . import backends, clock, conf, expirations
from .conf import POLICY_KEYS, SECOND, SERVICE_KEYS
from .errors import ConfigurationError
from .lifetimes import Seconds, seconds_of
from .places import places_here
from .sweeper import SweepReport, expire_objects
from .writes import Reservation

if TYPE_CHECKING:
    from unittest import TestCase as _Case
else:
    _Case = object

# Nobody else can reach files in this process: one-shots would be for a worker that finds nothing.
_IN_MEMORY = {"type": "memory", "redis_url": "memory://", "one_shot": False}


def _task() -> Task[Any] | None:
    try:
        return current_task()
    except RuntimeError:  # there is no event loop
        return None


@dataclass(frozen=True, eq=False)
class _Block:
    thread: int = field(default_factory=get_ident)
    task: Task[Any] | None = field(default_factory=_task)

    def is_of_another(self) -> bool:
        """Return whether another thread, or another task that has not ended, has opened it."""
        task = self.task if self.task and not self.task.done() else None
        return self.thread != get_ident() or task not in (None, _task())


_open: list[_Block] = []  # the innermost is the last
_changing = RLock()  # which blocks are open, and what that replaces for all threads
_inside: ContextVar[_Block | None] = ContextVar("djpyfs_isolated", default=None)


@contextmanager
def isolated(**djfs: Any) -> Iterator[None]:
    """Give a block files and records of its own, in memory; it begins with none.

    Apart from where files and records are, ``DJFS`` stays as it is, or as `override_settings` in
    the block has it: lifetimes, policies of namespaces and the rest apply. Keywords replace single
    keys. Blocks may be nested.

    A block applies to all threads, which may work inside it. Raises `ConfigurationError` while
    another thread, or another task of an event loop, is in a block of its own.

    A filesystem that was made before the block stays as it is: call `get_filesystem` inside.

    Example::

        with isolated(default_ttl=60):
            get_filesystem("plots").writebytes("a", b"picture")
            advance(61)
            assert expire_objects().deleted == 1
    """
    with ExitStack() as block:
        with _changing:
            _check_nested()
            ahead, outer, here = clock.ahead(), _inside.get(), _Block()
            block.enter_context(conf.replaced(lambda own: _in_memory(own) | djfs))
            conf.current()  # what is wrong with it is an error here too
            block.enter_context(backends.fresh())
            block.enter_context(expirations.fresh())
            block.callback(clock.put_ahead, ahead)
            _open.append(here)
        _inside.set(here)
        try:
            yield
        finally:
            _inside.set(outer)
            with _changing:
                _open.remove(here)
                block.close()


def _check_nested() -> None:
    """Raise `ConfigurationError` if a block would not end before the one that is open.

    An async test has a thread of its own, but the context of the one that waits for it. A case of
    `unittest.IsolatedAsyncioTestCase` has another context than its class, but the same thread.
    """
    if _open and _open[-1] is not _inside.get() and _open[-1].is_of_another():
        raise ConfigurationError(
            "isolated() is called while another thread or task is in such a block, but blocks "
            "replace DJFS for all of them: open one around them, or run such tests in processes"
        )


def _in_memory(djfs: Mapping[str, Any]) -> dict[str, Any]:
    conf.parse(djfs)
    kept = {key: djfs[key] for key in (*SERVICE_KEYS, *POLICY_KEYS) if key in djfs}
    namespaces = {
        name: {key: policy[key] for key in POLICY_KEYS if key in policy}
        for name, policy in djfs.get("namespaces", {}).items()
    }
    return {**kept, **_IN_MEMORY, "namespaces": namespaces}


def advance(seconds: Seconds) -> None:
    """Move the clock of the records, and of what depends on them, such as signed links, forward.

    When the `isolated` block ends, the clock is set back. ``seconds`` may be a
    `datetime.timedelta`. This deletes nothing: call `expire_objects` for that.
    Raises `InvalidLifetime`, and `ConfigurationError` outside such a block.
    """
    _check_isolated("advance")
    clock.put_ahead(clock.ahead() + round(seconds_of("seconds", seconds) * SECOND))


def expire_now() -> SweepReport:
    """Make every file that has a deadline due, sweep, and return the report.

    A file that waits for its row, and has one, gets the life that it has then. The clock stays
    where it is. Raises `ConfigurationError` outside an `isolated` block.
    """
    _check_isolated("expire_now")
    for place in places_here(conf.current()):
        for member in [record.member for _, step in place.records.scan(b"") for record in step]:
            # Under a claim a deadline moves, and what else is known of the file stays.
            with Reservation(place.records, member, late=0) as claim:
                claim.pledge(place.records.deadline(member)[0])
    return expire_objects()


def _check_isolated(name: str) -> None:
    if not _open:
        raise ConfigurationError(
            f"{name}() is called outside of `with djpyfs.testing.isolated()`, where it would "
            "affect real files: call it inside"
        )


class IsolatedFiles(_Case):
    """Put this before `TestCase`: each test has files and records of its own, in memory.

    So has the class, for what `setUpTestData` writes; tests do not see that, nor each other's
    files.
    """

    @classmethod
    def setUpClass(cls) -> None:
        cls.enterClassContext(isolated())
        super().setUpClass()

    def setUp(self) -> None:
        self.enterContext(isolated())
        super().setUp()
