"""A tree of files that nothing may touch."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

SECRET = b"nobody may read this"


class Canary:
    """Files beside the root, and the hash of all that can be known of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in "secret", "victim", "deep/secret":
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(SECRET)
        self._hash = self._now()

    def _now(self) -> str:
        """The hash of every name, kind, content and time of change below the directory."""
        digest = hashlib.sha256()
        for path in sorted([self.directory, *self.directory.rglob("*")]):
            stat = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            known = (os.fspath(path), stat.st_mode, stat.st_mtime_ns, stat.st_nlink, content)
            digest.update(repr(known).encode())
        return digest.hexdigest()

    def assert_unharmed(self) -> None:
        assert self._now() == self._hash, sorted(self.directory.rglob("*"))
