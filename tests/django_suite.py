"""Django's own tests of storages and file fields, with ours in the place of FileSystemStorage.

It runs in a process of its own: ``python -m tests.django_suite`` with Django's directory of tests,
an empty directory, and the tests to run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any

import django
from django.conf import settings
from django.core.files import storage
from django.core.files.storage import filesystem
from django.test.runner import DiscoverRunner
from django.utils.deconstruct import deconstructible

from djpyfs.storage import ExpiringStorage

APPS = "contenttypes auth sites sessions messages"


@deconstructible(path="djpyfs.storage.ExpiringStorage")
class Located(ExpiringStorage):
    """Keeps files where Django's tests look for them: a directory is a namespace."""

    OS_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # of which a test makes others

    def __init__(
        self, location: Any = None, base_url: str = "", allow_overwrite: bool = False
    ) -> None:
        self.location = os.path.abspath(location or "default")
        namespace = os.path.relpath(self.location, tempfile.gettempdir())
        super().__init__(
            namespace, allow_overwrite=allow_overwrite, until_committed=3_600, clean_up=True
        )

    def path(self, name: str) -> str:
        return os.path.join(self.location, name)


def main(tests: str, files: str, *labels: str) -> bool:
    """Run tests; return whether any failed."""
    tempfile.tempdir = files
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    own = ["django.contrib.admin.apps.SimpleAdminConfig", "djpyfs", "file_storage", "model_fields"]
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
    replaced: Any = (storage, filesystem)
    for module in replaced:
        module.FileSystemStorage = Located
    sys.path.insert(0, tests)
    django.setup()
    runner = DiscoverRunner(interactive=False)
    runner.run_checks = lambda databases: None  # type: ignore[method-assign]  # of models of theirs
    return bool(runner.run_tests(list(labels)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
