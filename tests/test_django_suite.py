"""Django's own tests of storages and file fields pass on a storage that follows rows."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import django
import pytest

from tests.pages import ROOT

FILE_STORAGE = "file_storage.tests"
LABELS = [
    "model_fields.test_filefield",
    "model_fields.test_imagefield",
    "file_storage.test_base",
    *(
        f"{FILE_STORAGE}.{case}"
        for case in (
            "ContentFileStorageTestCase",
            "FieldCallableFileStorageTests",
            "FileFieldStorageTests",
            "FileLikeObjectTestCase",
            "FileSaveRaceConditionTest",
            "FileStoragePathParsing",
            "FileStorageTests",
            "StorageHandlerTests",
        )
    ),
]
# What FileSystemStorage alone has.
OTHERWISE = {
    "base_url": ["test_base_url", "test_file_url", "test_file_methods_pathlib_path"],
    "settings of its own": ["test_empty_location", "test_setting_changed"],
    "a time of creation, which no back-end on disk tells": [
        "test_file_get_created_time",
        "test_file_get_created_time_timezone",
    ],
    "absolute names": ["test_delete_deletes_directories"],
    "calls of os that are replaced": ["test_makedirs_race_handling", "test_remove_race_handling"],
}


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
    names = [name for own in OTHERWISE.values() for name in own]
    left = Path(django_tests / "file_storage/tests.py")
    text = left.read_text()
    for name in names:
        text = text.replace(f"    def {name}(", f"    def not_{name}(")
    left.write_text(text)
    suite = [sys.executable, "-W", "ignore", "-m", "tests.django_suite"]
    ran = subprocess.run(
        [*suite, str(django_tests), str(tmp_path), *LABELS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Ran 115 tests" in ran.stderr, ran.stderr
