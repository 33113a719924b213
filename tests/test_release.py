"""The release script, in a copy of what it reads and writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT

CHANGELOG = """# Changelog

## [Unreleased]

### Added

- Files that expire.
"""


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    # Not today's version and changes: after a release there is nothing left to release.
    pyproject = (ROOT / "pyproject.toml").read_text()
    pyproject = re.sub("^version = .*", 'version = "0.1.0"', pyproject, flags=re.MULTILINE)
    (tmp_path / "pyproject.toml").write_text(pyproject)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    for package in ("djpyfs", "djpyfs_tasks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / ".gitignore").write_text("dist/\n")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.com")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "As it was")
    return tmp_path


def git(place: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=place, check=True, capture_output=True)
    return done.stdout.decode()


def release(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "release.py"), *arguments]
    return subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)


def test_a_release_is_dated_tagged_and_built(copy: Path) -> None:
    done = release(copy, "0.1.0", "--date", "2026-11-26")
    assert done.returncode == 0, done.stderr
    changelog = (copy / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [0.1.0] - 2026-11-26\n\n### Added\n" in changelog
    assert 'version = "0.1.0"' in (copy / "pyproject.toml").read_text()
    assert git(copy, "describe").strip() == "v0.1.0"
    assert git(copy, "log", "-1", "--format=%s").strip() == "Release 0.1.0"
    assert {path.name for path in (copy / "dist").iterdir()} == {
        "djpyfs-0.1.0-py3-none-any.whl",
        "djpyfs-0.1.0.tar.gz",
    }
    # There is nothing new to release.
    assert "nothing under Unreleased" in release(copy, "0.2.0").stderr


@pytest.mark.parametrize(
    ("version", "why"), [("0.0.9", "older"), ("next", "no version"), ("0.1.0rc1", "older")]
)
def test_a_version_that_does_not_follow_is_refused(copy: Path, version: str, why: str) -> None:
    done = release(copy, version)
    assert (done.returncode, why in done.stderr) == (1, True)
    assert git(copy, "status", "--porcelain") == git(copy, "tag") == ""


def test_a_tree_with_changes_is_not_released(copy: Path) -> None:
    (copy / "README.md").write_text("Half a change")
    assert "not committed" in release(copy, "0.1.0").stderr
    assert git(copy, "tag") == ""
