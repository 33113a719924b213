"""The pages of the documentation, as the tests read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("**/*.md"))]
# A comment holds what the reader of an example has already, such as a file to show.
FENCE = re.compile(
    r"^(?P<indent> *)(?:```|<!-- )(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)(?:```|-->)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    #: The paragraph that leads to it.
    before: str


def page(name: str) -> str:
    """Return the text of a page below ``docs/``."""
    return (DOCS / name).read_text()


def examples_on(path: Path) -> Iterator[Example]:
    """Yield the examples of a page, in order."""
    text = path.read_text()
    for fence in FENCE.finditer(text):
        above = text[: fence.start()]
        before = above.rstrip("\n").rpartition("\n\n")[2]
        line = above.count("\n") + 1
        yield Example(path, line, fence["language"], dedent(fence["code"]), before)


def examples(name: str, language: str = "python") -> list[str]:
    """Return the examples in one language on a page below ``docs/``, in order."""
    return [it.code for it in examples_on(DOCS / name) if it.language == language]


def table(name: str, heading: str) -> list[list[str]]:
    """Return the cells of the tables on a page whose first heading is that, row by row."""
    found: list[list[str]] = []
    for text in re.findall(r"(?:^\|.*\n)+", page(name), re.MULTILINE):
        head, _, *rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in text.splitlines()]
        if head[0].strip() == heading:
            found += rows
    return found


def first_cells(name: str, heading: str) -> list[str]:
    """Return all that is in code style in the first column of those tables."""
    return [word for first, *_ in table(name, heading) for word in re.findall(r"`([^`]*)`", first)]
