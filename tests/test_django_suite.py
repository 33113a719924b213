"""Django's own tests of storages, file fields and caches pass on ours."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import django
import pytest

from tests.pages import ROOT

CACHES = (
    "CacheHEADTest",
    "CacheMiddlewareTest",
    "CacheUtils",
    "FileBasedCachePathLibTests",
    "FileBasedCacheTests",
    "PrefixedCacheUtils",
    "TestMakeTemplateFragmentKey",
)
LABELS = {
    "storages that follow rows": [
        "file_storage",
        "model_fields.test_filefield",
        "model_fields.test_imagefield",
    ],
    "caches": [f"cache.tests.{case}" for case in CACHES],
}
HOW_MANY = {"storages that follow rows": 211, "caches": 151}


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
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", LABELS)
def test_the_tests_of_django_pass(django_tests: Path, tmp_path: Path, part: str) -> None:
    suite = [sys.executable, "-W", "ignore", "-m", "tests.django_suite"]
    ran = subprocess.run(
        [*suite, str(django_tests), str(tmp_path), *LABELS[part]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"Ran {HOW_MANY[part]} tests" in ran.stderr, ran.stderr
