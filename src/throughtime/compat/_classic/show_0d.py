"""`show_features_0D`: one value for each unit of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from throughtime._errors import FeatureError
from throughtime._inputs import takes
from throughtime._inputs.rules import number
from throughtime.compat._classic import look
from throughtime.compat._classic.colors import RGBA, colors
from throughtime.compat._classic.data import Features, Values, points
from throughtime.compat._classic.frame import FRAME, FigureAndAxes, entitle, panels
from throughtime.picture._render.keys import NONFINITE

SPREAD = 0.7  # of the distance between samples, so that the units of one do not hide each other
MOST_NAMED = 12


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

    Examples
    --------
    >>> import numpy as np
    >>> fig, ax = show_features_0D(np.random.default_rng(0).normal(size=(16, 6)))
    >>> ax.get_xlabel()
    'sample'
    """
    features = points(data, channel_axis)
    style = {"shape": marker, "size": markersize, "width": markerwidth}
    unit_colors = colors(color, features.values.shape[2], cmap)
    with panels(1, locals(), size=(2.0 + 0.06 * features.values.size, 3.4)) as canvas:
        ax = canvas.panels[0]
        if show_y_zero:
            ax.axhline(0, color=look.QUIET, linewidth=1, zorder=1, label="zero")
        draw(ax, features, unit_colors, **style)
        look.dress(ax, canvas.frame)
        title = look.title_parts(features, look.zero_note(features), channel="unit")
        shown = entitle(canvas, title, ("sample", features.value_name))
    return shown._replace(axes=ax)


def draw(
    ax: Axes, features: Features, unit_colors: Sequence[RGBA], shape: Any, size: float, width: float
) -> None:
    """Draw x as the sample, y as the value and the colour as the unit."""
    values = features.values[:, 0, :]
    samples, units = values.shape
    low, high = look.value_limits(values)
    middle, half = (low + high) / 2, 0.55 * (high - low)
    low, high = middle - half, middle + half
    x = np.arange(samples)[:, None] + (np.arange(units) - (units - 1) / 2) / units * SPREAD
    between = np.arange(1, samples) - 0.5
    ax.vlines(between, low, high, color="#ededed", linewidth=0.8, zorder=0, label="between samples")
    # Markers of many samples or units would touch, so the requested size is an upper limit.
    space = ax.get_window_extent().width * 72 / ax.figure.dpi / x.size
    size = min(size, max(3.0, 2.2 * space))
    for unit, color in enumerate(unit_colors):
        style = {"markersize": size, "markeredgewidth": min(width, size / 3), "markeredgecolor": color}
        _draw_unit(ax, x[:, unit], values[:, unit], shape, features.channels[unit], **style)
    for kind, test in NONFINITE.items():
        at = x[test(values)]
        if len(at):
            share = 0.96 if kind == "positive_infinity" else 0.04
            look.draw_nonfinite(ax, kind, at, np.full(len(at), low + share * (high - low)), size=36)
    look.value_ticks(ax.yaxis, count=7)
    look.index_ticks(ax.xaxis, min(samples, 16))
    if any(name != str(index) for index, name in enumerate(features.samples)) and samples <= 32:
        ax.set_xticks(range(samples), features.samples)
    ax.set(xlim=(-0.6, samples - 0.4), ylim=(low, high))
    if units <= MOST_NAMED:
        _name_units(ax, features)


def _draw_unit(ax: Axes, x: Values, y: Values, shape: Any, name: str, **style: Any) -> None:
    try:
        line = ax.plot(x, y, shape, label=name)[0]
    except (TypeError, ValueError) as error:
        raise FeatureError(
            f"matplotlib has no marker={shape!r}. Pass one such as 'o', '_' or 's'."
        ) from error
    line.set(linestyle="none", markerfacecolor=(*style["markeredgecolor"][:3], 0.35), **style)


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
        labelcolor=look.INK,
        handletextpad=0.2,
    )
    legend.get_title().set(color=look.INK, fontsize=9)
