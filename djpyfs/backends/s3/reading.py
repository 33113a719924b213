"""An object that is read while it is fetched."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from fs.errors import OperationFailed

from ...errors import FileReplaced
from .client import status_of, translated

# Bytes to ask for when few are read, and nobody knows yet how many more will be.
BLOCK = 256 * 1024
# Bytes to buffer for small reads. A reader that begins with a bigger one goes on to the end.
BUFFER = 32 * 1024
NO_SUCH_RANGE = 416


class ObjectReader(io.RawIOBase):
    """The bytes of one object, fetched when they are read.

    A small read is 1 GET for a block. If reading goes on after it, if everything is wanted, or if
    the first read is a big one, 1 GET asks for all the rest, which is read as it comes.
    ``get`` is GetObject for a key. Raises `FileReplaced` if an answer has another ETag than
    ``etag``, or than the first answer.
    """

    mode = "rb"

    def __init__(
        self,
        path: str,
        get: Callable[..., Mapping[str, Any]],
        etag: str | None = None,
        size: int = 0,
    ) -> None:
        self._path = path
        self._get = get
        self._etag = etag
        self._size = size
        self._position = 0
        self._body: Any = None  # what is left of the answer, from here to there:
        self._begin = self._end = -1

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}>"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence, 0)
        if position < 0:
            raise ValueError(f"there is no position {position} in a file")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        return self._read(len(buffer), lambda body: body.readinto(buffer), int) or 0

    def readall(self) -> bytes:
        if self._end < self._size:  # what is under way is not enough
            self._drop()
        return self._read(self._size - self._position, lambda body: body.read(), len) or b""

    def close(self) -> None:
        """Break off what is still under way."""
        self._drop()
        super().close()

    def _read(self, most: int, read: Callable[[Any], Any], count: Callable[[Any], int]) -> Any:
        if most <= 0 or self._position >= self._size:
            return None
        with translated(self._path):
            body, found = self._body_for(most), None
            with suppress(BotoCoreError):  # a store hangs up on slow readers
                found = read(body)
            if found is None:
                self._drop()
                found = read(self._body_for(most))
        self._position += count(found)
        self._begin = self._position
        return found

    def _body_for(self, most: int) -> Any:
        """Return a body that begins at the position."""
        here = self._position
        if self._body is None or not self._begin == here < self._end:
            to_the_end = here == self._end or (here == 0 and most > BUFFER)
            self._drop()
            self.fetch(range(here, self._size if to_the_end else here + max(most, BLOCK)))
        return self._body

    def fetch(self, part: range) -> None:
        """Ask for the ``part`` that will be read."""
        try:
            answer = self._get(Range=f"bytes={part.start}-{part.stop - 1}") if part else self._get()
        except ClientError as error:
            if status_of(error) != NO_SUCH_RANGE:
                raise
            answer = self._get()  # which is empty, or another one
        self._body, etag = answer["Body"], answer.get("ETag")
        if self._etag not in (None, etag):
            raise FileReplaced(self._path)
        self._etag = etag
        self._begin, self._end, self._size = _place_of(answer)
        if self._begin != part.start:
            raise OperationFailed(self._path, msg="the store does not answer with the range")

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
        self._body = None


def _place_of(answer: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return where an answer begins and ends in the object, and how long that is."""
    if "ContentRange" not in answer:
        length = answer["ContentLength"]
        return 0, length, length
    place, _, size = answer["ContentRange"].removeprefix("bytes ").partition("/")
    start, _, last = place.partition("-")
    return int(start), int(last) + 1, int(size)
