"""``make release VERSION=0.2.0``: write version and date, commit, tag, build; push nothing.

Everything is checked before anything is written.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path.cwd()
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)((?:a|b|rc)\d+)?")
VERSION_LINE = re.compile(r'^version = "([^"]+)"', re.MULTILINE)
UNRELEASED = "## [Unreleased]\n"
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # of Keep a Changelog


class Refused(Exception):
    """Something is not ready to be released."""


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def dated(changelog: str, version: str, date: str) -> str:
    """Return the changelog with what is unreleased under ``version``. Raises `Refused`."""
    before, found, after = changelog.partition(UNRELEASED)
    if not found:
        raise Refused(f"CHANGELOG.md has no line '{UNRELEASED.strip()}'")
    changes = after.partition("\n## ")[0]
    if not re.search("^- ", changes, re.MULTILINE):
        raise Refused("CHANGELOG.md has nothing under Unreleased")
    for heading in re.findall(r"^### (\w+)", changes, re.MULTILINE):
        if heading not in KINDS:
            raise Refused(
                f"CHANGELOG.md has '### {heading}': use one of {', '.join(sorted(KINDS))}"
            )
    return f"{before}{UNRELEASED}\n## [{version}] - {date}\n{after}"


def with_version(pyproject: str, version: str) -> str:
    """Return pyproject.toml with another version. Raises `Refused` for one that is not newer."""
    given, known = VERSION.fullmatch(version), VERSION_LINE.search(pyproject)
    if not given:
        raise Refused(f"{version!r} is no version: write it like 1.2.3 or 1.3.0rc1")
    if not known:
        raise Refused("pyproject.toml has no version")
    if _order(version) < _order(known[1]):
        raise Refused(f"{version} is older than {known[1]}")
    return VERSION_LINE.sub(f'version = "{version}"', pyproject)


def _order(version: str) -> tuple[int, int, int, str]:
    match = VERSION.fullmatch(version)
    if not match:
        raise Refused(f"{version!r} is no version")
    major, minor, patch, pre = match.groups()
    return int(major), int(minor), int(patch), pre or "~"  # a pre-release comes before its release


def release(version: str, date: str) -> None:
    pyproject, changelog = ROOT / "pyproject.toml", ROOT / "CHANGELOG.md"
    written = {
        pyproject: with_version(pyproject.read_text(), version),
        changelog: dated(changelog.read_text(), version, date),
    }
    if git("status", "--porcelain"):
        raise Refused("there are changes that are not committed")
    if git("tag", "--list", f"v{version}"):
        raise Refused(f"there is a tag v{version} already")
    for path, text in written.items():
        path.write_text(text)
    git("commit", "--quiet", "--all", "--message", f"Release {version}")
    git("tag", "--annotate", f"v{version}", "--message", f"djpyfs {version}")
    subprocess.run([sys.executable, "-m", "hatchling", "build"], cwd=ROOT, check=True)
    print("Look at dist/, at the last commit, and whether the [project.urls] answer.")
    print("Then: git push --follow-tags, and upload dist/*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}", help="of the release")
    options = parser.parse_args()
    try:
        release(options.version, options.date)
    except Refused as error:
        sys.exit(f"Nothing was released: {error}.")


if __name__ == "__main__":
    main()
