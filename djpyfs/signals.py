"""What djpyfs tells to whoever listens."""

from django.dispatch import Signal

#: One-shots are on and files got a deadline. Sent with ``namespace``, ``paths`` (a list) and
#: ``ttl`` (seconds from now, a float).
deadline_set = Signal()
