"""A Django cache for large values: each is a file that expires."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from fs import errors

from . import conf
from .backends import Backend, backend_for
from .conf import SECOND
from .errors import BackendUnavailable
from .expirations import Expirations
from .filesystem import ExpiringFS, get_filesystem
from .lifetimes import Lifetimes
from .names import Entry, check_namespace
from .places import place_for, records_for
from .sweeper import delete_if_due

SUFFIX = ".djcache"
# The first byte of a file: its value never expires, or its record says when.
ENDLESS, ENDING = b"\1", b"\0"
AT_ONCE = 1  # µs since the epoch: a deadline that has passed
# Files are counted once a twentieth of MAX_ENTRIES has been written, or sooner.
COUNTED = 20

Life = float | None

# How many files this process may still write to a namespace of a backend, given the most that it
# holds, before it counts them. Django has a cache of its own for each thread, or even each request.
_uncounted: WeakKeyDictionary[Backend, Counter[tuple[str, int]]] = WeakKeyDictionary()


class ExpiringCache(BaseCache):
    """Keeps values in a namespace, whose files are pickles.

    Expired values are deleted like any file. If there would be more than ``MAX_ENTRIES``, one in
    ``CULL_FREQUENCY`` is deleted, those that expire soonest. All processes and machines with the
    same ``DJFS`` share the values. A ``timeout`` is bound by the policy of the namespace::

        CACHES = {
            "plots": {
                "BACKEND": "djpyfs.cache.ExpiringCache",
                "LOCATION": "plots/memos",
                "TIMEOUT": 3600,
                "OPTIONS": {"MAX_ENTRIES": 10_000},
            },
        }

    Raises `InvalidName` for a ``LOCATION`` that is not a namespace. Anyone who can write there can
    make readers run code: keep uploads elsewhere.
    """

    def __init__(self, namespace: str, params: Mapping[str, Any]) -> None:
        super().__init__(dict(params))
        self.namespace = check_namespace(namespace)

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Set a value if there is none. If several do so at once, one of them gets True."""
        name, life = self._name(key, version), self._life(timeout)
        contents = _pickled(value, life)
        if self._lives(name):
            return False
        if life == 0:
            return True
        self._make_room()
        self._drop_dead(name)
        try:
            with self._files(life).openbin(name, "x") as file:
                file.write(contents)
        except errors.FileExists:
            return False
        self._settle(name, life, is_new=True)
        return True

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return a value, or ``default`` if there is none, or its time is up."""
        return self.get_many([key], version).get(key, default)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the values that are there, with one query to each shard of the records."""
        names = {key: self._name(key, version) for key in keys}
        files, found = self._files(), dict[Any, bytes]()
        for key, name in names.items():
            with suppress(errors.ResourceNotFound):
                found[key] = files.readbytes(name)
        alive = self._alive({names[key]: contents[:1] for key, contents in found.items()})
        return {
            key: pickle.loads(memoryview(contents)[1:])  # noqa: S301  as caches in files are
            for key, contents in found.items()
            if names[key] in alive
        }

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Set a value, which lives for ``timeout`` seconds, or forever with None."""
        name, life = self._name(key, version), self._life(timeout)
        contents = _pickled(value, life)
        if life == 0:
            self._drop([name])
            return
        self._make_room()
        self._files(life).writebytes(name, contents)
        self._settle(name, life)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Make a value live for ``timeout`` seconds from now; return whether it was there."""
        name, life = self._name(key, version), self._life(timeout)
        if not self._lives(name):
            return False
        if life == 0:
            self._drop([name])
        elif life is None:  # which is written at the beginning of the file
            try:
                contents = self._files().readbytes(name)
            except errors.ResourceNotFound:  # it was deleted meanwhile
                return False
            self._files().writebytes(name, ENDLESS + contents[1:])
            self._settle(name, life)
        else:
            self._settle(name, life)
        return True

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Return whether there is a value whose time is not up."""
        return self._lives(self._name(key, version))

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Delete a value; return whether it was there."""
        name = self._name(key, version)
        alive = self._lives(name)
        with suppress(errors.ResourceNotFound):
            self._files().remove(name)
        return alive

    def clear(self) -> None:
        """Delete all values, those of other prefixes and versions too."""
        self._drop(self._stored())

    # -- how long values live

    def _life(self, timeout: Any) -> Life:
        """Return the seconds that a value lives, or None forever. Raises `InvalidLifetime`."""
        life = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        if life is not None and life <= 0:
            return 0
        policy = conf.current().policy_for(self.namespace)
        ttl = Lifetimes(policy).of(life, expires=life is not None)
        return None if ttl is None else ttl / SECOND

    def _settle(self, name: str, life: Life, is_new: bool = False) -> None:
        """Give a file its life; a new one has it already, unless that is endless."""
        if life is None:
            self._files().expire(name, expires=False)
        elif not is_new:
            self._files().expire(name, life)

    def _lives(self, name: str) -> bool:
        files = self._files()
        [(left, ends)] = self._left([name])
        if ends:
            return left > 0 and files.isfile(name)
        try:
            # With one request, which is answered with one value, whoever sets others meanwhile.
            with files.openbin(name, part=range(1)) as file:
                return bool(self._alive({name: file.read(1)}))
        except errors.ResourceNotFound:
            return False

    def _alive(self, beginnings: Mapping[str, bytes]) -> Collection[str]:
        """Return those names whose time is not up, given what their files begin with.

        A value that should expire and has no record was left by a crash, or by a loss of the
        records: nobody knows how old it is.
        """
        names = [*beginnings]
        return {
            name
            for name, (left, ends) in zip(names, self._left(names), strict=True)
            if left > 0 or (not ends and beginnings[name] == ENDLESS)
        }

    def _left(self, names: Sequence[str]) -> list[tuple[int, bool]]:
        """Return for each name the µs until its deadline, and whether it has one."""
        if not names:
            return []
        try:
            records = place_for(conf.current(), self.namespace).records
        except BackendUnavailable:  # which only a write makes, and with it the first records
            return [(0, False) for _ in names]
        now, deadlines = records.deadlines([self._member(name) for name in names])
        return [(deadline - now, bool(deadline)) for deadline in deadlines]

    # -- files and records

    def _name(self, key: Any, version: int | None) -> str:
        validated: str = self.make_and_validate_key(key, version=version)
        return sha256(validated.encode()).hexdigest() + SUFFIX

    def _member(self, name: str) -> bytes:
        return Entry(self.namespace, name).member

    def _files(self, life: Life = None) -> ExpiringFS:
        files = get_filesystem(self.namespace)
        files.check()  # which blocks no event loop
        if life is not None:
            files.set_default_life(life)
        return files

    @property
    def _records(self) -> Expirations:
        return records_for(self.namespace)

    def _stored(self) -> list[str]:
        return [name for name in self._files().listdir("/") if name.endswith(SUFFIX)]

    def _drop(self, names: Sequence[str]) -> None:
        """Delete files as one batch."""
        if names:
            self._records.schedule([self._member(name) for name in names], 0)
            delete_if_due(self.namespace, names)

    def _drop_dead(self, name: str) -> None:
        """Delete a file whose time is up; what somebody has written there meanwhile stays."""
        _, deadline = self._records.deadline(self._member(name))
        if deadline or self._files().isfile(name):
            self._records.place_at(self._member(name), AT_ONCE, expected=0)
            delete_if_due(self.namespace, [name])

    def _make_room(self) -> None:
        """If there are too many, delete what has expired, and then what expires soonest."""
        uncounted = _uncounted.setdefault(backend_for(conf.current(), self.namespace), Counter())
        here = self.namespace, self._max_entries
        if uncounted[here] > 0:
            uncounted[here] -= 1
            return
        stored, most = self._stored(), self._max_entries
        if len(stored) < most:
            uncounted[here] = min(most - len(stored) - 1, most // COUNTED)
            return
        if not self._cull_frequency:
            self._drop(stored)
            return
        ranked = sorted(zip(self._left(stored), stored, strict=True), key=_endless_last)
        dead = sum(ends and left <= 0 for (left, ends), _ in ranked)
        culled = len(stored) // self._cull_frequency if len(stored) - dead >= most else 0
        self._drop([name for _, name in ranked[: max(dead, culled)]])


def _endless_last(ranked: tuple[tuple[int, bool], str]) -> tuple[bool, int]:
    (left, ends), _ = ranked
    return not ends, left


def _pickled(value: Any, life: Life) -> bytes:
    return (ENDLESS if life is None else ENDING) + pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
