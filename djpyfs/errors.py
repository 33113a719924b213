"""The errors of djpyfs: a short family under one parent."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from fs.errors import (
    InvalidCharsInPath,
    OperationFailed,
    PermissionDenied,
    RemoteConnectionError,
)


def printable(text: str) -> str:
    """Return ``text`` without anything that could steer a terminal or end a line of a log."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def escaped(message: str) -> str:
    """Return a message for an error of PyFilesystem, which calls ``format`` on it."""
    return message.replace("{", "{{").replace("}", "}}")


BLOCKS = "This blocks: call its twin with an 'a' in front, or sync_to_async if it has none."


class DjpyfsError(Exception):
    """Every error that djpyfs itself raises is one of these."""


class _Failed(DjpyfsError, OperationFailed):
    """What failed for a reason that lies in no name and no file: the message says which."""

    def __init__(self, message: str) -> None:
        super().__init__(msg=escaped(message))

    def __reduce__(self) -> tuple[type[_Failed], tuple[str]]:
        return type(self), (str(self),)


class ConfigurationError(DjpyfsError, ImproperlyConfigured):
    """The ``DJFS`` setting, or a server that it names, does not fit; the message says the cure."""


class UnknownBackend(ConfigurationError, AttributeError):
    """``DJFS["type"]`` names no backend. (The ancestor raised AttributeError.)"""


class InvalidName(DjpyfsError, InvalidCharsInPath, ValueError):
    """A namespace or a file name that is refused, before anything was written.

    ``path`` is the name as it was given, ``reason`` says what is wrong with it.
    """

    def __init__(self, path: object, reason: str = "is refused") -> None:
        self.reason = reason
        super().__init__(path)  # type: ignore[arg-type]

    def __str__(self) -> str:
        # ascii() and the cut keep control characters and floods out of logs.
        shown = ascii(self.path)
        if len(shown) > 120:
            shown = f"{shown[:100]}… ({len(shown)} characters)"
        return f"{shown} {self.reason}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[type[InvalidName], tuple[object, str]]:
        return type(self), (self.path, self.reason)


class NameNotText(InvalidName, TypeError):
    """A namespace or a file name that is not a ``str``."""


class InvalidLifetime(DjpyfsError, ValueError):
    """A lifetime that is negative, too long, too short, or not a number."""


class NamespaceHeld(DjpyfsError, PermissionDenied):
    """Nothing in a namespace whose policy says ``hold`` may be removed."""

    default_message = "'{path}' stays: its namespace is on hold, see DJFS['namespaces']"


class LinkNotFollowed(DjpyfsError, PermissionDenied):
    """A symbolic link below ``directory_root``, or what lies behind one, may not be opened."""

    default_message = "'{path}' is a link or behind one, see DJFS['follow_symlinks']"


class InvalidLimit(DjpyfsError, ValueError):
    """A limit of a URL that is refused: its downloads, or the bytes or types of an upload."""


class FileBusy(_Failed):
    """A sweep holds the file for too long: one that hangs or died while it deleted it.

    On a store over a network its last request may still act, for half a minute.
    """


class WriteLost(DjpyfsError, OperationFailed):
    """A file was deleted while it was written, by a sweep that had every right to do so.

    That happens only if the process stood still for longer than `grace`, or the record store lost
    its data. The file can be written again.
    """

    default_message = "'{path}' was deleted while it was being written: write it again"


class FileReplaced(DjpyfsError, OperationFailed):
    """A file was replaced while it was read, or before: what was asked for is gone."""

    default_message = "'{path}' was replaced while it was being read: open it again"


class BackendUnavailable(_Failed, RemoteConnectionError):
    """The place where files are kept is away as a whole; that says nothing of a single file."""


class NotAnswered(DjpyfsError, RemoteConnectionError):
    """A request to where files are kept was sent and not answered: it may still be carried out."""


class MoveUnfinished(DjpyfsError, OSError):
    """A file was copied to be moved, and may be gone by now: the copy stays.

    This is no error of PyFilesystem, whose `fs.move` takes those as a sign that the file is still
    there, and removes the copy.
    """


class TableUnreadable(DjpyfsError):
    """The table of openedx-django-pyfs is not there, or cannot be read."""


class RecordStoreError(_Failed, OSError):
    """The record store refused a command."""


class RecordStoreUnavailable(RecordStoreError):
    """The record store cannot be reached, or did not answer in time.

    It is also raised if the replicas did not confirm a change, see ``wait_replicas``. A call that
    would have changed something may have done so: it can be repeated.
    """
