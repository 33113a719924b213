"""When beat sends which task."""

from __future__ import annotations

from typing import Any

from djpyfs import conf


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return the entries for ``beat_schedule``: a sweep every ``DJFS["sweep_interval"]`` seconds.

    A tick that no worker has taken up before the next one is due expires, so that ticks do not
    pile up while the workers are away.
    """
    interval = conf.current().sweep_interval
    return {
        "djpyfs-sweep": {
            "task": "djpyfs_tasks.expire_objects",
            "schedule": interval,
            "options": {"expires": interval},
        }
    }
