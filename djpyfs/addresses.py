"""The URLs of files: of which kind each is, and until when it works."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from secrets import token_urlsafe
from typing import cast
from warnings import warn

from fs.errors import NoURL

from . import links
from .conf import LONGEST_LIFE, SECOND
from .errors import ConfigurationError, InvalidLifetime, InvalidLimit
from .expirations import Linked
from .lifetimes import Seconds, seconds_of
from .names import Entry
from .namespaces import Namespace
from .writes import Write

DEFAULT_URL = 3_600  # s, for a file without a deadline
MOST_DOWNLOADS = 1_000_000_000


def timeout_of(timeout: Seconds | None) -> float:
    """Return for how many seconds a URL is to work, or 0. Raises `InvalidLifetime`."""
    seconds = seconds_of("timeout", 0 if timeout is None else timeout)
    if 0 < seconds < 1:
        raise InvalidLifetime(f"timeout is {seconds!r} s: use 1 or more, or 0")
    return seconds


def urls_of(
    here: Namespace, entries: Iterable[Entry], timeout: float = 0, download_as: str | None = None
) -> dict[Entry, str]:
    """Return a URL of each file, as `get_url` does."""
    lasting = {entry: _lasting_url(here, entry, download_as) for entry in entries}
    urls = {entry: url for entry, url in lasting.items() if url is not None}
    if ending := [entry for entry in lasting if entry not in urls]:
        now, found = here.records.linked([entry.member for entry in ending])
        for entry, linked in zip(ending, found, strict=True):
            urls[entry] = _ending_url(here, entry, timeout, download_as, now, linked)
    return urls


def url_of_new(here: Namespace, write: Write) -> str | None:
    """Return the URL of a new file, or None if only the record store knows when that ends."""
    url, times = _lasting_url(here, write.entry), write.times()
    if url is None and times is not None:  # nobody can have revoked anything
        url = _ending_url(here, write.entry, 0, None, times[0], Linked(times[1]))
    return url


def limited_url(
    here: Namespace,
    entry: Entry,
    timeout: float,
    download_as: str | None,
    downloads: int,
    confirm: bool,
) -> str:
    """Return a signed link that works for so many ``downloads``. Raises `InvalidLimit`."""
    if isinstance(downloads, bool) or not isinstance(downloads, int):
        raise InvalidLimit(f"max_downloads is {downloads!r}: give it a whole number")
    if not 1 <= downloads <= MOST_DOWNLOADS:
        raise InvalidLimit(f"max_downloads is {downloads!r}: use 1 to {MOST_DOWNLOADS}")
    now, (linked,) = here.records.linked([entry.member])
    end = _end_of_url(timeout, LONGEST_LIFE, now, linked.deadline)
    ticket = token_urlsafe(12)
    link = links.Link(*entry, end, download_as, ticket, bool(confirm), linked.revocation)
    address = links.address(link)
    here.records.issue_ticket(ticket, downloads, end)
    return address


def revoke(here: Namespace, entry: Entry) -> None:
    """Make the links to a file dead. Raises `ConfigurationError` if its URLs are no links."""
    if _is_presigned(here, entry) or _lasting_url(here, entry) is not None:
        raise ConfigurationError(
            "a URL that the backend itself gives out cannot be revoked: "
            "set DJFS['signed_urls'] to True, and give out signed ones"
        )
    here.records.revoke(entry.member)


def _is_presigned(here: Namespace, entry: Entry) -> bool:
    return here.backend.longest_url is not None and not _is_signed(here, entry)


def _is_signed(here: Namespace, entry: Entry) -> bool:
    return here.settings.policy_for(entry.directory).signed_urls


def _lasting_url(here: Namespace, entry: Entry, download_as: str | None = None) -> str | None:
    """Return a URL that works for good, if the backend has such."""
    if here.backend.longest_url is None and not _is_signed(here, entry):
        with suppress(NoURL):
            return here.backend.url(*entry, None, download_as)
    return None


def _ending_url(
    here: Namespace,
    entry: Entry,
    timeout: float,
    download_as: str | None,
    now: int,
    linked: Linked,
) -> str:
    if _is_presigned(here, entry):
        longest = cast(int, here.backend.longest_url)
        end = _end_of_url(timeout, longest, now, linked.deadline)
        # S3 signs for at least a second, even if the file is overdue.
        return here.backend.url(*entry, max(1, (end - now) // SECOND), download_as)
    end = _end_of_url(timeout, LONGEST_LIFE, now, linked.deadline)
    return links.address(links.Link(*entry, end, download_as, revocation=linked.revocation))


def _end_of_url(timeout: float, longest: int, now: int, deadline: int) -> int:
    """Return when a URL of a file stops working, in µs since the epoch."""
    if timeout > longest:  # without the name, so that Python warns once for each caller
        warn(f"no URL here works for longer than {longest} s: timeout is cut", stacklevel=5)
        timeout = longest
    end = now + round((timeout or (longest if deadline else DEFAULT_URL)) * SECOND)
    return min(end, deadline or end)
