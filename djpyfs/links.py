"""Signed links: the addresses of files that have none of their own."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from django.conf import settings
from django.core.signing import Signer
from django.urls import NoReverseMatch, get_urlconf, reverse
from fs.errors import NoURL

from .names import Entry, check_namespace, check_path


class Link(NamedTuple):
    """What a signed link says; nobody else can say it in our name, or read more into it."""

    namespace: str
    path: str
    end: int  # µs since the epoch, by the clock of the record store
    download_as: str | None = None
    ticket: str = ""  # of the record store, where the number of downloads is limited
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


def _signer() -> Signer:
    # Made for each use, so that a change of SECRET_KEY counts at once.
    return Signer(salt="djpyfs.links")


def sign(link: Link) -> str:
    """Return the token for a link, which needs no quoting in an address."""
    return _signer().sign_object(list(link), compress=True)


def read(token: str) -> Link:
    """Return the link that a token stands for, whatever has become of its file.

    Raises `django.core.signing.BadSignature` for everything that neither ``SECRET_KEY`` nor one
    of ``SECRET_KEY_FALLBACKS`` has signed, and `InvalidName` for a file that cannot be.
    """
    link = Link(*_signer().unsign_object(token))
    check_namespace(link.namespace), check_path(link.path)
    return link


def address(link: Link) -> str:
    """Return the path of a link's address. Raises `NoURL` where `djpyfs.urls` is not included."""
    if found := _address_of(sign(link)):
        return found
    raise NoURL(
        link.path,
        "download",
        "its back-end has no address for it: include djpyfs.urls in the project's URLs, "
        "for a signed one",
    )


def is_included() -> bool:
    """Tell whether the project's URLs include `djpyfs.urls`."""
    return bool(_address_of("token"))


def _address_of(token: str) -> str:
    if get_urlconf() or getattr(settings, "ROOT_URLCONF", None):
        with suppress(NoReverseMatch):
            return reverse("djpyfs:file", args=[token])
    return ""
