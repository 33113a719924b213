"""Tables for people."""

from __future__ import annotations

from collections.abc import Sequence


def laid_out(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells in columns, with a line below the first, which holds the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    headings, *others = rows
    lined = [headings, ["-" * width for width in widths], *others]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in lined)
