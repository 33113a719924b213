"""The filesystem that `get_filesystem` returns: a PyFilesystem whose files can expire.

`ExpiringFS` derives from `fs.base.FS` and not from `WrapFS`: there every shortcut of
PyFilesystem ends in the few methods that are written out here, and so in the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial
from itertools import islice
from secrets import token_urlsafe
from threading import RLock
from typing import IO, Any, BinaryIO, TypeVar, cast
from warnings import warn

from django.utils.asyncio import async_unsafe
from fs import errors
from fs.base import FS
from fs.info import Info
from fs.iotools import RawWrapper
from fs.mode import Mode, validate_open_mode
from fs.path import abspath, combine, frombase, isparent, join
from fs.permissions import Permissions
from fs.subfs import SubFS
from fs.walk import BoundWalker, Step, Walker

from . import conf, late_uploads, links
from .backends import Backend, backend_for
from .conf import LONGEST_LIFE, SECOND, Policy
from .errors import (
    BLOCKS,
    ConfigurationError,
    InvalidLifetime,
    InvalidLimit,
    InvalidName,
    NamespaceHeld,
)
from .expirations import Expirations, Linked, store_for
from .lifetimes import Lifetimes, Seconds, datetime_of, microseconds, seconds_of, total_of
from .names import (
    KEY_BYTES,
    REFUSED_CHARACTERS,
    Entry,
    check_file_name,
    check_length,
    check_namespace,
    check_path,
    checked_names,
    temporary_name,
)
from .places import records_of
from .signals import deadline_set
from .sweeper import delete_if_due
from .threads import in_a_thread
from .uploads import UploadTarget, check_max_bytes, types_for
from .writes import (
    NewWrite,
    Opening,
    Removal,
    Reservation,
    TemporaryFile,
    Write,
    WrittenFile,
)

DEFAULT_URL = 3_600  # s, for a file without a deadline
AT_A_TIME = 1_000  # files of a tree that are removed together; what one DeleteObjects takes
MOST_DOWNLOADS = 1_000_000_000

F = TypeVar("F", bound=FS)
Namespaces = Collection[str] | None


def get_filesystem(namespace: str) -> ExpiringFS:
    """Return the filesystem of ``namespace``, as ``DJFS`` says::

        fs = get_filesystem("reports")
        fs.writetext("may.csv", "month,sales")
        fs.expire("may.csv", days=7)

    The backend is opened once and shared: calling this again is cheap, and closing the returned
    filesystem closes nothing that others use.

    Raises `InvalidName` for a namespace that is refused, `ConfigurationError` if ``DJFS`` does
    not fit, and `fs.errors.CreateFailed` if the namespace's directory cannot be made.
    """
    check_namespace(namespace)
    settings = conf.current()
    store_for(settings)  # which tells at once what is wrong with its address
    return ExpiringFS(namespace, backend_for(settings, namespace), settings)


class _Walker(Walker):
    """Walks below a directory, and refuses a bad name of that as other calls do."""

    @classmethod
    def bind(cls, fs: F) -> BoundWalker[F]:
        return BoundWalker(fs, cls)

    def walk(self, fs: FS, path: str = "/", namespaces: Namespaces = None) -> Iterator[Step]:
        return super().walk(fs, fs.validatepath(path), namespaces)

    def files(self, fs: FS, path: str = "/") -> Iterator[str]:
        return super().files(fs, fs.validatepath(path))

    def dirs(self, fs: FS, path: str = "/") -> Iterator[str]:
        return super().dirs(fs, fs.validatepath(path))

    def info(
        self, fs: FS, path: str = "/", namespaces: Namespaces = None
    ) -> Iterator[tuple[str, Info]]:
        return super().info(fs, fs.validatepath(path), namespaces)


class ExpiringFS(FS):
    """A PyFilesystem with `expire`, `expire_many`, `expiration` and `get_url`.

    A file appears as a whole when it is closed, and is not deleted while it is written. A
    rewritten file keeps its deadline, but lives for at least ``grace``; writing to a path that
    has expired starts a new life. `move` takes the deadline along, a copy is a new file, and
    removing a file forgets its deadline. There are no system paths: PyFilesystem would use them
    to bypass these rules.
    """

    walker_class = _Walker

    def __init__(self, namespace: str, backend: Backend, settings: conf.Settings) -> None:
        super().__init__()
        self.namespace = namespace
        self._backend = backend
        self._settings = settings
        self._default_life: int | None = None
        self._files = backend.open(namespace)
        # PyFilesystem locks all of a filesystem for one slow write; here each file has its record.
        self._lock: Any = nullcontext()
        self._transaction = _Transaction()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.namespace!r})"

    def __str__(self) -> str:
        return f"<djpyfs {self.namespace!r}>"

    @property
    def root_path(self) -> str:
        """The namespace's directory on disk, as `fs.osfs.OSFS` has it; made by the first write.

        Raises `AttributeError` on other backends. Writing or removing through it bypasses the
        rules above.
        """
        files: Any = self._files
        return cast(str, files.root_path)

    # -- lifetimes and addresses

    def expire(
        self,
        filename: str,
        seconds: Seconds | None = None,
        days: float | None = None,
        expires: bool = True,
    ) -> None:
        """Set the deadline of a file to ``seconds`` + ``days`` from now, replacing an earlier one::

            fs.expire("a.png", seconds=300)
            fs.expire("a.png", timedelta(days=7))
            fs.expire("a.png", expires=False)

        ``seconds`` may be a `datetime.timedelta`, and 0 is now. With ``expires=False`` the file is
        permanent. It need not exist yet. Raises `InvalidName`, `InvalidLifetime` and
        `RecordStoreUnavailable`, before anything is stored.
        """
        entry = self._entry(filename)
        ttl = self._lifetimes(entry).of(seconds, days, expires)
        if ttl is None:
            self.check()
            self._records.keep(entry.member)
        else:
            self._schedule([entry], ttl)

    def expire_many(
        self,
        filenames: Iterable[str],
        seconds: Seconds | None = None,
        days: float | None = None,
    ) -> None:
        """Do what `expire` does for many files, in one round trip per shard."""
        ttl = Lifetimes(self._policy_at("")).of(seconds, days)
        groups: dict[int | None, list[Entry]] = {}
        lives: dict[str, int | None] = {}  # by directory, which is what they depend on
        for entry in dict.fromkeys(map(self._entry, checked_names(filenames))):
            directory = entry.path.rpartition("/")[0]
            if directory not in lives:
                lives[directory] = self._lifetimes(entry).of(seconds, days)
            groups.setdefault(lives[directory], []).append(entry)
        for ttl, entries in groups.items():
            self._schedule(entries, cast(int, ttl))

    def expire_at(self, filename: str, when: datetime) -> None:
        """Set the deadline of a file to an aware datetime; a time in the past means now::

            fs.expire_at("a.png", timezone.now() + timedelta(hours=1))

        The clock of the record store counts. Raises as `expire` does, and for a naive datetime.
        """
        entry, given = self._entry(filename), cast(object, when)
        if not isinstance(given, datetime) or given.utcoffset() is None:
            raise InvalidLifetime(f"when is {when!r}: give it an aware datetime")
        self.check()
        now, _ = self._records.deadline(entry.member)
        left = max(0, microseconds(when) - now)
        if left > LONGEST_LIFE * SECOND:
            raise InvalidLifetime(f"when is {when!r}: use a time within 100 years")
        ttl = cast(int, self._lifetimes(entry).of(left / SECOND))
        self._records.place_at(entry.member, now + ttl)
        self._announce([entry], ttl)

    def expiration(self, filename: str) -> datetime | None:
        """Return a file's deadline as an aware datetime (UTC), or None if it has none.

        It may be in the past: its deletion is under way, is retried, or was given up.
        Raises `InvalidName` and `RecordStoreUnavailable`.
        """
        self.check()
        _, deadline = self._records.deadline(self._entry(filename).member)
        return datetime_of(deadline) if deadline else None

    def set_default_life(self, seconds: Seconds) -> None:
        """Give new files written through this object that lifetime, as ``default_ttl`` would.

        Raises `InvalidLifetime`.
        """
        self._default_life = Lifetimes(self._policy_at("")).of(seconds)

    def temporary_file(
        self,
        suffix: str = "",
        *,
        prefix: str = "",
        seconds: Seconds = 0,
        days: float = 0,
        mode: str = "wb",
        encoding: str | None = None,
    ) -> TemporaryFile:
        """Return a new file as a context manager, under a name that nobody can guess.

        It lives for ``seconds`` + ``days`` after the block, or for the default lifetime if both
        are 0; a block that takes less than a hundredth of that, and less than 0.1 s, may count
        as part of it. The deadline is recorded before the first byte. When the block ends the file
        appears as a whole; if it raises, neither file nor record stays. ``name`` is the path in
        this filesystem, and after the block ``url`` is the URL::

            with fs.temporary_file(".png", seconds=300) as f:
                figure.savefig(f)
            response = redirect(f.url)

        ``async with`` opens and stores it in a thread. ``mode`` and ``encoding`` are those of
        `open`. Raises `InvalidName`, `InvalidLifetime`, also if there is no default lifetime,
        and `ValueError` for a mode that creates no file.
        """
        name = temporary_name(prefix, suffix)
        return self._temporary_file(name, name, seconds, days, mode, encoding)

    def _temporary_file(
        self,
        path: str,
        name: str,
        seconds: Seconds,
        days: float,
        mode: str,
        encoding: str | None,
    ) -> TemporaryFile:
        validate_open_mode(mode)
        if not Mode(mode).create:
            raise ValueError(f"mode is {mode!r}: use one that makes a file, such as 'wb'")
        how = Opening(mode, encoding=encoding)
        how.check()
        entry = self._entry(path)
        given = total_of(seconds, days)
        life = self._lifetimes(entry).of(given) if given else self._life_at(entry.path)
        if not life:
            raise InvalidLifetime("no lifetime is given, nor a default: write seconds=300")

        def open_() -> IO[Any]:
            self.check()
            file = self._opened_to_write(entry.path, mode.replace("t", ""), life=life, new=name)
            return how.wrap(file, entry.path)

        return TemporaryFile(open_)

    def get_upload_url(
        self,
        suffix: str = "",
        *,
        prefix: str = "",
        seconds: Seconds,
        max_bytes: int,
        content_types: Iterable[str] | None = None,
    ) -> UploadTarget:
        """Return where a browser may send one file of up to ``max_bytes``.

        Its name is new, and nobody can guess it. It lives for ``seconds`` (or a `timedelta`) from
        now: that deadline is recorded at once, so an abandoned upload leaves nothing. The URL
        works for as long, on S3 for at most 604800 s. With ``content_types``, such as
        ``["image/png"]``, the browser must send one of these; if the suffix stands for one of
        them, that one::

            target = fs.get_upload_url(".png", seconds=600, max_bytes=5_000_000)
            return JsonResponse(target._asdict())

        On S3 the file goes to the store itself, by a signed form (POST); elsewhere to the view in
        `djpyfs.urls`, which takes the bytes as they are (PUT), once. A form on S3 can be sent
        again until ``target.until``, and then replaces the file. Once the file has arrived, give
        it its lifetime: ``fs.expire(target.path, …)``.

        Raises `InvalidName`, `InvalidLifetime`, `InvalidLimit` for ``max_bytes`` and
        ``content_types``, also those that S3 cannot bind, `fs.errors.NoURL` if `djpyfs.urls`
        is needed and not included, and `RecordStoreUnavailable`.
        """
        name = temporary_name(prefix, suffix)
        return self._upload_target(name, name, seconds, max_bytes, content_types)

    def _upload_target(
        self,
        path: str,
        name: str,
        seconds: Seconds,
        max_bytes: int,
        content_types: Iterable[str] | None,
    ) -> UploadTarget:
        self.check()
        entry, types = self._entry(path), types_for(path, content_types)
        check_max_bytes(max_bytes)
        life = cast(int, self._lifetimes(entry).of(seconds))
        if life < SECOND:
            raise InvalidLifetime(f"seconds is {seconds!r}: use 1 or more")
        now, (linked,) = self._records.linked([entry.member])
        deadline = end = now + life
        if self._backend.longest_url is not None:
            end = min(end, now + self._backend.longest_url * SECOND)
        until = datetime_of(end)
        form = self._backend.upload_form(*entry, (end - now) // SECOND, max_bytes, types)
        if form:
            target = UploadTarget(name, form.url, "POST", dict(form.fields), {}, max_bytes, until)
            late_uploads.watch(self._settings, self._records, entry.member, end, max_bytes)
        else:
            ticket, whole = token_urlsafe(12), -(-life // SECOND)
            address = links.upload_address(
                links.UploadLink(*entry, end, whole, max_bytes, types, ticket, linked.revocation)
            )
            headers = {"Content-Type": types[0]} if len(types) == 1 else {}
            target = UploadTarget(name, address, "PUT", {}, headers, max_bytes, until)
            self._records.issue_ticket(entry.member, ticket, 1, end)
        self._records.place_at(entry.member, deadline)
        self._announce([entry], life)
        return target

    def get_url(
        self,
        filename: str,
        timeout: Seconds | None = 0,
        *,
        download_as: str | None = None,
        max_downloads: int | None = None,
        confirm: bool = False,
    ) -> str:
        """Return a URL of a file for the browser; the file need not exist::

            fs.get_url("a.pdf")                                 # as long as the file lives
            fs.get_url("a.pdf", 60, download_as="Report.pdf")   # a minute, saved by that name
            fs.get_url("a.pdf", max_downloads=1)                # once

        If the backend has no URLs of its own, or ``signed_urls`` is on, it is a signed link to
        the view in `djpyfs.urls`. ``timeout`` is in seconds, at least 1, or a
        `datetime.timedelta`. It applies to URLs that stop working, and is cut at the file's own
        deadline, and on S3, with a warning, at 604800; 0 or None means as long as the file lives,
        or an hour if it has no deadline. The URL of an overdue file no longer works, or on S3
        works for one second more. With ``download_as``, a file name, the browser saves the file
        under that name. With ``max_downloads`` it is a signed link on every backend, and works
        for that many downloads. With ``confirm`` as well, a page with a button comes first, so
        that no mail scanner uses it up.

        Raises `InvalidName`, `InvalidLifetime`, `InvalidLimit`, `fs.errors.NoURL` if
        `djpyfs.urls` is needed and not included, and `RecordStoreUnavailable` if the URL must end
        with its file.
        """
        self.check()
        seconds = _timeout_of(timeout)
        entry = self._entry(filename)
        if download_as is not None:
            check_file_name(download_as)
        if max_downloads is not None:
            return self._limited_url(entry, seconds, download_as, max_downloads, confirm)
        if confirm:
            raise InvalidLimit("confirm is True, and max_downloads is not given: there is no limit")
        return self._urls([entry], seconds, download_as)[entry]

    def get_urls(self, filenames: Iterable[str], timeout: Seconds | None = 0) -> dict[str, str]:
        """Return the URLs of many files by their names, in one round trip per shard::

            pictures = fs.get_urls(fs.listdir("/"))

        Arguments and errors are those of `get_url`.
        """
        self.check()
        seconds = _timeout_of(timeout)
        entries = {name: self._entry(name) for name in checked_names(filenames)}
        urls = self._urls(dict.fromkeys(entries.values()), seconds)
        return {name: urls[entry] for name, entry in entries.items()}

    def revoke_urls(self, filename: str) -> None:
        """Make every signed link to a file that was given out so far answer 404, for good.

        That includes those with ``max_downloads``; links that are given out from now on work. The
        file stays, and need not exist. Raises `InvalidName`, `RecordStoreUnavailable`, and
        `ConfigurationError` if the backend gives out URLs of its own, which nobody can revoke.
        """
        self.check()
        entry = self._entry(filename)
        if self._is_presigned(entry) or self._lasting_url(entry) is not None:
            raise ConfigurationError(
                "a URL that the backend itself gives out cannot be revoked: "
                "set DJFS['signed_urls'] to True, and give out signed ones"
            )
        self._records.revoke(entry.member)

    def _urls(
        self, entries: Iterable[Entry], timeout: float = 0, download_as: str | None = None
    ) -> dict[Entry, str]:
        lasting = {entry: self._lasting_url(entry, download_as) for entry in entries}
        urls = {entry: url for entry, url in lasting.items() if url is not None}
        if ending := [entry for entry in lasting if entry not in urls]:
            now, found = self._records.linked([entry.member for entry in ending])
            for entry, linked in zip(ending, found, strict=True):
                urls[entry] = self._ending_url(entry, timeout, download_as, now, linked)
        return urls

    def _is_presigned(self, entry: Entry) -> bool:
        return self._backend.longest_url is not None and not self._is_signed(entry)

    def _is_signed(self, entry: Entry) -> bool:
        return self._policy_of(entry.path).signed_urls

    def _lasting_url(self, entry: Entry, download_as: str | None = None) -> str | None:
        """Return a URL that works for good, if the backend has such."""
        if self._backend.longest_url is None and not self._is_signed(entry):
            with suppress(errors.NoURL):
                return self._backend.url(*entry, None, download_as)
        return None

    def _ending_url(
        self, entry: Entry, timeout: float, download_as: str | None, now: int, linked: Linked
    ) -> str:
        if self._is_presigned(entry):
            longest = cast(int, self._backend.longest_url)
            end = _end_of_url(timeout, longest, now, linked.deadline)
            # S3 signs for at least a second, even if the file is overdue.
            return self._backend.url(*entry, max(1, (end - now) // SECOND), download_as)
        end = _end_of_url(timeout, LONGEST_LIFE, now, linked.deadline)
        return links.address(links.Link(*entry, end, download_as, revocation=linked.revocation))

    def _url_of_new(self, write: Write) -> str:
        url, times = self._lasting_url(write.entry), write.times()
        if url is None and times is not None:  # nobody can have revoked anything
            url = self._ending_url(write.entry, 0, None, times[0], Linked(times[1]))
        return url or self.get_url(write.entry.path)

    def _limited_url(
        self,
        entry: Entry,
        timeout: float,
        download_as: str | None,
        downloads: int,
        confirm: bool,
    ) -> str:
        if isinstance(downloads, bool) or not isinstance(downloads, int):
            raise InvalidLimit(f"max_downloads is {downloads!r}: give it a whole number")
        if not 1 <= downloads <= MOST_DOWNLOADS:
            raise InvalidLimit(f"max_downloads is {downloads!r}: use 1 to {MOST_DOWNLOADS}")
        now, (linked,) = self._records.linked([entry.member])
        end = _end_of_url(timeout, LONGEST_LIFE, now, linked.deadline)
        ticket = token_urlsafe(12)
        link = links.Link(*entry, end, download_as, ticket, bool(confirm), linked.revocation)
        address = links.address(link)
        self._records.issue_ticket(entry.member, ticket, downloads, end)
        return address

    # -- for async def views: each does in a thread what its namesake does

    aexpire = in_a_thread(expire)
    aexpire_many = in_a_thread(expire_many)
    aexpiration = in_a_thread(expiration)
    aget_url = in_a_thread(get_url)
    aget_upload_url = in_a_thread(get_upload_url)

    @async_unsafe(BLOCKS)
    def check(self) -> None:
        """Raise `fs.errors.FilesystemClosed` if it is closed; every method begins with this.

        In an event loop it raises `SynchronousOnlyOperation`, as Django's ORM does: a record store
        that hangs would stop every other request of the process.
        """
        super().check()

    # -- records and policies

    @property
    def _records(self) -> Expirations:
        return records_of(self._settings, self._backend, make=True)

    def _policy_at(self, directory: str) -> Policy:
        """Return the policy for the files of a directory."""
        below = directory and f"/{directory}"
        return self._settings.policy_for(self.namespace + below)

    def _policy_of(self, path: str) -> Policy:
        return self._policy_at(path.rpartition("/")[0])

    def _lifetimes(self, entry: Entry) -> Lifetimes:
        return Lifetimes(self._policy_of(entry.path))

    def _schedule(self, entries: list[Entry], ttl: int) -> None:
        self.check()
        self._records.schedule([entry.member for entry in entries], ttl)
        self._announce(entries, ttl)

    def _announce(self, entries: list[Entry], ttl: int) -> None:
        if self._settings.one_shot:
            paths = [entry.path for entry in entries]
            deadline_set.send_robust(
                type(self), namespace=self.namespace, paths=paths, ttl=ttl / SECOND
            )

    def _announce_at(self, path: str, deadline: int) -> None:
        if self._settings.one_shot and deadline:
            entry = Entry(self.namespace, path)
            now, _ = self._records.deadline(entry.member)
            self._announce([entry], deadline - now)

    # -- names

    def _path(self, path: str) -> str:
        checked = check_path(path)
        if 4 * (len(checked) + len(self.namespace) + len(self._backend.prefix)) > KEY_BYTES:
            check_length(path, self._backend.prefix, self.namespace, checked)
        return checked

    def _entry(self, filename: str) -> Entry:
        path = self._path(filename)
        if not path:
            raise errors.FileExpected(filename)
        return Entry(self.namespace, path)

    def _member(self, path: str) -> bytes:
        return Entry(self.namespace, path).member

    def validatepath(self, path: str) -> str:
        """Return ``path`` absolute and normalized. Raises `InvalidName`."""
        super().check()  # this needs no I/O
        return abspath(self._path(path))

    # -- what is hidden

    def _hidden(self, *paths: str) -> set[str]:
        """Return those of ``paths`` whose time is up, if the namespace hides them."""
        if not paths or not self._policy_of(paths[0]).hide_expired:
            return set()
        now, deadlines = self._records.deadlines([self._member(path) for path in paths])
        return {path for path, due in zip(paths, deadlines, strict=True) if 0 < due <= now}

    def _check_seen(self, path: str) -> None:
        if self._hidden(path):
            raise errors.ResourceNotFound(path)

    def _seen(self, path: str) -> str:
        """Return a checked path that may be read."""
        self.check()
        checked = self._path(path)
        self._check_seen(checked)
        return checked

    def _read(self, path: str) -> str:
        """Return a checked path that is about to be read, and renew its deadline."""
        checked = self._seen(path)
        policy = self._policy_of(checked)
        if policy.renew_on_read and policy.default_ttl is not None:
            longest = policy.max_ttl or 0
            written = self._written_at(checked) if longest else 0
            if written is not None:
                member = self._member(checked)
                deadline = self._records.renew(member, policy.default_ttl, written, longest)
                self._announce_at(checked, deadline)
        return checked

    def _written_at(self, path: str) -> int | None:
        """Return when a file was written, in µs, or None if the backend does not say."""
        modified = self._files.getinfo(path, ["details"]).get("details", "modified")
        return None if modified is None else round(cast(float, modified) * SECOND)

    # -- reading

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        """Return what is known of a file or directory."""
        return self._files.getinfo(self._seen(path), namespaces)

    def exists(self, path: str) -> bool:
        """Return whether there is a file or a directory."""
        self.check()
        checked = self._path(path)
        return not self._hidden(checked) and self._files.exists(checked)

    def isdir(self, path: str) -> bool:
        """Return whether there is a directory."""
        self.check()
        return self._files.isdir(self._path(path))

    def isfile(self, path: str) -> bool:
        """Return whether there is a file."""
        self.check()
        checked = self._path(path)
        return not self._hidden(checked) and self._files.isfile(checked)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""
        self.check()
        directory = self._path(path)
        names = self._files.listdir(directory)
        hidden = self._hidden(*(combine(directory, name) for name in names))
        return [name for name in names if combine(directory, name) not in hidden]

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """Iterate over what is known of the entries of a directory."""
        self.check()
        directory = self._path(path)
        if not self._policy_at(directory).hide_expired:
            return self._files.scandir(directory, namespaces, page)
        infos = list(self._files.scandir(directory, namespaces))
        hidden = self._hidden(*(combine(directory, info.name) for info in infos))
        seen = (info for info in infos if combine(directory, info.name) not in hidden)
        return islice(seen, *page) if page else seen

    def islink(self, path: str) -> bool:
        """Return whether ``path`` is a symbolic link."""
        return self._files.islink(self._seen(path))

    def readbytes(self, path: str) -> bytes:
        """Return the contents of a file."""
        return self._files.readbytes(self._read(path))

    def download(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Copy the contents of a file into an open binary file."""
        self._files.download(self._read(path), file, chunk_size, **options)

    def getmeta(self, namespace: str = "standard") -> dict[str, object]:
        """Return what is known of the filesystem as a whole."""
        self.check()
        meta = dict(self._files.getmeta(namespace))
        if namespace == "standard":
            # The rules for names are ours, on every backend.
            meta |= {"invalid_path_chars": REFUSED_CHARACTERS, "unicode_paths": True}
        return meta

    def geturl(self, path: str, purpose: str = "download") -> str:
        """Return what `get_url` does: this is PyFilesystem's name for it."""
        name = self.validatepath(path)
        if purpose != "download":
            raise errors.NoURL(path, purpose)
        return self.get_url(name)

    def getsyspath(self, path: str) -> str:
        """Raise `fs.errors.NoSysPath`: there are no system paths."""
        self.validatepath(path)
        raise errors.NoSysPath(path=path)

    def tree(self, **options: Any) -> None:
        """Draw a tree of the directories below ``path``."""
        self.validatepath(options.get("path", "/"))
        super().tree(**options)

    # -- writing

    def open(
        self,
        path: str,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str = "",
        line_buffering: bool = False,
        **options: Any,
    ) -> IO[Any]:
        """Open a file. If a ``with`` block that writes it raises, the file stays as it was."""
        validate_open_mode(mode)
        how = Opening(mode, buffering, encoding, errors, newline, line_buffering)
        how.check()
        file = self.openbin(path, mode.replace("t", ""), buffering, **options)
        return how.wrap(file, path)

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file in binary mode; what is written appears when it is closed."""
        self.check()
        checked_mode = Mode(mode)
        checked_mode.validate_bin()
        relative = self._path(path)
        if self._hidden(relative):
            if not checked_mode.create:
                raise errors.ResourceNotFound(path)
            if checked_mode.exclusive:  # of all that find nothing there, one may make it
                delete_if_due(self.namespace, [relative])
            mode = mode.replace("a", "w")  # nothing is added to an expired file
        if not (checked_mode.writing or checked_mode.appending):
            file = self._files.openbin(self._read(path), mode, buffering, **options)
            return cast(BinaryIO, _ReadFile(file, mode, relative, self))
        return self._opened_to_write(relative, mode, buffering, **options)

    def _opened_to_write(
        self,
        path: str,
        mode: str,
        buffering: int = -1,
        *,
        life: int | None = None,
        new: str = "",
        **options: Any,
    ) -> BinaryIO:
        """Open a file for writing, with a ``life`` of its own; a ``new`` one has that name."""
        write = self._begin(path, life, NewWrite if new else Write)
        with write.abandoned_on_error():
            file = self._files.openbin(path, mode, buffering, **options)
        platform_mode, address = Mode(mode).to_platform_bin(), self._url_of_new if new else None
        written = WrittenFile(file, platform_mode, new or path, write, self._finish, address)
        return cast(BinaryIO, written)

    def writebytes(self, path: str, contents: bytes) -> None:
        """Write ``contents`` to a file, replacing what was there."""
        if not isinstance(contents, bytes):
            raise TypeError("contents must be bytes")
        with self._writing(path) as (relative, _):
            self._files.writebytes(relative, contents)

    def upload(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Write the rest of an open binary file to a file, replacing what was there."""
        source: object = file
        if isinstance(source, _ReadFile):
            source.fs._transaction.copied(source.path, self, self._path(path))
            if source.is_at(self, self._path(path)):  # under another name: it is there already
                return
        with self._writing(path) as (relative, _):
            self._files.upload(relative, file, chunk_size, **options)

    def copy(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Copy a file. The copy is a new file, without the deadline of the first."""
        destination, source = self._path(dst_path), self._seen(src_path)
        with self._writing(destination) as (_, write):
            # A file whose time was up did not stand in the way.
            hidden = self._policy_of(destination).hide_expired and write.starts_new_life
            self._files.copy(source, destination, overwrite or hidden, preserve_time)

    def move(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Move a file with its deadline, or with the fact that it was made permanent.

        A file with neither counts as a new one at its new place.
        """
        destination, source = self._path(dst_path), self._seen(src_path)
        self._check_removable(source)
        if self.getinfo(source).is_dir:
            raise errors.FileExpected(src_path)
        there = self.isfile(destination) if overwrite else self.exists(destination)
        if there and not overwrite:
            raise errors.DestinationExists(dst_path)
        if source == destination:
            return
        if not there and self.isdir(destination):  # some backends would put the file in its place
            raise errors.FileExpected(dst_path)
        self._check_writable(destination)
        # Both are reserved in the order of their names, so that two that move the same files back
        # and forth do not wait for each other.
        first, second = sorted((source, destination), key=self._member)
        with self._reserved(first) as one, self._reserved(second) as other:
            origin, target = (one, other) if first == source else (other, one)
            self._move(source, destination, origin, target, there, preserve_time)
            origin.forget()
        origin.hand_on(target)
        self._announce_at(destination, target.deadline)

    def _move(
        self,
        source: str,
        destination: str,
        origin: Reservation,
        target: Reservation,
        replaces: bool,
        preserve_time: bool,
    ) -> None:
        before, deadline = target.deadline, self._deadline_of_moved(destination, origin)
        if before and not deadline:  # a permanent file must not have a deadline for a moment
            with suppress(errors.ResourceNotFound):
                self._files.remove(destination)
        if before != deadline:
            target.pledge(deadline)
        try:
            self._files.move(source, destination, True, preserve_time)
        except BaseException:
            # Many backends copy and then remove: the copy must not stay forever.
            if before or replaces or not self._is_surely_file(destination):
                target.pledge(before)
            raise

    def _deadline_of_moved(self, path: str, origin: Reservation) -> int:
        """Return the deadline of a file that was moved to ``path``, or 0.

        It takes its deadline along, as far as the longest life there allows. If nobody has said how
        long it lives, it lives as long as a new file.
        """
        has_life = origin.deadline or origin.is_permanent
        longest = self._policy_of(path).max_ttl if has_life else self._life_at(path)
        if not longest:
            return origin.deadline
        latest = self._records.deadline(self._member(path))[0] + longest
        return min(origin.deadline or latest, latest)

    def _is_surely_file(self, path: str) -> bool:
        try:
            return self._files.isfile(path)
        except errors.FSError:
            return False

    def copydir(
        self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False
    ) -> None:
        """Copy the contents of a directory, each file as `copy` does."""
        source, destination = self.validatepath(src_path), self.validatepath(dst_path)
        super().copydir(source, destination, create, preserve_time)

    def movedir(
        self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False
    ) -> None:
        """Move the contents of a directory, each file with its deadline.

        Raises `InvalidName`, before anything is moved, if others have put something there under a
        name that is refused.
        """
        source, destination = self.validatepath(src_path), self.validatepath(dst_path)
        if isparent(source, destination):
            raise errors.OperationFailed(dst_path, msg="a directory cannot move into itself")
        with self.lock():
            if not create and not self.exists(destination):
                raise errors.ResourceNotFound(dst_path)
            if not self.getinfo(source).is_dir:
                raise errors.DirectoryExpected(src_path)
            found = [
                (path, join(destination, frombase(source, path).lstrip("/")), info.is_dir)
                for path, info in self.walk.info(source)
            ]
            for path, moved, _ in found:
                self._path(path)
                self._path(moved)
            self.makedir(destination, recreate=True)
            emptied = [source]
            for path, moved, is_dir in found:
                if is_dir:
                    self.makedir(moved, recreate=True)
                    emptied.append(path)
                else:
                    self.move(path, moved, overwrite=True, preserve_time=preserve_time)
            # Not as a tree: what somebody has written there meanwhile must not go.
            for path in reversed(emptied):
                with suppress(errors.ResourceNotFound, errors.DirectoryNotEmpty):
                    self.removedir(path)

    def makedir(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> ExpiringSubFS:
        """Make a directory and return it as a filesystem."""
        self.check()
        relative = self._path(path)
        self._files.makedir(relative, permissions, recreate)
        return ExpiringSubFS(self, relative)

    def makedirs(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> ExpiringSubFS:
        """Make a directory and those above it, and return it as a filesystem."""
        self.check()
        relative = self._path(path)
        self._files.makedirs(relative, permissions, recreate)
        return ExpiringSubFS(self, relative)

    def setinfo(self, path: str, info: Any) -> None:
        """Set what can be set of a file, such as its times."""
        self.check()
        self._files.setinfo(self._path(path), info)

    def remove(self, path: str) -> None:
        """Remove a file and forget its deadline."""
        self.check()
        relative = self._path(path)
        copy = self._transaction.copy_of(relative)
        if copy is not None:
            self._remove_moved(relative, *copy)
            return
        with self._removing(path):
            self._files.remove(relative)

    def _remove_moved(self, path: str, to: ExpiringFS, as_: str) -> None:
        """Remove a file that was moved to another filesystem by copying it.

        Raises `fs.errors.OperationFailed` where the copy is gone: somebody has moved it back.
        """
        if _is_same(self, path, to, as_):
            return
        self._check_removable(path)
        ends = sorted([(self, path), (to, as_)], key=lambda end: end[0]._place_of(end[1]))
        with ends[0][0]._reserved(ends[0][1]) as one, ends[1][0]._reserved(ends[1][1]) as other:
            origin, target = (one, other) if ends[0] == (self, path) else (other, one)
            if not to._files.isfile(as_):
                raise errors.OperationFailed(path, msg=f"'{path}' stays: its copy is gone")
            if origin.deadline or origin.is_permanent:
                target.pledge(to._deadline_of_moved(as_, origin))
            self._files.remove(path)
            origin.forget()
        origin.hand_on(target)
        to._announce_at(as_, target.deadline)

    def _place_of(self, path: str) -> tuple[str, bytes]:
        return self._records.place, self._member(path)

    def removedir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._removing(path) as relative:
            self._files.removedir(relative)

    def removetree(self, dir_path: str) -> None:
        """Remove a directory with everything in it; of the root, only the contents.

        That includes files that others have put there under names that other calls refuse.
        """
        root = self.validatepath(dir_path)
        if self._policy_at(self._path(dir_path)).hold:
            raise NamespaceHeld(dir_path)
        with self.lock():
            # Not through our own listings: what is hidden must go as well.
            found = self._below(root.lstrip("/"))
            while listed := list(islice(found, AT_A_TIME)):
                self._remove_all([path for path, is_dir in listed if not is_dir])
                self._remove_all([path for path, is_dir in listed if is_dir], are_dirs=True)
            if root != "/":
                with suppress(errors.ResourceNotFound, errors.DirectoryExpected):
                    self.removedir(root)

    def _below(self, directory: str) -> Iterator[tuple[str, bool]]:
        """Yield what is below a directory, contents first, each with whether it is a directory."""
        # What Walker makes of each file takes twice as long as its removal.
        for info in self._files.scandir(directory):
            basic: Any = info.raw["basic"]
            path = f"{directory}/{basic['name']}" if directory else basic["name"]
            if basic["is_dir"]:
                yield from self._below(path)
            yield path, basic["is_dir"]

    def _remove_all(self, paths: Sequence[str], are_dirs: bool = False) -> None:
        """Remove what a tree holds: together, except what somebody else has a claim on."""
        remove = (
            self._remove_dirs if are_dirs else partial(self._backend.remove_all, self.namespace)
        )
        known, foreign, single = {}, [], []
        for path in paths:
            self._check_removable(path)
            if self._transaction.copy_of(path):
                single.append(path)
                continue
            try:
                known[self._member(self._path(path))] = path
            except InvalidName:  # it has no record, and nobody writes to it through us
                foreign.append(path)
        remove(foreign)
        with Removal(self._records, list(known), self._backend.late) as removal:
            single += [known.pop(member) for member in removal.left_alone]
            remove(list(known.values()))
        for path in single:
            # A directory may end with its last file, on S3 or by a sweep. On S3 a file may have
            # the name of a directory.
            with suppress(errors.ResourceNotFound, errors.DirectoryExpected):
                self.removedir(path) if are_dirs else self.remove(path)

    def _remove_dirs(self, paths: Sequence[str]) -> None:
        for path in paths:
            with suppress(errors.ResourceNotFound, errors.DirectoryExpected):
                self._files.removedir(path)

    def opendir(self, path: str, factory: Callable[[Any, str], SubFS[Any]] | None = None) -> Any:
        """Return a directory as a filesystem whose files can expire too."""
        return super().opendir(path, factory or ExpiringSubFS)

    def lock(self) -> Any:
        """Lock the filesystem. What is copied and then removed under one lock has been moved."""
        return self._transaction

    @contextmanager
    def _writing(self, path: str) -> Iterator[tuple[str, Write]]:
        self.check()
        relative = self._path(path)
        write = self._begin(relative)
        with write.abandoned_on_error():
            yield relative, write
        self._finish(write)

    def _begin(self, path: str, life: int | None = None, kind: type[Write] = Write) -> Write:
        self._check_writable(path)
        entry = Entry(self.namespace, path)
        life = self._life_at(path) if life is None else life
        return kind(self._records, entry, self._settings.grace, life)

    def _life_at(self, path: str) -> int:
        """Return how long a file lives if nobody sets a deadline for it, in µs; 0: forever."""
        policy = self._policy_of(path)
        if self._default_life is None:
            return policy.life
        return Lifetimes(policy).of(self._default_life / SECOND) or 0

    def _finish(self, write: Write) -> None:
        if life := write.finish(lambda: self._files.isfile(write.entry.path)):
            self._announce([write.entry], life)

    @contextmanager
    def _removing(self, path: str) -> Iterator[str]:
        """Hold the claim on a record while its file is removed, so that no write gets between."""
        self.check()
        relative = self._path(path)
        self._check_removable(relative)
        with self._reserved(relative) as reservation:
            yield relative
            reservation.forget()

    def _reserved(self, path: str) -> Reservation:
        return Reservation(self._records, self._member(path), self._backend.late)

    def _check_removable(self, path: str) -> None:
        if self._policy_of(path).hold:
            raise NamespaceHeld(path)

    def _check_writable(self, path: str) -> None:
        """Raise `NamespaceHeld` where a file that is there must not be replaced."""
        if self._policy_of(path).hold and self._files.isfile(path):
            raise NamespaceHeld(path)


def _timeout_of(timeout: Seconds | None) -> float:
    seconds = seconds_of("timeout", 0 if timeout is None else timeout)
    if 0 < seconds < 1:
        raise InvalidLifetime(f"timeout is {seconds!r} s: use 1 or more, or 0")
    return seconds


def _end_of_url(timeout: float, longest: int, now: int, deadline: int) -> int:
    """Return when a URL of a file stops working, in µs since the epoch."""
    if timeout > longest:  # without the name, so that Python warns once for each caller
        warn(f"no URL here works for longer than {longest} s: timeout is cut", stacklevel=5)
        timeout = longest
    end = now + round((timeout or (longest if deadline else DEFAULT_URL)) * SECOND)
    return min(end, deadline or end)


class _ReadFile(RawWrapper):
    """An open file that knows where it comes from, in case it is copied."""

    def __init__(self, file: BinaryIO, mode: str, path: str, fs: ExpiringFS) -> None:
        super().__init__(file, mode=Mode(mode).to_platform_bin(), name=path)
        self.path = path
        self.fs = fs

    def is_at(self, fs: ExpiringFS, path: str) -> bool:
        """Return whether it is the file that another filesystem has at a path."""
        return _is_same(self.fs, self.path, fs, path)


def _is_same(one: ExpiringFS, path: str, other: ExpiringFS, other_path: str) -> bool:
    return one._place_of(path) == other._place_of(other_path)


class _Transaction:
    """The lock of a filesystem, and what has been copied from it since it was taken.

    `fs.move` moves between two filesystems by copying and removing under the locks of both, and
    nothing else tells of it.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._depth = 0
        self._copies: dict[str, tuple[ExpiringFS, str]] = {}

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._copies.clear()
        self._lock.release()

    def copied(self, path: str, to: ExpiringFS, as_: str) -> None:
        """Note that a file was copied."""
        if self._depth:
            self._copies[path] = to, as_

    def copy_of(self, path: str) -> tuple[ExpiringFS, str] | None:
        """Return where a file was copied to."""
        return self._copies.get(path) if self._depth else None


class ExpiringSubFS(SubFS[FS]):
    """A directory of an `ExpiringFS`, with the same methods and the same rules."""

    def delegate_path(self, path: str) -> tuple[Any, str]:
        """Translate a path; what is refused above is refused here."""
        return self._wrap_fs, join(self._sub_dir, check_path(path))

    def expire(
        self,
        filename: str,
        seconds: Seconds | None = None,
        days: float | None = None,
        expires: bool = True,
    ) -> None:
        """See `ExpiringFS.expire`."""
        fs, path = self.delegate_path(filename)
        fs.expire(path, seconds, days, expires)

    def expire_many(
        self,
        filenames: Iterable[str],
        seconds: Seconds | None = None,
        days: float | None = None,
    ) -> None:
        """See `ExpiringFS.expire_many`."""
        fs: Any = self.delegate_fs()
        paths = [self.delegate_path(name)[1] for name in checked_names(filenames)]
        fs.expire_many(paths, seconds, days)

    def expire_at(self, filename: str, when: datetime) -> None:
        """See `ExpiringFS.expire_at`."""
        fs, path = self.delegate_path(filename)
        fs.expire_at(path, when)

    def expiration(self, filename: str) -> datetime | None:
        """See `ExpiringFS.expiration`."""
        fs, path = self.delegate_path(filename)
        return cast("datetime | None", fs.expiration(path))

    def get_url(
        self,
        filename: str,
        timeout: Seconds | None = 0,
        *,
        download_as: str | None = None,
        max_downloads: int | None = None,
        confirm: bool = False,
    ) -> str:
        """See `ExpiringFS.get_url`."""
        fs, path = self.delegate_path(filename)
        url = fs.get_url(
            path,
            timeout,
            download_as=download_as,
            max_downloads=max_downloads,
            confirm=confirm,
        )
        return cast(str, url)

    def get_urls(self, filenames: Iterable[str], timeout: Seconds | None = 0) -> dict[str, str]:
        """See `ExpiringFS.get_urls`."""
        fs: Any = self.delegate_fs()
        paths = {name: self.delegate_path(name)[1] for name in checked_names(filenames)}
        urls = fs.get_urls(paths.values(), timeout)
        return {name: urls[path] for name, path in paths.items()}

    def revoke_urls(self, filename: str) -> None:
        """See `ExpiringFS.revoke_urls`."""
        fs, path = self.delegate_path(filename)
        fs.revoke_urls(path)

    def temporary_file(
        self,
        suffix: str = "",
        *,
        prefix: str = "",
        seconds: Seconds = 0,
        days: float = 0,
        mode: str = "wb",
        encoding: str | None = None,
    ) -> TemporaryFile:
        """See `ExpiringFS.temporary_file`."""
        name = temporary_name(prefix, suffix)
        return self._temporary_file(name, name, seconds, days, mode, encoding)

    def _temporary_file(self, path: str, *arguments: Any) -> TemporaryFile:
        fs, path = self.delegate_path(path)
        return cast(TemporaryFile, fs._temporary_file(path, *arguments))

    def get_upload_url(
        self,
        suffix: str = "",
        *,
        prefix: str = "",
        seconds: Seconds,
        max_bytes: int,
        content_types: Iterable[str] | None = None,
    ) -> UploadTarget:
        """See `ExpiringFS.get_upload_url`."""
        name = temporary_name(prefix, suffix)
        return self._upload_target(name, name, seconds, max_bytes, content_types)

    def _upload_target(self, path: str, *arguments: Any) -> UploadTarget:
        fs, path = self.delegate_path(path)
        return cast(UploadTarget, fs._upload_target(path, *arguments))

    aexpire = in_a_thread(expire)
    aexpire_many = in_a_thread(expire_many)
    aexpiration = in_a_thread(expiration)
    aget_url = in_a_thread(get_url)
    aget_upload_url = in_a_thread(get_upload_url)

    def tree(self, **options: Any) -> None:
        """See `ExpiringFS.tree`."""
        self.validatepath(options.get("path", "/"))
        super().tree(**options)

    def removedir(self, path: str) -> None:
        """See `ExpiringFS.removedir`."""
        super().removedir(self.validatepath(path))

    def removetree(self, dir_path: str) -> None:
        """See `ExpiringFS.removetree`."""
        super().removetree(self.validatepath(dir_path))

    def lock(self) -> Any:
        """See `ExpiringFS.lock`."""
        return self.delegate_fs().lock()

    def opendir(self, path: str, factory: Callable[[Any, str], SubFS[Any]] | None = None) -> Any:
        """Return a directory of this directory."""
        return super().opendir(path, factory or ExpiringSubFS)
