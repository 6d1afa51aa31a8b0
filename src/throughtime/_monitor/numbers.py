"""The numbers of a record for loggers, in the two groups of `loggers.record`."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from throughtime.diagnosis.results import steps_of
from throughtime.diagnosis.summarized import horizon_of
from throughtime.diagnostics.rules import MEMORY_GATE
from throughtime.loggers.record import DETAIL, FIRST, group, parts_by


def numbers(summary: xr.DataTree, lag: int | None = None) -> dict[str, float]:
    """Flatten a summary; `lag` is that of reach, by default half of the window.

    A variable over time gives its values at the first and last timestep, a variable over lags those at half
    and at the largest lag, and a variable with quantiles its median.
    """
    found = {}
    for leaf in summary.leaves:
        for direction, layer in parts_by("direction", leaf.to_dataset()):
            place = group(leaf.path, direction, FIRST)
            found.update({f"{place}/{key}": value for key, value in _first(layer, lag)})
    for leaf in summary.leaves:
        for name, array in leaf.data_vars.items():
            for direction, part in parts_by("direction", array):
                place = group(leaf.path, direction)
                found.update({f"{place}/{key}": value for key, value in _scalars(str(name), part)})
    return found


def of_loop(norms: Mapping[str, float]) -> dict[str, float]:
    """Name the norms that the training loop reported."""
    return {f"{FIRST if name == 'gradient_norm' else DETAIL}/{name}": norm for name, norm in norms.items()}


def most_saturated(layer: xr.Dataset) -> tuple[str, float]:
    """Return the gate most often at an end of its range (if open, not the memory gate), and the share."""
    if not {"saturation_left", "saturation_right"} <= set(layer.data_vars):
        return "", np.nan
    counted = layer["gate"] != MEMORY_GATE.get(str(layer.attrs.get("kind")), "")
    shares = layer["saturation_left"].fillna(0.0) + layer["saturation_right"].fillna(0.0).where(counted, 0.0)
    worst = int(np.argmax(shares.values))
    return str(shares["gate"].values[worst]), float(shares.values[worst])


def _first(layer: xr.Dataset, lag: int | None) -> Iterator[tuple[str, float]]:
    if "lag_ratio" in layer:
        ratios = layer["lag_ratio"].values
        lag = len(ratios) // 2 if lag is None else lag
        yield "horizon", steps_of(horizon_of(ratios))
        yield f"reach_at_lag_{lag}", float(ratios[lag]) if lag < len(ratios) else np.nan
    if "saturation_left" in layer:
        yield "saturation", most_saturated(layer)[1]
    of_weights = [
        each
        for name, each in layer.data_vars.items()
        if str(name).endswith("_gradient_norm") and not {"time", "quantile"} & {*each.dims}
    ]
    if of_weights:
        yield "gradient_norm", float(np.sqrt(sum(np.square(each.values).sum() for each in of_weights)))


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
