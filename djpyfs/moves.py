"""Moves: of a file with its deadline, to another path or into another filesystem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock, get_ident
from typing import BinaryIO, NamedTuple

from fs import errors
from fs.iotools import RawWrapper
from fs.mode import Mode

from .backends import may_act, reason
from .errors import MoveUnfinished, RecordStoreError
from .namespaces import Namespace
from .owners import await_owners
from .writes import Reservation


class File(NamedTuple):
    """A file at a checked path."""

    here: Namespace
    path: str

    def is_same(self, other: File) -> bool:
        """Return whether another one is this file, perhaps under another name."""
        return self.identity == other.identity

    @property
    def identity(self) -> tuple[str, bytes]:
        """What tells it from all other files."""
        return self.here.records.place, self.here.at(self.path).member


class Transaction:
    """The lock of a filesystem, and what has been copied from it since it was taken.

    `fs.move` moves between two filesystems by copying and removing under the locks of both, and
    nothing else shows it. What other threads copy meanwhile is no part of it.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._holder = 0  # the thread
        self._depth = 0
        self._copies: dict[str, File] = {}

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = get_ident()
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._copies.clear()
        self._lock.release()

    @property
    def _own_depth(self) -> int:
        """How often this thread has the lock."""
        return self._depth if self._holder == get_ident() else 0

    @property
    def is_move(self) -> bool:
        """Whether what is copied is being moved: `fs.move` has the lock that `fs.copy` takes."""
        return self._own_depth > 1

    @property
    def is_move_within(self) -> bool:
        """Whether what is copied within the filesystem is being moved: it takes each lock twice."""
        return self._own_depth > 3

    @contextmanager
    def told_if_unfinished(self, source: File) -> Iterator[None]:
        """Raise `MoveUnfinished` if a removal fails in a transaction, and the file may be gone."""
        try:
            yield
        except (errors.ResourceNotFound, errors.FileExpected):
            raise
        except errors.FSError as error:
            was_sent = not isinstance(error, RecordStoreError) and may_act(error)
            if self._own_depth and (was_sent or not _is_surely_there(source)):
                raise MoveUnfinished(
                    f"{source.path!r} was copied, and may be gone by now: {reason(error)}"
                ) from error
            raise

    def copied(self, source: File, copy: File) -> None:
        """Note that a file was copied."""
        if self._own_depth:
            self._copies[source.here.full(source.path)] = copy

    def copy_of(self, source: File) -> File | None:
        """Return what a file was copied to."""
        return self._copies.get(source.here.full(source.path)) if self._own_depth else None


class ReadFile(RawWrapper):
    """An open file that knows where it comes from, in case it is copied."""

    def __init__(self, file: BinaryIO, mode: str, source: File, transaction: Transaction) -> None:
        super().__init__(file, mode=Mode(mode).to_platform_bin(), name=source.path)
        self._source = source
        self._transaction = transaction

    def copied(self, copy: File) -> bool:
        """Note that it is copied; return whether the copy is the file itself."""
        self._transaction.copied(self._source, copy)
        return self._source.is_same(copy)

    def life_of_copy(self) -> int | None:
        """Return what is left of its life, in µs, for its copy if it is being moved.

        So the copy is never without a deadline, whatever happens before the file is removed.
        Raises `NamespaceHeld` if that is not allowed.
        """
        return life_of_moved(self._source) if self._transaction.is_move else None


def life_of_moved(source: File) -> int | None:
    """Return what is left of a file's life, in µs, for its copy; None if it has no deadline.

    Raises `NamespaceHeld` if it may not be moved.
    """
    here, path = source
    here.check_removable(path)
    now, deadline = here.records.deadline(here.at(path).member)
    return max(1, deadline - now) if deadline else None


def move(source: File, target: File, replaces: bool, preserve_time: bool) -> None:
    """Move a file within a filesystem; it ``replaces`` one that is there."""
    with _both_reserved(source, target) as (origin, end):
        _move(source, target, origin, end, replaces, preserve_time)
        origin.forget()
    _hand_on(origin, end, target)


def _move(
    source: File,
    target: File,
    origin: Reservation,
    end: Reservation,
    replaces: bool,
    preserve_time: bool,
) -> None:
    files = source.here.files
    # Many filesystems look for the times of a file where it was before.
    details = files.getinfo(source.path, ["details"]).raw["details"] if preserve_time else {}
    before, deadline = end.deadline, _deadline_of_moved(target, origin)
    if before and not deadline:  # a permanent file must not have a deadline for a moment
        with suppress(errors.ResourceNotFound):
            files.remove(target.path)
    if before != deadline:
        end.pledge(deadline)
    try:
        files.move(source.path, target.path, True)
    except BaseException:
        # Many backends copy and then remove: the copy must not stay forever.
        if before or replaces or not _is_surely_there(target):
            end.pledge(before)
        raise
    if modified := details.get("modified"):
        with suppress(errors.FSError):
            files.setinfo(target.path, {"details": {"modified": modified}})


def remove_moved(source: File, copy: File) -> None:
    """Remove a file that was moved to another filesystem by copying it.

    Raises `fs.errors.OperationFailed` if the copy is gone: somebody has moved it back.
    """
    if source.is_same(copy):
        return
    source.here.check_removable(source.path)
    with _both_reserved(source, copy) as (origin, end):
        if not copy.here.files.isfile(copy.path):
            raise errors.OperationFailed(
                source.path, msg=f"'{source.path}' stays: its copy is gone"
            )
        # What the copy has replaced may have left it a deadline.
        if origin.deadline or origin.is_permanent or end.deadline:
            end.pledge(_deadline_of_moved(copy, origin))
        source.here.files.remove(source.path)
        origin.forget()
    _hand_on(origin, end, copy)


def _hand_on(origin: Reservation, end: Reservation, target: File) -> None:
    here, path = target
    origin.hand_on(end)
    if origin.awaits_owner:
        await_owners(here.settings, here.records, [here.at(path)])
    here.announce_at(path, end.deadline)


@contextmanager
def _both_reserved(source: File, target: File) -> Iterator[tuple[Reservation, Reservation]]:
    """Reserve two files in the order of their names.

    So two processes that move the same files back and forth do not wait for each other.
    """
    first, second = sorted((source, target), key=lambda file: file.identity)
    with first.here.reserve(first.path) as one, second.here.reserve(second.path) as other:
        yield (one, other) if first is source else (other, one)


def _deadline_of_moved(target: File, origin: Reservation) -> int:
    """Return the deadline of a file that was moved to ``target``, or 0.

    It takes its deadline along, as far as the longest life there allows. If nobody has said how
    long it lives, it lives as long as a new file.
    """
    here, path = target
    has_life = origin.deadline or origin.is_permanent
    longest = here.policy_of(path).max_ttl if has_life else here.life_of(path)
    if not longest:
        return origin.deadline
    latest = here.records.deadline(here.at(path).member)[0] + longest
    return min(origin.deadline or latest, latest)


def _is_surely_there(target: File) -> bool:
    try:
        return target.here.files.isfile(target.path)
    except errors.FSError:
        return False
