"""`show_features_1D`: one panel per channel, with lines over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from throughtime._errors import FeatureError
from throughtime._inputs import takes
from throughtime.compat._classic import look
from throughtime.compat._classic.cells import cell_x, cell_y, dress_cells, join_cells
from throughtime.compat._classic.colors import RGBA, colors
from throughtime.compat._classic.data import Features, Values, nonfinite_note, sequences
from throughtime.compat._classic.frame import FRAME, Canvas, FigureAndAxes, entitle, panels
from throughtime.picture._drawing.theme import DISTINCT
from throughtime.picture._render.keys import NONFINITE, lone


@takes(FeatureError, **FRAME)
def show_features_1D(  # noqa: N802, PLR0913, PLR0917 - an established name and order
    data: Any,
    n_rows: int | None = None,
    label_channels: bool = True,
    equate_axes: bool = True,
    max_timesteps: int | None = None,
    color: Any = None,
    show_title: bool | str = True,
    show_borders: bool = True,
    show_xy_ticks: Any = (1, 1),
    title_fontsize: float = 14,
    channel_axis: int = -1,
    scale_width: float = 1,
    scale_height: float = 1,
    dpi: float | None = None,
    *,
    axes: Any = None,
    figure: Any = None,
    savepath: Any = None,
) -> FigureAndAxes:
    """Draw one panel per channel over time, with one coloured line per sample.

    Values that are not finite have the marks of `tt.plots`: NaN an X at the bottom, +Inf a triangle at the
    top, -Inf a triangle at the bottom. More than 64 channels share one Axes, as fast as a single plot.

    Parameters
    ----------
    data : array, tensor, list or DataArray, (time, channel) or (sample, time, channel)
        The dims of a DataArray may have any order: `sample`, `time`, and all others are channels. The data
        are never changed.
    n_rows : int, optional
        Rows of panels; if it exceeds the number of panels, it is reduced with a warning.
    label_channels : bool
        Write the channel's name into its panel.
    equate_axes : bool
        Use the same limits in all panels; with False, each panel has separate limits.
    max_timesteps : int, optional
        Draw only that many steps, starting with the first.
    color : colour, int or list of those, optional
        Colour of all samples, or of each sample.
    show_title : bool or str
        False for no title, a string for a custom title.
    show_borders : bool
    show_xy_ticks : pair of bools or ints, one of them, or "x", "y", "xy", "none"
    title_fontsize : float, in points
    channel_axis : int
        The axis of channels, if `data` has no names.
    scale_width, scale_height : float
        Factors for the size of the figure.
    dpi : float, in pixels per inch, optional
        By default 110 on screen and 200 in a file.
    axes : Axes or array of Axes, optional
        Draw into these. A single Axes holds all panels as cells.
    figure : Figure or SubFigure, optional
        Draw into this instead of a new one.
    savepath : path, optional
        Save the figure there, completely or not at all; the folder is created.

    Returns
    -------
    (fig, axes)
        A named tuple; axes (row, column), or (1, 1) for more than 64 channels.

    Examples
    --------
    >>> import numpy as np
    >>> gradients = np.random.default_rng(0).normal(size=(16, 100, 6))
    >>> fig, axes = show_features_1D(gradients, n_rows=2)
    >>> axes.shape
    (2, 3)
    """
    features = sequences(data, channel_axis, max_timesteps)
    samples, _, channels = features.values.shape
    line_colors = colors(color, samples)
    parts = [features.values] * channels if equate_axes else np.moveaxis(features.values, 2, 0)
    limits = np.array([look.value_limits(part) for part in parts])  # (channel, 2)
    with panels(channels, locals(), share_y=equate_axes) as canvas:
        if canvas.is_cells:
            dress_cells(canvas, features.channels if label_channels else ())
            draw_cells(canvas.panels[0], canvas, features, line_colors, limits)
            names = (cell_scale(features, limits, equate=equate_axes), "channel")
        else:
            draw_panels(canvas, features, line_colors, limits)
            dress_panels(canvas, features, equate=equate_axes, label=label_channels)
            names = ("timestep", features.value_name)
            if 1 < samples <= len(DISTINCT) and canvas.frame.is_new:
                _name_samples(canvas, features, line_colors)
        return entitle(canvas, look.title_parts(features, look.zero_note(features)), names)


def draw_panels(canvas: Canvas, features: Features, line_colors: Sequence[RGBA], limits: Values) -> None:
    times = features.times
    margin = 0.02 * (times[-1] - times[0]) or 0.5
    for channel, ax in enumerate(canvas.panels):
        values, (low, high) = features.values[:, :, channel], limits[channel]
        ax.axhline(0, color=look.QUIET, linewidth=0.8, zorder=1, label="zero")
        _draw_lines(ax, times, values, features.samples, line_colors)
        _mark(ax, values, times, partial(np.interp, xp=(0, 1), fp=(low, high)))
        ax.set(xlim=(times[0] - margin, times[-1] + margin), ylim=(low, high))


def dress_panels(canvas: Canvas, features: Features, *, equate: bool, label: bool) -> None:
    """Write ticks, the name of each channel, and how many of its values are not finite."""
    size = canvas.font_size
    for channel, ax in enumerate(canvas.panels):
        left = not equate or canvas.is_left(channel)
        look.dress(ax, canvas.frame, bottom=canvas.is_bottom(channel), left=left, size=size)
        look.value_ticks(ax.yaxis)
        look.index_ticks(ax.xaxis, 3 if canvas.columns > 4 else 5)
        look.corner_label(ax, features.channels[channel] if label else "", size=size)
        look.corner_label(ax, nonfinite_note(features.values[:, :, channel]), size=size, right=True)


def draw_cells(
    ax: Axes, canvas: Canvas, features: Features, line_colors: Sequence[RGBA], limits: Values
) -> None:
    """Draw all channels into one Axes, each scaled to its cell."""
    low, span = limits[:, :1], np.diff(limits)
    zero = cell_y(canvas, np.repeat(np.clip(-low / span, 0, 1), 2, axis=1))
    ends = cell_x(canvas, np.array([0.0, 1.0]))
    ax.plot(join_cells(ends), join_cells(zero), color=look.QUIET, linewidth=0.5, zorder=1, label="zero")
    duration = features.times[-1] - features.times[0]
    x = cell_x(canvas, (features.times - features.times[0]) / duration if duration else np.array([0.5]))
    values = features.values.transpose(0, 2, 1)
    y = np.array([join_cells(cells) for cells in cell_y(canvas, (values - low) / span)])
    _draw_lines(ax, join_cells(x), y, features.samples, line_colors, scale=0.6)
    _mark(ax, values, x, lambda share: cell_y(canvas, np.full(x.shape, share)), size=12)


def _draw_lines(
    ax: Axes, x: Values, y: Values, names: Sequence[str], line_colors: Sequence[RGBA], scale: float = 1
) -> None:
    """Draw one line per sample, and a dot for each value that no line shows."""
    width = scale * (1.5 if len(y) == 1 else 1.1 if len(y) <= 4 else 0.8)
    for row, name, color in zip(y, names, line_colors, strict=True):
        # The default round joins take a fifth more time and are invisible at this width.
        ax.plot(x, row, color=color, label=f"sample {name}", linewidth=width, solid_joinstyle="bevel")
        if (alone := lone(row)).size:
            ax.scatter(x[alone], row[alone], s=12 * scale**2, color=[color], linewidths=0, zorder=3)


def _mark(ax: Axes, values: Values, x: Values, height: Callable[[float], Any], size: float = 26) -> None:
    """Mark the steps at which a sample is not finite, at the top or the bottom of the panel."""
    for kind, test in NONFINITE.items():
        at = test(values).any(axis=0)
        if at.any():
            y = np.broadcast_to(height(0.92 if kind == "positive_infinity" else 0.08), at.shape)
            look.draw_nonfinite(ax, kind, x[at], y[at], size=size)


def _name_samples(canvas: Canvas, features: Features, line_colors: Sequence[RGBA]) -> None:
    """Draw a legend beside the panels, which only a figure that we created has space for."""
    canvas.fig.legend(
        [Line2D([], [], color=color, linewidth=1.5) for color in line_colors],
        features.samples,
        title="sample",
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        handlelength=1.2,
        labelcolor=look.INK,
    )


def cell_scale(features: Features, limits: Values, *, equate: bool) -> str:
    """Describe the range of a cell's width and height, in place of its ticks."""
    first, last = (look.shorten(time, 6) for time in features.times[[0, -1]])
    low, high = map(look.shorten, limits[0])
    width = f"each cell: timesteps {first} to {last}"
    return f"{width}, height {low} to {high}" if equate else f"{width}, its own height"
