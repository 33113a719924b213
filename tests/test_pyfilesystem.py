"""PyFilesystem's own tests, over every back-end and one sub-filesystem of each."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from unittest import TestCase

import pytest
from fs.base import FS
from fs.test import FSTestCases

from djpyfs import get_filesystem
from tests.conftest import BUCKET, KEYS
from tests.servers import RedisServer


class Cases(FSTestCases):
    """Each test in a namespace of its own."""

    def make_fs(self) -> FS:
        return get_filesystem(f"cases/{uuid.uuid4().hex}")


class TestMemory(Cases, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, djfs: Callable[..., None]) -> None:
        djfs(type="memory")


class TestDisk(Cases, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, djfs: Callable[..., None], tmp_path: Path) -> None:
        djfs(type="osfs", directory_root=tmp_path)


class TestStrictS3(Cases, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, djfs: Callable[..., None], s3_endpoint: str) -> None:
        djfs(type="s3fs", bucket=BUCKET, endpoint_url=s3_endpoint, strict=True, **KEYS)


class TestDiskWithDefaultLifeAndRedis(Cases, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, djfs: Callable[..., None], tmp_path: Path, redis_server: RedisServer) -> None:
        djfs(
            type="osfs",
            directory_root=tmp_path,
            default_ttl=60,
            redis_url=redis_server.url,
            key_prefix=uuid.uuid4().hex,
        )


class TestSubFilesystem(TestDisk):
    def make_fs(self) -> FS:
        return super().make_fs().makedirs("some/directory")
