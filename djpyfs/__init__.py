"""Files that expire, for Django."""

from . import _pkg_resources  # noqa: F401  must come before anything that imports fs
from .errors import (
    BackendUnavailable,
    ConfigurationError,
    DjpyfsError,
    FileBusy,
    FileReplaced,
    InvalidLifetime,
    InvalidLimit,
    InvalidName,
    LinkNotFollowed,
    MoveUnfinished,
    NamespaceHeld,
    NotAnswered,
    RecordStoreError,
    RecordStoreUnavailable,
    UnknownBackend,
    WriteLost,
)
from .filesystem import get_filesystem
from .sweeper import SweepReport, aexpire_objects, expire_objects

__all__ = [
    "BackendUnavailable",
    "ConfigurationError",
    "DjpyfsError",
    "FileBusy",
    "FileReplaced",
    "InvalidLifetime",
    "InvalidLimit",
    "InvalidName",
    "LinkNotFollowed",
    "MoveUnfinished",
    "NamespaceHeld",
    "NotAnswered",
    "RecordStoreError",
    "RecordStoreUnavailable",
    "SweepReport",
    "UnknownBackend",
    "WriteLost",
    "aexpire_objects",
    "expire_objects",
    "get_filesystem",
]
