"""The documentation builds without a warning, and leads nowhere that is not there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT

LINES_OF_A_README = 150
OUTSIDE = ["README.md", "CONTRIBUTING.md"]  # what forges show, and Sphinx does not read


def test_the_docs_build_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-b", "html"]
    built = subprocess.run([*build, DOCS, tmp_path], capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_outside_the_docs_lead_to_files(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert (ROOT / "README.md").read_text().count("\n") <= LINES_OF_A_README
