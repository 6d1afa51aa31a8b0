"""`show_features_hist`: the distribution of the values of channels, layers or whole arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from throughtime._arguments import rules, takes
from throughtime._arguments.rules import whole
from throughtime._classic.colors import colors
from throughtime._classic.data import Values, title_of, warn_if_nothing_finite
from throughtime._classic.draw_bars import Looks, cell_scale, draw_histograms
from throughtime._classic.histograms import groups, histograms, ranges, shares
from throughtime._classic.panel_style import FRAME, Destination, FigureOptions
from throughtime._classic.panels import FigureAndAxes, entitle, panels
from throughtime._classic.titles import counted
from throughtime._errors import FeatureError

BAR = "#0072B2"


@takes(FeatureError, **FRAME, peaks_to_clip=whole(0), xlims=rules.interval)
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

    Raises
    ------
    FeatureError
        The data or an argument cannot be drawn; the message names the remedy.

    Examples
    --------
    >>> import numpy as np
    >>> kernel, bias = np.random.default_rng(0).normal(size=(8, 24)), np.zeros(24)
    >>> fig, axes = show_features_hist({"kernel": kernel, "bias": bias}, annotations=["W", "b"])
    >>> axes.shape
    (1, 2)
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
    names, arrays = annotated(groups(data, by, channel_axis), annotations)
    warn_if_nothing_finite(np.concatenate(arrays))
    limits = ranges(arrays, xlims, center_zero=bool(center_zero), equate=bool(equate_axes))
    bars = histograms(names, arrays, bins, limits, peaks_to_clip)
    looks = Looks(colors(BAR if color is None else color, len(bars)), bool(equate_axes))
    with panels(len(bars), frame, share_x=looks.equate, share_y=False) as canvas:
        draw_histograms(canvas, bars, frame, looks)
        axis_names = (cell_scale(bars, looks), "histogram") if canvas.is_cells else ("value", "count")
        entitle(canvas, frame, histogram_title(data, arrays), axis_names)
    return FigureAndAxes(canvas.fig, canvas.axes)


def annotated(named: Mapping[str, Values], annotations: Any) -> tuple[list[str], list[Values]]:
    """Return the names and values of the panels.

    Raises
    ------
    FeatureError
        `annotations` does not contain one string for each panel.
    """
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


def histogram_title(data: Any, values: Sequence[Values]) -> list[str]:
    """Return the parts of a title: the data, the number of values, and the shares of zeros and NaN."""
    everything = np.concatenate([array.ravel() for array in values])
    return [
        *title_of(data),
        counted(len(values), "histogram") if len(values) > 1 else "",
        counted(everything.size, "value"),
        shares(everything),
    ]
