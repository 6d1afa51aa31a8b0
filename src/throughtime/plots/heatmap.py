"""`heatmap`: any quantity as colours, units along one axis and time along the other, for many samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._vocabulary import LOSSES
from throughtime.picture import Panel, Picture, Slider, Text
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import number
from throughtime.plots.arrange import Layout, arranged
from throughtime.plots.axes import NO_WAY_BACK, labels
from throughtime.plots.colored import colors, own_scale
from throughtime.plots.data import Captured, Source, few_of, only_valid, read, title, unit_dim
from throughtime.plots.images import panels_of
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.sentences import of_quantity

MOST_SAMPLES = 64
NOTE = "A cell is one unit at one timestep. Zoom in to see every cell of a large image."


@takes(PictureError)
def heatmap(
    captured: Captured,
    quantity: str = "hidden_gradient",
    *,
    rows: str | None = None,
    columns: str = "time",
    sliders: Sequence[str] = (),
    **look: Unpack[Look],
) -> Picture:
    """Draw any quantity as colours, unit by timestep.

    Samples lie side by side in one image; directions and gates have separate panels; all share one scale.
    Training steps of a stored run have a slider. NaN, infinities, exact zeros, masked steps, clipped values
    and values below the numerical floor have separate colours, named and counted in the legend.

    Parameters
    ----------
    captured : capture with one layer, a layer, or DataArray
    quantity : str
        Variable to draw. Ignored if `captured` is a DataArray.
    rows, columns : str
        Dims along the axes; by default units, or samples if there are no units, and time.
    sliders : sequence of str
        Dims to step through: `sliders=["sample"]` shows one large sample at a time, first the one with the
        median loss if the capture has `sample_loss`, otherwise with the median size.
    **look
        See `tt.plots.Look`: limits, share, scale, cmap, title, width, height.

    Raises
    ------
    PictureError
        There is no such axis, scale or colour map, or there are more panels than can be read.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = heatmap(testing.bidirectional(samples=3))
    >>> [panel.title for panel in picture.panels]
    ['forward', 'backward']
    >>> picture.panels[0].marks[0].values.shape
    (4, 50)
    """
    source, look = read(captured, quantity), checked(look)
    source = few_samples(source, sliders, rows)
    layout = arranged(source.values, rows, columns, sliders)
    valid = only_valid(source)
    scaled, fit = source, colors(source, valid.values, look)
    if look.get("share") is False:
        axes = tuple(valid.get_axis_num(dim) for dim in (*layout.sliders, layout.rows, layout.columns))
        scaled = source.with_values(source.values.copy(data=own_scale(source.values.values, axes)))
        fit = colors(scaled, only_valid(scaled).values, look)
    panels = tuple(panels_of(scaled, layout, fit))
    across = 1 if len(panels) == 1 or layout.cells else min(2, len(panels))
    frames = tuple(Slider(dim, tuple(_frame_words(source.values, dim))) for dim in layout.sliders)
    shown = _shown(source, layout)
    noun = _title(source, layout, captured, fit)
    found = [] if look.get("title") else [*_found(source, layout)]  # sentences on all frames take time
    is_cut = source.edges and layout.columns == "time"
    note = f"{NOTE} Dashed: {NO_WAY_BACK}." if is_cut else NOTE
    picture = Picture(panels, across, note=note, linked="xy", sliders=frames, shown=shown)
    titles = found[shown] if found else "", noun
    picture = finished(picture, look, titles, (9.0, height_of(panels, across)))
    if len(found) < 2:
        return picture
    named = tuple(f"{words or noun} ({picture.frame_words(frame)})" for frame, words in enumerate(found))
    return replace(picture, title=named[shown], titles=named)


def few_samples(source: Source, sliders: Sequence[str], rows: str | None) -> Source:
    """Select samples evenly if there are more than can be seen side by side."""
    values = source.values
    total = values.sizes.get("sample", 0)
    if total <= MOST_SAMPLES or "sample" in (*sliders, rows) or unit_dim(values) is None:
        return source
    chosen = np.linspace(0, total - 1, MOST_SAMPLES).round().astype(int)
    return source.at(sample=chosen)


def height_of(panels: tuple[Panel, ...], across: int) -> float:
    """Choose a height, in inches, at which every sample can be seen."""
    down = -(-len(panels) // across)
    first = panels[0]
    texts = first.of(Text)
    if texts:
        rows = len({float(y) for y in texts[0].y})
        return min(max(2.7, 1.2 + down * rows * 1.05), 16.0)
    return min(1.3 + down * 2.6, 16.0) if down > 1 else 4.2


def _frame_words(values: xr.DataArray, dim: str) -> list[str]:
    """Name each frame of a slider; a sample by its label and its loss, if that is known."""
    words = labels(values, dim)
    losses = values.coords.get(LOSSES) if dim == "sample" else None
    if losses is None or losses.dims != ("sample",):
        return words
    return [f"{word}, loss {number(float(loss))}" for word, loss in zip(words, losses.values, strict=True)]


def _found(source: Source, layout: Layout) -> Iterator[str]:
    """Describe what each frame of the sliders shows."""
    for places in np.ndindex(*(source.values.sizes[dim] for dim in layout.sliders)):
        at = dict(zip(layout.sliders, places, strict=True))
        part = source.at(**{dim: [place] if dim == "sample" else place for dim, place in at.items()})
        yield of_quantity(part)


def _shown(source: Source, layout: Layout) -> int:
    """Return the first frame to show: the last training step, the middle sample, or the first of others."""
    values = source.values
    middle = {"step": lambda: values.sizes["step"] - 1, "sample": lambda: _middle_sample(source)}
    places = [middle.get(dim, lambda: 0)() for dim in layout.sliders]
    sizes = [values.sizes[dim] for dim in layout.sliders]
    return int(np.ravel_multi_index(places, sizes)) if sizes else 0


def _middle_sample(source: Source) -> int:
    """Find the sample with the median loss, or else with the median size of its values."""
    losses = source.values.coords.get(LOSSES)
    if losses is not None and losses.dims == ("sample",):
        sizes = losses.values
    else:
        values = only_valid(source, 0.0).transpose("sample", ...).values
        sizes = np.abs(np.nan_to_num(values, posinf=0.0, neginf=0.0)).reshape(len(values), -1).sum(axis=1)
    return int(np.argsort(np.nan_to_num(sizes, nan=np.inf), kind="stable")[(len(sizes) - 1) // 2])


def _title(source: Source, layout: Layout, captured: Captured, fit: Colors) -> str:
    samples = 0 if "sample" in layout.sliders else source.values.sizes.get("sample", 0)
    return title(source, few_of(samples, captured) if samples else "", symbol=source.symbol_on(fit.scale))
