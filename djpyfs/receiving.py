"""The view that takes uploads if the store cannot take them from the browser itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO, Protocol

from django.contrib.auth.decorators import login_not_required
from django.core.signing import BadSignature
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from fs.errors import ResourceNotFound
from fs.path import split

from . import conf
from .conf import SECOND
from .errors import InvalidName
from .expirations import Expirations
from .filesystem import get_filesystem
from .links import UploadLink, read_upload
from .pages import CHUNK, not_logged, refusal, unavailable
from .places import records_for

LONGEST = 24 * 3_600 * SECOND  # that the sending of one file takes


class _Refused(Exception):
    """The upload is refused; nothing of it is stored."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Body(Protocol):
    def read(self, size: int, /) -> bytes: ...


@login_not_required
@csrf_exempt  # anyone who can make a browser send here knows the secret address already
@not_logged
def receive(request: HttpRequest, token: str) -> HttpResponseBase:
    """Store the body of a PUT to an address that `get_upload_url` has signed: 201.

    It goes to the backend piece by piece. Nothing is stored of a body that is too long (413), has
    another type (415) or no length (411), breaks off (400), or comes to an address that has been
    used (409). Any other address answers 404. While the record store or the backend is away the
    answer is 503.
    """
    try:
        return _received(request, read_upload(token))
    except _Refused as refused:
        return refusal(refused.status, f"{refused}\n")
    except (BadSignature, InvalidName, ResourceNotFound):
        return refusal(404, "Not found\n")
    except Exception as error:  # a Django storage raises what it likes
        return unavailable("an upload was not stored", error)


def _received(request: HttpRequest, link: UploadLink) -> HttpResponseBase:
    if request.method != "PUT":
        return HttpResponseNotAllowed(["PUT"])
    records = records_for(link.namespace)
    now, (linked,) = records.linked([link.entry.member])
    if link.end <= now or link.revocation != linked.revocation:
        raise ResourceNotFound(link.path)
    _use_ticket(records, link, take=False, hold=LONGEST)  # the address may end while the file comes
    if link.content_types and request.content_type not in link.content_types:
        raise _Refused(415, f"Send one of {', '.join(link.content_types)}")
    length = _length(request)
    if length is not None and length > link.max_bytes:
        raise _Refused(413, f"Send {link.max_bytes} bytes at most")
    files, (directory, name) = get_filesystem(link.namespace), split(link.path)
    if directory:
        files = files.makedirs(directory, recreate=True)  # a sweep may have removed it
    # Should the record be gone, what comes now must go as well; since the address was signed, the
    # policy may have changed.
    policy = conf.current().policy_for(link.entry.directory)
    files.set_default_life(policy.nearest(link.life) / SECOND)
    with ExitStack() as on_error:
        with files.openbin(name, "w") as file:
            for piece in _pieces(request, link.max_bytes, length):
                file.write(piece)
            _use_ticket(records, link)
            # Closing the file stores it. If that fails, it can be sent again.
            held = max(link.end, now + LONGEST)
            on_error.callback(records.issue_ticket, link.ticket, 1, held)
        on_error.pop_all()
    return HttpResponse(status=201, headers={"Cache-Control": "no-store"})


def _use_ticket(records: Expirations, link: UploadLink, take: bool = True, hold: int = 0) -> None:
    was_left = records.use_ticket(link.ticket, take, hold)
    if was_left is None:
        raise ResourceNotFound(link.path)
    if not was_left:
        raise _Refused(409, "This address has been used")


def _length(request: HttpRequest) -> int | None:
    """Return how many bytes the body has; None if the server marks its end."""
    told = request.headers.get("Content-Length", "")
    if told.isascii() and told.isdigit():
        return int(told)
    if "Transfer-Encoding" in request.headers:
        return None
    raise _Refused(411, "Send a Content-Length")


def _pieces(request: HttpRequest, max_bytes: int, length: int | None) -> Iterator[bytes]:
    body, count = _body(request, length), 0
    while piece := _read(body):
        count += len(piece)
        if count > max_bytes:
            raise _Refused(413, f"Send {max_bytes} bytes at most")
        yield piece
    if length is not None and count != length:
        raise _Refused(400, "The upload broke off")


def _body(request: HttpRequest, length: int | None) -> _Body:
    wsgi: BinaryIO | None = request.META.get("wsgi.input")
    if length is not None or wsgi is None:  # under ASGI Django has read it to its end
        return request
    if request.META.get("wsgi.input_terminated"):
        return wsgi  # of which Django would read nothing: no length was given
    raise _Refused(411, "Send a Content-Length")


def _read(body: _Body) -> bytes:
    try:
        return body.read(CHUNK)
    except OSError as error:
        raise _Refused(400, "The upload broke off") from error
