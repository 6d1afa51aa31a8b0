"""Counts weights, their gradients and gate activations of a capture, separately for each gate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime.loggers.keys import group, parts_by

BINS = 30


class Histogram(NamedTuple):
    """Counts of values between edges.

    Attributes
    ----------
    counts : ndarray (bins,), int
    edges : ndarray (bins + 1,), float
    """

    counts: npt.NDArray[np.int64]
    edges: npt.NDArray[np.float64]


def histograms(capture: xr.DataTree) -> dict[str, Histogram]:
    """Count the values in a capture by `detail/<layer>/<direction>/<quantity>_<gate>`."""
    found = {}
    for leaf in capture.leaves:
        dataset = leaf.to_dataset()
        for name, array in _counted(dataset):
            for direction, way in parts_by("direction", array):
                for gate, part in parts_by("gate", way):
                    made = counted(part.values)
                    if made is not None:
                        key = "_".join(filter(None, (name, gate)))
                        found[f"{group(leaf.path, direction)}/{key}"] = made
    return found


def _counted(leaf: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    for name in map(str, leaf.data_vars):
        if f"{name}_gradient" in leaf and "sample" not in leaf[name].dims:
            yield name, leaf[name]
            yield f"{name}_gradient", leaf[f"{name}_gradient"]
    if "gate_activation" in leaf:
        values = leaf["gate_activation"]
        yield "gate_activation", values.where(leaf["valid"]) if "valid" in leaf else values


def counted(values: npt.NDArray[Any]) -> Histogram | None:
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
