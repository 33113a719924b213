"""What every backend passes, over each of them, and PyFilesystem's own tests in other settings."""

from __future__ import annotations

import uuid
from pathlib import Path
from unittest import TestCase

import pytest
from fs.base import FS
from fs.errors import NoURL
from fs.tempfs import TempFS

from djpyfs.backends import Backend
from djpyfs.conformance import BackendTests, FilesystemTests, WholeFileTests
from tests.conftest import BUCKET, KEYS
from tests.servers import RedisServer


class PlainBackend(Backend):
    """As a guide shows it: two methods are enough."""

    kept = TempFS()

    def make_filesystem(self, namespace: str) -> FS:
        return self.kept.makedirs(namespace, recreate=True)

    def url(self, namespace: str, path: str, lifetime: object, download_as: object = None) -> str:
        raise NoURL(path, "download")


class TestPlain(BackendTests, TestCase):
    djfs = {"type": f"{__name__}.{PlainBackend.__name__}"}


class TestMemory(BackendTests, WholeFileTests, TestCase):
    djfs = {"type": "memory"}


class TestDisk(BackendTests, WholeFileTests, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.djfs = {"type": "osfs", "directory_root": tmp_path}


class TestStrictS3(BackendTests, WholeFileTests, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, s3_endpoint: str) -> None:
        own = {"bucket": BUCKET, "endpoint_url": s3_endpoint, "strict": True}
        self.djfs = {"type": "s3fs", **own, **KEYS}


class TestDiskWithDefaultLifeAndRedis(FilesystemTests, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, redis_server: RedisServer) -> None:
        self.djfs = {
            "type": "osfs",
            "directory_root": tmp_path,
            "default_ttl": 60,
            "redis_url": redis_server.url,
            "key_prefix": uuid.uuid4().hex,
        }


class TestSubFilesystem(FilesystemTests, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.djfs = {"type": "osfs", "directory_root": tmp_path}

    def make_fs(self) -> FS:
        return super().make_fs().makedirs("some/directory")
