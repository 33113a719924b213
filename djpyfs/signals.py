"""The signals that djpyfs sends."""

from django.dispatch import Signal

#: One-shots are on and files got a deadline. Sent with ``namespace``, ``paths`` (a list) and
#: ``ttl`` (seconds from now, a float).
deadline_set = Signal()

#: A sweep has deleted files. Sent at its end, once per batch and namespace, with ``namespace`` and
#: ``paths`` (a list). What a receiver raises is logged, and stops nothing.
files_expired = Signal()

#: A sweep that had something to do has ended. Sent with ``report``, a `SweepReport`.
sweep_finished = Signal()
