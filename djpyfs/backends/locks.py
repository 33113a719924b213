"""The system's locks on files and directories, which end with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
from time import monotonic, sleep

from ..errors import FileBusy

LONGEST_WAIT = 5.0  # s; a running sweeper lets go of a directory many times in this time
FIRST_PAUSE, LONGEST_PAUSE = 0.0002, 0.002  # s, between two tries
# The answers of filesystems that have no such locks, or none for what is only read.
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF}


def take(directory: int, shared: bool = False, patience: float = LONGEST_WAIT) -> bool:
    """Wait until nobody holds a directory, or only shares it, and hold it.

    Returns False at once if the filesystem has no locks. Raises `FileBusy` after ``patience``
    seconds.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    pause, end = FIRST_PAUSE, 0.0
    while True:
        try:
            fcntl.flock(directory, how)
            return True
        except BlockingIOError:
            end = end or monotonic() + patience
            if monotonic() >= end:
                raise FileBusy("another process holds its directory, and may be frozen") from None
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return False
            raise
        sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def give_back(directory: int) -> None:
    """End what `take` began."""
    try:
        fcntl.flock(directory, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def is_free(file: int) -> bool:
    """Hold a file if nobody else does; False also if that cannot be known."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
