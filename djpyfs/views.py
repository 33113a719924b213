"""The view behind signed links, with byte ranges and conditional requests (RFC 9110)."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from http import HTTPStatus
from time import time
from typing import Any, BinaryIO, NamedTuple

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.core.signing import BadSignature
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
)
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date, parse_http_date_safe
from django.views.decorators.csrf import csrf_exempt
from fs.base import FS
from fs.enums import ResourceType
from fs.errors import FileExpected, ResourceNotFound

from . import conf
from .backends import backend_for
from .conf import SECOND
from .errors import FileReplaced, InvalidName, LinkNotFollowed
from .expirations import Expirations
from .filesystem import get_filesystem
from .links import Link, read
from .names import type_of
from .pages import CHUNK, is_wanted, not_logged, page, refusal, unavailable
from .places import place_for

SAFE_METHODS = ["GET", "HEAD"]
# How often writers may replace a file while one answer looks at it and opens it.
REPLACEMENTS_WITHSTOOD = 20
UNKNOWN = "application/octet-stream"

# What a browser shows without running any of it; the "+" leaves out what is XML in disguise.
_shown_inline = re.compile(
    r"(?:image|audio|video|font)/[^+]+|text/(?:plain|csv|markdown|calendar)"
    r"|application/(?:pdf|json|zip)"
).fullmatch
_played = re.compile(r"(?:audio|video)/[^+]+").fullmatch
# What a page can load as part of itself, whatever the disposition, if it keeps its type.
_used_by_pages = re.compile(
    r"(?:text|application)/(?:x-)?(?:java|ecma|live|j)script|text/css|application/wasm"
).fullmatch
_byte_range = re.compile(
    r"bytes=\s*(?:(\d{1,18})-(\d{,18})|-(\d{1,18}))\s*", re.ASCII | re.IGNORECASE
).fullmatch

# How browsers say that they fetch something that nobody has clicked yet.
_PURPOSES = "Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"
_not_yet = re.compile("prefetch|preview", re.IGNORECASE).search
# How chat programs, mail scanners and search engines say who they are.
_previews = re.compile(
    r"bot\b|preview|facebook|meta-external|whatsapp|viber|imageproxy|\+https?:", re.IGNORECASE
).search

# Let a browser show a picture or a film by itself, and do nothing else.
_POLICY = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
# Its player fetches films and sounds once more, and may not without the origin of the site.
_PLAYER_POLICY = _POLICY.replace("sandbox", "sandbox allow-same-origin")
_SAFEGUARDS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@login_not_required
@csrf_exempt  # anyone who can make a browser send the form knows the address, and needs no browser
@not_logged
def serve(request: HttpRequest, token: str) -> HttpResponseBase:
    """Answer GET and HEAD for a link that `get_url` has signed.

    Whatever is wrong with the link or the file, the answer is the same 404, which is a page for a
    person. It is 503 while the record store is away, because nobody then knows whether the file
    has expired, and while the backend fails. No answer is logged with its URL.

    If the number of downloads is limited, each GET that is answered with the file counts, even if
    it breaks off. HEAD does not count, and a range is answered with the whole file. A GET that
    perhaps no person has sent is answered by a page with a button, as is every GET if the link
    says so; the button sends the POST that is answered with the file.
    """
    try:
        return _served(request, read(token))
    except (BadSignature, FileExpected, InvalidName, LinkNotFollowed, ResourceNotFound):
        if is_wanted(request):
            return page(request, "dead_link", 404)
        return refusal(404, "Not found\n")
    except Exception as error:  # a Django storage raises what it likes
        return unavailable("a signed link was not answered", error)


def _served(request: HttpRequest, link: Link) -> HttpResponseBase:
    methods = [*SAFE_METHODS, "POST"] if link.ticket else SAFE_METHODS
    if request.method not in methods:
        return HttpResponseNotAllowed(methods)
    left = _seconds_left(link)
    _use_ticket(link, take=False)
    if link.ticket and request.method != "POST" and (link.confirm or _is_ahead(request)):
        return _question(request, link)
    response = _answer_despite_writers(request, link, left)
    never = link.ticket or response.status_code == HTTPStatus.FOUND
    response["Cache-Control"] = "no-store" if never else f"private, max-age={left}"
    for name, value in _SAFEGUARDS.items():
        response[name] = value
    if _played(_type_of(link.path)):
        response["Content-Security-Policy"] = _PLAYER_POLICY
    return response


def _answer_despite_writers(request: HttpRequest, link: Link, left: int) -> HttpResponseBase:
    for _ in range(REPLACEMENTS_WITHSTOOD):
        with suppress(FileReplaced):  # between the look at it and its opening
            return _answer(request, link, left)
    return _answer(request, link, left)


def _is_ahead(request: HttpRequest) -> bool:
    """Return whether a program asks ahead of a person, or to show a preview."""
    purposes = " ".join(request.headers.get(name, "") for name in _PURPOSES)
    return bool(_not_yet(purposes) or _previews(request.headers.get("User-Agent", "")))


def _question(request: HttpRequest, link: Link) -> HttpResponse:
    version = _Version.of(get_filesystem(link.namespace), link.path)
    return page(request, "confirm_link", name=link.name, size=version.size)


def _records(link: Link) -> Expirations:
    """Return the records where its file is; whoever asks for a file makes no place."""
    return place_for(conf.current(), link.namespace).records


def _seconds_left(link: Link) -> int:
    """Return for how long the link and its file live. Raises `ResourceNotFound`."""
    now, (linked,) = _records(link).linked([link.entry.member])
    end = min(link.end, linked.deadline or link.end)
    if end <= now or link.revocation != linked.revocation:
        raise ResourceNotFound(link.path)
    return (end - now) // SECOND


def _use_ticket(link: Link, take: bool = True) -> None:
    """Count a download of a limited link. Raises `ResourceNotFound` if none was left."""
    if link.ticket and not _records(link).use_ticket(link.ticket, take):
        raise ResourceNotFound(link.path)


class _Version(NamedTuple):
    """What is known of a file before it is opened; it tells its versions apart."""

    size: int
    modified: float | None = None  # s since the epoch
    stored: str | None = None  # the ETag of the store, if it has one

    @classmethod
    def of(cls, files: FS, path: str) -> _Version:
        info = files.getinfo(path, ["details", "version"])
        if info.is_dir or info.type not in (ResourceType.file, ResourceType.unknown):
            raise FileExpected(path)
        modified = info.get("details", "modified")
        return cls(info.size, modified, info.get("version", "etag"))

    @property
    def etag(self) -> str | None:
        if self.stored or self.modified is None:
            return self.stored
        return f'"{round(self.modified * SECOND):x}-{self.size:x}"'

    @property
    def last_modified(self) -> int | None:
        return None if self.modified is None else int(self.modified)

    def is_in(self, if_range: str) -> bool:
        """Return whether an ``If-Range`` names this version by a validator that is strong."""
        if if_range.startswith('"'):
            return if_range == self.etag
        if self.stored or self.modified is None:
            return False
        # Within the second that it names, a date cannot tell a file from what it was before.
        return parse_http_date_safe(if_range) == int(self.modified) < int(time()) - 1


def _answer(request: HttpRequest, link: Link, left: int) -> HttpResponseBase:
    files, headers = get_filesystem(link.namespace), _description(link)
    version = _Version.of(files, link.path)
    if not (link.ticket and _asks_for_less(request)):
        backend = backend_for(conf.current(), link.namespace)
        if handover := backend.handover(*link.entry):
            return _handed_over(request, files, link, {**headers, **handover})
        address = backend.redirect(*link.entry, left, headers)
        if address and request.method != "HEAD":
            return _handed_over(request, files, link, {"Location": address}, HTTPStatus.FOUND)
    # Without a second time there is nothing to compare a version with.
    shown = _Version(version.size) if link.ticket else version
    settled = _settled(request, shown)
    response = settled or _content(request, files, link, version, headers)
    response["Accept-Ranges"] = "none" if link.ticket else "bytes"
    if shown.etag and shown.last_modified is not None:
        response["ETag"] = shown.etag
        response["Last-Modified"] = http_date(shown.last_modified)
    return response


def _asks_for_less(request: HttpRequest) -> bool:
    """Return whether another server might answer with a part of the file, or none of it."""
    return any(key == "HTTP_RANGE" or key.startswith("HTTP_IF_") for key in request.META)


def _settled(request: HttpRequest, version: _Version) -> HttpResponseBase | None:
    """Return 304 or 412 if the conditions of a request say so."""
    asked = {key: value for key, value in request.META.items() if key.startswith("HTTP_IF_")}
    if not asked:
        return None
    # Django logs each 412 with the address of the request: this one has none.
    conditions = HttpRequest()
    conditions.method, conditions.META = request.method, asked
    return get_conditional_response(conditions, version.etag, version.last_modified)


def _handed_over(
    request: HttpRequest,
    files: FS,
    link: Link,
    headers: dict[str, str],
    status: int = HTTPStatus.OK,
) -> HttpResponse:
    """Leave the bytes, ranges and conditions to another server."""
    if request.method != "HEAD":
        # It is being read, which may renew its life.
        files.openbin(link.path, part=range(1)).close()
        _use_ticket(link)
    return HttpResponse(status=status, headers=headers)


def _content(
    request: HttpRequest, files: FS, link: Link, version: _Version, headers: dict[str, str]
) -> HttpResponseBase:
    size = version.size
    if request.method == "HEAD":
        return HttpResponse(headers={**headers, "Content-Length": str(size)})
    wanted = None if link.ticket else _wanted(request, version)
    if wanted is None:
        part, status = range(size), 200
    elif wanted:
        part, status = wanted, 206
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        headers["Content-Encoding"] = "identity"  # keeps middleware from compressing a part
    else:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Length"] = str(len(part))
    with ExitStack() as on_error:
        file = on_error.enter_context(files.openbin(link.path, part=part, etag=version.stored))
        # A store that was asked for this very version has compared by itself.
        same = version.stored or _Version.of(files, link.path) == version
        if not same or file.seek(0, io.SEEK_END) != size:
            raise FileReplaced(link.path)
        file.seek(part.start)
        _use_ticket(link)
        on_error.pop_all()
    return _Stream(_Part(file, part) if wanted else file, status=status, headers=headers)


def _description(link: Link) -> dict[str, str]:
    type_ = _type_of(link.path)
    played_once = link.ticket and _played(type_)  # a player would find it used up
    attached = bool(link.download_as or played_once or not _shown_inline(type_))
    if type_.startswith("text/") and not attached:
        type_ += "; charset=utf-8"  # else browsers take it for Windows-1252
    return {
        "Content-Type": type_,
        "Content-Disposition": str(content_disposition_header(attached, link.name)),
    }


def _type_of(path: str) -> str:
    type_ = type_of(path)
    return UNKNOWN if not type_ or _used_by_pages(type_) else type_


def _wanted(request: HttpRequest, version: _Version) -> range | None:
    """Return the one range of bytes that is asked for, empty if there is none.

    None stands for the whole file: it answers a request for several ranges too, one that cannot
    be read, and one that is meant for another version.
    """
    asked = _byte_range(request.headers.get("Range", ""))
    if_range = request.headers.get("If-Range")
    if not asked or (if_range is not None and not version.is_in(if_range)):
        return None
    (first, last, suffix), size = asked.groups(), version.size
    if suffix:
        return range(max(0, size - int(suffix)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


class _Part:
    """Some bytes of an open file, chunk by chunk."""

    def __init__(self, file: BinaryIO, part: range) -> None:
        self._file = file
        self._left = len(part)

    def __iter__(self) -> _Part:
        return self

    def __next__(self) -> bytes:
        chunk = self._file.read(min(CHUNK, self._left))
        if not chunk:
            raise StopIteration
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        self._file.close()


class _Stream(FileResponse):
    """A response that streams under ASGI too, where Django would read all of it first.

    A WSGI server may have the system send a whole file that is on disk.
    """

    block_size = CHUNK

    def set_headers(self, filelike: object) -> None:
        """Leave the headers to those who know the link."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        content = self.streaming_content
        if isinstance(content, AsyncIterator):  # some middleware has wrapped it
            async for chunk in content:
                yield chunk
            return
        advance = sync_to_async(lambda: next(content, None))
        while (read_chunk := await advance()) is not None:
            yield read_chunk
