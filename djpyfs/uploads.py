"""Where a browser may send a file, and what it may send."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from secrets import token_urlsafe
from typing import NamedTuple, cast

from . import late_uploads, links
from .conf import SECOND
from .errors import InvalidLifetime, InvalidLimit
from .lifetimes import Seconds, datetime_of
from .names import type_of
from .namespaces import Namespace
from .owners import await_owners

_is_type = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*").fullmatch


class UploadTarget(NamedTuple):
    """Where a browser sends one file; ``JsonResponse(target._asdict())`` tells the browser.

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


def upload_target(
    here: Namespace,
    name: str,
    seconds: Seconds,
    max_bytes: int,
    content_types: Iterable[str] | None,
) -> UploadTarget:
    """Return where a browser may send a file, with its deadline recorded. See `get_upload_url`."""
    entry, types = here.named(name), _types_for(name, content_types)
    _check_max_bytes(max_bytes)
    life = cast(int, here.lifetimes(entry).of(seconds))
    if life < SECOND:
        raise InvalidLifetime(f"seconds is {seconds!r}: use 1 or more")
    now, (linked,) = here.records.linked([entry.member])
    deadline = end = now + life
    if here.backend.longest_url is not None:
        end = min(end, now + here.backend.longest_url * SECOND)
    until = datetime_of(end)
    form = here.backend.upload_form(*entry, (end - now) // SECOND, max_bytes, types)
    if form:
        target = UploadTarget(name, form.url, "POST", dict(form.fields), {}, max_bytes, until)
        late_uploads.watch(here.settings, here.records, entry.member, end, max_bytes)
    else:
        ticket = token_urlsafe(12)
        address = links.upload_address(
            links.UploadLink(*entry, end, life, max_bytes, types, ticket, linked.revocation)
        )
        headers = {"Content-Type": types[0]} if len(types) == 1 else {}
        target = UploadTarget(name, address, "PUT", {}, headers, max_bytes, until)
        here.records.issue_ticket(ticket, 1, end)
    here.records.place_at(entry.member, deadline)
    await_owners(here.settings, here.records, [entry])
    here.announce([entry], life)
    return target


def _check_max_bytes(max_bytes: int) -> None:
    """Raise `InvalidLimit` unless ``max_bytes`` is a number of bytes."""
    given = cast(object, max_bytes)
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise InvalidLimit(f"max_bytes is {max_bytes!r}: give it a whole number of at least 1")


def _types_for(path: str, content_types: Iterable[str] | None) -> tuple[str, ...]:
    """Return those of ``content_types`` that a file may have; none where any will do.

    If its name stands for one of them, it is that one. Raises `InvalidLimit`.
    """
    if content_types is None:
        return ()
    given = content_types if isinstance(content_types, str) else tuple(content_types)
    if isinstance(given, str) or not given or not all(map(_is_a_type, given)):
        raise InvalidLimit(
            f"content_types is {given!r}: give it a list of types in lower case, "
            "such as ['image/png', 'image/jpeg'], or None for any"
        )
    named = type_of(path)
    return (named,) if named in given else given


def _is_a_type(given: object) -> bool:
    return isinstance(given, str) and bool(_is_type(given))
