"""Django storages as a back-end."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import TestCase

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from fs.base import FS
from fs.test import FSTestCases

from djpyfs import ConfigurationError, expire_objects, get_filesystem

IN_MEMORY = {"default": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}


def on_disk(directory: Path) -> dict[str, Any]:
    options = {"location": directory, "base_url": "/media/"}
    backend = "django.core.files.storage.FileSystemStorage"
    return {"default": {"BACKEND": backend, "OPTIONS": options}}


class Cases(FSTestCases):
    def make_fs(self) -> FS:
        return get_filesystem(f"cases/{uuid.uuid4().hex}")


class TestInMemory(Cases, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, djfs: Callable[..., None], settings: Any) -> None:
        settings.STORAGES = IN_MEMORY
        djfs(type="storage")


class TestOnDisk(Cases, TestCase):
    @pytest.fixture(autouse=True)
    def _place(self, djfs: Callable[..., None], settings: Any, tmp_path: Path) -> None:
        settings.STORAGES = on_disk(tmp_path)
        djfs(type="storage", alias="default")


def test_what_has_expired_is_gone_from_the_storage(
    djfs: Callable[..., None], settings: Any, tmp_path: Path
) -> None:
    settings.STORAGES = on_disk(tmp_path)
    djfs(type="storage")
    plots = get_filesystem("plots")
    plots.writebytes("a.png", b"picture")
    plots.expire("a.png", 0)
    with default_storage.open("plots/a.png") as file:
        assert file.read() == b"picture"
    assert plots.get_url("a.png") == "/media/plots/a.png"
    assert expire_objects().deleted == 1
    assert not default_storage.exists("plots/a.png")


def test_what_the_storage_was_given_by_others_is_there(
    djfs: Callable[..., None], settings: Any
) -> None:
    settings.STORAGES = IN_MEMORY
    djfs(type="storage")
    default_storage.save("plots/d/a.png", ContentFile(b"picture"))
    plots = get_filesystem("plots")
    assert list(plots.walk.files()) == ["/d/a.png"]
    assert plots.getsize("d/a.png") == 7
    assert plots.getdetails("d/a.png").modified == default_storage.get_modified_time(
        "plots/d/a.png"
    )


def test_an_alias_that_is_not_there_is_told_with_those_that_are(
    djfs: Callable[..., None], settings: Any
) -> None:
    settings.STORAGES = IN_MEMORY
    djfs(type="storage", alias="defalt")
    with pytest.raises(ConfigurationError, match=r"'defalt'.*use 'default'"):
        get_filesystem("plots")
