"""`show_features_2D`: every sample as an image of channels over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_rgba
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from throughtime._errors import FeatureError, warn
from throughtime._inputs import takes
from throughtime.compat._classic import look
from throughtime.compat._classic.cells import dress_cells
from throughtime.compat._classic.colors import NORM, PanelNorms, clipped_note, colormap, norms, range_of
from throughtime.compat._classic.data import Features, Values, nonfinite_note, sequences
from throughtime.compat._classic.frame import FRAME, Canvas, FigureAndAxes, entitle, panels
from throughtime.picture._drawing.colors import SPECIALS
from throughtime.picture._drawing.pooling import pooled
from throughtime.picture._render.keys import NONFINITE, marks

MOST_BARS = 4
GUTTER = 0.06  # fraction of a cell


@takes(FeatureError, **FRAME, norm=NORM)
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

    Values that are not finite, and those outside the range, have the colours and marks of `tt.plots`: yellow
    with an X is NaN, orange and blue with triangles are ±Inf, pink is above the range, dark grey below it. If
    there are more values than pixels, a pixel shows the value of largest magnitude. More than 64 samples
    become one image with gutters.

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

    Examples
    --------
    >>> import numpy as np
    >>> gradients = np.random.default_rng(0).normal(size=(100, 6))
    >>> fig, axes = show_features_2D(gradients, norm=(-1, 1))
    >>> axes[0, 0].images[0].get_array().shape
    (6, 100)
    """
    features = sequences(data, channel_axis, max_timesteps)
    if reflect_half:
        features = reflect(features)
    chosen = norms(norm, features.values)
    height = min(5.0, max(2.4, 1.6 + 0.02 * features.values.shape[2]))
    colors = colormap(cmap).with_extremes(
        bad=(0, 0, 0, 0), under=SPECIALS["clipped_low"], over=SPECIALS["above"]
    )
    # Images are drawn with channels on y; without `timesteps_xaxis` they are turned.
    with panels(len(features.values), locals(), size=(3.0, height)) as canvas:
        draw = draw_cells if canvas.is_cells else draw_panels
        images, names = draw(canvas, features, chosen, colors, time_on_x=timesteps_xaxis)
        if show_colorbar:
            add_colorbars(canvas, images, chosen, features.value_name)
        notes = [chosen.words, clipped_note(features, chosen)]
        return entitle(canvas, look.title_parts(features, *notes), names)


def reflect(features: Features) -> Features:
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


def add_colorbars(canvas: Canvas, images: list[AxesImage], chosen: PanelNorms, name: str) -> None:
    """Add one colour bar beside all panels, or one beside each of a few panels with separate ranges."""
    extend = "both" if chosen.limited else "neither"
    own = chosen.shared is None
    if own and not canvas.is_cells and len(images) <= MOST_BARS:
        bars = [canvas.fig.colorbar(image, ax=image.axes) for image in images]
    else:
        shown = ScalarMappable(Normalize(-1, 1), images[0].cmap) if own else images[0]
        bars = [canvas.fig.colorbar(shown, ax=canvas.panels, extend=extend, aspect=30, pad=0.015)]
        bars[0].set_label(f"{name}, of each panel's own range" if own else name, fontsize=10)
    for bar in bars:
        bar.ax.tick_params(labelsize=8, width=0.6, length=2.5)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(look.tick_text))
        if chosen.words == "range 0":
            bar.set_ticks([0])
        bar.outline.set(edgecolor=look.QUIET, linewidth=0.8)


def draw_panels(
    canvas: Canvas, features: Features, chosen: PanelNorms, colors: Colormap, *, time_on_x: bool
) -> tuple[list[AxesImage], tuple[str, str]]:
    """Draw one sample into each panel; return the images and the names of x and y."""
    size, times = canvas.font_size, features.times
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
    time, channel = (times[0] - half, times[-1] + half), (-0.5, features.values.shape[2] - 0.5)
    extent = (*time, *channel[::-1]) if time_on_x else (*channel, *time[::-1])
    images = []
    for sample, ax in enumerate(canvas.panels):
        values = features.values[sample]
        box = ax.get_window_extent()
        sheet = pooled(values.T if time_on_x else values, int(box.height), int(box.width))
        images.append(_draw(ax, sheet, extent, colors, chosen.of(values)))
        _draw_blocks(ax, features.blocks, time_on_x=time_on_x)
        bottom, left = canvas.is_bottom(sample), canvas.is_left(sample)
        look.dress(ax, canvas.frame, bottom=bottom, left=left, size=size)
        look.index_ticks(ax.xaxis, 3 if canvas.columns > 4 else 5)
        look.index_ticks(ax.yaxis, 4)
        _name_blocks(ax, features.blocks, time_on_x=time_on_x)
        own = range_of(values).replace("range ±", "±") if chosen.shared is None else ""
        name, note = f"sample {features.samples[sample]}", nonfinite_note(values)
        words = ", ".join(filter(None, (name, own, note) if canvas.count > 1 else (own,)))
        if words:
            ax.set_title(words, loc="left", fontsize=size, color=look.INK, pad=2)
    return images, ("timestep", "channel") if time_on_x else ("channel", "timestep")


