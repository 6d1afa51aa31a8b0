"""Arrays as images in panels: one large image, or a small image for each sample with gutters between."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import xarray as xr

from throughtime.picture import Axis, Image, Line, Mark, Panel, Rectangles, Text
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import Array
from throughtime.plots.arrange import Layout
from throughtime.plots.axes import edge_lines, given_labels, labels, texts, ticks_along
from throughtime.plots.data import Source, valid_for

GUTTER = (0.06, 0.28)  # between samples, in parts of one
EDGE = 0.003  # room for the line around the outer panels, in parts of the whole


def panels_of(source: Source, layout: Layout, fit: Colors) -> Iterator[Panel]:
    """Make the panels of a layout, one for each direction or gate."""
    values = source.values
    places = [range(values.sizes[dim]) for dim in layout.panels]
    words = [labels(values, dim) for dim in layout.panels]
    for place in product(*places):
        at = dict(zip(layout.panels, place, strict=True))
        several = [each for each, word in enumerate(words) if len(word) > 1]
        name = " · ".join(words[each][place[each]] for each in several)
        yield (
            _composite(source, layout, fit, at, name)
            if layout.cells
            else _single(source, layout, fit, at, name)
        )


def image(
    source: Source,
    layout: Layout,
    fit: Colors,
    at: dict[str, int],
    box: tuple[float, float, float, float] | None,
) -> Image:
    """Make one image at the places `at`; without a box, cells lie on whole numbers."""
    dims = (*layout.sliders, layout.rows, layout.columns)
    part = source.values.isel(at).transpose(*dims)
    shape = (-1, *part.shape[-2:]) if layout.sliders else part.shape
    valid = valid_for(source, dims, **at)
    if valid is not None and layout.sliders:
        frames = part.shape[: len(layout.sliders)]
        valid = np.broadcast_to(valid, (*frames, *valid.shape[-2:])).reshape(-1, *valid.shape[-2:])
    left, top, right, bottom = box or (-0.5, -0.5, shape[-1] - 0.5, shape[-2] - 0.5)
    return Image(
        part.values.reshape(shape),
        (left, right),
        (top, bottom),
        fit,
        valid,
        rows=_numbers(part, layout.rows),
        columns=_numbers(part, layout.columns),
    )


def _numbers(values: xr.DataArray, dim: str) -> Array | None:
    given = given_labels(values, dim)
    return None if given is None else np.array(texts(given), dtype=object)


def _single(source: Source, layout: Layout, fit: Colors, at: dict[str, int], name: str) -> Panel:
    values = source.values
    edges = {dim: (-0.5, values.sizes[dim] - 0.5) for dim in (layout.rows, layout.columns)}
    box = *(each[0] for each in reversed(edges.values())), *(each[1] for each in reversed(edges.values()))
    return Panel(
        (image(source, layout, fit, at, None), *_cuts(source, layout, [box])),
        title=name,
        x=Axis(axis_word(layout.columns), edges[layout.columns], index_ticks(values, layout.columns)),
        y=Axis(axis_word(layout.rows), edges[layout.rows], index_ticks(values, layout.rows), reversed=True),
    )


def _cuts(source: Source, layout: Layout, boxes: Sequence[Sequence[float]]) -> list[Line]:
    steps = source.edges if layout.columns == "time" else ()
    return edge_lines(steps, source.values.sizes[layout.columns], boxes)


def axis_word(dim: str) -> str:
    """Return the label of an axis."""
    known = {"time": "timestep", "step": "training step", "loss_time": "loss step"}
    return known.get(dim, dim.replace("_", " "))


def index_ticks(values: xr.DataArray, dim: str, most: int = 8) -> tuple[tuple[float, str], ...] | None:
    """Return ticks for labels, or for up to 4 indices; None for the renderer's ticks."""
    if (found := ticks_along(values, dim, most if dim == "time" else 2 * most)) is not None:
        return found
    number = values.sizes[dim]
    return None if number > 4 else tuple((float(place), str(place)) for place in range(number))


def _composite(source: Source, layout: Layout, fit: Colors, at: dict[str, int], name: str) -> Panel:
    """Draw all samples side by side in one panel, with gutters between them."""
    values, cells = source.values, str(layout.cells)
    words = labels(values, cells)
    across = _columns(len(words), values.sizes[layout.columns], values.sizes[layout.rows])
    boxes = [_box(place, across) for place in range(len(words))]
    images = [image(source, layout, fit, {**at, cells: place}, box) for place, box in enumerate(boxes)]
    named = [replace(each, name=f"{cells} {word}") for each, word in zip(images, words, strict=True)]
    corners = np.array(boxes)
    wide, high = corners[:, 2:].max(axis=0)
    marks: list[Mark] = [*named, Rectangles(corners, edge="#8a8a8a"), *_cuts(source, layout, boxes)]
    longest = max(3, int(70 / across))
    short = [word if len(word) <= longest else f"{word[: longest - 1]}…" for word in words]
    marks.append(
        Text(corners[:, 0], corners[:, 1] - 0.02, (f"{cells} " * (across < 9) + short[0], *short[1:]), 0.8)
    )
    return Panel(
        tuple(marks),
        title=name,
        x=Axis(
            axis_word(layout.columns),
            (-EDGE * wide, (1 + EDGE) * wide),
            _cell_ticks(values, layout.columns, across),
        ),
        y=Axis(
            axis_word(layout.rows) + (f", in each {cells}" if across < len(words) else ""),
            (-GUTTER[1], (1 + EDGE) * high),
            (),
            reversed=True,
        ),
        framed=False,
    )


def _columns(number: int, wide: int, high: int) -> int:
    """Return the samples per row, such that cells are a little wider than high."""
    usual = int(max(1, min(number, round((number * (0.75 if wide >= high else 1.5)) ** 0.5 + 0.4))))
    return next((each for each in (usual, usual + 1) if number % each == 0), usual)


def _box(place: int, across: int) -> tuple[float, float, float, float]:
    row, column = divmod(place, across)
    left, top = column * (1 + GUTTER[0]), row * (1 + GUTTER[1])
    return left, top, left + 1, top + 1


def _cell_ticks(values: xr.DataArray, dim: str, across: int) -> tuple[tuple[float, str], ...]:
    """Name a few indices under each column."""
    number = values.sizes[dim]
    longest = max(8, 32 // across)
    words = [word if len(word) <= longest else f"{word[: longest - 1]}…" for word in labels(values, dim)]
    places = [0] if number == 1 else [0, number // 2] if across > 3 else [0, number // 2, number - 1]
    return tuple(
        (column * (1 + GUTTER[0]) + (place + 0.5) / number, words[place])
        for column in range(across)
        for place in dict.fromkeys(places)
    )
