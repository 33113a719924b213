"""The filesystem that `get_filesystem` returns: a PyFilesystem whose files can expire.

`ExpiringFS` derives from `fs.base.FS` and not from `WrapFS`: there every shortcut of
PyFilesystem ends in the few methods that are written out here, and so in the same rules.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from itertools import islice
from typing import IO, Any, BinaryIO, TypeVar, cast
from warnings import warn

from django.utils.asyncio import async_unsafe
from fs import errors
from fs.base import FS
from fs.info import Info
from fs.mode import Mode, validate_open_mode
from fs.path import abspath, combine, frombase, isparent, join
from fs.permissions import Permissions
from fs.subfs import SubFS
from fs.walk import BoundWalker, Step, Walker

from . import addresses, conf, moves
from .backends import backend_for
from .conf import LONGEST_LIFE, SECOND
from .errors import BLOCKS, InvalidLifetime, InvalidLimit, InvalidName, NamespaceHeld
from .expirations import store_for
from .lifetimes import Lifetimes, Seconds, asked_life, datetime_of, microseconds, total_of
from .moves import File, ReadFile, Transaction
from .names import (
    REFUSED_CHARACTERS,
    Entry,
    check_file_name,
    check_namespace,
    checked_names,
    temporary_name,
)
from .namespaces import Namespace
from .sweeper import delete_if_due
from .threads import in_a_thread
from .uploads import UploadTarget, upload_target
from .writes import NewWrite, Opening, Removal, TemporaryFile, Write, WrittenFile

AT_A_TIME = 1_000  # files of a tree that are removed together; what one DeleteObjects takes

F = TypeVar("F", bound=FS)
Namespaces = Collection[str] | None

# PyFilesystem locks all of a filesystem for one slow write; here each file has its record.
NO_LOCK = nullcontext()


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
    return ExpiringFS(Namespace(namespace, backend_for(settings, namespace), settings))


class _Walker(Walker):
    """Walks below a directory, and refuses a bad name of that as other calls do.

    Of what lies below it the bad names are listed too, whoever has put it there.
    """

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

    def _scan(self, fs: FS, dir_path: str, namespaces: Namespaces = None) -> Iterator[Info]:
        scandir = fs._scan_found if isinstance(fs, ExpiringFS) else fs.scandir
        try:
            yield from scandir(dir_path, namespaces)
        except errors.FSError as error:
            if not self.on_error(dir_path, error):
                raise


class ExpiringFS(FS):
    """A PyFilesystem with `expire`, `expire_many`, `expiration` and `get_url`.

    A file appears as a whole when it is closed, and is not deleted while it is written. A
    rewritten file keeps its deadline, but lives for at least ``grace``; writing to a path that
    has expired starts a new life. `move` takes the deadline along, a copy is a new file, and
    removing a file forgets its deadline. There are no system paths: PyFilesystem would use them
    to bypass these rules.

    Besides PyFilesystem's errors every method that takes a name raises `InvalidName`, and every one
    that writes, moves or removes raises `NamespaceHeld`, `FileBusy` and `RecordStoreUnavailable`.
    Closing a file that was written may raise `WriteLost`.
    """

    walker_class = _Walker

    def __init__(self, here: Namespace) -> None:
        super().__init__()
        self.namespace = here.name
        self._here = here
        self._files = here.files
        self._lock: Any = NO_LOCK
        self._transaction = Transaction()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._here.directory!r})"

    def __str__(self) -> str:
        return f"<djpyfs {self._here.directory!r}>"

    @property
    def root_path(self) -> str:
        """The namespace's directory on disk, as `fs.osfs.OSFS` has it; made by the first write.

        Raises `AttributeError` on other backends, and in a directory that `opendir` returns.
        Writing or removing through it bypasses the rules above.
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
        permanent. It need not exist yet.

        Raises `InvalidName` and `InvalidLifetime` before anything is stored, `FileBusy` if a sweep
        that died may still delete the file, and `RecordStoreUnavailable`: the call can be repeated.
        """
        entry = self._here.named(filename)
        ttl = self._here.lifetimes(entry).of(seconds, days, expires)
        if ttl is None:
            self.check()
            self._here.records.keep(entry.member)
        else:
            self._schedule([entry], ttl)

    def expire_many(
        self,
        filenames: Iterable[str],
        seconds: Seconds | None = None,
        days: float | None = None,
    ) -> None:
        """Do what `expire` does for many files, in one round trip per shard::

            fs.expire_many(["a.png", "b.png"], days=1)

        Raises as `expire` does. After `FileBusy` or `RecordStoreUnavailable` some files may have
        the new deadline.
        """
        asked = asked_life(seconds, days)
        groups: dict[int, list[Entry]] = {}
        lives: dict[str, int] = {}  # by directory, which is what they depend on
        for entry in dict.fromkeys(map(self._here.named, checked_names(filenames))):
            directory = entry.path.rpartition("/")[0]
            if directory not in lives:
                lives[directory] = cast(int, self._here.lifetimes(entry).allowed(asked))
            groups.setdefault(lives[directory], []).append(entry)
        for ttl, entries in groups.items():
            self._schedule(entries, ttl)

    def _schedule(self, entries: Sequence[Entry], ttl: int) -> None:
        self.check()
        self._here.records.schedule([entry.member for entry in entries], ttl)
        self._here.announce(entries, ttl)

    def expire_at(self, filename: str, when: datetime) -> None:
        """Set the deadline of a file to an aware datetime; a time in the past means now::

            fs.expire_at("a.png", timezone.now() + timedelta(hours=1))

        The clock of the record store counts. Raises as `expire` does, and for a naive datetime.
        """
        entry, given = self._here.named(filename), cast(object, when)
        if not isinstance(given, datetime) or given.utcoffset() is None:
            raise InvalidLifetime(f"when is {when!r}: give it an aware datetime")
        self.check()
        now, _ = self._here.records.deadline(entry.member)
        left = max(0, microseconds(when) - now)
        if left > LONGEST_LIFE * SECOND:
            raise InvalidLifetime(f"when is {when!r}: use a time within 100 years")
        ttl = cast(int, self._here.lifetimes(entry).of(left / SECOND))
        self._here.records.place_at(entry.member, now + ttl, waits_for_the_dead=False)
        self._here.announce([entry], ttl)

    def expiration(self, filename: str) -> datetime | None:
        """Return a file's deadline as an aware datetime (UTC), or None if it has none.

        It may be in the past: its deletion is under way, is retried, or was given up.
        Raises `InvalidName` and `RecordStoreUnavailable`.
        """
        self.check()
        _, deadline = self._here.records.deadline(self._here.named(filename).member)
        return datetime_of(deadline) if deadline else None

    def set_default_life(self, seconds: Seconds) -> None:
        """Give new files written through this object a lifetime, as ``default_ttl`` would::

            fs.set_default_life(300)

        ``seconds`` may be a `datetime.timedelta`. Raises `InvalidLifetime`, also for 0.
        """
        life = Lifetimes(self._here.policy_in("")).of(seconds)
        if not life:
            raise InvalidLifetime(f"seconds is {seconds!r}: a default lifetime must be longer")
        self._here.default_life = life

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
        as part of it. The deadline is recorded before the first byte. The file appears as a whole
        when it is closed, at the end of the block; if that raises before, neither file nor record
        stays. ``name`` is the path in this filesystem, and after the block ``url`` is the URL::

            with fs.temporary_file(".png", seconds=300) as f:
                figure.savefig(f)
            response = redirect(f.url)

        ``async with`` opens and stores it in a thread. ``mode`` and ``encoding`` are those of
        `open`. Raises `InvalidName`, `InvalidLifetime`, also if no lifetime is given and there is
        no default, `RecordStoreUnavailable`, and `ValueError` for a mode that creates no file.
        """
        name = temporary_name(prefix, suffix)
        validate_open_mode(mode)
        if not Mode(mode).create:
            raise ValueError(f"mode is {mode!r}: use one that makes a file, such as 'wb'")
        how = Opening(mode, encoding=encoding)
        how.check()
        entry = self._here.named(name)
        given = total_of(seconds, days)
        life = self._here.lifetimes(entry).of(given) if given else self._here.life_of(name)
        if not life:
            raise InvalidLifetime(
                "no lifetime is given, and there is no default: write seconds=300"
            )

        def open_() -> IO[Any]:
            self.check()
            file = self._opened_to_write(name, mode.replace("t", ""), life=life, new=True)
            return how.wrap(file, name)

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

        The file gets a new name that nobody can guess. It lives for ``seconds`` (or a `timedelta`)
        from now, but everywhere except on S3 for at least ``grace`` after it has arrived, as after
        any write. The deadline is recorded at once, so an abandoned upload leaves nothing. The URL
        works for ``seconds``, on S3 for at most 604800 s::

            target = fs.get_upload_url(".png", seconds=600, max_bytes=5_000_000)
            response = JsonResponse(target._asdict())

        With ``content_types``, such as ``["image/png"]``, the browser must send one of these; if
        the suffix stands for one of them, it must send that one.

        On S3 the file goes to the store itself, by a signed form (POST). The form can be sent
        again until ``target.until``, and then replaces the file. Elsewhere the file goes to the
        view in `djpyfs.urls`, which takes the bytes as they are (PUT), once. When the file has
        arrived, give it its lifetime: ``fs.expire(target.path, …)``.

        Raises `InvalidName`, `InvalidLifetime`, `InvalidLimit` for ``max_bytes`` and
        ``content_types``, also those that S3 cannot bind, `fs.errors.NoURL` if `djpyfs.urls`
        is needed and not included, and `RecordStoreUnavailable`.
        """
        self.check()
        name = temporary_name(prefix, suffix)
        return upload_target(self._here, name, seconds, max_bytes, content_types)

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

        If the backend has no URLs of its own, or ``signed_urls`` is on, the URL is a signed link to
        the view in `djpyfs.urls`. The URL of an overdue file no longer works, or on S3 works for
        one more second.

        - ``timeout`` is in seconds, at least 1, or a `datetime.timedelta`; 0 or None means as long
          as the file lives, or an hour if the file has no deadline. It applies to URLs that stop
          working, and is cut at the file's own deadline, and on S3, with a warning, at 604800.
        - With ``download_as``, a file name, the browser saves the file under that name.
        - With ``max_downloads`` the URL is a signed link on every backend, and works for that many
          downloads. With ``confirm`` as well, a page with a button comes first, so that no mail
          scanner uses the link up.

        Raises `InvalidName`, `InvalidLifetime`, `InvalidLimit`, `fs.errors.NoURL` if
        `djpyfs.urls` is needed and not included, and `RecordStoreUnavailable` if the URL must end
        with its file.
        """
        self.check()
        seconds = addresses.timeout_of(timeout)
        entry = self._here.named(filename)
        if download_as is not None:
            check_file_name(download_as)
        if max_downloads is not None:
            return addresses.limited_url(
                self._here, entry, seconds, download_as, max_downloads, confirm
            )
        if confirm:
            raise InvalidLimit("confirm is True, but max_downloads is not given: give both")
        return addresses.urls_of(self._here, [entry], seconds, download_as)[entry]

    def get_urls(self, filenames: Iterable[str], timeout: Seconds | None = 0) -> dict[str, str]:
        """Return the URLs of many files by their names, in one round trip per shard::

            pictures = fs.get_urls(fs.listdir("/"))

        Arguments and errors are those of `get_url`.
        """
        self.check()
        seconds = addresses.timeout_of(timeout)
        entries = {name: self._here.named(name) for name in checked_names(filenames)}
        urls = addresses.urls_of(self._here, dict.fromkeys(entries.values()), seconds)
        return {name: urls[entry] for name, entry in entries.items()}

    def revoke_urls(self, filename: str) -> None:
        """Make every signed link to a file that was given out so far answer 404, for good.

        That includes those with ``max_downloads``; links that are given out from now on work. The
        file stays, and need not exist. Raises `InvalidName`, `RecordStoreUnavailable`, and
        `ConfigurationError` if the backend gives out URLs of its own, which nobody can revoke.
        """
        self.check()
        addresses.revoke(self._here, self._here.named(filename))

    # -- for async def views: each does in a thread what its namesake does

    aexpire = in_a_thread(expire)
    aexpire_at = in_a_thread(expire_at)
    aexpire_many = in_a_thread(expire_many)
    aexpiration = in_a_thread(expiration)
    aget_url = in_a_thread(get_url)
    aget_urls = in_a_thread(get_urls)
    aget_upload_url = in_a_thread(get_upload_url)
    arevoke_urls = in_a_thread(revoke_urls)

    @async_unsafe(BLOCKS)
    def check(self) -> None:
        """Raise `fs.errors.FilesystemClosed` if it is closed; whatever reads or writes calls this.

        In an event loop it raises `SynchronousOnlyOperation`, as Django's ORM does: a record store
        that hangs would stop every other request of the process.
        """
        super().check()

    # -- names

    def validatepath(self, path: str) -> str:
        """Return ``path`` absolute and normalized. Raises `InvalidName`."""
        super().check()  # this needs no I/O
        return abspath(self._here.path(path))

    # -- what is hidden

    def _seen(self, path: str) -> str:
        """Return a checked path that may be read."""
        self.check()
        checked = self._here.path(path)
        if self._here.hidden(checked):
            raise errors.ResourceNotFound(path)
        return checked

    def _read(self, path: str) -> str:
        """Return a checked path that is about to be read, and renew its deadline."""
        checked = self._seen(path)
        policy = self._here.policy_of(checked)
        if policy.renew_on_read and policy.default_ttl is not None:
            longest = policy.max_ttl or 0
            written = self._written_at(checked) if longest else 0
            if written is not None:
                member = self._here.at(checked).member
                deadline = self._here.records.renew(member, policy.default_ttl, written, longest)
                self._here.announce_at(checked, deadline)
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
        checked = self._here.path(path)
        return not self._here.hidden(checked) and self._files.exists(checked)

    def isdir(self, path: str) -> bool:
        """Return whether there is a directory."""
        self.check()
        return self._files.isdir(self._here.path(path))

    def isfile(self, path: str) -> bool:
        """Return whether there is a file."""
        self.check()
        checked = self._here.path(path)
        return not self._here.hidden(checked) and self._files.isfile(checked)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""
        self.check()
        directory = self._here.path(path)
        names = self._files.listdir(directory)
        hidden = self._here.hidden(*(combine(directory, name) for name in names))
        return [name for name in names if combine(directory, name) not in hidden]

    def scandir(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """Iterate over what is known of the entries of a directory."""
        return self._scan_found(self._here.path(path), namespaces, page)

    def _scan_found(
        self,
        path: str,
        namespaces: Collection[str] | None = None,
        page: tuple[int, int] | None = None,
    ) -> Iterator[Info]:
        """Do what `scandir` does for a directory that was listed, whatever its name is."""
        self.check()
        directory = path.lstrip("/")
        if not self._here.policy_in(directory).hide_expired:
            return self._files.scandir(directory, namespaces, page)
        infos = list(self._files.scandir(directory, namespaces))
        hidden = self._here.hidden(*(combine(directory, info.name) for info in infos))
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
            if self._transaction.is_move:
                meta["thread_safe"] = False  # other threads would copy, and know of no move
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

    def openbin(
        self,
        path: str,
        mode: str = "r",
        buffering: int = -1,
        *,
        part: range | None = None,
        etag: str | None = None,
        **options: Any,
    ) -> BinaryIO:
        """Open a file in binary mode; what is written appears when it is closed.

        Who reads may say which ``part`` in bytes, of the version with which ``etag``: a backend
        that `reads_parts <djpyfs.backends.Backend.reads_parts>` then fetches no more, and raises
        `FileReplaced` if there is another version now.
        """
        self.check()
        checked_mode = Mode(mode)
        checked_mode.validate_bin()
        if not checked_mode.writing:
            relative = self._read(path)
            if self._here.backend.reads_parts:
                options |= {"part": part, "etag": etag}
            file = self._files.openbin(relative, mode, buffering, **options)
            source = File(self._here, relative)
            return cast(BinaryIO, ReadFile(file, mode, source, self._transaction))
        relative = self._here.path(path)
        if self._here.hidden(relative):
            if not checked_mode.create:
                raise errors.ResourceNotFound(path)
            if checked_mode.exclusive:  # of all that find nothing there, one may make it
                delete_if_due(self.namespace, [self._here.full(relative)])
            mode = mode.replace("a", "w")  # nothing is added to an expired file
        return self._opened_to_write(relative, mode, buffering, **options)

    def _opened_to_write(
        self,
        path: str,
        mode: str,
        buffering: int = -1,
        *,
        life: int | None = None,
        new: bool = False,
        **options: Any,
    ) -> BinaryIO:
        """Open a file for writing, with a ``life`` of its own; a ``new`` one has a URL."""
        write = self._here.begin(path, life, NewWrite if new else Write)
        with write.abandoned_on_error():
            file = self._files.openbin(path, mode, buffering, **options)
        platform_mode, address = Mode(mode).to_platform_bin(), self._url_of if new else None
        written = WrittenFile(file, platform_mode, path, write, self._here.finish, address)
        return cast(BinaryIO, written)

    def _url_of(self, write: Write) -> str:
        url = addresses.url_of_new(self._here, write)
        if url is None:
            self.check()
            url = addresses.urls_of(self._here, [write.entry])[write.entry]
        return url

    def writebytes(self, path: str, contents: bytes) -> None:
        """Write ``contents`` to a file, replacing what was there."""
        if not isinstance(contents, bytes):
            raise TypeError("contents must be bytes")
        with self._writing(path) as (relative, _):
            self._files.writebytes(relative, contents)

    def writetext(
        self,
        path: str,
        contents: str,
        encoding: str = "utf-8",
        errors: str | None = None,
        newline: str = "",
    ) -> None:
        """Write ``contents`` to a file, replacing what was there, unless they cannot be encoded."""
        if not isinstance(contents, str):
            raise TypeError("contents must be str")
        with self.open(path, "w", encoding=encoding, errors=errors, newline=newline) as file:
            file.write(contents)

    def settext(self, *args: Any, **how: Any) -> None:
        """Do what `writetext` does; PyFilesystem has given up this name."""
        warn("settext is deprecated: call writetext", DeprecationWarning, stacklevel=2)
        self.writetext(*args, **how)

    def upload(
        self, path: str, file: BinaryIO, chunk_size: int | None = None, **options: Any
    ) -> None:
        """Write the rest of an open binary file to a file, replacing what was there."""
        source: object = file
        life = None
        if isinstance(source, ReadFile):
            if source.copied(File(self._here, self._here.path(path))):
                return
            life = source.life_of_copy()
        with self._writing(path, life) as (relative, _):
            self._files.upload(relative, file, chunk_size, **options)

    def copy(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Copy a file. The copy is a new file, without the deadline of the first."""
        destination, source = self._here.path(dst_path), self._seen(src_path)
        is_near = not self._files.getmeta().get("network")
        if overwrite and is_near and self._files.isdir(destination):
            raise errors.FileExpected(dst_path)  # OSFS would copy into it
        first = File(self._here, source)
        life = moves.life_of_moved(first) if self._transaction.is_move_within else None
        with self._writing(destination, life) as (_, write):
            # A file whose time was up did not stand in the way.
            hidden = self._here.policy_of(destination).hide_expired and write.starts_new_life
            self._files.copy(source, destination, overwrite or hidden, preserve_time)
        self._transaction.copied(first, File(self._here, destination))

    def move(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Move a file with its deadline, or with the fact that it was made permanent.

        A file with neither counts as a new one at its new place.
        """
        destination, source = self._here.path(dst_path), self._seen(src_path)
        self._here.check_removable(source)
        if self._files.getinfo(source).is_dir:
            raise errors.FileExpected(src_path)
        there = self.isfile(destination) if overwrite else self.exists(destination)
        if there and not overwrite:
            raise errors.DestinationExists(dst_path)
        if source == destination:
            return
        if not there and self.isdir(destination):  # some backends would put the file in its place
            raise errors.FileExpected(dst_path)
        self._here.check_writable(destination)
        moves.move(File(self._here, source), File(self._here, destination), there, preserve_time)

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
                self._here.path(path)
                self._here.path(moved)
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
    ) -> Any:
        """Make a directory and return it as a filesystem."""
        self.check()
        relative = self._here.path(path)
        self._files.makedir(relative, permissions, recreate)
        return ExpiringSubFS(self, relative)

    def makedirs(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> Any:
        """Make a directory and those above it, and return it as a filesystem."""
        self.check()
        relative = self._here.path(path)
        self._files.makedirs(relative, permissions, recreate)
        return ExpiringSubFS(self, relative)

    def setinfo(self, path: str, info: Any) -> None:
        """Set what can be set of a file, such as its times."""
        self.check()
        self._files.setinfo(self._here.path(path), info)

    def remove(self, path: str) -> None:
        """Remove a file and forget its deadline.

        Raises `MoveUnfinished` if `fs.move` does this and it is not known whether the file is gone.
        """
        self.check()
        file = File(self._here, self._here.path(path))
        with self._transaction.told_if_unfinished(file):
            if copy := self._transaction.copy_of(file):
                moves.remove_moved(file, copy)
                return
            with self._removing(path):
                self._files.remove(file.path)

    def removedir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._removing(path) as relative:
            self._files.removedir(relative)

    def removetree(self, dir_path: str) -> None:
        """Remove a directory with everything in it; of the root, only the contents.

        That includes files that others have put there under names that other calls refuse.
        """
        root = self.validatepath(dir_path)
        if self._here.policy_in(self._here.path(dir_path)).hold:
            raise NamespaceHeld(dir_path)
        with self.lock():
            # Not through our own listings: what is hidden must go as well.
            found = self._listed(root.lstrip("/"))
            while listed := list(islice(found, AT_A_TIME)):
                self._remove_all([path for path, is_dir in listed if not is_dir])
                self._remove_all([path for path, is_dir in listed if is_dir], are_dirs=True)
            if root != "/":
                with suppress(errors.ResourceNotFound, errors.DirectoryExpected):
                    self.removedir(root)

    def _listed(self, directory: str) -> Iterator[tuple[str, bool]]:
        """Yield what is below a directory, contents first, each with whether it is a directory."""
        # What Walker makes of each file takes twice as long as its removal.
        for info in self._files.scandir(directory):
            basic: Any = info.raw["basic"]
            path = f"{directory}/{basic['name']}" if directory else basic["name"]
            if basic["is_dir"]:
                yield from self._listed(path)
            yield path, basic["is_dir"]

    def _remove_all(self, paths: Sequence[str], are_dirs: bool = False) -> None:
        """Remove what a tree holds: together, except what somebody else has a claim on."""
        remove = self._remove_dirs if are_dirs else self._remove_files
        known, foreign, single = {}, [], []
        for path in paths:
            self._here.check_removable(path)
            if self._transaction.copy_of(File(self._here, path)):
                single.append(path)
                continue
            try:
                known[self._here.at(self._here.path(path)).member] = path
            except InvalidName:  # it has no record, and nobody writes to it through us
                foreign.append(path)
        remove(foreign)
        with Removal(self._here.records, list(known), self._here.backend.late) as removal:
            single += [known.pop(member) for member in removal.left_alone]
            remove(list(known.values()))
        for path in single:
            # A directory may end with its last file, on S3 or by a sweep. On S3 a file may have
            # the name of a directory.
            with suppress(errors.ResourceNotFound, errors.DirectoryExpected):
                self.removedir(path) if are_dirs else self.remove(path)

    def _remove_files(self, paths: Sequence[str]) -> None:
        self._here.backend.remove_all(self.namespace, list(map(self._here.full, paths)))

    def _remove_dirs(self, paths: Sequence[str]) -> None:
        for path in paths:
            with suppress(errors.ResourceNotFound, errors.DirectoryExpected):
                self._files.removedir(path)

    def opendir(self, path: str, factory: Callable[[Any, str], SubFS[Any]] | None = None) -> Any:
        """Return a directory as a filesystem whose files can expire too."""
        return super().opendir(path, factory or cast(Any, ExpiringSubFS))

    def lock(self) -> Any:
        """Lock the filesystem. What is copied and then removed under one lock has been moved."""
        return self._transaction

    @contextmanager
    def _writing(self, path: str, life: int | None = None) -> Iterator[tuple[str, Write]]:
        self.check()
        relative = self._here.path(path)
        write = self._here.begin(relative, life)
        with write.abandoned_on_error():
            yield relative, write
        self._here.finish(write, announces=life is None)  # else the end of the move does

    @contextmanager
    def _removing(self, path: str) -> Iterator[str]:
        """Hold the claim on a record while its file is removed, so that no write gets between."""
        self.check()
        relative = self._here.path(path)
        self._here.check_removable(relative)
        with self._here.reserve(relative) as reservation:
            yield relative
            reservation.forget()


class ExpiringSubFS(ExpiringFS):
    """A directory of an `ExpiringFS`, with the same methods and the same rules."""

    def __init__(self, above: ExpiringFS, path: str) -> None:
        super().__init__(above._here.within(above._here.path(path)))
        self._above = above
        self._transaction = above._transaction

    def isclosed(self) -> bool:
        """Return whether it is closed, or what it is a directory of."""
        return super().isclosed() or self._above.isclosed()


# By name only: what `SubFS` does with the paths that it is given is done here by `Namespace`.
ABCMeta.register(cast(ABCMeta, SubFS), ExpiringSubFS)
