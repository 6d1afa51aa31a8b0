"""Draw one value for each unit of each sample as a marker, side by side within the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from throughtime._classic.colors import ALARM, RGBA
from throughtime._classic.data import Features, Values
from throughtime._classic.panel_style import (
    INK,
    QUIET,
    FigureOptions,
    dress,
    few_index_ticks,
    few_value_ticks,
    value_limits,
)
from throughtime._classic.panels import Canvas
from throughtime._errors import FeatureError

SPREAD = 0.7  # of the distance between samples, so that the units of one do not hide each other
MOST_NAMED = 12


@dataclass(frozen=True)
class Marker:
    """Shape, size in points and line width of the markers."""

    shape: Any
    size: float
    width: float


def draw_points(
    canvas: Canvas,
    features: Features,
    frame: FigureOptions,
    *,
    colors: Sequence[RGBA],
    marker: Marker,
    zero: bool,
) -> None:
    """Draw into the one panel: x is the sample, y the value, the colour the unit."""
    ax = canvas.panels[0]
    values = features.values[:, 0, :]
    samples, units = values.shape
    low, high = value_limits(values)
    middle, half = (low + high) / 2, 0.55 * (high - low)
    limits = (middle - half, middle + half)
    x = np.arange(samples)[:, None] + offsets(units)
    if zero:
        ax.axhline(0, color=QUIET, linewidth=1, zorder=1, label="zero")
    between = np.arange(1, samples) - 0.5
    ax.vlines(between, *limits, color="#ededed", linewidth=0.8, zorder=0, label="between samples")
    _draw_units(ax, x, features, colors, marker)
    _draw_missing(ax, x, values, limits)
    dress(ax, frame, bottom=True, left=True)
    few_value_ticks(ax, count=7)
    few_index_ticks(ax, count=min(samples, 16))
    if any(name != str(index) for index, name in enumerate(features.samples)) and samples <= 32:
        ax.set_xticks(range(samples), features.samples)
    ax.set(xlim=(-0.6, samples - 0.4), ylim=limits)
    if units <= MOST_NAMED:
        _name_units(ax, features)


def offsets(units: int) -> Values:
    """Return the horizontal offsets of the units within a sample."""
    return (np.arange(units) - (units - 1) / 2) / units * SPREAD


def _draw_units(ax: Axes, x: Values, features: Features, colors: Sequence[RGBA], marker: Marker) -> None:
    values = features.values[:, 0, :]
    # Markers of many samples or units would touch, so the requested size is an upper limit.
    room = ax.get_window_extent().width * 72 / ax.figure.dpi / x.size
    size = min(marker.size, max(3.0, 2.2 * room))
    width = min(marker.width, size / 3)
    for unit, color in enumerate(colors):
        try:
            line = ax.plot(x[:, unit], values[:, unit], marker.shape, label=features.channels[unit])[0]
        except (TypeError, ValueError) as error:
            raise FeatureError(
                f"matplotlib has no marker={marker.shape!r}. Pass one such as 'o', '_' or 's'."
            ) from error
        line.set(linestyle="none", markersize=size, markeredgewidth=width, markeredgecolor=color)
        line.set_markerfacecolor((*color[:3], 0.35))


def _draw_missing(ax: Axes, x: Values, values: Values, limits: tuple[float, float]) -> None:
    low, high = limits
    for shape, is_marked, height in (
        ("x", np.isnan, 0.04),
        ("^", np.isposinf, 0.96),
        ("v", np.isneginf, 0.04),
    ):
        at = x[is_marked(values)]
        if len(at):
            y = np.full(len(at), low + height * (high - low))
            ax.scatter(at, y, marker=shape, s=36, color=ALARM, linewidths=1.5, zorder=5, label="not finite")


def _name_units(ax: Axes, features: Features) -> None:
    handles = [line for line in ax.lines if line.get_label() in features.channels]
    legend = ax.legend(
        handles=handles,
        title="unit",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=9,
        markerscale=0.6,
        labelcolor=INK,
        handletextpad=0.2,
    )
    legend.get_title().set(color=INK, fontsize=9)
