"""`show_features_0D`: one value for each unit of each sample."""

from __future__ import annotations

from typing import Any

from throughtime._arguments import takes
from throughtime._arguments.rules import number
from throughtime._classic.colors import colors
from throughtime._classic.data import points
from throughtime._classic.draw_points import Marker, draw_points
from throughtime._classic.panel_style import FRAME, Destination, FigureOptions
from throughtime._classic.panels import FigureAndAxes, entitle, panels
from throughtime._classic.titles import title_parts, zero_note
from throughtime._errors import FeatureError


@takes(FeatureError, **FRAME, markersize=number(0, inside=True), markerwidth=number(0))
def show_features_0D(  # noqa: N802, PLR0913, PLR0917 - as in `show_features_1D`
    data: Any,
    marker: Any = "o",
    cmap: Any = "bwr",
    color: Any = None,
    show_y_zero: bool = True,
    show_borders: bool = False,
    show_title: bool | str = True,
    title_fontsize: float = 14,
    markersize: float = 15,
    markerwidth: float = 2,
    channel_axis: int = -1,
    scale_width: float = 1,
    scale_height: float = 1,
    *,
    show_xy_ticks: Any = (1, 1),
    dpi: float | None = None,
    axes: Any = None,
    figure: Any = None,
    savepath: Any = None,
) -> FigureAndAxes:
    """Draw one value for each unit of each sample: x is the sample, y the value, the colour the unit.

    The units of a sample are drawn side by side in their order, so that none hides another.

    Parameters
    ----------
    data : array, tensor, list or DataArray, (unit,) or (sample, unit)
        For example the gradients of a last step.
    marker : str
        A marker of matplotlib: "o", "_", "s".
    cmap : str or Colormap
        Colours of the units; colours that are too pale to see are left out.
    color : colour, int or list of those, optional
        Colour of all units, or of each unit, in place of `cmap`.
    show_y_zero : bool
        Draw a line at zero.
    markersize, markerwidth : float, in points
        Largest size and line width; markers shrink if they would overlap.
    show_borders, show_title, title_fontsize, channel_axis, scale_width, scale_height, show_xy_ticks, dpi, \
    axes, figure, savepath
        See `show_features_1D`.

    Returns
    -------
    (fig, axes)
        A named tuple; axes is one Axes.

    Raises
    ------
    FeatureError
        The data or an argument cannot be drawn; the message names the remedy.

    Examples
    --------
    >>> import numpy as np
    >>> fig, ax = show_features_0D(np.random.default_rng(0).normal(size=(16, 6)))
    >>> ax.get_xlabel()
    'sample'
    """
    target = Destination(axes, figure, savepath)
    frame = FigureOptions(
        None,
        show_title,
        title_fontsize,
        show_borders,
        show_xy_ticks,
        (scale_width, scale_height),
        dpi,
        target,
    )
    features = points(data, channel_axis)
    unit_colors = colors(color, features.values.shape[2], cmap)
    look = Marker(marker, markersize, markerwidth)
    width = 2.0 + 0.06 * features.values.size
    with panels(1, frame, size=(width, 3.4)) as canvas:
        draw_points(canvas, features, frame, colors=unit_colors, marker=look, zero=bool(show_y_zero))
        entitle(
            canvas,
            frame,
            title_parts(features, zero_note(features), channel="unit"),
            ("sample", features.value_name),
        )
    return FigureAndAxes(canvas.fig, canvas.panels[0])
