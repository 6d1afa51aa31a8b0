"""The numbers of a record for loggers: scalars by `throughtime/<layer>/<direction>/<quantity>`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr


def numbers(summary: xr.DataTree) -> dict[str, float]:
    """Flatten a summary.

    A variable over time gives its values at the first and last timestep, a variable over lags those at half
    and at the largest lag, and a variable with quantiles its median.
    """
    found = {}
    for leaf in summary.leaves:
        for name, array in leaf.data_vars.items():
            for direction, part in parts_by("direction", array):
                place = group(leaf.path, direction)
                found.update({f"{place}/{key}": value for key, value in _scalars(str(name), part)})
    return found


def group(path: str, direction: str) -> str:
    """Return the first part of a key: `throughtime/<layer>/<direction>`, or without an empty direction.

    Examples
    --------
    >>> group("/encoder/lstm", "forward")
    'throughtime/encoder.lstm/forward'
    """
    layer = path.strip("/").replace("/", ".")
    return "/".join(filter(None, ("throughtime", layer, direction)))


def parts_by(dim: str, array: xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield the label and part of an array at each position of a dim; without that dim, "" and the array."""
    if dim not in array.dims:
        yield "", array
        return
    for name in array[dim].values:
        yield str(name), array.sel({dim: name}, drop=True)


def _scalars(name: str, array: xr.DataArray) -> Iterator[tuple[str, float]]:
    if "quantile" in array.dims:
        array = array.sel(quantile=0.5, drop=True)
    for axis, places in _places(array).items():
        if axis in array.dims:
            for word, place in places.items():
                yield from _scalars(f"{name}_{word}", array.isel({axis: place}))
            return
    for index in np.ndindex(array.shape):
        labels = [_label(array, str(dim), place) for dim, place in zip(array.dims, index, strict=True)]
        yield "_".join([name, *labels]), float(array.values[index])


def _places(array: xr.DataArray) -> dict[str, dict[str, int]]:
    """Choose representative timesteps and lags."""
    half = array.sizes.get("lag", 0) // 2
    return {"time": {"first": 0, "last": -1}, "lag": {"half": half, "largest": -1}}


def _label(array: xr.DataArray, dim: str, place: int) -> str:
    return str(array[dim].values[place]) if dim in array.coords else str(place)
