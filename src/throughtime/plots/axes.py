"""Labels along the dims of an array, and the axes that they stand beside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from throughtime._vocabulary import label_of
from throughtime.picture import Axis, Line
from throughtime.picture._drawing.scale import Array, Ticks

NO_WAY_BACK = "no gradient goes back from here"
LONGEST = 18  # letters of a label at an axis


def labels(values: xr.DataArray, dim: str) -> list[str]:
    """Return a label for each index along a dim: the caller's, the coordinate, or the index."""
    given = given_labels(values, dim)
    return [str(place) for place in range(values.sizes[dim])] if given is None else texts(given)


def given_labels(values: Any, dim: str) -> Array | None:
    """Return the labels along a dim, the caller's first; None without labels, or if they differ by sample."""
    for name in (label_of(dim), dim):
        if name in values.coords:
            found = values.coords[name]
            found = found.isel(sample=0) if found.ndim == 2 and found.sizes.get("sample") == 1 else found
            if found.dims == (dim,):
                return np.asarray(found.values)
    return None


def texts(given: Array) -> list[str]:
    """Format labels: dates as dates, with the time of day unless all are midnight.

    >>> texts(np.array(["2024-02-28", "2024-03-02"], dtype="datetime64[ns]")), texts(np.array([0.5, 2.0]))
    (['2024-02-28', '2024-03-02'], ['0.5', '2'])
    """
    if given.dtype.kind == "M":
        days = given.astype("datetime64[D]")
        unit = "D" if (given[~np.isnat(given)] == days[~np.isnat(given)]).all() else "m"
        return [str(each).replace("T", " ") for each in given.astype(f"datetime64[{unit}]")]
    return [f"{each:g}" for each in given] if given.dtype.kind == "f" else [str(each) for each in given]


def ticks_along(values: Any, dim: str, most: int = 8) -> Ticks | None:
    """Return a few labels along a dim, shortened if they are long; None without labels."""
    given = given_labels(values, dim)
    if given is None or not len(given):
        return None
    words = [word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…" for word in texts(given)]
    most = max(2, min(most, 72 // max(1, *map(len, words))))
    return thinned(words, most)


def thinned(words: Sequence[str], most: int) -> Ticks:
    """Keep at most about `most` of the words, each with its place."""
    return tuple((float(at), words[at]) for at in range(0, len(words), max(1, -(-len(words) // most))))


def time_axis(values: Any, steps: int, word: str = "timestep") -> Axis:
    """Return the axis of timesteps, counted from 0, with their labels."""
    ticks = ticks_along(values, "time")
    return Axis("time" if ticks else word, (-0.5, max(steps, 1) - 0.5), ticks)


def edges_across(edges: Sequence[int], steps: int) -> list[Line]:
    """Draw such lines across a panel of curves over time, with their label."""
    return edge_lines(edges, steps, [(-0.5, -0.04, steps - 0.5, 1.06)], NO_WAY_BACK)


def edge_lines(
    edges: Sequence[int], steps: int, boxes: Sequence[Sequence[float]], label: str = ""
) -> list[Line]:
    """Draw a line before each step from which no gradient goes back, in each box (left, low, right, high)."""
    if not edges:
        return []
    left, low, right, high = np.asarray(boxes)[:, :, None].transpose(1, 0, 2)
    x = left + (right - left) * np.asarray(edges) / steps
    y = np.stack([low + 0 * x, high + 0 * x, np.full(x.shape, np.nan)], -1)
    return [Line(np.repeat(x.ravel(), 3), y.ravel(), "#c0447a", 1.0, dashed=True, label=label)]
