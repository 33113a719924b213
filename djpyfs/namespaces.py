"""What holds for the files of a namespace: their names, their records and their policies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from typing import cast

from fs import errors
from fs.base import FS
from fs.subfs import SubFS

from .backends import Backend, backend_at
from .conf import SECOND, Policy, Settings
from .errors import BackendUnavailable, InvalidName, NamespaceHeld
from .expirations import Expirations
from .lifetimes import Lifetimes
from .names import KEY_BYTES, Entry, check_length, check_path
from .places import records_of
from .signals import deadline_set
from .writes import Reservation, Write


class Namespace:
    """A namespace, or a directory in one. All paths are relative to it; `path` checks them.

    ``name`` is the name of the namespace in either case. Links, signals and calls of the backend
    use that name, and the path of a file from there.
    """

    def __init__(self, name: str, backend: Backend, settings: Settings) -> None:
        self.name = name
        self.backend = backend
        self.settings = settings
        #: What the backend has there, without records.
        self.files: FS = backend.open(name)
        #: Of new files, in µs; None: that of the policy.
        self.default_life: int | None = None
        #: Its name, with that of the directory.
        self.directory = name
        self._prefix = ""  # which makes a path here one of the namespace
        self._before = backend.prefix + name  # what stands before a path in a key, but slashes

    def within(self, path: str) -> Namespace:
        """Return a directory."""
        own = copy(self)
        own.files = SubFS(self.files, path)
        own.directory = self.directory + (path and f"/{path}")
        own._prefix = self._prefix + (path and f"{path}/")
        own._before = self._before + (path and f"/{path}")
        return own

    # -- names

    def path(self, path: str) -> str:
        """Return a path checked and normalized. Raises `InvalidName`."""
        checked = check_path(path)
        if 4 * (len(checked) + len(self._before)) > KEY_BYTES:
            check_length(path, self.backend.prefix, self.directory, checked)
        return checked

    def named(self, filename: str) -> Entry:
        """Return the file of an unchecked name. Raises `InvalidName` and `FileExpected`."""
        path = self.path(filename)
        if not path:
            raise errors.FileExpected(filename)
        return Entry(self.name, self._prefix + path)

    def at(self, path: str) -> Entry:
        """Return the file at a path."""
        return Entry(self.name, self._prefix + path)

    def full(self, path: str) -> str:
        """Return a path from where the namespace begins."""
        return self._prefix + path

    # -- records

    @property
    def records(self) -> Expirations:
        """The records of the backend's files. Raises `BackendUnavailable`."""
        return records_of(self.settings, self.backend, make=True)

    def announce(self, entries: Sequence[Entry], ttl: int) -> None:
        """Report new deadlines to whoever sends one-shots."""
        if self.settings.one_shot:
            paths = [entry.path for entry in entries]
            deadline_set.send_robust(type(self), namespace=self.name, paths=paths, ttl=ttl / SECOND)

    def announce_at(self, path: str, deadline: int) -> None:
        """Do what `announce` does, given the deadline of one file; 0 is none."""
        if self.settings.one_shot and deadline:
            entry = self.at(path)
            now, _ = self.records.deadline(entry.member)
            self.announce([entry], deadline - now)

    def begin(self, path: str, life: int | None = None, kind: type[Write] = Write) -> Write:
        """Begin to write a file, with a ``life`` of its own. Raises `NamespaceHeld`."""
        self.check_writable(path)
        life = self.life_of(path) if life is None else life
        grace, leaves_parts = self.settings.grace, self.backend.leaves_parts

        def is_there() -> bool:
            return self.files.isfile(path)

        return kind(self.records, self.at(path), grace, life, is_there, leaves_parts)

    def finish(self, write: Write, announces: bool = True) -> None:
        """End the write of a file that is there as a whole. Raises `WriteLost`."""
        life = write.finish()
        if life and announces:
            self.announce([write.entry], life)

    def reserve(self, path: str) -> Reservation:
        """Claim a file before it is removed or replaced."""
        return Reservation(self.records, self.at(path).member, self.backend.late)

    def hidden(self, *paths: str) -> set[str]:
        """Return those of ``paths`` whose time is up, if the namespace hides them."""
        if not paths or not self.policy_of(paths[0]).hide_expired:
            return set()
        now, found = self.records.linked([self.at(path).member for path in paths])
        return {path for path, it in zip(paths, found, strict=True) if 0 < it.deadline <= now}

    # -- policies

    def policy_of(self, path: str) -> Policy:
        """Return the policy for a file."""
        return self.settings.policy_for(f"{self.directory}/{path}".rpartition("/")[0])

    def policy_in(self, directory: str) -> Policy:
        """Return the policy for the files of a directory."""
        below = directory and f"/{directory}"
        return self.settings.policy_for(self.directory + below)

    def lifetimes(self, entry: Entry) -> Lifetimes:
        """Return the lifetimes of a file. Raises `InvalidName` if it is kept elsewhere."""
        policy = self.settings.policy_for(entry.directory)
        self._check_kept_here(entry.directory, policy)
        return Lifetimes(policy)

    def life_of(self, path: str) -> int:
        """Return how long a file lives if nobody sets a deadline for it, in µs; 0: forever."""
        policy = self.policy_of(path)
        if self.default_life is None:
            return policy.life
        return cast(int, Lifetimes(policy).allowed(self.default_life))

    def check_removable(self, path: str) -> None:
        """Raise `NamespaceHeld` if a file must stay."""
        if self.policy_of(path).hold:
            raise NamespaceHeld(path)

    def check_writable(self, path: str) -> None:
        """Raise `NamespaceHeld` if there is a file that must not be replaced.

        Raises `InvalidName` if the file would be kept elsewhere.
        """
        policy = self.policy_of(path)
        self._check_kept_here(self.at(path).directory, policy)
        if policy.hold and self.files.isfile(path):
            raise NamespaceHeld(path)

    def _check_kept_here(self, directory: str, policy: Policy) -> None:
        if policy.placement == self.settings.policy_for(self.name).placement:
            return
        with suppress(BackendUnavailable):
            there = records_of(self.settings, backend_at(self.settings, policy.placement))
            if there.place == self.records.place:
                return
        cure = f"write through get_filesystem({directory!r})"
        raise InvalidName(directory, f"is kept on a different backend from {self.name!r}: {cure}")
