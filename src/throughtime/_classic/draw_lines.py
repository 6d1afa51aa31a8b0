"""Draw values over time as lines: panel k holds channel k of every sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from throughtime._classic.cells import cell_x, cell_y, dress_cells, joined
from throughtime._classic.colors import ALARM, DISTINCT, RGBA
from throughtime._classic.data import Features, Values, nonfinite_note
from throughtime._classic.panel_style import (
    INK,
    QUIET,
    FigureOptions,
    corner_label,
    dress,
    few_index_ticks,
    few_value_ticks,
    value_limits,
)
from throughtime._classic.panels import Canvas
from throughtime._classic.titles import short

# Height of the marks for values that are not finite, as a fraction of the panel.
MARKS = (("x", np.isnan, 0.08), ("^", np.isposinf, 0.92), ("v", np.isneginf, 0.08))


@dataclass(frozen=True)
class Lines:
    """The colour of each sample, whether panels share their limits, and whether they are labelled."""

    colors: Sequence[RGBA]
    equate: bool
    label: bool


def draw_lines(canvas: Canvas, features: Features, frame: FigureOptions, look: Lines) -> None:
    """Draw one line per sample into each panel."""
    limits = channel_limits(features.values, equate=look.equate)
    if canvas.is_cells:
        _draw_cells(canvas, features, frame, look, limits)
        return
    size = 9 if canvas.rows <= 4 else 7.5
    if 1 < len(features.samples) <= len(DISTINCT) and frame.target.is_new:
        _name_samples(canvas, features, look)
    for channel, ax in enumerate(canvas.panels):
        _draw_panel(ax, features, channel, look.colors, limits[channel])
        left = not look.equate or canvas.is_left(channel)
        dress(ax, frame, bottom=canvas.is_bottom(channel), left=left, size=size)
        few_value_ticks(ax)
        few_index_ticks(ax, count=3 if canvas.columns > 4 else 5)
        if look.label:
            corner_label(ax, features.channels[channel], size=size)
        note = nonfinite_note(features.values[:, :, channel])
        if note:
            corner_label(ax, note, size=size, right=True)


def _name_samples(canvas: Canvas, features: Features, look: Lines) -> None:
    """Draw a legend beside the panels, which only a figure that we created has room for."""
    handles = [Line2D([], [], color=color, linewidth=1.5) for color in look.colors]
    canvas.fig.legend(
        handles,
        features.samples,
        title="sample",
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        handlelength=1.2,
        labelcolor=INK,
    )


def channel_limits(values: Values, *, equate: bool) -> Values:
    """Return the limits of every channel: (channel, 2)."""
    channels = values.shape[2]
    if equate:
        return np.tile(value_limits(values), (channels, 1))
    return np.array([value_limits(values[:, :, channel]) for channel in range(channels)])


def line_width(samples: int) -> float:
    """Return a line width that decreases with the number of lines."""
    return 1.5 if samples == 1 else 1.1 if samples <= 4 else 0.8


def _draw_panel(
    ax: Axes, features: Features, channel: int, colors: Sequence[RGBA], limits: NDArray[np.float64]
) -> None:
    times, values = features.times, features.values[:, :, channel]
    low, high = limits
    ax.axhline(0, color=QUIET, linewidth=0.8, zorder=1, label="zero")
    for sample, line in enumerate(ax.plot(times, values.T, linewidth=line_width(len(values)))):
        line.set(color=colors[sample], label=f"sample {features.samples[sample]}")
    for sample, row in enumerate(values):
        alone = is_alone(row)
        if alone.any():
            ax.scatter(times[alone], row[alone], s=12, color=[colors[sample]], linewidths=0, zorder=3)
    for marker, is_marked, height in MARKS:
        at = times[is_marked(values).any(axis=0)]
        if len(at):
            _mark(ax, at, np.full(len(at), low + height * (high - low)), marker)
    margin = 0.02 * (times[-1] - times[0]) or 0.5
    ax.set(xlim=(times[0] - margin, times[-1] + margin), ylim=(low, high))


def is_alone(values: Values) -> NDArray[np.bool_]:
    """Whether a finite value has no finite neighbour along the last axis, so that a line does not show it."""
    finite = np.pad(np.isfinite(values), [(0, 0)] * (values.ndim - 1) + [(1, 1)])
    return np.asarray(finite[..., 1:-1] & ~finite[..., :-2] & ~finite[..., 2:])


def _mark(ax: Axes, x: Values, y: Values, marker: str, size: float = 18) -> None:
    ax.scatter(x, y, marker=marker, s=size, color=ALARM, linewidths=1, zorder=5, label="not finite")


def _draw_cells(
    canvas: Canvas, features: Features, frame: FigureOptions, look: Lines, limits: Values
) -> None:
    ax = canvas.panels[0]
    dress_cells(ax, canvas, frame, features.channels if look.label else ())
    low, span = limits[:, :1], np.diff(limits)
    x = cell_x(canvas, _fractions(features.times))
    ends = cell_x(canvas, np.array([0.0, 1.0]))
    zero = np.repeat(np.clip(-low / span, 0, 1), 2, axis=1)
    ax.plot(joined(ends), joined(cell_y(canvas, zero)), color=QUIET, linewidth=0.5, zorder=1, label="zero")
    by_channel = features.values.transpose(0, 2, 1)
    y = cell_y(canvas, (by_channel - low) / span)
    # The default round joins take a fifth more time and are invisible at this width.
    style: dict[str, Any] = {"linewidth": 0.6 * line_width(len(y)), "solid_joinstyle": "bevel"}
    for sample, cells in enumerate(y):
        name = f"sample {features.samples[sample]}"
        ax.plot(joined(x), joined(cells), color=look.colors[sample], label=name, **style)
        alone = is_alone(cells)
        if alone.any():
            ax.scatter(x[alone], cells[alone], s=3, color=[look.colors[sample]], linewidths=0)
    for marker, is_marked, height in MARKS:
        at = is_marked(by_channel).any(axis=0)
        if at.any():
            _mark(ax, x[at], cell_y(canvas, np.full(at.shape, height))[at], marker, size=8)


def _fractions(times: Values) -> Values:
    span = times[-1] - times[0]
    return (times - times[0]) / span if span else np.array([0.5])


def cell_scale(features: Features, look: Lines) -> str:
    """Describe the range of a cell's width and height, in place of its ticks."""
    width = f"each cell: timesteps {short(features.times[0], 6)} to {short(features.times[-1], 6)}"
    if not look.equate:
        return f"{width}, its own height"
    low, high = value_limits(features.values)
    return f"{width}, height {short(low)} to {short(high)}"
