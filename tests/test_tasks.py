"""The tasks as functions: what they refuse, and what they send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, current_app

from djpyfs import get_filesystem
from djpyfs.filesystem import ExpiringFS
from djpyfs_tasks import beat_schedule
from djpyfs_tasks.one_shots import send_one_shots
from djpyfs_tasks.tasks import delete_expired


@pytest.fixture
def plots(djfs: Callable[..., None]) -> ExpiringFS:
    djfs(type="memory", one_shot=False)
    return get_filesystem("plots")


@pytest.fixture
def sent() -> Iterator[Callable[[], int]]:
    """How many tasks wait at a broker in this process."""
    proxy: Any = current_app
    before = proxy._get_current_object()
    app = Celery("tests", broker="memory://", set_as_current=True)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        queue.clear()
        yield queue.qsize
        queue.close()
    app.close()
    before.set_current()


@pytest.mark.parametrize(
    "arguments",
    [
        ("plots", "a"),
        ("plots", {"a": 1}),
        ("plots", ["a"] * 1_001),
        ("plots", ["../plots/a"]),
        ("plots", ["a", "../plots/a"]),
        ("plots", [None]),
        ("../plots", ["a"]),
        (None, ["a"]),
    ],
    ids=lambda arguments: str(arguments)[:30],
)
def test_arguments_that_nobody_sends_are_refused_and_delete_nothing(
    plots: ExpiringFS, arguments: tuple[Any, Any]
) -> None:
    plots.writebytes("a", b"picture")
    plots.expire("a")
    with pytest.raises(ValueError, match=r"paths must be|is not a str|leads out|has the segment"):
        delete_expired(*arguments)
    assert plots.exists("a")


def test_what_is_due_after_the_horizon_is_left_to_the_sweep(
    djfs: Callable[..., None], sent: Callable[[], int]
) -> None:
    djfs(type="memory", one_shot=True, one_shot_horizon=60)
    for ttl, waiting in (61.0, 0), (59.0, 1):
        send_one_shots(namespace="plots", paths=["a"], ttl=ttl)
        assert sent() == waiting


def test_a_one_shot_that_comes_a_little_early_is_sent_once_more(
    plots: ExpiringFS, sent: Callable[[], int]
) -> None:
    for seconds, waiting in (100, 0), (4, 1):
        plots.expire("a", seconds)
        delete_expired("plots", ["a"])
        assert sent() == waiting


def test_ticks_that_nobody_takes_up_for_a_day_expire(djfs: Callable[..., None]) -> None:
    djfs(sweep_interval=7)
    [tick] = beat_schedule().values()
    assert (tick["schedule"], tick["options"]["expires"]) == (7, 86_400)
