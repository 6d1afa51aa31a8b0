"""Entries of a legend for special values of an image; marks and boxes of such cells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from throughtime.picture import Image, Panel, Picture
from throughtime.picture._drawing.colors import SPECIALS, counted
from throughtime.picture._drawing.scale import Array

MARKERS = {"nan": "X", "positive_infinity": "^", "negative_infinity": "v"}
NONFINITE: Mapping[str, Callable[[Array], Array]] = {
    "nan": np.isnan,
    "positive_infinity": np.isposinf,
    "negative_infinity": np.isneginf,
}
MOST_MARKS = 300  # in an image; with more, only the colour shows them


@dataclass(frozen=True)
class Key:
    """One entry of the legend: a colour, its words, and the marker of such cells."""

    color: str
    words: str
    marker: str = ""
    hatched: bool = False
    turns: bool = False


def keys(picture: Picture) -> list[Key]:
    """List the special values in the images of a plot, with counts over all frames."""
    totals: dict[str, int] = {}
    cells = 0
    words: dict[str, Key] = {}
    for image in picture.marks(Image):
        codes = image.colors.codes(image.values, image.valid)
        cells += codes.size
        for name, count in counted(codes).items():
            if name in image.colors.unlisted:
                continue
            totals[name] = totals.get(name, 0) + count
            words[name] = Key(
                image.colors.color_of(name),
                image.colors.word(name),
                MARKERS.get(name, ""),
                hatched=name == "masked",
                turns=image.colors.is_magnitude,
            )
    ordered = [name for name in SPECIALS if name in totals]
    return [_counted(words[name], totals[name], cells) for name in ordered]


def _counted(key: Key, count: int, cells: int) -> Key:
    share = 100 * count / cells
    amount = (
        f"{count}" if count < 1000 and share < 1 else f"{share:.0f} %" if share >= 1 else f"{share:.1g} %"
    )
    return replace(key, words=f"{key.words} ({amount})")


def nonfinite(image: Image, frame: int) -> list[tuple[str, Array, Array]]:
    """List the marks on an image: the kind, x and y of each valid cell that is NaN or infinite."""
    values, valid = image.frame(frame)
    shown = np.ones(values.shape, bool) if valid is None else np.broadcast_to(valid, values.shape)
    return marks(values, shown, image.x, image.y)


def marks(
    values: Array, shown: Array, x: tuple[float, float], y: tuple[float, float]
) -> list[tuple[str, Array, Array]]:
    """List kind, x and y of the shown cells that are not finite, given the edges of their box."""
    if np.isfinite(values).all():
        return []
    found = []
    for name, test in NONFINITE.items():
        row, column = np.nonzero(test(values) & shown)
        step = -(-len(row) // MOST_MARKS) or 1
        if len(row):
            places = _centre(x, column, values.shape[1]), _centre(y, row, values.shape[0])
            found.append((name, places[0][::step], places[1][::step]))
    return found


def _centre(edges: tuple[float, float], place: Array, count: int) -> Array:
    return np.asarray(edges[0] + (place + 0.5) * (edges[1] - edges[0]) / count)


def masked_boxes(image: Image, frame: int) -> Array:
    """Return rectangles over the masked cells, (box, 4): left, bottom, right, top."""
    values, valid = image.frame(frame)
    if valid is None or np.all(valid):
        return np.empty((0, 4))
    rows, columns = values.shape
    mask = ~np.broadcast_to(valid, values.shape)
    boxes = [
        (start, top, end, bottom)
        for top, bottom in _runs_of_equal_rows(mask)
        for start, end in runs(mask[top])
    ]
    cells = np.array(boxes, dtype=float).reshape(-1, 4)
    wide, high = (image.x[1] - image.x[0]) / columns, (image.y[1] - image.y[0]) / rows
    boxes_in_axes = cells * [wide, high, wide, high] + [image.x[0], image.y[0], image.x[0], image.y[0]]
    return np.asarray(boxes_in_axes)


def _runs_of_equal_rows(mask: Array) -> list[tuple[int, int]]:
    changes = 1 + np.flatnonzero((mask[1:] != mask[:-1]).any(axis=1))
    edges = [0, *changes.tolist(), len(mask)]
    return list(pairwise(edges))


def runs(flags: Array) -> list[tuple[int, int]]:
    """Return start and end of each run of True.

    >>> runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def lone(y: Array) -> Array:
    """Return the places of points between gaps, through which no line goes.

    >>> lone(np.array([1.0, np.nan, 2.0, 3.0]))
    array([0])
    """
    return np.array([start for start, end in runs(np.isfinite(y)) if end - start == 1], dtype=int)


def bars(panel: Panel) -> list[Image]:
    """Return the images of a panel that need a colour bar, one for each set of colours."""
    seen: dict[int, Image] = {}
    for image in panel.of(Image):
        seen.setdefault(id(image.colors), image)
    return list(seen.values())
