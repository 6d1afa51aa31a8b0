"""The style of panels in all classic plots: ticks, borders, titles and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from throughtime._arguments.rules import Rule, number, optional, path, require
from throughtime._classic.titles import short

QUIET = "#b8b8b8"
INK = "#333333"


@dataclass(frozen=True)
class Destination:
    """The destination of a plot: existing Axes, an existing figure, and a file."""

    axes: Any = None
    figure: Any = None
    savepath: Any = None

    @property
    def is_new(self) -> bool:
        """Whether a new figure is created."""
        return self.axes is None and self.figure is None


@dataclass(frozen=True)
class FigureOptions:
    """The caller's options for everything around the data."""

    n_rows: int | None
    show_title: bool | str
    title_fontsize: float
    show_borders: bool
    show_xy_ticks: Any
    scale: tuple[float, float]
    dpi: float | None
    target: Destination

    @property
    def ticks(self) -> tuple[bool, bool]:
        """Whether x and y ticks are shown."""
        return ticks(self.show_xy_ticks)


_TICK_WORDS = {
    "": (False, False),
    "none": (False, False),
    "x": (True, False),
    "y": (False, True),
    "xy": (True, True),
    "both": (True, True),
}


def ticks(show_xy_ticks: Any) -> tuple[bool, bool]:
    """Return whether x and y ticks are shown, for (1, 0), [True, False], 1, "x" or None.

    Examples
    --------
    >>> ticks((1, 0)), ticks(True), ticks("y")
    ((True, False), (True, True), (False, True))
    """
    if isinstance(show_xy_ticks, str) and show_xy_ticks.lower() in _TICK_WORDS:
        return _TICK_WORDS[show_xy_ticks.lower()]
    given = np.zeros(1) if show_xy_ticks is None else np.asarray(show_xy_ticks)
    require(given.dtype.kind in "biuf" and given.size in (1, 2))
    return bool(given.flat[0]), bool(given.flat[-1])


_FACTOR = number(0, 100, inside=True)
# Rules for the arguments that the four functions share.
FRAME = {
    "show_xy_ticks": Rule(ticks, "two flags, for x and y, such as (1, 0), or one, or 'x', 'y', 'xy', 'none'"),
    "title_fontsize": number(0, 1000, "points", inside=True),
    "scale_width": _FACTOR,
    "scale_height": _FACTOR,
    "dpi": optional(number(0, 10_000, "pixels per inch", inside=True)),
    "savepath": path,
}


def value_limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return limits that include all finite values and zero; with both signs, zero is in the middle.

    Examples
    --------
    >>> [float(round(limit, 9)) for limit in value_limits(np.array([-1.0, 2.0]))]
    [-2.16, 2.16]
    """
    finite = values[np.isfinite(values)]
    low, high = (min(finite.min(), 0.0), max(finite.max(), 0.0)) if finite.size else (0.0, 0.0)
    if low == high == 0:
        return -1.0, 1.0
    if low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
    margin = 0.04 * (high - low)
    return float(low - margin), float(high + margin)


def dress(ax: Axes, frame: FigureOptions, *, bottom: bool, left: bool, size: float = 9) -> None:
    """Draw faint borders, and tick labels only for panels at the edge of the grid."""
    for spine in ax.spines.values():
        spine.set(visible=bool(frame.show_borders), color=QUIET, linewidth=0.8)
    show_x, show_y = frame.ticks[0] and bottom, frame.ticks[1] and left
    ax.tick_params(
        axis="both", which="both", labelsize=size, length=2.5, width=0.6, pad=2, color=QUIET, labelcolor=INK
    )
    ax.tick_params(axis="x", which="both", bottom=show_x, labelbottom=show_x, top=False)
    ax.tick_params(axis="y", which="both", left=show_y, labelleft=show_y, right=False)


class InnerLocator(MaxNLocator):
    """Few ticks, and none so close to the end of an axis that labels of neighbours overlap."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the positions of ticks between `vmin` and `vmax`."""
        places = np.asarray(super().tick_values(vmin, vmax))
        margin = 0.1 * abs(vmax - vmin)
        low, high = min(vmin, vmax) + margin, max(vmin, vmax) - margin
        inner = places[(places == 0) | ((places >= low) & (places <= high))]
        return inner if len(inner) else places


def tick_text(value: float, _position: int | None = None) -> str:
    """Format a tick's value. It is a module-level function so that figures can be pickled."""
    return short(value)


def few_value_ticks(ax: Axes, axis: str = "y", count: int = 4) -> None:
    """Label an axis of values with about three short numbers."""
    target = ax.yaxis if axis == "y" else ax.xaxis
    target.set_major_locator(InnerLocator(count, steps=[1, 2, 5, 10]))
    target.set_major_formatter(FuncFormatter(tick_text))


def few_index_ticks(ax: Axes, axis: str = "x", count: int = 5) -> None:
    """Label an axis of steps, samples or channels with whole numbers."""
    target = ax.xaxis if axis == "x" else ax.yaxis
    target.set_major_locator(MaxNLocator(count, integer=True, min_n_ticks=1))


def corner_label(ax: Axes, text: str, *, size: float = 9, right: bool = False) -> None:
    """Write a short text in an upper corner, above the drawing."""
    ax.text(
        0.98 if right else 0.02,
        0.96,
        text,
        transform=ax.transAxes,
        ha="right" if right else "left",
        va="top",
        fontsize=size,
        color=INK,
        zorder=6,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2},
    )
