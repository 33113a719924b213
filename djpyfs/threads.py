"""The threads in which blocking calls run for an event loop."""

from __future__ import annotations

import os
from asyncio import CancelledError, wrap_future
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

P = ParamSpec("P")
T = TypeVar("T")

AT_A_TIME = 32

_threads = ThreadPoolExecutor(AT_A_TIME, "djpyfs")


def in_a_thread(blocks: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return a coroutine function that runs ``blocks`` in a thread.

    The threads belong to djpyfs alone: while its Redis or its store hangs, the event loop's own
    threads go on.
    """

    @wraps(blocks)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        call = sync_to_async(blocks, thread_sensitive=False, executor=_threads)
        return await call(*args, **kwargs)

    return run


async def entered_in_a_thread(context: AbstractContextManager[T]) -> T:
    """Enter a context in a thread; if the task is cancelled meanwhile, leave it in one as well.

    Otherwise nobody would: the thread goes on, and what it enters is lost with the task.
    """
    entering = _threads.submit(copy_context().run, context.__enter__)
    try:
        return await wrap_future(entering)
    except CancelledError as error:
        if not entering.cancel():
            _threads.submit(_leave, context, entering, error)
        raise


def _leave(context: AbstractContextManager[T], entering: Future[T], error: BaseException) -> None:
    if entering.exception() is None:  # which waits
        context.__exit__(type(error), error, None)


def _begin_again() -> None:
    # A child of fork() has no thread of its parent's.
    global _threads
    _threads = ThreadPoolExecutor(AT_A_TIME, "djpyfs")


os.register_at_fork(after_in_child=_begin_again)
