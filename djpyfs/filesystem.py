"""The filesystem that `get_filesystem` returns: a PyFilesystem whose files can expire.

`ExpiringFS` derives from `fs.base.FS` and not from `WrapFS`: there every short cut of
PyFilesystem ends in the few methods that are written out here, and so in the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from numbers import Real
from secrets import token_urlsafe
from time import monotonic
from typing import IO, Any, BinaryIO, NoReturn, TypeVar, cast

from fs import errors
from fs.base import FS
from fs.info import Info
from fs.iotools import RawWrapper
from fs.mode import Mode
from fs.path import abspath, combine, frombase, isparent, join
from fs.permissions import Permissions
from fs.subfs import SubFS
from fs.walk import Walker

from . import conf, links
from .backends import Backend, backend_for
from .conf import LONGEST_LIFE, SECOND
from .errors import InvalidLifetime, InvalidLimit, NamespaceHeld
from .expirations import ExpirationStore, Touch, store_for
from .names import (
    KEY_BYTES,
    REFUSED_CHARACTERS,
    Entry,
    check_file_name,
    check_length,
    check_namespace,
    check_path,
)
from .signals import deadline_set

# How long what has expired stays overdue while it is written anew: the longest pause between two
# writes to an open file. What a process that died had not finished goes then.
UNFINISHED = 3_600 * SECOND
DEFAULT_URL = 3_600  # s, for a file without a deadline
MOST_DOWNLOADS = 1_000_000_000
EPOCH = datetime.fromtimestamp(0, UTC)

_T = TypeVar("_T")
_F = TypeVar("_F", bound=FS)


def get_filesystem(namespace: str) -> ExpiringFS:
    """Return the filesystem of ``namespace``, as ``DJFS`` says.

    What lies below is opened once and shared; calling this again is cheap, and closing what it
    returned closes nothing that others use.

    Raises `InvalidName` for a namespace that is refused, `ConfigurationError` where ``DJFS``
    does not fit, `fs.errors.CreateFailed` where the namespace's directory cannot be made.
    """
    check_namespace(namespace)
    settings = conf.current()
    return ExpiringFS(namespace, backend_for(settings, namespace), store_for(settings), settings)


class ExpiringFS(FS):
    """A PyFilesystem with `expire`, `expire_many`, `expiration` and `get_url`.

    A rewrite keeps a file's deadline, or leaves it ``grace`` at the least; writing to a path
    that has expired starts a new life. `move` carries the deadline along, a copy is a new file,
    and what is removed is forgotten. There are no system paths: PyFilesystem would use them to
    go round these rules.
    """

    def __init__(
        self,
        namespace: str,
        backend: Backend,
        expirations: ExpirationStore,
        settings: conf.Settings,
    ) -> None:
        super().__init__()
        self.namespace = namespace
        self._backend = backend
        self._expirations = expirations
        self._settings = settings
        self._policy = settings.policy_for(namespace)
        self._files = backend.open(namespace)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.namespace!r})"

    def __str__(self) -> str:
        return f"<djpyfs {self.namespace!r}>"

    # -- life times and addresses

    def expire(
        self, filename: str, seconds: float = 0, days: float = 0, expires: bool = True
    ) -> None:
        """Set the deadline of a file to ``seconds`` + ``days`` from now, replacing an earlier one.

        With ``expires=False`` the file is permanent. It need not exist yet. Raises
        `InvalidName`, `InvalidLifetime` and `RecordStoreUnavailable`, before anything is stored.
        """
        ttl = self._ttl(seconds, days) if expires else self._permanent(seconds, days)
        entry = self._entry(filename)
        if ttl is None:
            self._expirations.cancel(entry.member)
        else:
            self._schedule([entry], ttl)

    def expire_many(self, filenames: Iterable[str], seconds: float = 0, days: float = 0) -> None:
        """Do what `expire` does for many files, in one round trip per shard."""
        ttl = self._ttl(seconds, days)
        if isinstance(filenames, str | bytes):
            raise TypeError(f"filenames is {filenames!r}: give it a list of names")
        if entries := list(dict.fromkeys(map(self._entry, filenames))):
            self._schedule(entries, ttl)

    def expiration(self, filename: str) -> datetime | None:
        """Return a file's deadline as an aware datetime (UTC), or None where it has none.

        For a file whose deletion is under way, or was given up, that is the present time.
        Raises `InvalidName` and `RecordStoreUnavailable`.
        """
        _, deadline = self._expirations.deadline(self._entry(filename).member)
        return EPOCH + timedelta(microseconds=deadline) if deadline else None

    def set_default_life(self, seconds: float) -> None:
        """Let new files written through this object live so long, as ``default_ttl`` would.

        Raises `InvalidLifetime`.
        """
        self._policy = replace(self._policy, default_ttl=self._ttl(seconds, 0))

    def get_url(
        self,
        filename: str,
        timeout: float = 0,
        *,
        download_as: str | None = None,
        max_downloads: int | None = None,
    ) -> str:
        """Return an address of a file that a browser can use; the file need not exist.

        Where the back-end has no address of its own to give, or ``signed_urls`` is on, it is a
        signed one of the view in `djpyfs.urls`. ``timeout`` is in seconds, at least 1 (S3: at most
        604800). It counts where addresses stop working, and is cut at the file's own deadline; 0
        means as long as the file lives, or an hour where it has no deadline. With ``download_as``,
        a file name, the browser saves the file under that name. With ``max_downloads`` it is a
        signed address on every back-end, and works for so many GET requests.

        Raises `InvalidName`, `InvalidLifetime`, `InvalidLimit`, `fs.errors.NoURL` where
        `djpyfs.urls` would be needed and is not included, `fs.errors.ResourceNotFound` where
        the address would outlive a file that is overdue, and `RecordStoreUnavailable` where an
        address must end with its file.
        """
        self.check()
        seconds = _seconds("timeout", timeout)
        entry = self._entry(filename)
        if download_as is not None:
            check_file_name(download_as)
        self._check_seen(entry.path)
        if max_downloads is not None:
            return self._limited_url(entry, seconds, download_as, max_downloads)
        if not self._policy.signed_urls:
            longest = self._backend.longest_url
            if longest is not None:
                now, end = self._life_of_url(entry, seconds, longest)
                return self._backend.url(*entry, (end - now) // SECOND, download_as)
            with suppress(errors.NoURL):
                return self._backend.url(*entry, None, download_as)
        _, end = self._life_of_url(entry, seconds, LONGEST_LIFE)
        return links.address(links.Link(*entry, end, download_as))

    def _limited_url(
        self, entry: Entry, timeout: float, download_as: str | None, downloads: int
    ) -> str:
        if isinstance(downloads, bool) or not isinstance(downloads, int):
            raise InvalidLimit(f"max_downloads is {downloads!r}: give it a whole number")
        if not 1 <= downloads <= MOST_DOWNLOADS:
            raise InvalidLimit(f"max_downloads is {downloads!r}: use 1 to {MOST_DOWNLOADS}")
        _, end = self._life_of_url(entry, timeout, LONGEST_LIFE)
        ticket = token_urlsafe(12)
        address = links.address(links.Link(*entry, end, download_as, ticket))
        self._expirations.issue_ticket(entry.member, ticket, downloads, end)
        return address

    def _life_of_url(self, entry: Entry, timeout: float, longest: int) -> tuple[int, int]:
        """Return the time now, and when an address of the file stops working."""
        if timeout and not 1 <= timeout <= longest:
            raise InvalidLifetime(f"timeout is {timeout!r} s: use 1 to {longest}, or 0")
        now, deadline = self._expirations.deadline(entry.member)
        end = now + round((timeout or (longest if deadline else DEFAULT_URL)) * SECOND)
        if not deadline:
            return now, end
        if deadline < now + SECOND:
            raise errors.ResourceNotFound(entry.path)
        return now, min(end, deadline)

    def _ttl(self, seconds: float, days: float) -> int:
        total = _seconds("seconds", seconds) + _seconds("days", days) * 86_400
        if total > LONGEST_LIFE:
            raise InvalidLifetime(f"a life of {total:g} s is too long: use {LONGEST_LIFE} at most")
        ttl, policy = round(total * SECOND), self._policy
        if policy.max_ttl is not None and ttl > policy.max_ttl:
            return policy.max_ttl if policy.clamp else self._refuse(ttl, "max_ttl", policy.max_ttl)
        if policy.min_ttl is not None and ttl < policy.min_ttl:
            return policy.min_ttl if policy.clamp else self._refuse(ttl, "min_ttl", policy.min_ttl)
        return ttl

    def _permanent(self, seconds: float, days: float) -> int | None:
        """Return None for no deadline, or the longest life where a file must have one."""
        _seconds("seconds", seconds), _seconds("days", days)
        most = self._policy.max_ttl
        return most if most is None or self._policy.clamp else self._refuse(None, "max_ttl", most)

    def _refuse(self, ttl: int | None, key: str, bound: int) -> NoReturn:
        life = "endless" if ttl is None else f"of {ttl / SECOND:g} s"
        raise InvalidLifetime(
            f"a life {life} is beyond DJFS[{key!r}] of {bound / SECOND:g} s "
            f"in {self.namespace!r}: choose another, or set 'clamp'"
        )

    def _schedule(self, entries: list[Entry], ttl: int) -> None:
        self.check()
        self._expirations.schedule([entry.member for entry in entries], ttl)
        self._announce(entries, ttl)

    def _announce(self, entries: list[Entry], ttl: int) -> None:
        if self._settings.one_shot:
            paths = [entry.path for entry in entries]
            deadline_set.send_robust(
                type(self), namespace=self.namespace, paths=paths, ttl=ttl / SECOND
            )

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
        """Return ``path`` absolute and normalised. Raises `InvalidName`."""
        self.check()
        return abspath(self._path(path))

    # -- what is hidden

    def _hidden(self, *paths: str) -> set[str]:
        """Return those of ``paths`` whose time is up, where the namespace hides them."""
        if not self._policy.hide_expired or not paths:
            return set()
        now, deadlines = self._expirations.deadlines([self._member(path) for path in paths])
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
        checked, policy = self._seen(path), self._policy
        if policy.renew_on_read and policy.default_ttl is not None:
            latest = self._latest(checked, policy.max_ttl) if policy.max_ttl else 0
            if latest is not None:
                self._expirations.renew(self._member(checked), policy.default_ttl, latest)
        return checked

    def _latest(self, path: str, longest: int) -> int | None:
        """Return when a file that lives for ``longest`` since it was written must go.

        None where the back-end does not tell when that was.
        """
        modified = self._files.getinfo(path, ["details"]).get("details", "modified")
        return None if modified is None else round(cast(float, modified) * SECOND) + longest

    # -- reading

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        """Return what is known of a file or directory."""
        return self._files.getinfo(self._seen(path), namespaces)

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or a directory."""
        self.check()
        checked = self._path(path)
        return not self._hidden(checked) and self._files.exists(checked)

    def isdir(self, path: str) -> bool:
        """Tell whether there is a directory."""
        self.check()
        return self._files.isdir(self._path(path))

    def isfile(self, path: str) -> bool:
        """Tell whether there is a file."""
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
        if not self._policy.hide_expired:
            return self._files.scandir(directory, namespaces, page)
        infos = list(self._files.scandir(directory, namespaces))
        hidden = self._hidden(*(combine(directory, info.name) for info in infos))
        seen = (info for info in infos if combine(directory, info.name) not in hidden)
        return islice(seen, *page) if page else seen

    def islink(self, path: str) -> bool:
        """Tell whether ``path`` is a symbolic link."""
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
            # The rules for names are ours, on every back-end.
            meta |= {"invalid_path_chars": REFUSED_CHARACTERS, "unicode_paths": True}
        return meta

    def geturl(self, path: str, purpose: str = "download") -> str:
        """Return `get_url` of the file, which is the PyFilesystem way to ask for it."""
        if purpose != "download":
            raise errors.NoURL(path, purpose)
        return self.get_url(path)

    # -- writing

    def openbin(self, path: str, mode: str = "r", buffering: int = -1, **options: Any) -> BinaryIO:
        """Open a file in binary mode. A write that lasts renews the deadline as it goes."""
        self.check()
        checked_mode = Mode(mode)
        checked_mode.validate_bin()
        relative = self._path(path)
        if self._hidden(relative):
            if not checked_mode.create:
                raise errors.ResourceNotFound(path)
            mode = mode.replace("a", "w").replace("x", "w")  # what is over is not added to
        if not (checked_mode.writing or checked_mode.appending):
            return self._files.openbin(self._read(path), mode, buffering, **options)
        write = _Write(self, relative)
        with write.undone_on_error():
            file = self._files.openbin(relative, mode, buffering, **options)
        return cast(BinaryIO, _WrittenFile(file, checked_mode.to_platform_bin(), relative, write))

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
        with self._writing(path) as (relative, write):
            source = cast(BinaryIO, _Source(file, write.renew))
            self._files.upload(relative, source, chunk_size, **options)

    def copy(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Copy a file. The copy is a new file, without the deadline of the first."""
        source = self._seen(src_path)
        if overwrite and source == self._path(dst_path):  # the write would empty what it reads
            if self.getinfo(source).is_dir:
                raise errors.FileExpected(src_path)
            return
        with self._writing(dst_path) as (destination, write):
            # A file whose time was up did not stand in the way.
            replaces = overwrite or (self._policy.hide_expired and write.began_anew)
            self._files.copy(source, destination, replaces, preserve_time)

    def move(
        self, src_path: str, dst_path: str, overwrite: bool = False, preserve_time: bool = False
    ) -> None:
        """Move a file, and its deadline with it."""
        source, destination = self._seen(src_path), self._path(dst_path)
        self._check_removable(src_path)
        # For a moment the destination has the source's deadline, so it must be known to yield.
        if self.getinfo(source).is_dir:
            raise errors.FileExpected(src_path)
        there = self.isfile(destination) if overwrite else self.exists(destination)
        if there and not overwrite:
            raise errors.DestinationExists(dst_path)
        if source == destination:
            return
        # While the file moves both names have its record: a crash may leave one too many. Neither
        # is due meanwhile, or a sweep might forget the file between the two.
        old, new = self._member(source), self._member(destination)
        deadline, had, replaced = self._expirations.carry(old, new, self._settings.grace)
        if replaced and not deadline:
            self._make_room(destination)
        try:
            self._files.move(source, destination, True, preserve_time)
        except BaseException:
            # Many a back-end copies and then removes: what was copied must not stay for ever.
            copied = not (there or replaced) and self._is_surely_file(destination)
            self._put_back(new, had if copied else replaced, deadline)
            self._put_back(old, had, deadline)
            raise
        if deadline:
            self._expirations.cancel(old, deadline)
            self._put_back(new, had, deadline)

    def _make_room(self, path: str) -> None:
        """Remove a file with its deadline, under which nothing permanent must lie at any time."""
        with self._removing(path) as relative, suppress(errors.ResourceNotFound):
            self._files.remove(relative)

    def _is_surely_file(self, path: str) -> bool:
        try:
            return self._files.isfile(path)
        except errors.FSError:
            return False

    def _put_back(self, member: bytes, before: int, now: int) -> None:
        """Give a member the deadline that it had before, if it is still the one of now."""
        if before == now:
            return
        if before:
            self._expirations.place(member, before, expected=now)
        elif now:
            self._expirations.cancel(member, now)

    def movedir(
        self, src_path: str, dst_path: str, create: bool = False, preserve_time: bool = False
    ) -> None:
        """Move the contents of a directory, each file with its deadline."""
        source, destination = self.validatepath(src_path), self.validatepath(dst_path)
        if isparent(source, destination):
            raise errors.OperationFailed(dst_path, msg="a directory cannot move into itself")
        with self._lock:
            if not create and not self.exists(destination):
                raise errors.ResourceNotFound(dst_path)
            if not self.getinfo(source).is_dir:
                raise errors.DirectoryExpected(src_path)
            self.makedir(destination, recreate=True)
            emptied = [source]
            for path, info in list(self.walk.info(source)):
                moved = join(destination, frombase(source, path).lstrip("/"))
                if info.is_dir:
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
        with self._removing(path) as relative:
            self._files.remove(relative)

    def removedir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._removing(path) as relative:
            self._files.removedir(relative)

    def removetree(self, dir_path: str) -> None:
        """Remove a directory with all that is in it; of the root, only the contents."""
        root = self.validatepath(dir_path)
        self._check_removable(dir_path)
        with self._lock:
            # Not through our own listings: what is hidden must go as well.
            for path, info in Walker(search="depth").info(self._files, root):
                # A directory may end with its last file, on S3 or by a sweep.
                with suppress(errors.ResourceNotFound):
                    self.removedir(path) if info.is_dir else self.remove(path)
            if root != "/":
                with suppress(errors.ResourceNotFound):
                    self.removedir(root)

    def opendir(self, path: str, factory: Callable[[Any, str], SubFS[Any]] | None = None) -> Any:
        """Return a directory as a filesystem whose files can expire too."""
        return super().opendir(path, factory or ExpiringSubFS)

    @contextmanager
    def _writing(self, path: str) -> Iterator[tuple[str, _Write]]:
        self.check()
        relative = self._path(path)
        write = _Write(self, relative)
        with write.undone_on_error():
            yield relative, write
        write.finish()

    @contextmanager
    def _removing(self, path: str) -> Iterator[str]:
        """Hold the claim on a record while its file is removed, so that no write gets between."""
        self.check()
        relative = self._path(path)
        self._check_removable(path)
        member = self._member(relative)
        claim = self._expirations.reserve(member, self._settings.lease)
        try:
            yield relative
        except BaseException:
            if claim.token:
                self._expirations.place(member, claim.deadline, claim.token)
            raise
        if claim.token:
            self._expirations.acknowledge(member, claim.token)

    def _check_removable(self, path: str) -> None:
        if self._policy.hold:
            raise NamespaceHeld(path)


class _Write:
    """One write to one file, from before its first byte until after its last."""

    def __init__(self, fs: ExpiringFS, path: str) -> None:
        self._fs = fs
        self._entry = Entry(fs.namespace, path)
        self._member = self._entry.member
        self._default_ttl = fs._policy.default_ttl
        self._before = self._deadline = self._registered = 0
        self._undone = False
        first = self._touch()
        self.began_anew = bool(first.before and (first.by_default or first.unfinished))

    def _touch(self, unfinished: int = UNFINISHED) -> Touch:
        touch = self._fs._expirations.touch(
            self._member, self._fs._settings.grace, self._default_ttl, self._registered, unfinished
        )
        if touch.before != self._deadline:  # somebody has set it since
            self._before = touch.before
        if not touch.by_default:  # then the deadline is not ours to move, now and from here on
            self._default_ttl = None
        self._deadline, self._touched = touch.deadline, monotonic()
        self._registered = 0 if touch.unfinished else touch.deadline
        return touch

    def renew(self, part_of_grace: float = 0.5) -> None:
        """Touch the record again where that part of the grace has passed."""
        longest = self._fs._settings.grace / SECOND * part_of_grace
        if monotonic() - self._touched > longest and not self._undone:
            self._touch()

    def finish(self) -> None:
        """Start the default life, where there is one, or the new one, at the end of the write."""
        if self._undone:
            return
        ttl = self._default_ttl
        if ttl is not None:
            if self._touch().by_default:
                self._fs._announce([self._entry], ttl)
        elif self.began_anew:
            self._touch(unfinished=0)

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Put the record back as it was where the write comes to nothing."""
        try:
            yield
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Put the record back as it was."""
        self._undone = True
        self._fs._put_back(self._member, self._before, self._deadline)


class _WrittenFile(RawWrapper):
    """An open file that keeps its own deadline away while it is written to."""

    def __init__(self, file: BinaryIO, mode: str, name: str, write: _Write) -> None:
        super().__init__(file, mode=mode, name=name)
        self._write = write

    def write(self, data: Any) -> int:
        self._write.renew()
        return self._attempt(super().write, data)

    def writelines(self, lines: Iterable[Any]) -> None:
        self._write.renew()
        self._attempt(super().writelines, lines)

    def truncate(self, size: int | None = None) -> int:
        self._write.renew()
        return self._attempt(super().truncate, size)

    def flush(self) -> None:
        self._attempt(super().flush)

    def close(self) -> None:
        if not self.closed:
            # What is kept elsewhere goes there only now.
            self._write.renew(part_of_grace=0.1)
            with self._write.undone_on_error(), closing(self._f):
                super().close()
            self._write.finish()

    def _attempt(self, act: Callable[..., _T], *arguments: Any) -> _T:
        try:
            return act(*arguments)
        except OSError:
            # Here and not at the end: PyFilesystem closes no file whose last flush has failed.
            self._write.undo()
            raise


class _Source:
    """An open file that renews a deadline as it is read."""

    def __init__(self, file: IO[bytes], renew: Callable[[], None]) -> None:
        self._file = file
        self._renew = renew

    def read(self, size: int = -1) -> bytes:
        self._renew()
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class ExpiringSubFS(SubFS[FS]):
    """A directory of an `ExpiringFS`, with the same methods and the same rules."""

    def delegate_path(self, path: str) -> tuple[Any, str]:
        """Translate a path; what is refused above is refused here."""
        return self._wrap_fs, join(self._sub_dir, check_path(path))

    def expire(
        self, filename: str, seconds: float = 0, days: float = 0, expires: bool = True
    ) -> None:
        """See `ExpiringFS.expire`."""
        fs, path = self.delegate_path(filename)
        fs.expire(path, seconds, days, expires)

    def expire_many(self, filenames: Iterable[str], seconds: float = 0, days: float = 0) -> None:
        """See `ExpiringFS.expire_many`."""
        if isinstance(filenames, str | bytes):
            raise TypeError(f"filenames is {filenames!r}: give it a list of names")
        fs: Any = self.delegate_fs()
        fs.expire_many([self.delegate_path(name)[1] for name in filenames], seconds, days)

    def expiration(self, filename: str) -> datetime | None:
        """See `ExpiringFS.expiration`."""
        fs, path = self.delegate_path(filename)
        return cast("datetime | None", fs.expiration(path))

    def get_url(
        self,
        filename: str,
        timeout: float = 0,
        *,
        download_as: str | None = None,
        max_downloads: int | None = None,
    ) -> str:
        """See `ExpiringFS.get_url`."""
        fs, path = self.delegate_path(filename)
        url = fs.get_url(path, timeout, download_as=download_as, max_downloads=max_downloads)
        return cast(str, url)

    def opendir(self, path: str, factory: Callable[[Any, str], SubFS[Any]] | None = None) -> Any:
        """Return a directory of this directory."""
        return super().opendir(path, factory or ExpiringSubFS)


def _seconds(name: str, value: Any) -> float:
    # Real alone would do, but to ask an abstract class costs a microsecond.
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise InvalidLifetime(f"{name} is {value!r}: give it a number")
    number: Any = value
    if not 0 <= number <= LONGEST_LIFE:  # so is neither NaN nor infinite
        raise InvalidLifetime(f"{name} is {value!r}: use 0 to {LONGEST_LIFE}")
    return float(number)
