"""Where files are kept. One backend serves all the namespaces that share its options."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from hashlib import sha256
from typing import Any, ClassVar, NamedTuple, Protocol

from django.core.checks import CheckMessage
from django.utils.module_loading import import_string
from django.views.debug import SafeExceptionReporterFilter
from fs.base import FS
from fs.errors import CreateFailed, RemoteConnectionError, ResourceNotFound

from ..conf import KEYS, Placement, Settings
from ..errors import BackendUnavailable, ConfigurationError, UnknownBackend, printable
from ..names import Entry
from ..registry import Registry

# Seconds after which no server on the way still carries out a deletion. nginx and the load
# balancers of clouds give up after 60 s; the store has dropped it by then.
LATE = 30.0
BUILT_IN = {
    "osfs": "djpyfs.backends.osfs.DiskBackend",
    "s3fs": "djpyfs.backends.s3.S3Backend",
    "memory": "djpyfs.backends.memory.MemoryBackend",
    "opener": "djpyfs.backends.opener.OpenerBackend",
    "fsspec": "djpyfs.backends.fsspec.FsspecBackend",
    "storage": "djpyfs.backends.storage.StorageBackend",
}
OPEN_FILESYSTEMS = 1024
NEAR = 0.8  # "region_name" is 0.7 like "region", and "leese" 0.8 like "lease"
AWAY = (BackendUnavailable, CreateFailed, RemoteConnectionError, ConnectionError, TimeoutError)


class Bucket(Protocol):
    """A store that deletes by itself, by rules about the prefix and the age of its keys."""

    #: The same for all backends that share its rules.
    address: str
    #: Days for which it keeps old versions, if it keeps any; None: forever.
    noncurrent_days: int | None
    #: The origins of pages from which browsers send files to it.
    upload_origins: Sequence[str]

    def lifecycle(self) -> Mapping[str, Any]:
        """Return its ``Rules``, as S3 has them, and what else is set with them.

        Raises `fs.errors.FSError`.
        """

    def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        """Replace what `lifecycle` returns, all of it. Raises `fs.errors.FSError`."""

    def cors(self) -> Sequence[Mapping[str, Any]]:
        """Return its CORS rules, as S3 has them. Raises `fs.errors.FSError`."""

    def set_cors(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace its CORS rules, all of them. Raises `fs.errors.FSError`."""


class UploadForm(NamedTuple):
    """A form by which a browser sends a file to the store itself, as its last field."""

    url: str
    fields: Mapping[str, str]


class Lease(Protocol):
    """The time for which a sweep alone may delete what it has claimed."""

    def remaining(self) -> float:
        """Return the seconds left; from 0 on nothing may be deleted any more."""

    @property
    def mark(self) -> int | None:
        """What `Backend.mark` said before the claim was asked for."""


@dataclass
class Outcome:
    """What happened to a batch. An entry that is in no list was not attempted."""

    deleted: list[Entry] = field(default_factory=list)
    missing: list[Entry] = field(default_factory=list)
    failed: list[tuple[Entry, str]] = field(default_factory=list)
    #: What stays because the backend as a whole is away, and the error that says so. No attempt
    #: is counted, however often it is retried.
    away: list[tuple[Entry, str]] = field(default_factory=list)
    #: What was asked for and not answered, and the error that says so: it may still be deleted,
    #: so its claim lasts until that can no longer happen.
    unanswered: list[tuple[Entry, str]] = field(default_factory=list)
    #: Whether the store has asked for fewer deletions, and no single file is the reason.
    slow_down: bool = False

    def add(self, other: Outcome) -> None:
        """Add what became of other entries."""
        for fate in ("deleted", "missing", "failed", "away", "unanswered"):
            getattr(self, fate).extend(getattr(other, fate))
        self.slow_down |= other.slow_down


