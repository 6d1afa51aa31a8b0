"""Draw one histogram per panel; clipped bars are marked with their counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from throughtime._classic.cells import PADDING, cell_x, cell_y, dress_cells
from throughtime._classic.colors import ALARM, RGBA
from throughtime._classic.data import Values
from throughtime._classic.histograms import Bars, shares
from throughtime._classic.panel_style import QUIET, FigureOptions, corner_label, dress, few_value_ticks
from throughtime._classic.panels import Canvas
from throughtime._classic.titles import short


@dataclass(frozen=True)
class Looks:
    """The colour of each panel, and whether panels share their limits."""

    colors: Sequence[RGBA]
    equate: bool


def draw_histograms(canvas: Canvas, histogram: Sequence[Bars], frame: FigureOptions, looks: Looks) -> None:
    """Draw one histogram into each panel."""
    equate_counts = looks.equate and len({bars.values.size for bars in histogram}) == 1
    shared = max(top(bars) for bars in histogram) if equate_counts else None
    if canvas.is_cells:
        _draw_cells(canvas, histogram, frame, looks.colors[0], shared)
        return
    size = 9 if canvas.rows <= 4 else 7.5
    for panel, (ax, bars) in enumerate(zip(canvas.panels, histogram, strict=True)):
        ax.stairs(bars.heights, bars.edges, fill=True, color=looks.colors[panel], label="counts")
        ax.axvline(0, color=QUIET, linewidth=0.8, zorder=0, label="zero")
        dress(ax, frame, bottom=True, left=True, size=size)
        ax.tick_params(axis="x", labelbottom=frame.ticks[0] and (not looks.equate or canvas.is_bottom(panel)))
        ax.tick_params(axis="y", labelleft=frame.ticks[1] and (not equate_counts or canvas.is_left(panel)))
        few_value_ticks(ax, "x", 4)
        few_value_ticks(ax, "y", 3)
        ax.set(xlim=(bars.edges[0], bars.edges[-1]), ylim=(0, shared or top(bars)))
        _mark_peaks(ax, bars, size)
        for text, right in ((bars.name, False), (shares(bars.values, bars.limits).replace(", ", "\n"), True)):
            if text:
                corner_label(ax, text, size=size, right=right)


def top(bars: Bars) -> float:
    """Upper end of the axis of counts, with room for text and for the marks of clipped bars."""
    highest = float(bars.heights.max(initial=0)) or 1.0
    return highest * (1.3 + 0.12 * min(len(bars.clipped), 4))


def _mark_peaks(ax: Axes, bars: Bars, size: float) -> None:
    """Mark clipped bars and write their counts, one above the other if they are close."""
    centres = (bars.edges[1:] + bars.edges[:-1]) / 2
    step = 0.1 * ax.get_ylim()[1]
    for rank, place in enumerate(sorted(bars.clipped)):
        x, y = float(centres[place]), float(bars.ceiling)
        ax.scatter([x], [y], marker="^", s=22, color=ALARM, linewidths=0, zorder=5, label="clipped")
        text = short(bars.counts[place], 6)
        ax.annotate(f" {text}", (x, y + (rank % 4) * step), fontsize=size, color=ALARM, va="bottom", zorder=7)


def _draw_cells(
    canvas: Canvas, histogram: Sequence[Bars], frame: FigureOptions, color: RGBA, shared: float | None
) -> None:
    ax = canvas.panels[0]
    names = [bars.name for bars in histogram]
    dress_cells(ax, canvas, frame, names if any(names) else ())
    corners = cell_x(canvas, np.zeros(1)), cell_y(canvas, np.zeros((canvas.count, 1)))
    scale = 1 - 2 * PADDING
    outlines, marks = [], []
    for bars, left, floor in zip(histogram, *corners, strict=True):
        x = left + scale * (bars.edges - bars.edges[0]) / (bars.edges[-1] - bars.edges[0])
        y = floor + scale * bars.heights / (shared or top(bars))
        outlines.append(_outline(x, y, float(floor[0])))
        marks += [((x[place] + x[place + 1]) / 2, y[place], bars.counts[place]) for place in bars.clipped]
    ax.add_collection(PolyCollection(outlines, facecolors=[color], linewidths=0, label="counts"))
    if marks:
        x, y, counts = np.array(marks).T
        for place in zip(x, y, counts, strict=True):
            ax.text(*place[:2], f" {short(place[2], 6)}", fontsize=6, color=ALARM, va="bottom")
        ax.scatter(x, y, marker="^", s=8, color=ALARM, linewidths=0, label="clipped")


def _outline(edges: Values, heights: Values, floor: float) -> Values:
    x = np.concatenate([edges[:1], np.repeat(edges, 2)[1:-1], edges[-1:]])
    y = np.concatenate([[floor], np.repeat(heights, 2), [floor]])
    return np.stack([x, y], axis=1)


def cell_scale(histogram: Sequence[Bars], looks: Looks) -> str:
    """Describe the range of a cell's width, in place of its ticks."""
    if not looks.equate:
        return "each cell: value, in its own limits"
    low, high = histogram[0].limits
    return f"each cell: values {short(low)} to {short(high)}"
