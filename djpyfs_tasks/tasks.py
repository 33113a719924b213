"""The tasks. None carries a right to delete: each asks the record store what is due."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

from djpyfs import conf
from djpyfs.names import check_path
from djpyfs.sweeper import SweepReport, delete_if_due, sweep

# A sweep that has used this part of its interval, or had a turn of so many seconds, hands over to
# a follow-up task, so that a long one neither keeps one-shots from the worker's slots nor its
# progress to itself.
PART_OF_INTERVAL = 0.9
TURN = 2.0  # s
# One-shots that come early by no more than this (clocks differ) wait; others leave it be.
EARLY = 5.0  # s
MOST_PATHS = 1_000


@shared_task(bind=True, name="djpyfs_tasks.expire_objects")
def expire_objects(self: Task[..., Any], limit: int | None = None) -> dict[str, float]:
    """Sweep until nothing is due; return the `SweepReport` as a dict.

    While it runs, its state is PROGRESS with the report so far. What it has no time for is left
    to a follow-up task.
    """
    interval = conf.current().sweep_interval

    def tell(report: SweepReport) -> None:
        if self.request.id:  # none where the task was called as a function
            progress: dict[str, Any] = report.as_dict()
            self.update_state(state="PROGRESS", meta=progress)
            # Flower follows events, not the result store.
            self.send_event("task-progress", **progress)

    report = sweep(limit, min(interval * PART_OF_INTERVAL, TURN), tell)
    if report.remaining and limit is None and self.request.id:
        self.apply_async(expires=interval)
    return report.as_dict()


@shared_task(name="djpyfs_tasks.delete_expired", ignore_result=True)
def delete_expired(namespace: str, paths: Any) -> None:
    """Delete those files of a namespace that the record store says are due: the one-shot.

    Raises `ValueError`, and `InvalidName` which is one, for arguments that no caller of ours
    sends; nothing is deleted then.
    """
    if not isinstance(paths, list) or len(paths) > MOST_PATHS:
        raise ValueError(f"paths must be a list of {MOST_PATHS} names at the most")
    for path in paths:  # all of them before the first is deleted
        check_path(path)
    waits = {path: delete_if_due(namespace, path) for path in paths}
    early = [path for path, wait in waits.items() if 0 < wait < EARLY]
    if early:
        countdown = max(waits[path] for path in early)
        delete_expired.apply_async((namespace, early), countdown=countdown)
