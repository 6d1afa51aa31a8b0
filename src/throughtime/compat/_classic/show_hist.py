"""`show_features_hist`: the distribution of the values of channels, layers or whole arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from throughtime._errors import FeatureError
from throughtime._inputs import takes
from throughtime._inputs.rules import rising, whole
from throughtime.compat._classic.cells import PADDING, cell_x, cell_y, dress_cells
from throughtime.compat._classic.colors import ALARM, RGBA, colors
from throughtime.compat._classic.data import Values, title_of, warn_if_nothing_finite
from throughtime.compat._classic.frame import FRAME, Canvas, FigureAndAxes, entitle, panels
from throughtime.compat._classic.histograms import Bars, groups, histograms, ranges, shares
from throughtime.compat._classic.look import QUIET, corner_label, count_noun, dress, shorten, value_ticks
from throughtime.picture._drawing.theme import DISTINCT


@takes(FeatureError, **FRAME, peaks_to_clip=whole(0), xlims=rising)
def show_features_hist(  # noqa: PLR0913, PLR0917 - as in `show_features_1D`
    data: Any,
    n_rows: int | None = None,
    bins: Any = 100,
    xlims: Any = None,
    center_zero: bool = False,
    peaks_to_clip: int = 0,
    annotations: Any = "auto",
    color: Any = None,
    equate_axes: bool = True,
    show_title: bool | str = True,
    show_borders: bool = False,
    show_xy_ticks: Any = (1, 1),
    title_fontsize: float = 14,
    channel_axis: int = -1,
    scale_width: float = 1,
    scale_height: float = 1,
    dpi: float | None = None,
    *,
    by: str | None = None,
    axes: Any = None,
    figure: Any = None,
    savepath: Any = None,
) -> FigureAndAxes:
    """Draw the distribution of values: a histogram for each channel, for each array, or for all values.

    Shares of exact zeros, NaN, Inf and of values outside `xlims` are written into the panel.

    Parameters
    ----------
    data : array, tensor, DataArray, or several of them in a list, dict or Dataset
    bins : int, edges, or rule such as "auto"
    xlims : (low, high), optional
        Limits of the values; the default includes all values.
    center_zero : bool
        Put zero in the middle of the x axis.
    peaks_to_clip : int
        Clip that many of the highest bars of a panel to the height of the next one, and write their counts.
    annotations : "auto", list of str, or None
        Names of the panels: those of the data, custom names, or none.
    equate_axes : bool
        Use the same limits in all panels; for counts, only if panels have equally many values.
    by : None, "channel", "array", or a dim of a DataArray
        Content of a panel. The default is one array if there are several, otherwise one channel. With
        "array", all values of one array share a panel.
    n_rows, color, show_title, show_borders, show_xy_ticks, title_fontsize, channel_axis, scale_width, \
    scale_height, dpi, axes, figure, savepath
        See `show_features_1D`.

    Returns
    -------
    (fig, axes)
        A named tuple; axes (row, column), or (1, 1) for more than 64 panels.

    Examples
    --------
    >>> import numpy as np
    >>> kernel, bias = np.random.default_rng(0).normal(size=(8, 24)), np.zeros(24)
    >>> fig, axes = show_features_hist({"kernel": kernel, "bias": bias}, annotations=["W", "b"])
    >>> axes.shape
    (1, 2)
    """
    names, arrays = annotate(groups(data, by, channel_axis), annotations)
    warn_if_nothing_finite(np.concatenate(arrays))
    limits = ranges(arrays, xlims, center_zero=center_zero, equate=equate_axes)
    bars = histograms(names, arrays, bins, limits, peaks_to_clip)
    fills = colors(DISTINCT[0] if color is None else color, len(bars))
    # Counts are comparable only between panels with equally many values.
    share_y = equate_axes and len({each.values.size for each in bars}) == 1
    with panels(len(bars), locals(), share_x=equate_axes, share_y=False) as canvas:
        draw = draw_cells if canvas.is_cells else draw_panels
        axis_names = draw(canvas, bars, fills, share=(equate_axes, share_y))
        everything = np.concatenate([array.ravel() for array in arrays])
        grids = [count_noun(len(arrays), "histogram")] if len(arrays) > 1 else []
        title = [*title_of(data), *grids, count_noun(everything.size, "value"), shares(everything)]
        return entitle(canvas, title, axis_names)


def draw_panels(
    canvas: Canvas, histogram: Sequence[Bars], fills: Sequence[RGBA], share: tuple[bool, bool]
) -> tuple[str, str]:
    """Draw one histogram into each panel, which may share limits; return the names of x and y."""
    size, highest = canvas.font_size, max(map(top, histogram))
    for panel, (ax, bars) in enumerate(zip(canvas.panels, histogram, strict=True)):
        ax.stairs(bars.heights, bars.edges, fill=True, color=fills[panel], label="counts")
        ax.axvline(0, color=QUIET, linewidth=0.8, zorder=0, label="zero")
        bottom, left = not share[0] or canvas.is_bottom(panel), not share[1] or canvas.is_left(panel)
        dress(ax, canvas.frame, bottom=bottom, left=left, size=size)
        value_ticks(ax.xaxis, 4)
        value_ticks(ax.yaxis, 3)
        ax.set(xlim=bars.limits, ylim=(0, highest if share[1] else top(bars)))
        _mark_peaks(ax, bars, size)
        corner_label(ax, bars.name, size=size)
        corner_label(ax, shares(bars.values, bars.limits).replace(", ", "\n"), size=size, right=True)
    return "value", "count"


def top(bars: Bars) -> float:
    """Upper end of the axis of counts, with space for text and for the marks of clipped bars."""
    highest = float(bars.heights.max(initial=0)) or 1.0
    return highest * (1.3 + 0.12 * min(len(bars.clipped), 4))


def _mark_peaks(ax: Axes, bars: Bars, size: float) -> None:
    """Mark clipped bars and write their counts, one above the other if they are close."""
    centres = (bars.edges[1:] + bars.edges[:-1]) / 2
    step = 0.1 * ax.get_ylim()[1]
    for rank, place in enumerate(sorted(bars.clipped)):
        x, y = float(centres[place]), float(bars.ceiling)
        ax.scatter([x], [y], marker="^", s=22, color=ALARM, linewidths=0, zorder=5, label="clipped")
        text = shorten(bars.counts[place], 6)
        ax.annotate(f" {text}", (x, y + (rank % 4) * step), fontsize=size, color=ALARM, va="bottom", zorder=7)


def draw_cells(
    canvas: Canvas, histogram: Sequence[Bars], fills: Sequence[RGBA], share: tuple[bool, bool]
) -> tuple[str, str]:
    """Draw all histograms into one Axes, each scaled to its cell; return the names of x and y."""
    ax, highest = canvas.panels[0], max(map(top, histogram))
    names = [bars.name for bars in histogram]
    dress_cells(canvas, names if any(names) else ())
    corners = cell_x(canvas, np.zeros(1)), cell_y(canvas, np.zeros((canvas.count, 1)))
    scale = 1 - 2 * PADDING
    outlines, marks = [], []
    for bars, left, floor in zip(histogram, *corners, strict=True):
        x = left + scale * (bars.edges - bars.edges[0]) / (bars.edges[-1] - bars.edges[0])
        y = floor + scale * bars.heights / (highest if share[1] else top(bars))
        outlines.append(np.stack([np.repeat(x, 2), np.concatenate([floor, np.repeat(y, 2), floor])], axis=1))
        marks += [((x[place] + x[place + 1]) / 2, y[place], bars.counts[place]) for place in bars.clipped]
    # The edges keep bars that are narrower than a pixel.
    ax.add_collection(PolyCollection(outlines, color=fills[0], linewidths=0.4, label="counts"))
    for across, height, count in marks:
        ax.text(across, height, f" {shorten(count, 6)}", fontsize=6, color=ALARM, va="bottom")
    if marks:
        x, y, _ = np.array(marks).T
        ax.scatter(x, y, marker="^", s=8, color=ALARM, linewidths=0, label="clipped")
    low, high = histogram[0].limits
    ends = f"values {shorten(low)} to {shorten(high)}" if share[0] else "value, in its own limits"
    return f"each cell: {ends}", "histogram"


def annotate(named: Mapping[str, Values], annotations: Any) -> tuple[list[str], list[Values]]:
    values = list(named.values())
    if annotations is True or (isinstance(annotations, str) and annotations == "auto"):
        return list(named), values
    if annotations is None or annotations is False:
        return [""] * len(values), values
    is_list = isinstance(annotations, list | tuple)
    if not is_list or len(annotations) != len(values):
        raise FeatureError(
            f"annotations={annotations!r}: expected 'auto', None, or one string for each of the "
            f"{len(values)} panels."
        )
    return [str(text) for text in annotations], values
