"""Draw sequences as images: channels along one axis, time along the other, one panel per sample."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colors as mcolors
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from throughtime._classic.cells import dress_cells
from throughtime._classic.colors import colormap
from throughtime._classic.data import Features, Values, nonfinite_note
from throughtime._classic.panel_style import INK, FigureOptions, dress, few_index_ticks
from throughtime._classic.panels import Canvas
from throughtime._classic.titles import short
from throughtime._drawing.pooling import pooled
from throughtime._errors import FeatureError

MISSING = "#9a9a9a"
MOST_MARKS = 300  # marks in a panel; more values are only grey cells
GUTTER = 0.06  # fraction of a cell
MARKS = (("x", np.isnan), ("^", np.isposinf), ("v", np.isneginf))


@dataclass(frozen=True)
class Scale:
    """Maps values to colours; `own` gives each panel a separate symmetric range."""

    norm: mcolors.Normalize
    words: str
    own: bool = False
    limited: bool = False  # values may lie outside
    is_zero: bool = False  # all values are 0

    def of(self, values: Values) -> mcolors.Normalize:
        """Return the norm of one panel."""
        return symmetric(values) if self.own else self.norm


def scale(norm: Any, values: Values) -> Scale:
    """Convert the `norm` argument.

    Raises
    ------
    FeatureError
        `norm` is not None, "auto", (low, high), or a matplotlib norm.
    """
    if norm is None:
        shared = symmetric(values)
        largest = float(np.abs(values[np.isfinite(values)]).max(initial=0))
        return Scale(shared, f"range ±{short(largest)}" if largest else "range 0", is_zero=largest == 0)
    if isinstance(norm, str):
        if norm != "auto":
            raise FeatureError(
                f"norm={norm!r}: expected 'auto' (a range for each panel), None (one range for all panels), "
                "(low, high), or a matplotlib norm such as SymLogNorm(1e-6)."
            )
        return Scale(symmetric(values), "each panel its own range", own=True)
    if isinstance(norm, mcolors.Normalize):
        own_copy = copy.deepcopy(norm)  # scaling would change the caller's norm
        own_copy.autoscale_None(values[np.isfinite(values)])
        low, high = own_copy.vmin, own_copy.vmax
        return Scale(own_copy, f"{type(norm).__name__} {_span(low, high)}", limited=True)
    low, high = _pair(norm)
    return Scale(mcolors.Normalize(low, high), f"range {_span(low, high)}", limited=True)


def symmetric(values: Values) -> mcolors.Normalize:
    """Return a norm with zero in the middle; ±1 if all values are 0."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0
    return mcolors.Normalize(-largest, largest)


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{short(low)} to {short(high)}"


def _pair(norm: Any) -> tuple[float, float]:
    try:
        low, high = (float(limit) for limit in norm)
    except (TypeError, ValueError) as error:
        raise FeatureError(f"norm={norm!r}: expected two numbers, (low, high).") from error
    if not (np.isfinite([low, high]).all() and low < high):
        raise FeatureError(f"norm={norm!r}: expected finite (low, high) with low < high.")
    return low, high


def image_colormap(cmap: Any) -> mcolors.Colormap:
    """Return a map with grey for values that are not finite, and darker ends for values out of range."""
    base = colormap(cmap)
    under, over = (_darker(base(end)) for end in (0.0, 1.0))
    return base.with_extremes(bad=MISSING, under=under, over=over)


def _darker(color: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    red, green, blue, _ = color
    return 0.55 * red, 0.55 * green, 0.55 * blue, 1.0


def clipped_note(features: Features, chosen: Scale) -> str:
    """Count the finite values outside the range."""
    low, high = chosen.norm.vmin, chosen.norm.vmax
    if not chosen.limited or low is None or high is None:
        return ""
    outside = int((np.isfinite(features.values) & ((features.values < low) | (features.values > high))).sum())
    return f"{outside} outside" if outside else ""


def draw_images(
    canvas: Canvas, features: Features, frame: FigureOptions, *, chosen: Scale, cmap: Any, time_on_x: bool
) -> list[AxesImage]:
    """Draw one sample into each panel."""
    colors = image_colormap(cmap)
    if canvas.is_cells:
        return [_draw_cells(canvas, features, frame, chosen, colors, time_on_x=time_on_x)]
    size = 9 if canvas.rows <= 4 else 7.5
    images = []
    for sample, ax in enumerate(canvas.panels):
        values = features.values[sample]
        images.append(_draw_panel(ax, features, values, chosen.of(values), colors, time_on_x=time_on_x))
        dress(ax, frame, bottom=canvas.is_bottom(sample), left=canvas.is_left(sample), size=size)
        _index_ticks(ax, features, canvas, time_on_x=time_on_x)
        own = _own_range(values) if chosen.own else ""
        name = f"sample {features.samples[sample]}" if canvas.count > 1 else ""
        words = ", ".join(filter(None, (name, own, nonfinite_note(values) if canvas.count > 1 else "")))
        if words:
            ax.set_title(words, loc="left", fontsize=size, color=INK, pad=2)
    return images


def _own_range(values: Values) -> str:
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0))
    return f"±{short(largest)}" if largest else "range 0"


