"""What a process makes once and shares: record stores and backends."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Closes(Protocol):
    """What has connections, or files, to give up."""

    def close(self) -> None:
        """Give them up."""


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Closes)


class Registry(Generic[K, V]):
    """One value for each key, the same for all threads; a child of fork() makes its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: dict[K, V] = {}
        self._inherited: list[V] = []
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value for ``key``; ``make`` it if there is none."""
        if found := self._made.get(key):
            return found
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Give a block values of its own, and close them at its end."""
        before, self._made = self._made, {}
        try:
            yield
        finally:
            self.close_all()
            self._made = before

    def close_all(self) -> None:
        """Close every value; the next call of `get` makes another."""
        while self._made:
            self._made.popitem()[1].close()

    def _leave_to_parent(self) -> None:
        # A child must not use, nor close, the connections of its parent.
        self._lock = Lock()
        self._inherited.extend(self._made.values())  # what nothing refers to closes itself
        self._made.clear()
