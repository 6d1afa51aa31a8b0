"""`show_features_1D`: each channel over time, as lines in a panel of its own."""

from __future__ import annotations

from typing import Any

from throughtime._arguments import takes
from throughtime._classic.colors import colors
from throughtime._classic.data import Features, sequences
from throughtime._classic.draw_lines import Lines, cell_scale, draw_lines
from throughtime._classic.panel_style import FRAME, Frame, Target
from throughtime._classic.panels import Canvas, Shown, entitle, panels
from throughtime._classic.titles import title_parts, zero_note
from throughtime._errors import FeatureError


@takes(FeatureError, **FRAME)
def show_features_1D(  # noqa: N802, PLR0913, PLR0917 - the name and the order that people know
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
) -> Shown:
    """Draw each channel over time in a panel of its own, every sample as a line of its own colour.

    Values that are not finite are marked: NaN by x below, +Inf by a triangle on top, -Inf by one below.
    More than 64 channels share one Axes, which is as quick as a single plot.

    Parameters
    ----------
    data : array, tensor, list or DataArray, (time, channel) or (sample, time, channel)
        A DataArray is read by the names of its dims, in any order: `sample`, `time`, and all others are
        channels. It is never changed.
    n_rows : int, optional
        Rows of panels; more than there are panels is reduced with a warning.
    label_channels : bool
        Write the channel's name into its panel.
    equate_axes : bool
        The same limits in all panels; False gives each its own.
    max_timesteps : int, optional
        Draw only that many steps, the first ones.
    color : colour, int or list of those, optional
        For all samples, or one for each.
    show_title : bool or str
        False for none, a string for your own.
    show_borders : bool
    show_xy_ticks : pair of bools or ints, one of them, or "x", "y", "xy", "none"
    title_fontsize : float, in points
    channel_axis : int
        The axis of channels, where `data` has no names.
    scale_width, scale_height : float
        Factors of the size of the figure.
    dpi : float, in pixels per inch, optional
        By default 110 on screen and 200 in a file.
    axes : Axes or array of Axes, optional
        Draw into these. One Axes holds all panels as its cells.
    figure : Figure or SubFigure, optional
        Draw into this instead of a new one.
    savepath : path, optional
        Save there, whole or not at all; the folder is made.

    Returns
    -------
    (fig, axes)
        A named tuple; axes (row, column), or (1, 1) for more than 64 channels.

    Raises
    ------
    FeatureError
        The data or an argument cannot be drawn; it says what would do.

    Examples
    --------
    >>> import numpy as np
    >>> gradients = np.random.default_rng(0).normal(size=(16, 100, 6))
    >>> fig, axes = show_features_1D(gradients, n_rows=2)
    >>> axes.shape
    (2, 3)
    """
    target = Target(axes, figure, savepath)
    frame = Frame(
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
    return Shown(canvas.fig, canvas.axes)


def axis_names(canvas: Canvas, features: Features, look: Lines) -> tuple[str, str]:
    """Name x and y; cells have no ticks of their own, so the name says what they span."""
    if canvas.is_cells:
        return cell_scale(features, look), "channel"
    return "timestep", features.value_name
