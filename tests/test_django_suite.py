"""Django's own tests of storages and file fields pass on a storage that follows rows."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import django
import pytest

from tests.pages import ROOT

LABELS = ["file_storage", "model_fields.test_filefield", "model_fields.test_imagefield"]


@pytest.fixture(scope="module")
def django_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests of the Django that is installed, which its source distribution alone has."""
    here, version = tmp_path_factory.mktemp("django"), django.get_version()
    wanted = ["--no-binary", "django", "--no-deps", f"django=={version}"]
    pip = [sys.executable, "-m", "pip", "download", "-q", *wanted]
    got = subprocess.run(pip, cwd=here, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"no source of Django {version} can be had: {got.stderr}")
    [source] = here.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(here, filter="data")
    return next(here.glob("django-*/tests"))


@pytest.mark.long
def test_the_tests_of_django_pass(django_tests: Path, tmp_path: Path) -> None:
    suite = [sys.executable, "-W", "ignore", "-m", "tests.django_suite"]
    ran = subprocess.run(
        [*suite, str(django_tests), str(tmp_path), *LABELS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Ran 211 tests" in ran.stderr, ran.stderr
