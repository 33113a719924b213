"""Backends that keep a copy of what is being written."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fs.base import FS

from djpyfs import conf, get_filesystem
from djpyfs.backends import backend_for
from djpyfs.backends.memory import MemoryBackend
from djpyfs.names import Entry
from tests.endless import Endless


def test_a_write_that_failed_is_not_stored(djfs: Callable[..., None]) -> None:
    djfs(type="memory")
    namespace = f"plots/{uuid.uuid4().hex}"
    files = backend_for(conf.current(), namespace).open(namespace)
    files.writebytes("a", b"the old contents")
    file: Any = files.openbin("a", "w")
    file.write(b"half")
    with pytest.raises(TypeError):
        file.write("not bytes")
    file.close()
    assert files.readbytes("a") == b"the old contents"


class Nowhere(MemoryBackend):
    """Has no directory for any namespace."""

    def has(self, namespace: str) -> bool:
        return False

    def make_filesystem(self, namespace: str) -> FS:
        raise AssertionError("a directory was made")


def test_a_deletion_opens_no_namespace_that_is_not_there() -> None:
    outcome = Nowhere({}).delete([Entry("plots/d", "a")], Endless())
    assert len(outcome.missing) == 1


def test_a_namespace_that_was_removed_from_above_is_made_again(
    djfs: Callable[..., None],
) -> None:
    djfs(type="memory")
    above, below = get_filesystem("removed"), get_filesystem("removed/d")
    below.writebytes("a", b"picture")
    above.removetree("d")
    below.writebytes("a", b"another")
    assert above.readbytes("d/a") == b"another"
