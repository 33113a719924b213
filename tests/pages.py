"""The pages of the documentation, as the tests read them."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FENCE = r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```$"


def page(name: str) -> str:
    """Return the text of a page below ``docs/``."""
    return (DOCS / name).read_text()


def examples(name: str, language: str = "python") -> list[str]:
    """Return the examples in one language on a page, in order."""
    fences = re.finditer(FENCE, page(name), re.MULTILINE | re.DOTALL)
    return [dedent(fence["code"]) for fence in fences if fence["language"] == language]
