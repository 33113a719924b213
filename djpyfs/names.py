"""What a namespace and a file name may be, and how both become the name of one record.

Whatever is refused here raises the same `InvalidName` from every call. What is accepted is
taken literally: nothing is ever expanded, decoded or folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from mimetypes import guess_type
from secrets import token_hex
from typing import NamedTuple

from fs.errors import IllegalBackReference
from fs.path import normpath

from .errors import InvalidName, NameNotText

SEGMENT_BYTES = 255  # NAME_MAX of ext4, XFS, APFS and NTFS
KEY_BYTES = 1024  # the longest key of an S3 object
# Beside the namespaces, for what a backend keeps for itself: no namespace begins with it.
RESERVED = ".djpyfs"

# C0, DEL and C1 controls, ends of lines, characters that reverse the direction of text and so make
# one name look like another, the backslash that some systems take for a separator, and what XML
# cannot hold: one such name would spoil a whole batch of deletions on S3.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
REFUSED_CHARACTERS = "".join(map(chr, (*_CONTROLS, *_DIRECTIONS, 0xFFFE, 0xFFFF))) + "\\"
_refused_character = re.compile(f"[{re.escape(REFUSED_CHARACTERS)}]")

# Most names are this plain, and need no second look.
_plain_segment = "[A-Za-z0-9_][A-Za-z0-9_.-]{,254}"
_is_plain = re.compile(f"{_plain_segment}(?:/{_plain_segment})*").fullmatch
_are_plain = re.compile(f"(?:{_plain_segment}(?:/{_plain_segment})+\n)*").fullmatch


class Entry(NamedTuple):
    """One file, under its name in one namespace; both names are checked and normalized.

    The same file may have another name in a namespace above or below: it has one record.
    """

    namespace: str
    path: str

    @property
    def directory(self) -> str:
        """The directory that the file is in, which is a namespace as well."""
        return f"{self.namespace}/{self.path}".rpartition("/")[0]

    @property
    def member(self) -> bytes:
        """The name of this file's record: ``namespace/path`` in UTF-8.

        A directory may list names that are not text; these have no record.
        """
        return f"{self.namespace}/{self.path}".encode(errors="surrogatepass")

    @classmethod
    def of_member(cls, member: bytes) -> Entry:
        """Read a record's name: the namespace is the whole directory of the file.

        Raises `InvalidName` if no file could have it.
        """
        try:
            namespace, slash, path = member.decode().rpartition("/")
        except UnicodeDecodeError:
            raise InvalidName(member, "is not the record of a file") from None
        if not slash or check_path(path) != path or not path:
            raise InvalidName(member, "is not the record of a file")
        return cls(check_namespace(namespace), path)


def plain_entries(members: Sequence[bytes]) -> list[Entry]:
    """Read the names of many records at once if all are plain; otherwise return none of them.

    One look at all costs a tenth of a look at each.
    """
    lines = b"\n".join([*members, b""]).decode(errors="replace")
    if not _are_plain(lines) or max(map(len, members), default=0) > KEY_BYTES:
        return []
    names = [name.rpartition("/") for name in lines.splitlines()]
    if len(names) != len(members):  # then one of them holds the end of a line
        return []
    return [Entry(namespace, path) for namespace, _, path in names]


def check_namespace(namespace: str) -> str:
    """Return ``namespace`` unchanged, or raise `InvalidName`.

    A namespace is a relative POSIX path: segments joined by ``/``, none of them empty, ``.`` or
    ``..``, each at most 255 bytes in UTF-8, without backslashes, control characters and those
    that reverse the direction of text.
    """
    if not isinstance(namespace, str):
        raise NameNotText(namespace, "is not a str: a namespace must be one")
    if len(namespace) <= KEY_BYTES and _is_plain(namespace):
        return namespace
    return _checked_namespace(namespace)


def check_path(path: str) -> str:
    """Return ``path`` normalized: relative, without ``.`` and ``..``; ``""`` is the root.

    The rules for a namespace apply to its segments. Raises `InvalidName`.
    """
    if not isinstance(path, str):
        raise NameNotText(path, "is not a str: a file name must be one")
    if len(path) <= KEY_BYTES and _is_plain(path):
        return path
    return _checked_path(path)


def check_file_name(name: str) -> str:
    """Return ``name`` unchanged; raise `InvalidName` unless it is one segment of a path."""
    if not check_path(name) or check_path(name) != name or "/" in name:
        raise InvalidName(name, "is not a file name without directories")
    return name


def checked_names(names: Iterable[str]) -> Iterable[str]:
    """Return ``names`` unchanged; raise `TypeError` for a single name, read as letters."""
    if isinstance(names, str | bytes):
        raise TypeError(f"filenames is {names!r}: give it a list of names")
    return names


def temporary_name(prefix: str, suffix: str) -> str:
    """Return a name of a file that nobody can guess. Raises `InvalidName`."""
    for part in prefix, suffix:
        if not isinstance(part, str):
            raise NameNotText(part, "is not a str: prefix and suffix must be")
    # Hexadecimal, for disks to which "a" and "A" are the same.
    return check_file_name(f"{prefix}{token_hex(16)}{suffix}")


def type_of(path: str) -> str | None:
    """Return the type that a file's name stands for; None also if that is then compressed."""
    # The slash keeps a name that looks like the address of a scheme from being read as one.
    type_, encoding = guess_type(f"/{path}")
    return None if encoding else type_


def without_refused_characters(name: str) -> str:
    """Return ``name`` without the characters that no name may contain."""
    return _refused_character.sub("", name.encode(errors="ignore").decode())


def check_length(path: str, *parts: str) -> None:
    """Raise `InvalidName` if ``parts`` joined by slashes exceed 1,024 bytes in UTF-8."""
    length = len("/".join(filter(None, parts)).encode())
    if length > KEY_BYTES:
        raise InvalidName(path, f"makes a key of {length} bytes: shorten it to {KEY_BYTES}")


@lru_cache(maxsize=4096)
def _checked_namespace(namespace: str) -> str:
    if not namespace:
        raise InvalidName(namespace, "is empty: a namespace needs a name")
    if namespace.partition("/")[0] == RESERVED:
        raise InvalidName(namespace, f"begins with {RESERVED!r}, which is kept for djpyfs itself")
    _check_segments(namespace, namespace.split("/"))
    return namespace


@lru_cache(maxsize=4096)
def _checked_path(path: str) -> str:
    try:
        normalized = normpath(path).strip("/")
    except IllegalBackReference:
        raise InvalidName(path, "leads out of its namespace") from None
    if normalized:
        _check_segments(path, normalized.split("/"))
    return normalized


def _check_segments(name: str, segments: list[str]) -> None:
    if found := _refused_character.search(name):
        raise InvalidName(name, f"holds {found.group()!a}, which no name may contain")
    try:
        lengths = [len(segment.encode()) for segment in segments]
    except UnicodeEncodeError:
        raise InvalidName(name, "holds a lone surrogate, which UTF-8 cannot write") from None
    for segment, length in zip(segments, lengths, strict=True):
        if segment in ("", ".", ".."):
            raise InvalidName(name, f"has the segment {segment!r}: give it a name")
        if length > SEGMENT_BYTES:
            raise InvalidName(name, f"has a segment of {length} bytes: {SEGMENT_BYTES} is the most")
    check_length(name, name)
