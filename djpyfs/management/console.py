"""The output of the sub-commands: for a person, for a program, and for somebody at a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from django.core.management.base import OutputWrapper
from django.core.serializers.json import DjangoJSONEncoder

from ..errors import printable
from ..phrases import counted

ERASE = "\r\033[K"  # what the terminal's line holds


class OutputClosed(Exception):
    """The reader of the output has closed it, as ``head`` does."""


class OutputLost(Exception):
    """The output cannot be written, such as to a disk that is full."""


class Console:
    """Standard output in the ``format`` that was asked for, and notes beside it.

    ``out`` is None if it is closed. Raises `OutputClosed` and `OutputLost`.
    """

    def __init__(self, out: OutputWrapper | None, err: OutputWrapper, format_: str) -> None:
        self._out = out
        self._err = err
        self._json = format_ == "json"
        self._shows_progress = False

    def show(self, found: object, lines: Iterable[str], nothing: str = "") -> None:
        """Write what was ``found`` as JSON, or the ``lines`` that say the same to a person.

        If there are no lines, a note says ``nothing``.
        """
        self._erase_progress()
        if self._json:
            self._write(json.dumps(found, cls=_Encoder, indent=2))
            return
        written = 0
        for written, line in enumerate(lines, 1):  # noqa: B007
            self._write(printable(line))
        if not written and nothing:
            self.note(nothing)

    def stream(self, found: object, line: str) -> None:
        """Write one of many things that were ``found``: as a line of JSON, or as ``line``."""
        self._erase_progress()
        self._write(json.dumps(found, cls=_Encoder) if self._json else printable(line))

    def note(self, line: str) -> None:
        """Say something that is not part of the output."""
        self._erase_progress()
        self._err.write(printable(line), style_func=str)

    def progress(self, line: str) -> None:
        """Report the progress of long work, if somebody watches."""
        if self._err.isatty():
            self._err.write(f"{ERASE}{printable(line)}", style_func=str, ending="")
            self._err.flush()
            self._shows_progress = True

    def flush(self) -> None:
        """Flush the output."""
        if self._out is None:
            return
        try:
            self._out.flush()
        except OSError as error:
            # Else Python would try again at its end, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            raise _trouble(error) from error

    def _write(self, text: str) -> None:
        if self._out is None:
            raise OutputLost("it is closed")
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        fitting = text.encode(encoding, "backslashreplace").decode(encoding)
        try:
            self._out.write(fitting)
        except OSError as error:
            raise _trouble(error) from error

    def _erase_progress(self) -> None:
        if self._shows_progress:
            self._err.write(ERASE, style_func=str, ending="")
            self._err.flush()
            self._shows_progress = False


def _trouble(error: OSError) -> OutputClosed | OutputLost:
    return OutputClosed() if isinstance(error, BrokenPipeError) else OutputLost(error.strerror)


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        if is_dataclass(o) and not isinstance(o, type):
            return asdict(o)
        return super().default(o)


def table(rows: Iterable[Sequence[str]], headings: Sequence[str] = ()) -> Iterator[str]:
    """Yield a line for each of ``rows``, in columns below ``headings``; nothing without rows."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if cells and headings:
        cells.insert(0, [heading.upper() for heading in headings])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def indented(lines: Iterable[str], heading: str) -> Iterator[str]:
    """Yield ``lines`` below a ``heading``, after an empty line; nothing without lines."""
    for number, line in enumerate(lines):
        if not number:
            yield from ("", heading)
        yield f"  {line}"


def more(number: int, what: str) -> Iterator[str]:
    """Yield a line that says how many are not shown, if any."""
    if number:
        yield f"... and {counted(number, f'more {what}')}"