class Backend(ABC):
    """The base of every backend; threads share one instance.

    It is made from the ``DJFS`` keys that ``options`` lists, and raises `ConfigurationError` if
    they do not fit. It only ever sees checked names.
    """

    options: ClassVar[frozenset[str]] = frozenset()
    #: Seconds for which an address from `url` works; None: for good.
    longest_url: ClassVar[int | None] = None

    #: False if another process finds other files.
    shared: bool = True
    #: Whether its store may ask for fewer deletions, see `Outcome.slow_down`.
    throttles: ClassVar[bool] = False
    #: How many files `delete` can delete with one request.
    files_per_request: ClassVar[int] = 1
    #: Whether `upload_form` returns forms; if so, `was_uploaded` is needed too.
    takes_uploads: ClassVar[bool] = False
    #: How many calls of `delete` a sweep may make at a time, each in a thread of its own. Where
    #: one takes long because it waits, more of them end sooner.
    deletions_at_once: ClassVar[int] = 1
    #: Seconds for which a deletion may act after the lease was looked at: its request is under
    #: way, or its process is frozen. Writers wait that much longer for a sweeper that died. 0 only
    #: if nothing newer can go by then, because a deletion looks at the file itself, or `fence`
    #: waits for it, or nobody else has the files.
    late: float = LATE
    #: Whether a write that fails may leave a part of the file, which then has its deadline.
    leaves_parts: ClassVar[bool] = True
    #: Whether ``openbin`` of its filesystems, to read, takes a ``part`` (a range of bytes) and an
    #: ``etag``; either may be None. It need fetch no more than the part, and raises `FileReplaced`
    #: if the file is another version by now.
    reads_parts: ClassVar[bool] = False
    #: What stands before a namespace in the key of a file, for the limit of 1,024 bytes.
    prefix: str = ""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._given = options
        self.open = lru_cache(maxsize=OPEN_FILESYSTEMS)(self.make_filesystem)

    @classmethod
    def at(cls, options: Mapping[str, Any]) -> Backend:
        """Return a backend for ``options``, perhaps of another class that is made for them.

        Raises `ConfigurationError`.
        """
        return cls(options)

    @abstractmethod
    def make_filesystem(self, namespace: str) -> FS:
        """Return a new PyFilesystem with the files of ``namespace``; `open` keeps it.

        For ``""`` it holds all namespaces, each as a directory: an audit walks through it.

        A file that it opens for writing may have a method ``discard()``, after which closing it
        stores nothing and ``discarded`` is true. It is called when a ``with`` block raises; without
        it, what the block wrote is stored, with the deadline of the file.
        """

    @abstractmethod
    def url(
        self, namespace: str, path: str, lifetime: int | None, download_as: str | None = None
    ) -> str:
        """Return a URL for the browser.

        ``lifetime`` is in whole seconds, 1 to `longest_url`, or None if that is None. The browser
        saves the file as ``download_as``, a checked file name. Raises `fs.errors.NoURL` if there
        is no such URL; a signed link then takes its place.
        """

    def handover(self, namespace: str, path: str) -> dict[str, str]:
        """Return the headers that make the web server in front send a file; {}: it cannot."""
        return {}

    def redirect(
        self, namespace: str, path: str, lifetime: int, headers: Mapping[str, str]
    ) -> str | None:
        """Return a URL to which a signed link redirects; None: its file goes through the site.

        It is for one download, works for no more than ``lifetime`` seconds, and answers with
        these ``headers``, the type and the disposition of the file.
        """
        return None

    def upload_form(
        self,
        namespace: str,
        path: str,
        lifetime: int,
        max_bytes: int,
        content_types: Sequence[str],
    ) -> UploadForm | None:
        """Return a form that sends a file to the store; None: it goes through the site.

        The store takes it for ``lifetime`` seconds, 1 to `longest_url`, and refuses what is longer
        than ``max_bytes``, or of none of the ``content_types`` if there are any. Raises
        `InvalidLimit` for what the store cannot bind, and `fs.errors.NoURL` if nothing can be
        signed.
        """
        return None

    def was_uploaded(self, entry: Entry) -> bool:
        """Return whether there is a file that a form of `upload_form` sent there.

        A sweep asks after an address has ended, and gives such a file a deadline if it has none.
        """
        return False

    def mark(self) -> int | None:
        """Return a mark that tells present files from later ones; None: there is none.

        `delete` leaves alone what is newer than the mark of its ``lease``.
        """
        return None

    def parts(self, entries: Sequence[Entry]) -> Sequence[Sequence[Entry]]:
        """Split what a sweep has claimed into what it gives to `delete`, at once or in turn."""
        size = max(self.files_per_request, -(-len(entries) // self.deletions_at_once))
        return [entries[first : first + size] for first in range(0, len(entries), size)]

    def tidy(self) -> None:  # noqa: B027  not every backend leaves something
        """Clear away what writers that died have left; a sweep that has deleted calls it."""

    def delete(self, entries: Sequence[Entry], lease: Lease) -> Outcome:
        """Delete files of any number of namespaces while ``lease`` lasts.

        Raises `BackendUnavailable`, or another error that `is_away` knows, if none can be deleted
        because the backend as a whole is away.
        """
        outcome = Outcome()
        for number, entry in enumerate(entries):
            if lease.remaining() <= 0:
                break
            try:
                self.delete_one(entry)
            except ResourceNotFound:
                outcome.missing.append(entry)
            except Exception as error:  # one bad file must not stop the others
                away = is_away(error) and not self.answers()
                self._unsettled(outcome, error, away).append((entry, reason(error)))
                if away:
                    outcome.away += [(left, reason(error)) for left in entries[number + 1 :]]
                    break
            else:
                outcome.deleted.append(entry)
        if outcome.missing and not self.is_there():
            outcome.away += [(entry, "its root is not there") for entry in outcome.missing]
            outcome.missing = []
        return outcome

    def _unsettled(self, outcome: Outcome, error: Exception, away: bool) -> list[tuple[Entry, str]]:
        """Return where an entry belongs whose deletion has ended in ``error``."""
        if self.late and may_act(error):
            return outcome.unanswered
        return outcome.away if away else outcome.failed

    def delete_one(self, entry: Entry) -> None:
        """Delete a file; no directory is made for it. Raises `fs.errors.ResourceNotFound`."""
        files, path = self.reach(entry)
        files.remove(path)

    def remove_all(self, namespace: str, paths: Sequence[str]) -> None:
        """Remove files of a namespace; a missing one is no error.

        Raises `fs.errors.FSError` if one stays; others may be gone by then.
        """
        files = self.open(namespace)
        for path in paths:
            with suppress(ResourceNotFound):
                files.remove(path)

    def reach(self, entry: Entry) -> tuple[FS, str]:
        """Return a filesystem and the path by which it knows a file.

        It is that of the topmost namespace: there are few of these, and one is there if the file
        is. Raises `fs.errors.ResourceNotFound` if it is not.
        """
        namespace, _, path = "/".join(entry).partition("/")
        if not self.has(namespace):
            raise ResourceNotFound(path)
        return self.open(namespace), path

    def size(self, entry: Entry) -> int | None:
        """Return a file's size in bytes, 0 if it is missing; None if that would cost a request."""
        return None

    def bucket(self) -> Bucket | None:
        """Return the bucket that holds the files, if there is one."""
        return None

    def has(self, namespace: str) -> bool:
        """Return whether there may be files in a namespace, without making its directory."""
        return True

    def is_there(self) -> bool:
        """Return whether a file that is not found counts as gone."""
        return True

    def place(self, make: bool = False) -> str:
        """Return the identity of where the files are, on which all processes and hosts agree.

        A record names it, and only a process that knows that place touches the record. Two
        backends return the same if and only if they have the same files. A caller that writes
        may ``make`` the place. Raises `BackendUnavailable` if it is not there, such as a disk
        that is not mounted.
        """
        return place_id(*(self.roots() or (_class_path(type(self)), described(self._given))))

    def answers(self) -> bool:
        """Return whether the backend as a whole can delete files at the moment.

        This is asked after a deletion got no answer, or was refused for a whole batch: if the
        backend can, the trouble is with one of the files.
        """
        return self.is_there()

    def fence(self, entry: Entry) -> None:  # noqa: B027  not every backend has to wait
        """Wait until no sweeper whose claim has lapsed can still delete a file.

        Raises `FileBusy` if that takes too long. A backend that cannot tell a frozen sweeper from
        a dead one has nothing to wait for, and relies on `late`.
        """

    def roots(self) -> Sequence[str]:
        """Return the roots that it writes to, as paths or URLs without anything secret.

        They are for finding two that overlap; return none if that cannot be known.
        """
        return ()

    def checks(self) -> list[CheckMessage]:
        """Return what Django's system checks report, without writing or using a network."""
        return []

    def deploy_checks(self) -> list[CheckMessage]:
        """Return what ``check --deploy`` reports; this may ask over a network, and try to write."""
        return []

    def close(self) -> None:
        """Release what the backend holds."""
        self.open.cache_clear()


@lru_cache  # each call of a view asks for one
def place_id(*parts: str) -> str:
    """Return a short identity for the place that ``parts`` tell apart from all others."""
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def described(options: Mapping[str, Any]) -> str:
    """Return ``options`` as a string that is the same in all processes, without secrets."""
    shown = SafeExceptionReporterFilter().cleanse_setting("", dict(options))
    return repr(_plain(shown))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((str(key), _plain(under)) for key, under in value.items())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | int | float | os.PathLike):
        return str(value)
    return _class_path(type(value))  # whose repr() may have an address in memory


def _class_path(class_: type) -> str:
    return f"{class_.__module__}.{class_.__qualname__}"


def size_told(lstat: Callable[[], os.stat_result]) -> int | None:
    """Return the size that ``lstat`` reports: 0 if there is no file, None if it fails."""
    try:
        return lstat().st_size
    except FileNotFoundError:
        return 0
    except OSError:
        return None


def reason(error: Exception) -> str:
    """Return ``error`` in one line, for the record of a deletion that failed."""
    return printable(f"{type(error).__name__}: {error}".replace("\n", " "))[:500]


def is_away(error: BaseException) -> bool:
    """Return whether ``error``, or its cause, may mean that the backend is away."""
    return any(isinstance(cause, AWAY) for cause in _causes(error))


def may_act(error: BaseException) -> bool:
    """Return whether the request that ended in ``error`` may still be carried out."""
    refused = (ConnectionRefusedError, CreateFailed, BackendUnavailable)
    return is_away(error) and not any(isinstance(cause, refused) for cause in _causes(error))


def timed_out(error: BaseException) -> bool:
    """Return whether ``error``, or its cause, is an answer that did not come in time."""
    return any(isinstance(cause, TimeoutError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: libraries wrap the system's errors in their own."""
    while error is not None:
        yield error
        inner = error.exc if isinstance(error, CreateFailed) else error.__cause__
        error = inner or (None if error.__suppress_context__ else error.__context__)


def backend_class(type_: str) -> type[Backend]:
    """Return the class that a ``type`` of the settings names. Raises `UnknownBackend`."""
    try:
        found = import_string(BUILT_IN.get(type_, type_))
    except (ImportError, TypeError, ValueError) as error:  # as for "../x"
        known = ", ".join(BUILT_IN)
        raise UnknownBackend(
            f"DJFS['type'] is {type_!r}: use one of {known}, or the dotted path of a backend"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise UnknownBackend(f"DJFS['type'] is {type_!r}, which is not a subclass of Backend")
    return found


_backends = Registry[Placement, Backend]()
fresh, close_all = _backends.fresh, _backends.close_all


def backend_for(settings: Settings, namespace: str) -> Backend:
    """Return the backend for a namespace, the same one for the same options.

    Raises `UnknownBackend`, or `ConfigurationError` for options that do not fit.
    """
    return backend_at(settings, settings.policy_for(namespace).placement)


def backend_at(settings: Settings, placement: Placement) -> Backend:
    """Return the backend for a placement; raises as `backend_for` does."""
    return _backends.get(placement, lambda: _made(settings, placement))


def _made(settings: Settings, placement: Placement) -> Backend:
    foreign_keys(settings)
    cls, given = backend_class(placement.type), placement.options
    try:
        return cls.at({key: given[key] for key in cls.options if key in given})
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"DJFS has a value that the backend {placement.type!r} cannot take: correct it "
            f"({reason(error)})"
        ) from error


@lru_cache(maxsize=16)  # each sweep asks
def foreign_keys(settings: Settings) -> Sequence[str]:
    """Return the keys in ``DJFS`` that mean nothing to djpyfs, nor to any backend in use.

    Raises `ConfigurationError` for one so close to a known one that it must be a typo.
    """
    known, given = set(KEYS), {key for place in settings.placements for key in place.options}
    for type_ in (*(place.type for place in settings.placements), *BUILT_IN):
        if given <= known:  # so that boto3 is not imported just to know its keys
            return []
        with suppress(UnknownBackend):  # which is reported when it is used
            known |= backend_class(type_).options
    foreign = sorted(map(str, given - known))
    for key in foreign:
        if near := get_close_matches(key.lower(), known, n=1, cutoff=NEAR):
            raise ConfigurationError(f"DJFS has an unknown key {key!r}: did you mean {near[0]!r}?")
    return foreign
