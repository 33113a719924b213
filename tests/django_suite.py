"""Django's own tests of storages, file fields and caches, run on those of djpyfs.

It runs in a process of its own: ``python -m tests.django_suite`` with Django's directory of tests,
an empty directory, and the tests to run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any
from unittest import TestSuite

import django
from django.conf import settings
from django.core.cache.backends import filebased, locmem
from django.core.files import storage
from django.core.files.storage import filesystem
from django.test.runner import DiscoverRunner
from django.utils.deconstruct import deconstructible

from djpyfs.cache import ExpiringCache
from djpyfs.storage import ExpiringStorage

APPS = "contenttypes auth sites sessions messages"

# Tests left out, each with the reason why only a FileSystemStorage or FileBasedCache passes.
OTHERWISE = {
    "base_url is an option of FileSystemStorage; DJFS says where namespaces are served": [
        "test_base_url",
        "test_lazy_base_url_init",
    ],
    # The rest of it holds, and tests/test_addresses.py has that.
    "it has the URL of a name with NUL, of absolute names and of no name, which are refused": [
        "test_file_url",
    ],
    "location, MEDIA_ROOT, MEDIA_URL and FILE_UPLOAD_PERMISSIONS are of FileSystemStorage alone": [
        "test_deconstruction",
        "test_empty_location",
        "test_file_upload_directory_permissions",
        "test_file_upload_permissions",
        "test_setting_changed",
    ],
    "it quotes what Django says of a name; the same error has other words, and a long name cut": [
        "test_storage_dangerous_paths",
        "test_storage_dangerous_paths_dir_name",
    ],
    "it deletes by an absolute name": ["test_delete_deletes_directories"],
    "it counts on the calls of os that FileSystemStorage makes, and replaces them": [
        "test_makedirs_race_handling",
        "test_remove_race_handling",
    ],
    "it overwrites what a symbolic link leads to, and these are refused": [
        "OverwritingStorageTests.test_file_save_broken_symlink",
    ],
    "it looks into the files of FileBasedCache, and replaces its clock and its calls": [
        *("FileBasedCacheTests.test_touch", "FileBasedCachePathLibTests.test_touch"),
        "test_cache_dir_permissions",
        "test_creates_cache_dir_if_nonexistent",
        "test_empty_cache_file_considered_expired",
        "test_get_does_not_ignore_non_filenotfound_exceptions",
        "test_get_ignores_enoent",
        "test_has_key_race_handling",
    ],
    "OS_OPEN_FLAGS is how FileSystemStorage overwrote, until Django 6": [
        "OverwritingStorageOSOpenFlagsTests",
        "OverwritingStorageOSOpenFlagsWarningTests",
    ],
}


@deconstructible(path="djpyfs.storage.ExpiringStorage")
class Located(ExpiringStorage):
    """Keeps files where Django's tests look for them: a directory is a namespace."""

    OS_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # of which a test makes others

    def __init__(
        self, location: Any = None, base_url: str = "", allow_overwrite: bool = False
    ) -> None:
        root = tempfile.gettempdir()
        self.location = os.path.join(root, location or "default")
        namespace = os.path.relpath(self.location, root)
        self.base_url = f"/files/{namespace}/"
        super().__init__(
            namespace, allow_overwrite=allow_overwrite, until_committed=3_600, clean_up=True
        )

    def path(self, name: str) -> str:
        return os.path.join(self.location, name)


class Cached(ExpiringCache):
    """Keeps values beside the directory of a cache in files: an empty one would be removed."""

    def __init__(self, location: Any, params: Any) -> None:
        super().__init__(f"values/{os.path.basename(location) or 'default'}", params)


class Runner(DiscoverRunner):
    """Runs all but what is left out."""

    def build_suite(self, *args: Any, **options: Any) -> TestSuite:
        found: Any = super().build_suite(*args, **options)
        return self.test_suite(test for test in found if not _is_left_out(test.id()))

    def run_checks(self, databases: Any) -> None:
        """Do not check the models of these tests."""


def _is_left_out(test: str) -> bool:
    *_, case, name = test.split(".")
    return any({case, name, f"{case}.{name}"} & {*names} for names in OTHERWISE.values())


def main(tests: str, files: str, *labels: str) -> bool:
    """Run tests; return whether any failed."""
    tempfile.tempdir = files
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    own = [
        "django.contrib.admin.apps.SimpleAdminConfig",
        "djpyfs",
        "cache",
        "file_storage",
        "model_fields",
    ]
    settings.configure(
        SECRET_KEY="for tests only",
        INSTALLED_APPS=[*(f"django.contrib.{name}" for name in APPS.split()), *own],
        DATABASES={"default": database, "other": dict(database)},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        DJFS={"directory_root": files, "url_root": "/files/", "redis_url": "memory://"},
        MEDIA_URL="/media/",
        STATIC_URL="/static/",
        USE_TZ=False,
    )
    os.environ["TZ"] = settings.TIME_ZONE  # as Django does with a module of settings
    time.tzset()
    storages: Any = (storage, filesystem)
    for module in storages:
        module.FileSystemStorage = Located
    caches: Any = (filebased, "FileBasedCache"), (locmem, "LocMemCache")
    for module, name in caches:
        setattr(module, name, Cached)
    sys.path.insert(0, tests)
    django.setup()
    return bool(Runner(interactive=False).run_tests(list(labels)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
