"""Bar charts as SVG, drawn here; nothing is loaded, and the page's style sheet colors them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 320, 160
LEFT, RIGHT, TOP, BOTTOM = 40, 4, 12, 24  # room around the bars, for the labels of the axes
GAP = 0.2  # share of a bar's width that stays empty


@dataclass(frozen=True)
class Bar:
    """One bar: ``value`` from the bottom, and ``alarm`` on top of it, in the color of errors."""

    #: What is said of the bar when it is pointed at, and in the text alternative.
    label: str
    value: float
    alarm: float = 0

    @property
    def total(self) -> float:
        """How high it is."""
        return self.value + self.alarm


@dataclass(frozen=True)
class Chart:
    """A chart with its text alternative: the ``bars`` themselves, and ``summary`` in one line."""

    title: str
    summary: str
    bars: Sequence[Bar]
    #: What the horizontal axis says at its beginning and at its end.
    ends: tuple[str, str]

    def svg(self) -> SafeString:
        """Draw the chart. Its classes begin with ``djpyfs-``."""
        top = _round_up(max((bar.total for bar in self.bars), default=0))
        return format_html(
            '<svg class="djpyfs-chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>',
            WIDTH,
            HEIGHT,
            f"{self.title}: {self.summary}",
            _grid(top),
            format_html_join("", "{}", ([shape] for shape in self._shapes(top))),
            _ends(self.ends),
        )

    def _shapes(self, top: float) -> list[SafeString]:
        step = (WIDTH - LEFT - RIGHT) / max(1, len(self.bars))
        return [
            format_html(
                "<g><title>{}</title>{}{}</g>",
                bar.label,
                _rectangle("bar", LEFT + step * place, step, 0, bar.value / top),
                _rectangle("alarm", LEFT + step * place, step, bar.value / top, bar.alarm / top),
            )
            for place, bar in enumerate(self.bars)
            if bar.total
        ]


def _rectangle(kind: str, x: float, width: float, foot: float, height: float) -> SafeString:
    """Draw part of a bar; ``foot`` and ``height`` are shares of the whole height."""
    if not height:
        return SafeString()
    room = HEIGHT - TOP - BOTTOM
    tall = max(1.0, height * room)  # one of a million must show, too
    return format_html(
        '<rect class="djpyfs-{}" x="{}" y="{}" width="{}" height="{}"/>',
        kind,
        f"{x + width * GAP / 2:.2f}",
        f"{TOP + room * (1 - foot) - tall:.2f}",
        f"{width * (1 - GAP):.2f}",
        f"{tall:.2f}",
    )


def _grid(top: float) -> SafeString:
    room = HEIGHT - TOP - BOTTOM
    levels = [(share, TOP + room * (1 - share)) for share in (0, 0.5, 1)]
    return format_html_join(
        "",
        '<line class="djpyfs-grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text x="{}" y="{}" text-anchor="end">{}</text>',
        ((LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 4, short(top * share)) for share, y in levels),
    )


def _ends(ends: tuple[str, str]) -> SafeString:
    return format_html(
        '<text x="{}" y="{}">{}</text><text x="{}" y="{}" text-anchor="end">{}</text>',
        LEFT,
        HEIGHT - 6,
        ends[0],
        WIDTH - RIGHT,
        HEIGHT - 6,
        ends[1],
    )


def _round_up(value: float) -> float:
    """Return the next of 2, 4, 6, 8, 10 and their multiples by powers of ten."""
    if value <= 2:
        return 2.0
    power = 10 ** floor(log10(value))
    return float(ceil(value / power / 2) * 2 * power) if value > power else float(power)


def short(value: float) -> str:
    """Write a number in at most four characters or so: 1.2k, 35k, 4M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