def _draw(
    ax: Axes,
    sheet: Values,
    extent: tuple[float, float, float, float],
    colors: Colormap,
    norm: Normalize,
    part: NDArray[np.int8] | None = None,
) -> AxesImage:
    """Draw values as colours, and what is not finite as in `tt.plots`; `part` as `assemble` returns it."""
    part = np.full(sheet.shape, 2, np.int8) if part is None else part
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "extent": extent}
    left, right, bottom, top = extent
    image = ax.imshow(sheet, cmap=colors, norm=norm, **style)
    wrong = np.zeros((*sheet.shape, 4))
    for kind, test in NONFINITE.items():
        wrong[test(sheet) & (part > 0)] = to_rgba(SPECIALS[kind])
    if wrong.any():
        ax.imshow(wrong, label="not finite", **style)
        for kind, x, y in marks(sheet, part == 2, (left, right), (top, bottom)):
            look.draw_nonfinite(ax, kind, x, y, size=14)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    return image


def _draw_blocks(ax: Axes, blocks: Sequence[str], *, time_on_x: bool) -> None:
    """Draw lines between directions or gates."""
    line = ax.axhline if time_on_x else ax.axvline
    for channel in range(1, len(blocks)):
        if blocks[channel] != blocks[channel - 1]:
            line(channel - 0.5, color=look.INK, linewidth=1.2)


def _name_blocks(ax: Axes, blocks: Sequence[str], *, time_on_x: bool) -> None:
    if blocks:
        names = list(dict.fromkeys(blocks))
        centres = [float(np.mean([i for i, block in enumerate(blocks) if block == name])) for name in names]
        (ax.set_yticks if time_on_x else ax.set_xticks)(centres, names)


def draw_cells(
    canvas: Canvas, features: Features, chosen: PanelNorms, colors: Colormap, *, time_on_x: bool
) -> tuple[list[AxesImage], tuple[str, str]]:
    """Draw one image of all samples, separated by gutters; return it and the names of x and y."""
    ax = canvas.panels[0]
    dress_cells(canvas, features.samples)
    box = ax.get_window_extent()
    most = (int(box.height / canvas.rows), int(box.width / canvas.columns))
    own = chosen.shared is None
    scaled = [each / chosen.of(each).vmax for each in features.values] if own else features.values
    sheet, part = assemble([pooled(each.T if time_on_x else each, *most) for each in scaled], canvas)
    norm = chosen.shared or Normalize(-1, 1)
    image = _draw(ax, sheet, (0, canvas.columns, 0, canvas.rows), colors, norm, part)
    names = ("timestep", "channel") if time_on_x else ("channel", "timestep")
    return [image], (f"each cell: {names[0]} →, {names[1]} ↓", "sample")


def assemble(cells: Sequence[Values], canvas: Canvas) -> tuple[Values, NDArray[np.int8]]:
    """Join cells of equal shape; also return 0 for the NaN gutters, 1 for cells, 2 at one pixel per value."""
    height, width = cells[0].shape
    # A gutter has a whole number of values, so small cells are repeated until one value is narrow enough.
    down, across = (max(1, round(2 / (GUTTER * length))) for length in (height, width))
    height, width = height * down, width * across
    gap_y, gap_x = (2 * max(1, round(GUTTER * length / 2)) for length in (height, width))
    sheet = np.full((canvas.rows * (height + gap_y), canvas.columns * (width + gap_x)), np.nan)
    part = np.zeros(sheet.shape, np.int8)
    for index, cell in enumerate(cells):
        row, column = divmod(index, canvas.columns)
        top, left = row * (height + gap_y) + gap_y // 2, column * (width + gap_x) + gap_x // 2
        place = (slice(top, top + height), slice(left, left + width))
        sheet[place] = cell.repeat(down, axis=0).repeat(across, axis=1)
        part[place] = 1
        part[place][down // 2 :: down, across // 2 :: across] = 2
    return sheet, part
