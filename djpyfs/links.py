"""Signed links: URLs for files that have none of their own, and for uploads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from django.conf import settings
from django.core.signing import Signer
from django.urls import NoReverseMatch, get_urlconf, reverse
from fs.errors import NoURL

from .names import Entry, check_namespace, check_path


class Link(NamedTuple):
    """What a signed link says; only the site can sign it."""

    namespace: str
    path: str
    end: int  # µs since the epoch, by the clock of the record store
    download_as: str | None = None
    ticket: str = ""  # of the record store, if the number of downloads is limited
    confirm: bool = False  # whether somebody must press a button first
    revocation: str = ""  # the last one before it was signed

    @property
    def name(self) -> str:
        """The name under which a browser saves the file."""
        return self.download_as or self.path.rpartition("/")[2]

    @property
    def entry(self) -> Entry:
        """The file that the link leads to."""
        return Entry(self.namespace, self.path)


class UploadLink(NamedTuple):
    """What a signed address for one upload says."""

    namespace: str
    path: str
    end: int  # µs since the epoch, by the clock of the record store
    life: int  # µs, of a file whose record is lost meanwhile
    max_bytes: int
    content_types: Sequence[str]  # empty: any
    ticket: str  # of the record store, for one upload
    revocation: str = ""  # the last one before it was signed

    @property
    def entry(self) -> Entry:
        """The file that is sent."""
        return Entry(self.namespace, self.path)


_FILES, _UPLOADS = "djpyfs.links", "djpyfs.uploads"  # so that neither passes for the other


def _signer(salt: str) -> Signer:
    # Made for each use, so that a change of SECRET_KEY counts at once.
    return Signer(salt=salt)


def sign(link: Link) -> str:
    """Return the token for a link, which needs no quoting in a URL."""
    return _signer(_FILES).sign_object(list(link), compress=True)


def read(token: str) -> Link:
    """Return the link that a token stands for, whether or not its file is still there.

    Raises `django.core.signing.BadSignature` for a token that neither ``SECRET_KEY`` nor one of
    ``SECRET_KEY_FALLBACKS`` has signed, and `InvalidName` for an impossible file name.
    """
    return Link(*_opened(_FILES, token))


def read_upload(token: str) -> UploadLink:
    """Return what an address for an upload says. Raises as `read` does."""
    return UploadLink(*_opened(_UPLOADS, token))


def _opened(salt: str, token: str) -> list[Any]:
    namespace, path, *more = _signer(salt).unsign_object(token)
    return [check_namespace(namespace), check_path(path), *more]


def address(link: Link) -> str:
    """Return the path of a link. Raises `NoURL` if `djpyfs.urls` is not included."""
    return _address(link.path, "download", "file", sign(link))


def upload_address(link: UploadLink) -> str:
    """Return the path of the address for an upload. Raises as `address` does."""
    token = _signer(_UPLOADS).sign_object(list(link), compress=True)
    return _address(link.path, "upload", "upload", token)


def _address(path: str, purpose: str, view: str, token: str) -> str:
    if found := _reversed(view, token):
        return found
    raise NoURL(
        path,
        purpose,
        "its backend has no URL for it: include djpyfs.urls in the project's URLs, "
        "which gives it a signed link",
    )


def is_included() -> bool:
    """Return whether the project's URLs include `djpyfs.urls`."""
    return bool(_reversed("file", "token"))


def _reversed(view: str, token: str) -> str:
    if get_urlconf() or getattr(settings, "ROOT_URLCONF", None):
        with suppress(NoReverseMatch):
            return reverse(f"djpyfs:{view}", args=[token])
    return ""