def _draw_panel(
    ax: Axes,
    features: Features,
    values: Values,
    norm: mcolors.Normalize,
    colors: mcolors.Colormap,
    *,
    time_on_x: bool,
) -> AxesImage:
    steps, channels = values.shape
    start = features.times[0]
    step = features.times[1] - start if steps > 1 else 1.0
    time = (start - step / 2, features.times[-1] + step / 2)
    channel = (-0.5, channels - 0.5)
    box = ax.get_window_extent()
    data = values.T if time_on_x else values
    extent = (*time, *channel[::-1]) if time_on_x else (*channel, *time[::-1])
    image = ax.imshow(
        pooled(data, int(box.height), int(box.width)),
        cmap=colors,
        norm=norm,
        aspect="auto",
        interpolation="nearest",
        extent=extent,
    )
    for marker, is_marked in MARKS:
        when, which = np.nonzero(is_marked(values))
        if len(when):
            at = (features.times[when], which) if time_on_x else (which, features.times[when])
            draw_marks(ax, at, marker)
    ax.set(xlim=extent[:2], ylim=extent[2:])
    _draw_blocks(ax, features.blocks, time_on_x=time_on_x)
    return image


def draw_marks(ax: Axes, at: tuple[NDArray[Any], NDArray[Any]], marker: str) -> None:
    """Mark values that are not finite; if there are too many, mark some of them."""
    step = -(-len(at[0]) // MOST_MARKS)
    ax.scatter(
        at[0][::step], at[1][::step], marker=marker, s=14, color="black", linewidths=0.9, label="not finite"
    )


def _draw_blocks(ax: Axes, blocks: Sequence[str], *, time_on_x: bool) -> None:
    """Draw lines between directions or gates."""
    line = ax.axhline if time_on_x else ax.axvline
    for channel in range(1, len(blocks)):
        if blocks[channel] != blocks[channel - 1]:
            line(channel - 0.5, color=INK, linewidth=1.2)


def _index_ticks(ax: Axes, features: Features, canvas: Canvas, *, time_on_x: bool) -> None:
    few_index_ticks(ax, "x", 3 if canvas.columns > 4 else 5)
    few_index_ticks(ax, "y", 4)
    blocks = features.blocks
    if not blocks:
        return
    names = list(dict.fromkeys(blocks))
    centres = [float(np.mean([i for i, block in enumerate(blocks) if block == name])) for name in names]
    if time_on_x:
        ax.set_yticks(centres, names)
    else:
        ax.set_xticks(centres, names)


def _draw_cells(
    canvas: Canvas,
    features: Features,
    frame: FigureOptions,
    chosen: Scale,
    colors: mcolors.Colormap,
    *,
    time_on_x: bool,
) -> AxesImage:
    """Draw one image of all samples, separated by gutters."""
    ax = canvas.panels[0]
    dress_cells(ax, canvas, frame, features.samples)
    box = ax.get_window_extent()
    most = (int(box.height / canvas.rows), int(box.width / canvas.columns))
    cells = [_cell(values, chosen, most, time_on_x=time_on_x) for values in features.values]
    sheet, is_cell = assembled(cells, canvas)
    norm = mcolors.Normalize(-1, 1) if chosen.own else chosen.norm
    extent = (0, canvas.columns, 0, canvas.rows)
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "extent": extent}
    image = ax.imshow(sheet, cmap=colors.with_extremes(bad=(0, 0, 0, 0)), norm=norm, **style)
    missing = is_cell & ~np.isfinite(sheet)
    if missing.any():
        grey = np.where(missing, 1.0, np.nan)
        ax.imshow(grey, cmap=mcolors.ListedColormap([MISSING]), label="not finite", **style)
        for marker, is_marked in MARKS:
            row, column = np.nonzero(is_cell & is_marked(sheet))
            x = (column + 0.5) / sheet.shape[1] * canvas.columns
            y = canvas.rows - (row + 0.5) / sheet.shape[0] * canvas.rows
            if len(x):
                draw_marks(ax, (x, y), marker)
    ax.set(xlim=extent[:2], ylim=extent[2:])
    return image


def _cell(values: Values, chosen: Scale, most: tuple[int, int], *, time_on_x: bool) -> Values:
    if chosen.own:
        values = values / (symmetric(values).vmax or 1.0)
    return pooled(values.T if time_on_x else values, *most)


def assembled(cells: Sequence[Values], canvas: Canvas) -> tuple[Values, NDArray[np.bool_]]:
    """Join cells of equal shape into one array with NaN gutters; also return a mask of the cells."""
    height, width = cells[0].shape
    # A gutter has a whole number of values, so small cells are repeated until one value is narrow enough.
    repeat = [max(1, round(2 / (GUTTER * length))) for length in (height, width)]
    height, width = height * repeat[0], width * repeat[1]
    gap_y, gap_x = (2 * max(1, round(GUTTER * length / 2)) for length in (height, width))
    sheet = np.full((canvas.rows * (height + gap_y), canvas.columns * (width + gap_x)), np.nan)
    is_cell = np.zeros(sheet.shape, dtype=bool)
    for index, cell in enumerate(cells):
        row, column = divmod(index, canvas.columns)
        top, left = row * (height + gap_y) + gap_y // 2, column * (width + gap_x) + gap_x // 2
        place = (slice(top, top + height), slice(left, left + width))
        sheet[place] = cell.repeat(repeat[0], axis=0).repeat(repeat[1], axis=1)
        is_cell[place] = True
    return sheet, is_cell
