"""Where a browser may send a file, and what it may send."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from mimetypes import guess_type
from typing import NamedTuple, cast

from .errors import InvalidLimit

_is_type = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*").fullmatch


class UploadTarget(NamedTuple):
    """Where a browser sends one file; ``JsonResponse(target._asdict())`` says so.

    With the ``method`` POST it sends a form: the ``fields``, and last the file as ``file``. With
    PUT it sends the bytes of the file, with the ``headers``.
    """

    path: str  # in the filesystem that was asked
    url: str
    method: str
    fields: Mapping[str, str]
    headers: Mapping[str, str]
    max_bytes: int
    until: datetime  # when it must have begun, aware


def check_max_bytes(max_bytes: int) -> None:
    """Raise `InvalidLimit` unless ``max_bytes`` is a number of bytes."""
    given = cast(object, max_bytes)
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise InvalidLimit(f"max_bytes is {max_bytes!r}: give it a whole number of at least 1")


def types_for(path: str, content_types: Iterable[str] | None) -> tuple[str, ...]:
    """Return those of ``content_types`` that a file may have; none where any will do.

    Where its name stands for one of them, that is the one. Raises `InvalidLimit`.
    """
    if content_types is None:
        return ()
    given = content_types if isinstance(content_types, str) else tuple(content_types)
    if isinstance(given, str) or not given or not all(map(_is_a_type, given)):
        raise InvalidLimit(
            f"content_types is {given!r}: give it a list of types in lower case, "
            "such as ['image/png', 'image/jpeg'], or None for any"
        )
    # The slash keeps a name that looks like the address of a scheme from being read as one.
    named, encoding = guess_type(f"/{path}")
    return (named,) if named in given and not encoding else given


def _is_a_type(given: object) -> bool:
    return isinstance(given, str) and bool(_is_type(given))
