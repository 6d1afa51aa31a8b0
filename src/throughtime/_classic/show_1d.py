"""`show_features_1D`: one panel per channel, with lines over time."""

from __future__ import annotations

from typing import Any

from throughtime._arguments import takes
from throughtime._classic.colors import colors
from throughtime._classic.data import Features, sequences
from throughtime._classic.draw_lines import Lines, cell_scale, draw_lines
from throughtime._classic.panel_style import FRAME, Destination, FigureOptions
from throughtime._classic.panels import Canvas, FigureAndAxes, entitle, panels
from throughtime._classic.titles import title_parts, zero_note
from throughtime._errors import FeatureError


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

    Values that are not finite are marked: NaN by an x at the bottom, +Inf by a triangle at the top, -Inf by a
    triangle at the bottom. More than 64 channels share one Axes, which is as fast as a single plot.

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

    Raises
    ------
    FeatureError
        The data or an argument cannot be drawn; the message names the remedy.

    Examples
    --------
    >>> import numpy as np
    >>> gradients = np.random.default_rng(0).normal(size=(16, 100, 6))
    >>> fig, axes = show_features_1D(gradients, n_rows=2)
    >>> axes.shape
    (2, 3)
    """
    target = Destination(axes, figure, savepath)
    frame = FigureOptions(
        n_rows,
        show_title,
        title_fontsize,
        show_borders,
        show_xy_ticks,
        (scale_width, scale_height),
        dpi,
        target,
    )
    features = sequences(data, channel_axis, max_timesteps)
    samples, _, channels = features.values.shape
    look = Lines(colors(color, samples), bool(equate_axes), bool(label_channels))
    with panels(channels, frame, share_y=look.equate) as canvas:
        draw_lines(canvas, features, frame, look)
        entitle(canvas, frame, title_parts(features, zero_note(features)), axis_names(canvas, features, look))
    return FigureAndAxes(canvas.fig, canvas.axes)


def axis_names(canvas: Canvas, features: Features, look: Lines) -> tuple[str, str]:
    """Return the names of x and y; cells have no ticks, so the name includes their range."""
    if canvas.is_cells:
        return cell_scale(features, look), "channel"
    return "timestep", features.value_name
