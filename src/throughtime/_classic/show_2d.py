"""`show_features_2D`: every sample as an image of channels over time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter

from throughtime._arguments import takes
from throughtime._classic.data import Features, sequences
from throughtime._classic.draw_image import Scale, clipped_note, draw_images, scale
from throughtime._classic.panel_style import FRAME, QUIET, Destination, FigureOptions, tick_text
from throughtime._classic.panels import Canvas, FigureAndAxes, entitle, panels
from throughtime._classic.titles import title_parts
from throughtime._errors import FeatureError, warn

MOST_BARS = 4


@takes(FeatureError, **FRAME)
def show_features_2D(  # noqa: N802, PLR0913, PLR0917 - as in `show_features_1D`
    data: Any,
    n_rows: int | None = None,
    norm: Any = None,
    cmap: Any = "bwr",
    reflect_half: bool = False,
    timesteps_xaxis: bool = True,
    max_timesteps: int | None = None,
    show_title: bool | str = True,
    show_colorbar: bool = False,
    show_borders: bool = True,
    title_fontsize: float = 14,
    show_xy_ticks: Any = (1, 1),
    scale_width: float = 1,
    scale_height: float = 1,
    dpi: float | None = None,
    *,
    channel_axis: int = -1,
    axes: Any = None,
    figure: Any = None,
    savepath: Any = None,
) -> FigureAndAxes:
    """Draw every sample as an image: channels on y, time on x, values as colours.

    Grey cells with a mark are not finite (x NaN, triangles ±Inf); darker ends are outside the range. If there
    are more values than pixels, a pixel shows the value of largest magnitude. More than 64 samples become one
    image with gutters.

    Parameters
    ----------
    data : array, tensor, list or DataArray, (time, channel) or (sample, time, channel)
    norm : None, (low, high), "auto" or matplotlib norm
        None: one range (-m, m) for all panels, written in the title. "auto": a range (-m, m) for each panel.
    cmap : str or Colormap
        A name of matplotlib or, as in `tt.plots`, of cmcrameri.
    reflect_half : bool
        Mirror the second half of the channels in time, for states of a backward layer in processing order.
        This always warns, because outputs of Keras and torch are in input time already. A DataArray is not
        mirrored.
    timesteps_xaxis : bool
        With False, time is on y and channels are on x.
    show_colorbar : bool
        One for all panels, or with norm="auto" one for each of up to 4.
    n_rows, max_timesteps, show_title, show_borders, title_fontsize, show_xy_ticks, scale_width, \
    scale_height, dpi, channel_axis, axes, figure, savepath
        See `show_features_1D`.

    Returns
    -------
    (fig, axes)
        A named tuple; axes (row, column), or (1, 1) for more than 64 samples.

    Raises
    ------
    FeatureError
        The data or an argument cannot be drawn; the message names the remedy.

    Examples
    --------
    >>> import numpy as np
    >>> gradients = np.random.default_rng(0).normal(size=(100, 6))
    >>> fig, axes = show_features_2D(gradients, norm=(-1, 1))
    >>> axes[0, 0].images[0].get_array().shape
    (6, 100)
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
    if reflect_half:
        features = reflected(features)
    chosen = scale(norm, features.values)
    height = min(5.0, max(2.4, 1.6 + 0.02 * features.values.shape[2]))
    with panels(len(features.values), frame, size=(3.0, height)) as canvas:
        images = draw_images(
            canvas, features, frame, chosen=chosen, cmap=cmap, time_on_x=bool(timesteps_xaxis)
        )
        if show_colorbar:
            add_colorbars(canvas, images, chosen, features.value_name)
        names = axis_names(canvas, bool(timesteps_xaxis))
        notes = [chosen.words, clipped_note(features, chosen)]
        entitle(canvas, frame, title_parts(features, *notes), names)
    return FigureAndAxes(canvas.fig, canvas.axes)


def reflected(features: Features) -> Features:
    """Mirror the second half of the channels in time, unless the data are labelled and thus aligned."""
    channels = features.values.shape[2]
    aligned = "the outputs of Keras' and torch's bidirectional layers are already in input time"
    if features.is_labelled:
        warn(f"reflect_half=True has no effect on labelled data: they are aligned, as {aligned}.")
        return features
    if channels % 2:
        raise FeatureError(
            f"reflect_half=True mirrors the second half of the channels, but there are {channels}. Pass the "
            "output of a bidirectional layer, with the forward channels before the backward ones."
        )
    warn(
        f"reflect_half=True mirrors channels {channels // 2} to {channels - 1} in time. Are you sure? "
        f"{aligned[0].upper()}{aligned[1:]}; only states in the backward layer's processing order need it."
    )
    half = channels // 2
    values = np.concatenate([features.values[:, :, :half], features.values[:, ::-1, half:]], axis=2)
    return replace(features, values=values)


def axis_names(canvas: Canvas, time_on_x: bool) -> tuple[str, str]:
    """Return the names of x and y; cells have no ticks, so the name describes their content."""
    names = ("timestep", "channel") if time_on_x else ("channel", "timestep")
    if canvas.is_cells:
        return f"each cell: {names[0]} →, {names[1]} ↓", "sample"
    return names


def add_colorbars(canvas: Canvas, images: list[AxesImage], chosen: Scale, name: str) -> None:
    """Add one colour bar beside all panels, or one beside each of a few panels with separate ranges."""
    extend = "both" if chosen.limited else "neither"
    if chosen.own and not canvas.is_cells and len(images) <= MOST_BARS:
        bars = [canvas.fig.colorbar(image, ax=image.axes) for image in images]
    else:
        shown = ScalarMappable(Normalize(-1, 1), images[0].cmap) if chosen.own else images[0]
        bars = [canvas.fig.colorbar(shown, ax=canvas.panels, extend=extend, aspect=30, pad=0.015)]
        bars[0].set_label(f"{name}, of each panel's own range" if chosen.own else name, fontsize=10)
    for bar in bars:
        bar.ax.tick_params(labelsize=8, width=0.6, length=2.5)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(tick_text))
        if chosen.is_zero:
            bar.set_ticks([0])
        bar.outline.set(edgecolor=QUIET, linewidth=0.8)
