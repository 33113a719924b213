"""A fixture for pytest: ``pytest_plugins = ["djpyfs.pytest_plugin"]`` in the root conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .testing import isolated


@pytest.fixture
def isolated_files() -> Iterator[None]:
    """Give a test files and records of its own, in memory."""
    with isolated():
        yield
