"""`Record`, which loggers receive at each recorded step: numbers, the capture, histograms and images.

Keys have two groups: `throughtime/` has the most important numbers, `detail/` all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import SchemaError

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
FIRST, DETAIL = "throughtime", "detail"
NAME = "gradient_norm_through_time"  # of an image
BINS = 30


@dataclass(frozen=True)
class Record:
    """One recorded step for loggers, in two groups.

    `throughtime/<layer>/<direction>/…` has `horizon`, `reach_at_lag_<k>`, `saturation` and `gradient_norm`;
    `detail/<layer>/<direction>/<quantity>` has all else. Without directions that part is absent.

    Histograms are counted and images drawn when a logger first reads them, once for all loggers.

    Parameters
    ----------
    step : int
        Training step.
    numbers : mapping of str to float
        A key without a layer, such as `throughtime/gradient_norm` and `detail/clip_ratio`, holds a value that
        the training loop reported. It may first appear in a later record, or never.
    capture : DataTree
        The whole capture, whatever level the run stores. Loggers share it: copy what you change.

    Attributes
    ----------
    histograms : mapping of str to Histogram
        For each weight, its gradient and the activations, separately for each gate: `counts` (bins) and
        `edges` (bins + 1). Masked steps and values that are not finite are not counted.
    images : mapping of str to bytes
        For each layer and direction a PNG: norm of the state's gradient against time. About 0.1 s each.

    Examples
    --------
    >>> from throughtime import testing
    >>> record = Record(10, {"detail/rnn/loss": 0.5}, testing.decaying(samples=4))
    >>> list(record.images)
    ['detail/rnn/gradient_norm_through_time']
    """

    step: int
    numbers: Mapping[str, float]
    capture: xr.DataTree = field(default_factory=xr.DataTree, repr=False)

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """Counts of weights, gradients and activations, by key."""
        return histograms(self.capture)

    @cached_property
    def images(self) -> Mapping[str, bytes]:
        """Plots as PNG, by key."""
        return images(self.capture)


def group(path: str, direction: str, first: str = DETAIL) -> str:
    """Return the first part of a key: `detail/<layer>/<direction>`, or without an empty direction.

    >>> group("/encoder/lstm", "forward")
    'detail/encoder.lstm/forward'
    """
    layer = path.strip("/").replace("/", ".")
    return "/".join(filter(None, (first, layer, direction)))


def parts_by(dim: str, array: Labelled) -> Iterator[tuple[str, Labelled]]:
    """Yield the label and part of an array at each position of a dim; without that dim, "" and the array."""
    if dim not in array.dims:
        yield "", array
        return
    for name in array[dim].values:
        yield str(name), array.sel({dim: name}, drop=True)


class Histogram(NamedTuple):
    """Counts (bins) of values between edges (bins + 1)."""

    counts: npt.NDArray[np.int64]
    edges: npt.NDArray[np.float64]


def histograms(capture: xr.DataTree) -> dict[str, Histogram]:
    """Count the values in a capture by `detail/<layer>/<direction>/<quantity>_<gate>`."""
    found = {}
    for leaf in capture.leaves:
        dataset = leaf.to_dataset()
        for name, array in _arrays_to_count(dataset):
            for direction, way in parts_by("direction", array):
                for gate, part in parts_by("gate", way):
                    if (counts := count(part.values)) is not None:
                        key = "_".join(filter(None, (name, gate)))
                        found[f"{group(leaf.path, direction)}/{key}"] = counts
    return found


def _arrays_to_count(leaf: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    for name in map(str, leaf.data_vars):
        if f"{name}_gradient" in leaf and "sample" not in leaf[name].dims:
            yield name, leaf[name]
            yield f"{name}_gradient", leaf[f"{name}_gradient"]
    if "gate_activation" in leaf:
        values = leaf["gate_activation"]
        yield "gate_activation", values.where(leaf["valid"]) if "valid" in leaf else values


def count(values: npt.NDArray[Any]) -> Histogram | None:
    """Count finite values in bins of equal width from the smallest to the largest; None if there are none."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if high - low <= BINS * np.spacing(max(abs(low), abs(high))):  # a single value: bins would have no width
        around = max(0.5, abs(high) / 1000)
        low, high = low - around, high + around
    counts, edges = np.histogram(finite, BINS, (low, high))
    return Histogram(counts, edges)


def images(capture: xr.DataTree) -> dict[str, bytes]:
    """Draw each layer and direction that has a gradient over time."""
    # Drawing libraries are imported here because most loggers read no image.
    plots: Any = import_module("throughtime.plots")
    renderer: Any = import_module("throughtime.picture._render.matplotlib")
    theme: Any = import_module("throughtime.picture._drawing.theme").Theme()
    found = {}
    for leaf in capture.leaves:
        for direction, part in _ways(leaf.to_dataset()):
            place = group(leaf.path, direction)
            words = f"norm of the gradient · {place.partition('/')[2]}"
            try:
                picture = plots.gradient_flow(part, title=words, width=7.0, height=3.6)
            except SchemaError:
                continue
            found[f"{place}/{NAME}"] = renderer.encoded(picture, theme, "png")
    return found


def _ways(leaf: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield each direction, kept as a dim so that the plot names it."""
    if "direction" not in leaf.dims:
        yield "", leaf
        return
    for place, name in enumerate(leaf["direction"].values):
        yield str(name), leaf.isel(direction=[place])
