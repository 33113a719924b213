"""When beat sends which task."""

from __future__ import annotations

from typing import Any

from djpyfs import conf

# Beat's machine says when a tick expires, and the worker's machine whether it has: this is far
# more than their clocks differ, or no tick would ever be taken up.
LONGEST_WAIT = 86_400  # s


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return the entries for ``beat_schedule``: a sweep every ``DJFS["sweep_interval"]`` seconds.

    A tick that no worker has taken up for a day expires, so that ticks do not pile up for ever
    while the workers are away. One that finds nothing to do costs a round trip.
    """
    interval = conf.current().sweep_interval
    return {
        "djpyfs-sweep": {
            "task": "djpyfs_tasks.expire_objects",
            "schedule": interval,
            "options": {"expires": max(interval, LONGEST_WAIT)},
        }
    }
