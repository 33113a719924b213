"""How the sub-commands talk: to a person, to a program, and to whoever waits at a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import OutputWrapper
from django.core.serializers.json import DjangoJSONEncoder

from ..errors import printable

ERASE = "\r\033[K"  # what the terminal's line holds


class Console:
    """Standard output in the ``format`` that was asked for, and notes beside it."""

    def __init__(self, out: OutputWrapper, err: OutputWrapper, format_: str) -> None:
        self._out = out
        self._err = err
        self._json = format_ == "json"
        self._told = False

    def show(self, found: object, lines: Iterable[str]) -> None:
        """Write what was ``found`` as JSON, or the ``lines`` that tell a person the same."""
        self._erase_progress()
        if self._json:
            self._out.write(json.dumps(found, cls=_Encoder, indent=2))
        else:
            for line in lines:
                self._out.write(printable(line))

    def stream(self, found: object, line: str) -> None:
        """Write one of many things that were ``found``: as a line of JSON, or as ``line``."""
        self._erase_progress()
        self._out.write(json.dumps(found, cls=_Encoder) if self._json else printable(line))

    def note(self, line: str) -> None:
        """Say something that is not part of the output."""
        self._erase_progress()
        self._err.write(printable(line), style_func=str)

    def progress(self, line: str) -> None:
        """Tell how far long work has got, if somebody watches."""
        if self._err.isatty():
            self._err.write(f"{ERASE}{printable(line)}", style_func=str, ending="")
            self._err.flush()
            self._told = True

    def _erase_progress(self) -> None:
        if self._told:
            self._err.write(ERASE, style_func=str, ending="")
            self._err.flush()
            self._told = False


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        if is_dataclass(o) and not isinstance(o, type):
            return asdict(o)
        return super().default(o)


def table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each of ``rows``, in columns."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def moment(when: datetime) -> str:
    """Return a point in time, to the second."""
    return when.isoformat(" ", "seconds")


def duration(seconds: float) -> str:
    """Return a length of time, to the second."""
    return str(timedelta(seconds=round(abs(seconds))))
