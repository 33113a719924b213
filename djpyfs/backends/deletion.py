"""Deleting a batch of files on disk: only those that were there before the claim."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from time import monotonic, sleep

from ..errors import BackendUnavailable, FileBusy
from ..names import Entry
from . import Lease, Outcome, locks, reason
from .tree import Descent, pruned

# Writers wait meanwhile. It is long enough for locking to cost little, and far shorter than a
# writer waits.
LONGEST_HOLD = 0.05  # s
PAUSE = 0.005  # s, in which waiting writers take their turn
PATIENCE = 1.0  # s, with a frozen writer that holds a directory

Group = list[tuple[str, Entry]]  # files of one directory, by their names in it


def delete_below(
    descent: Descent, entries: Sequence[Entry], lease: Lease, writers_hold: bool = True
) -> Outcome:
    """Delete a batch of files below a root; those written since the claim are not attempted.

    ``writers_hold`` says whether who replaces a file holds its directory meanwhile. Raises
    `BackendUnavailable` if the root is not the place that it was, or cannot be written.
    """
    try:
        with descent.opened() as root:
            descent.confirm(root)
            return _Deletion(descent, root, lease, writers_hold).run(entries)
    except OSError as error:
        raise BackendUnavailable(f"directory_root is away: {reason(error)}") from error


class _Deletion:
    """One batch that is deleted below a root that is open. Raises `OSError`."""

    def __init__(self, descent: Descent, root: int, lease: Lease, writers_hold: bool) -> None:
        self._descent = descent
        self._root = root
        self._lease = lease
        self._writers_hold = writers_hold
        self._claimed = descent.clock(root) if lease.mark is None else lease.mark
        self._outcome = Outcome()

    def run(self, entries: Sequence[Entry]) -> Outcome:
        """Delete directory by directory, and prune those that become empty."""
        groups: dict[str, Group] = {}
        for entry in entries:
            directory, name = entry
            if "/" in name:
                directory, _, name = "/".join(entry).rpartition("/")
            groups.setdefault(directory, []).append((name, entry))
        for directory, group in groups.items():
            if self._lease.remaining() <= 0:
                break
            self._delete_in(directory.split("/"), group)
        return self._outcome

    def _delete_in(self, names: list[str], group: Group) -> None:
        with pruned(self._root, names) as ways:
            try:
                self._descent.walk(ways, names)
            except FileNotFoundError:
                self._outcome.missing += [entry for _, entry in group]
            except OSError as error:
                if _is_file(names[len(ways) - 1], ways[-1]):  # below a file there are none
                    self._outcome.missing += [entry for _, entry in group]
                else:
                    self._stay(group, error)
            else:
                self._delete_held(ways[-1], group)

    def _delete_held(self, directory: int, group: Group) -> None:
        """Delete files while nobody can replace the one that is being looked at."""
        while group:
            try:
                is_held = locks.take(directory, shared=True, patience=PATIENCE)
            except (OSError, FileBusy) as error:
                return self._stay(group, error)
            try:
                group = self._delete_some(directory, group, is_held)
            finally:
                locks.give_back(directory)
            if self._lease.remaining() <= 0:
                return None
            if group:
                sleep(PAUSE)
        return None

    def _delete_some(self, directory: int, group: Group, is_held: bool) -> Group:
        """Return what is still to be deleted after a pause."""
        end, remaining, deleted = monotonic() + LONGEST_HOLD, self._lease.remaining, []
        before = os.fstat(directory)
        # Replacing a file changes its directory, and waits while that is held. So if it has not
        # changed since the claim, a look at each file would cost a third more for nothing.
        dates = is_held and self._writers_hold and before.st_dev in self._descent.dating
        unchanged = dates and before.st_ctime_ns <= self._claimed
        for done, (name, entry) in enumerate(group):
            if remaining() <= 0 or monotonic() > end:
                left = group[done:]
                break
            try:
                if not unchanged and self._is_newer(os.lstat(name, dir_fd=directory)):
                    continue  # written since the claim, so it is another file
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                self._outcome.missing.append(entry)
            except OSError as error:
                self._stay([(name, entry)], error)
            else:
                deleted.append(entry)
        else:
            left = []
        self._outcome.deleted += deleted
        if deleted and not unchanged:
            self._learn(before, os.fstat(directory))
        return left

    def _learn(self, before: os.stat_result, after: os.stat_result) -> None:
        """Note whether the time of a directory changes when files in it are deleted."""
        if before.st_ctime_ns <= self._claimed <= after.st_ctime_ns:
            self._descent.dating.add(after.st_dev)

    def _is_newer(self, found: os.stat_result) -> bool:
        # What lies in the future was written before the clock was set back.
        written = found.st_ctime_ns
        return written > self._claimed and written <= self._descent.clock(self._root)

    def _stay(self, group: Group, error: OSError | FileBusy) -> None:
        told = self._outcome.away if _is_away(self._root) else self._outcome.failed
        told += [(entry, reason(error)) for _, entry in group]


def _is_file(name: str, directory: int) -> bool:
    try:
        return stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode)
    except OSError:
        return False


def _is_away(root: int) -> bool:
    """Return whether it is the whole disk that fails, and not one file on it."""
    try:
        os.fstatvfs(root)
    except OSError:
        return True
    return False
