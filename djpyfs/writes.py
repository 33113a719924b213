"""The course of one write to one file, given its record and policy, without the filesystem."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from io import DEFAULT_BUFFER_SIZE, BufferedRandom, BufferedWriter, BytesIO, TextIOWrapper
from typing import IO, Any, BinaryIO, NamedTuple, Self, cast

from fs import errors
from fs.iotools import RawWrapper, make_stream

from . import clock, leases
from .backends import may_act
from .conf import SECOND
from .errors import FileBusy, WriteLost
from .expirations import Begun, Expirations, Finished
from .names import Entry
from .threads import entered_in_a_thread, in_a_thread

# If the write of a new file takes less than this part of its life, and less than this many seconds,
# its life may count from when the write began.
NEGLIGIBLE, LONGEST_NEGLIGIBLE = 0.01, 0.1
# How long a process may stand still, or the record store be away, before its write counts as over;
# the file of a writer that died stays no longer than this.
LONGEST_LEASE = 10 * SECOND
# After these, nothing has been written.
REFUSALS = errors.FileExists, errors.FileExpected, errors.DirectoryExpected, errors.ResourceNotFound


class Write:
    """One write, from before its first byte until after its last.

    While it goes on its file is not deleted, however long that takes and whatever deadline passes.
    If its process dies, it ends `LONGEST_LEASE` later, or after ``grace`` µs if that is less. A
    file without a deadline lives for ``life`` µs after the write, or forever if that is 0.
    ``is_there`` asks for the file, of which a write that fails may leave a part if it
    ``leaves_parts``.
    """

    def __init__(
        self,
        records: Expirations,
        entry: Entry,
        grace: int,
        life: int,
        is_there: Callable[[], bool],
        leaves_parts: bool = False,
    ) -> None:
        self._records = records
        self.entry = entry
        self._grace = grace
        self._life = life
        self._is_there = is_there
        self._leaves_parts = leaves_parts
        self._asked_at = leases.now()
        self._is_over = False
        self._done: tuple[float, Finished] | None = None
        self._begun, self._lease = self._begin(min(grace, LONGEST_LEASE))
        leases.keep(self._lease)

    def _begin(self, lease: int) -> tuple[Begun, leases.HeldLease]:
        records, member = self._records, self.entry.member
        begun = records.begin(member, lease, self._life)
        return begun, leases.of_write(records, member, begun.token, lease, self._asked_at)

    @property
    def starts_new_life(self) -> bool:
        """Whether the deadline of the file had passed when the write began."""
        return self._begun.overdue

    def tell_name(self) -> None:
        """Note that others may act on the file by its name from now on."""

    def finish(self) -> int:
        """Report that the file is there as a whole; return its life in µs if the write gave it one.

        Raises `WriteLost` if a sweep has deleted the file, which only happens if this process
        stood still, or the record store lost its data: then a look at the file decides.
        """
        self._end()
        asked_at = leases.now()
        done = self._records.finish(self.entry.member, self._begun, self._grace, self._life)
        if not (done.unbroken or self._is_there()):
            raise WriteLost(self.entry.path)
        self._done = asked_at, done
        if done.by_default:
            return self._life
        return self._grace if done.deadline != self._begun.before and done.deadline else 0

    @property
    def is_finished(self) -> bool:
        """Whether the file is there as a whole."""
        return self._done is not None

    def times(self) -> tuple[int, int] | None:
        """Return the time now and the deadline, as the record store would report them.

        None if only the store knows: the write has not given the file its life.
        """
        if self._done is None or not self._done[1].by_default:
            return None
        # From before the store was asked, so that nobody takes the file to live too long.
        asked_at, deadline = self._done[0], self._done[1].deadline
        return deadline - self._life + round((leases.now() - asked_at) * SECOND), deadline

    def abandon(self) -> None:
        """Report that the file is what it was before."""
        if not self._is_over:
            self._end()
            self._records.abandon(self.entry.member, self._begun.token)

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """Abandon the write if the block raises; what it may have left keeps its deadline."""
        try:
            yield
        except BaseException as error:
            if self._has_left_part(error):
                self._end()  # as if its process had died
            else:
                self.abandon()
            raise

    def _has_left_part(self, error: BaseException) -> bool:
        if not (self._leaves_parts and self._life) or isinstance(error, REFUSALS):
            return False
        try:
            return self._is_there()
        except Exception:  # the backend is away: nobody knows
            return True

    def _end(self) -> None:
        self._is_over = True
        leases.drop(self._lease)


class NewWrite(Write):
    """The write of a new file, under a name that nobody can guess.

    The record store is told once: the deadline that it then sets keeps sweeps off as well as a
    lease does. If the write takes long, or somebody has asked for the name and may act on the
    file, it becomes like any other, and its end is reported too.
    """

    def _begin(self, lease: int) -> tuple[Begun, leases.HeldLease]:
        records, member = self._records, self.entry.member
        self._began = clock.now()
        begun = records.begin_new(member, max(self._life, lease))
        negligible = min(self._life * NEGLIGIBLE / SECOND, LONGEST_NEGLIGIBLE)
        self._negligible = negligible if self._life >= lease else 0
        return begun, leases.of_write(records, member, begun.token, lease, self._asked_at, True)

    def tell_name(self) -> None:
        """Have the end of the write reported: by then the record may be another."""
        self._negligible = 0

    def finish(self) -> int:
        """Report that the file is there, unless that changes nothing; return its life."""
        # The second clock is the one that the deadline may go by, which a test can move.
        took = max(leases.now() - self._asked_at, (clock.now() - self._began) / SECOND)
        if took >= self._negligible:
            return super().finish()
        self._end()
        self._done = self._asked_at, Finished(self._begun.before, by_default=True, unbroken=True)
        return self._life

    def abandon(self) -> None:
        """Report that the file was not written."""
        if not self._is_over:
            super().abandon()
            self._records.place_at(self.entry.member, 0, expected=self._begun.before)


class Reservation:
    """The claim of a writer on one file that is removed or replaced: no sweep and no other writer
    touches it meanwhile. If the process dies, the file has its old deadline. The end of a ``with``
    block releases it, unless the backend did not answer: then it lapses, for the request may still
    act for ``late`` seconds.
    """

    def __init__(self, records: Expirations, member: bytes, late: float) -> None:
        self._records = records
        self._member = member
        self._late = late
        asked_at = leases.now()
        reserved = records.reserve(member)
        self._token, self.deadline, self.is_permanent, self._is_owned, self.awaits_owner = reserved
        shard = records.shard_of(member)
        self._lease = leases.of_claim(records, shard, self._token, asked_at, late)
        leases.keep(self._lease)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if _may_still_act(error, self._late):
            leases.drop(self._lease)  # and it lapses
        else:
            self.release()

    def pledge(self, deadline: int) -> None:
        """Give the file this deadline, or none for 0, however the reservation ends.

        Raises `FileBusy` if it has ended already, because this process stood still.
        """
        if not self._records.pledge(self._member, self._token, deadline):
            raise FileBusy("this process lost its claim on the file meanwhile: try again")
        self.deadline = deadline

    def hand_on(self, target: Reservation) -> None:
        """Make another file, which this one has become, stay or go as this one would have.

        Both reservations are over, and the deadline is there already.
        """
        if self._is_owned:
            target._records.take_up(target._member, unawaited=True)
        elif self.is_permanent and not target.deadline:
            target._records.keep(target._member)

    def release(self) -> None:
        """End it, unless it has ended: the file has its deadline."""
        self._end(None)

    def forget(self) -> None:
        """End it, with the record: the file is gone."""
        self._end(0)

    def _end(self, deadline: int | None) -> None:
        leases.drop(self._lease)
        token, self._token = self._token, 0
        if token:
            self._records.release(self._member, token, deadline)


class Removal:
    """The claim of a writer on many files that are removed together, as a `Reservation` of each.

    Files that somebody else has a claim on are ``left_alone``. If the ``with`` block does not
    raise, the files are gone, and their records go too.
    """

    def __init__(self, records: Expirations, members: Sequence[bytes], late: float) -> None:
        self._records = records
        self._late = late
        asked_at = leases.now()
        self._token, self.left_alone = records.reserve_free(members)
        self._leases = [
            leases.of_claim(records, shard, self._token, asked_at, late)
            for shard in set(map(records.shard_of, members))
        ]
        for lease in self._leases:
            leases.keep(lease)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        for lease in self._leases:
            leases.drop(lease)
        if not _may_still_act(error, self._late):
            shards = [it.shard for it in self._leases]
            self._records.release_all(shards, self._token, gone=error is None)


def _may_still_act(error: BaseException | None, late: float) -> bool:
    """Return whether a request without an answer may still reach the backend, which is ``late``."""
    return error is not None and late > 0 and may_act(error)


class WrittenFile(RawWrapper):
    """An open file that is being written, and appears when it is closed.

    If a ``with`` block raises it does not appear, and what was there before stays.
    ``finish`` is called when it is there as a whole, and ``address`` for the `url` of a new one.
    """

    def __init__(
        self,
        file: BinaryIO,
        mode: str,
        name: str,
        write: Write,
        finish: Callable[[Write], object],
        address: Callable[[Write], str] | None = None,
    ) -> None:
        self._write = write
        super().__init__(file, mode=mode, name=name)
        self._finish = finish
        self._address = address
        self._owner = os.getpid()

    @property
    def name(self) -> str:
        """The path of the file."""
        self._write.tell_name()
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def url(self) -> str:
        """The URL of a temporary file, once it is there."""
        if self._address is None:
            raise AttributeError(f"{self._name!r} has no url: ask get_url for it")
        if not self._write.is_finished:
            raise AttributeError(f"{self._name!r} has no url before it is closed")
        return self._address(self._write)

    def discard(self) -> None:
        """Give the write up: closing the file stores nothing, if its backend can do that."""
        if discard := getattr(self._f, "discard", None):
            discard()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None and not self.closed:
            self.discard()
        self.close()

    def close(self) -> None:
        """Store the file, and let its deadline count from now on."""
        if self.closed:
            return
        if os.getpid() != self._owner:  # a child of fork() drops what its parent still writes
            self.discard()
            self._f.close()
            return
        with self._write.abandoned_on_error():
            try:
                super(RawWrapper, self).close()  # flushes
            finally:
                self._f.close()
        if getattr(self._f, "discarded", False):
            self._write.abandon()
        else:
            self._finish(self._write)


class _Written:
    """A wrapper around an open file that passes on how a ``with`` block ended."""

    @property
    def url(self) -> str:
        """See `WrittenFile.url`."""
        return _innermost(self).url

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        file: Any = self
        if kind is not None and not file.closed:
            _innermost(file).discard()
        file.close()


class WrittenText(_Written, TextIOWrapper):
    """A `WrittenFile` in text mode."""


class WrittenBuffer(_Written, BufferedWriter):
    """A `WrittenFile` with a buffer."""


class WrittenAndReadBuffer(_Written, BufferedRandom):
    """A `WrittenFile` with a buffer, for reading as well."""


class Opening(NamedTuple):
    """How a file is opened: what ``open`` is given."""

    mode: str
    buffering: int = -1
    encoding: str | None = None
    errors: str | None = None
    newline: str = ""
    line_buffering: bool = False

    def check(self) -> None:
        """Raise what `wrap` would, before there is a file: one that is closed is stored."""
        self._wrapped(BytesIO())

    def wrap(self, file: Any, path: str) -> IO[Any]:
        """Return a binary file as ``open`` has it: with a buffer, or in text mode."""
        if isinstance(file, WrittenFile):
            return self._wrapped(file)
        stream: IO[Any] = make_stream(path, file, *self)
        return stream

    def _wrapped(self, file: Any) -> IO[Any]:
        if self.buffering >= 0:
            kind = WrittenAndReadBuffer if "+" in self.mode else WrittenBuffer
            file = kind(file, self.buffering or DEFAULT_BUFFER_SIZE)
        if "b" not in self.mode:
            encoding = self.encoding or "utf-8"
            file = WrittenText(file, encoding, self.errors, self.newline, self.line_buffering)
        return cast(IO[Any], file)


class TemporaryFile(AbstractContextManager[Any, None], AbstractAsyncContextManager[Any, None]):
    """A file that is opened when its ``with`` block begins, and appears when it ends."""

    def __init__(self, open_: Callable[[], IO[Any]]) -> None:
        self._open = open_

    def __enter__(self) -> Any:
        self._file = self._open()
        return self._file

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    async def __aenter__(self) -> Any:
        return await entered_in_a_thread(self)

    async def __aexit__(self, *error: Any) -> None:
        await in_a_thread(self.__exit__)(*error)


def _innermost(file: Any) -> WrittenFile:
    while not isinstance(file, WrittenFile):
        file = file.buffer if isinstance(file, TextIOWrapper) else file.raw
    return file
