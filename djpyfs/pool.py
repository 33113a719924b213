"""Threads that work through the parts of something; more of them while parts are slow."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Generic, TypeVar, cast

from django.db import connections

P = TypeVar("P")  # a part
R = TypeVar("R")  # what comes of it

# Threads share one interpreter, so what takes microseconds is done soonest by two: one in Python,
# one in the system. Only where parts take longer than this does another thread help.
FIRST = 2
LONG = 0.01  # s


class Pool(Generic[P, R]):
    """Performs parts, at most ``most`` of them at a time; one at a time needs no thread.

    ``perform`` is called with each part. Only one thread may call the methods.
    """

    def __init__(self, perform: Callable[[P], R], most: int) -> None:
        self._perform = perform
        self._most = most
        self._parts: SimpleQueue[P | None] = SimpleQueue()
        self._news: SimpleQueue[P | R | BaseException] = SimpleQueue()
        self._threads: list[Thread] = []

    def put(self, part: P) -> None:
        """Queue a part."""
        self._parts.put(part)
        if len(self._threads) < min(FIRST, self._most) and self._most > 1:
            self._grow()

    def news(self) -> P | R:
        """Wait until a part has begun or ended; return the part, or its result.

        Raises what performing it raised.
        """
        if self._most == 1:
            return self._perform(cast(P, self._parts.get_nowait()))
        news = self._next()
        if isinstance(news, BaseException):
            raise news
        return news

    def _next(self) -> P | R | BaseException:
        while len(self._threads) < self._most and not self._parts.empty():
            try:
                return self._news.get(timeout=LONG)
            except Empty:
                for _ in range(min(len(self._threads), self._most - len(self._threads))):
                    self._grow()
        return self._news.get()

    def _grow(self) -> None:
        thread = Thread(target=self._work, name="djpyfs-deletions", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        try:
            while (part := self._parts.get()) is not None:
                self._news.put(part)
                try:
                    self._news.put(self._perform(part))
                except BaseException as error:  # for the thread that waits for it
                    self._news.put(error)
        finally:
            connections.close_all()  # of this thread, if a storage has used any

    def __enter__(self) -> Pool[P, R]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the threads; after an error, parts that wait are dropped."""
        while error and not self._parts.empty():
            self._parts.get()
        for _ in self._threads:
            self._parts.put(None)
        for thread in self._threads:
            thread.join()
