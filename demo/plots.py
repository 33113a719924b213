"""What the page can draw: each plot with its parameters, and the drawing of it as a PNG."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = Mapping[str, float]

# A picture has no background: these colors read well on a light page and on a dark one.
INK = "#7d8699"
COLORS = ("#3f83f8", "#e8638b", "#12a594", "#e59a1f", "#8f6ef2", "#5fae3e")

# Matplotlib shares caches between figures and does not promise to be safe in threads.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Parameter:
    """A number that the person may choose, within its bounds. ``unit`` follows it directly."""

    name: str
    label: str
    minimum: float
    maximum: float
    initial: float
    unit: str = ""
    whole: bool = False


@dataclass(frozen=True)
class Plot:
    """A function that can be drawn. ``icon`` is the data of an SVG path in a box of 48 by 24."""

    title: str
    icon: str
    parameters: tuple[Parameter, ...]
    draw: Callable[[Axes, Values], None]


def render(plot: Plot, values: Values) -> bytes:
    """Draw ``plot`` with ``values``, one for each of its parameters, and return the PNG."""
    with _one_at_a_time:
        # Here, because it takes long to load: Celery's processes load the views, and draw nothing.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.3), layout="constrained", facecolor="none")
        axes = figure.add_subplot()
        _furnish(axes, _caption(plot, values))
        plot.draw(axes, values)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=160, facecolor="none")
    return picture.getvalue()


def _furnish(axes: Axes, caption: str) -> None:
    axes.set_facecolor("none")
    axes.set_prop_cycle(color=COLORS)
    axes.set_title(caption, color=INK, fontsize=10, pad=10)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.grid(color=INK, alpha=0.22, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _caption(plot: Plot, values: Values) -> str:
    return "   ".join(
        f"{parameter.label.lower()} {values[parameter.name]:g}{parameter.unit}"
        for parameter in plot.parameters
    )


def _sine(axes: Axes, values: Values) -> None:
    time = np.linspace(0, 1, 2000)
    angle = 2 * np.pi * values["frequency"] * time + np.radians(values["phase"])
    axes.plot(time, values["amplitude"] * np.sin(angle), linewidth=2.4)
    axes.set_xlabel("seconds", color=INK)


def _damped(axes: Axes, values: Values) -> None:
    time = np.linspace(0, 5, 3000)
    envelope = np.exp(-values["damping"] * time)
    axes.fill_between(time, -envelope, envelope, color=COLORS[1], alpha=0.12, linewidth=0)
    angle = 2 * np.pi * values["frequency"] * time
    axes.plot(time, envelope * np.cos(angle), color=COLORS[1], linewidth=2.2)
    axes.set_xlabel("seconds", color=INK)


def _lissajous(axes: Axes, values: Values) -> None:
    angle = np.linspace(0, 2 * np.pi, 4000)
    across = np.sin(values["across"] * angle + np.radians(values["phase"]))
    axes.plot(across, np.sin(values["up"] * angle), color=COLORS[4], linewidth=2.2)
    axes.set_aspect("equal")


def _normal(axes: Axes, values: Values) -> None:
    mean, deviation = values["mean"], values["deviation"]
    generator = np.random.default_rng()
    sample = generator.normal(mean, deviation, int(values["sample"]))
    axes.hist(sample, bins=40, density=True, color=COLORS[2], alpha=0.35)
    x = np.linspace(mean - 4 * deviation, mean + 4 * deviation, 1000)
    density = np.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
    axes.plot(x, density, color=COLORS[2], linewidth=2.4)


def _walk(axes: Axes, values: Values) -> None:
    steps, walks = int(values["steps"]), int(values["walks"])
    moves = np.random.default_rng(int(values["seed"])).choice((-1, 1), size=(steps, walks))
    places = np.vstack([np.zeros((1, walks)), moves.cumsum(axis=0)])
    axes.plot(places, linewidth=1.7)
    axes.set_xlabel("steps", color=INK)


PLOTS: dict[str, Plot] = {
    "sine": Plot(
        "Sine wave",
        "M2 12C7-1 12-1 16.6 12S27 25 31.3 12S41-1 46 12",
        (
            Parameter("frequency", "Frequency", 0.1, 20, 3, " Hz"),
            Parameter("amplitude", "Amplitude", 0.1, 10, 1),
            Parameter("phase", "Phase", -360, 360, 0, "°"),
        ),
        _sine,
    ),
    "damped": Plot(
        "Damped oscillation",
        "M2 2C6 2 6 22 11 22S16 6 20 6S25 18 29 18S33 9.5 37 9.5S41 13 46 12.5",
        (
            Parameter("frequency", "Frequency", 0.1, 10, 2, " Hz"),
            Parameter("damping", "Damping", 0, 5, 0.6, " 1/s"),
        ),
        _damped,
    ),
    "lissajous": Plot(
        "Lissajous figure",
        "M24 12C34-2 44-2 44 12S34 26 24 12S14-2 4 12S14 26 24 12Z",
        (
            Parameter("across", "Across", 1, 12, 3, whole=True),
            Parameter("up", "Up", 1, 12, 4, whole=True),
            Parameter("phase", "Phase", -360, 360, 90, "°"),
        ),
        _lissajous,
    ),
    "normal": Plot(
        "Normal distribution",
        "M2 21C16 21 17 3 24 3S32 21 46 21",
        (
            Parameter("mean", "Mean", -100, 100, 0),
            Parameter("deviation", "Deviation", 0.01, 100, 1),
            Parameter("sample", "Sample", 10, 100_000, 2000, whole=True),
        ),
        _normal,
    ),
    "walk": Plot(
        "Random walk",
        "M2 14L7 9L11 13L16 6L20 10L24 4L29 15L33 11L37 20L41 15L46 18",
        (
            Parameter("steps", "Steps", 10, 5000, 400, whole=True),
            Parameter("walks", "Walks", 1, 12, 5, whole=True),
            Parameter("seed", "Seed", 0, 999_999, 7, whole=True),
        ),
        _walk,
    ),
}
