"""Filesystems that several files of tests need."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from djpyfs import get_filesystem
from djpyfs.filesystem import ExpiringFS


@pytest.fixture
def bucket(
    djfs: Callable[..., None], s3_endpoint: str, request: pytest.FixtureRequest
) -> ExpiringFS:
    from tests.conftest import BUCKET, KEYS

    djfs(
        type="s3fs", bucket=BUCKET, endpoint_url=s3_endpoint, prefix=request.node.name[:99], **KEYS
    )
    return get_filesystem("plots")
