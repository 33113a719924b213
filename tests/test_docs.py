"""The documentation builds without a warning, and has no dead link."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.pages import DOCS, PAGES, ROOT, table

LINES_OF_A_README = 150
WORDS = ROOT / "CONTRIBUTING.md"  # has the list of words
ROOMS = ["djpyfs", "djpyfs_tasks", "demo", "docs", "tools"]
TEXTS = {".css", ".html", ".js", ".lua", ".md", ".po", ".py", ".svg"}
# what forges show, and Sphinx does not read
OUTSIDE = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]


def test_the_docs_build_without_a_warning(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-E",
        "-b",
        "dummy",
    ]  # writes no page
    built = subprocess.run([*build, DOCS, tmp_path], capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_outside_the_docs_lead_to_files(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_rooms_that_contributing_shows_are_there() -> None:
    for room, _ in table("../CONTRIBUTING.md", "module"):
        first, *others = (ROOT / name for name in re.findall("`(.+?)`", room))
        assert all(path.exists() for path in (first, *(first.parent / it.name for it in others)))


def found(words: Iterable[str], pages: Iterable[Path]) -> list[tuple[Path, str]]:
    any_of_them = re.compile(rf"\b({'|'.join(words)})\b", re.IGNORECASE)
    others = (page for page in pages if page != WORDS)
    return [(page, word) for page in others for word in any_of_them.findall(page.read_text())]


def test_no_text_has_a_refused_word() -> None:
    [refused] = re.findall(r"Words that a test refuses(?:.+\n)+", WORDS.read_text())
    rooms = [path for room in ROOMS for path in ROOT.glob(f"{room}/**/*") if path.suffix in TEXTS]
    assert found(re.findall('"(.+?)"', refused), [*ROOT.glob("*.md"), *rooms]) == []


def test_the_documentation_has_one_word_for_each_thing() -> None:
    others = [word for *_, cell in table("../CONTRIBUTING.md", "word") for word in cell.split(",")]
    assert found(filter(None, map(str.strip, others)), PAGES) == []


def test_the_readme_stays_short() -> None:
    assert (ROOT / "README.md").read_text().count("\n") <= LINES_OF_A_README
