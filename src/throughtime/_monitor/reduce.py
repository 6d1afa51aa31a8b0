"""The reductions of a summary in plain NumPy: norms, quantiles, saturation, the gradient ratio by lag.

The measures of `diagnostics` compute the same from labelled, lazy arrays of any run. A monitor reduces each
record while a model trains; for arrays of a few kilobytes, labels would cost thirty times what the numbers
cost.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime import cells
from throughtime._capture.label import NamedArray
from throughtime._errors import ThroughTimeError
from throughtime._tree import state_gradients
from throughtime._vocabulary import CERTIFICATES
from throughtime.diagnosis.layers import LAST_STEP
from throughtime.diagnostics import rules
from throughtime.diagnostics.checks import dtype_of
from throughtime.diagnostics.lags import latest_first, log_joint_norm, log_norm_of, runs_backward, to_first
from throughtime.diagnostics.last_step import solve_from_last_step
from throughtime.diagnostics.saturation import count_ends, ends_of
from throughtime.diagnostics.statistics import Floats, median_interval, quantiles
from throughtime.diagnostics.thresholds import GATE_HIGH, GATE_LOW

from .arrays import Arrays, Values

Flags = npt.NDArray[np.bool_]


def norm(array: NamedArray, kept: Sequence[str] = ()) -> NamedArray:
    """Euclidean norm over all dims except those kept, in float64; NaN if a value is NaN."""
    over = tuple(place for place, dim in enumerate(array.dims) if dim not in kept)
    squares = np.square(array.values, dtype=np.float64)
    return NamedArray(tuple(dim for dim in array.dims if dim in kept), np.sqrt(squares.sum(axis=over)))


def where_valid(norms: NamedArray, valid: NamedArray | None) -> NamedArray:
    """Set masked steps to NaN."""
    if valid is None or "time" not in norms.dims:
        return norms
    return NamedArray(norms.dims, np.where(_broadcast(valid, norms.dims), norms.values, np.nan))


def sample_quantiles(norms: NamedArray, asked: Sequence[float]) -> NamedArray:
    """Quantiles over the samples that have a value."""
    ordered = norms.ordered("sample")
    return NamedArray(("quantile", *ordered.dims[1:]), quantiles(ordered.values, asked))


def is_certified(arrays: Arrays, layout: xr.Dataset) -> bool:
    """Whether every defined certificate of the layer is within its limit."""
    limit = cells.limit(dtype_of(layout))
    return not any((arrays[name].values > limit).any() for name in CERTIFICATES if name in arrays)


def saturation(arrays: Arrays, layout: xr.Dataset) -> dict[str, NamedArray]:
    """Share of gate values at the left and right end, (direction, gate): a mean over units.

    NaN if the certificate fails, no step is valid, or an activation does not have two ends.
    """
    return saturation_shares(saturation_counts(arrays, layout), certified=is_certified(arrays, layout))


def saturation_shares(counts: Arrays, *, certified: bool) -> dict[str, NamedArray]:
    """Turn the counts of `saturation_counts` into shares, NaN if the certificate fails."""
    steps = counts["steps"]
    if not certified:
        steps = NamedArray(steps.dims, np.zeros_like(steps.values))
    return {side: _mean_share(counts[side], steps) for side in ("left", "right")}


def saturation_counts(arrays: Arrays, layout: xr.Dataset) -> dict[str, NamedArray]:
    """Count gate values at the left and right end, and the valid steps: (direction, gate, unit)."""
    gates = arrays["gate_activation"].ordered("sample", "time")  # ..., gate, unit
    start, end = ends_of([str(name) for name in layout["gate"].values], layout.attrs)
    values, valid = np.moveaxis(gates.values, (0, 1), (-2, -1)), _valid(arrays, layout)
    counts = count_ends(values, start[:, None], end[:, None], valid, low=GATE_LOW, high=GATE_HIGH)
    names = ("left", "right", "steps")
    return {name: NamedArray(gates.dims[2:], count) for name, count in zip(names, counts, strict=True)}


def _mean_share(hits: NamedArray, steps: NamedArray) -> NamedArray:
    """Share of the steps, a mean over the units that have one; NaN if none has."""
    shares, known = hits.values / np.maximum(steps.values, 1), steps.values > 0
    means = (shares * known).sum(-1) / np.maximum(known.sum(-1), 1)
    return NamedArray(hits.dims[:-1], np.where(known.any(-1), means, np.nan))


def lag_ratio(log_ratios: NamedArray) -> NamedArray:
    """Median over samples of the gradient at each lag relative to lag 0: (lag, direction)."""
    with np.errstate(over="ignore", under="ignore"):
        shares = np.exp(quantiles(log_ratios.values, [0.5])[0])
    return NamedArray(log_ratios.dims[1:], shares).ordered("lag")


def lag_interval(log_ratios: NamedArray) -> dict[str, NamedArray]:
    """Return the ends of that median's 95 % interval and the number of samples: (lag, direction)."""
    dims, known = log_ratios.dims[1:], ~np.isnan(log_ratios.values)
    _, low, high = median_interval(log_ratios.values)
    with np.errstate(over="ignore", under="ignore"):
        found = {"low": np.exp(low), "high": np.exp(high), "samples": known.sum(axis=0)}
    return {f"lag_ratio_{name}": NamedArray(dims, values).ordered("lag") for name, values in found.items()}


def growth(log_ratios: NamedArray) -> dict[str, NamedArray]:
    """Largest gradient in the window relative to lag 0, and the low end of its interval: (direction)."""
    found = [rules.growth(rows) for rows in by_direction(log_ratios)]
    dims, shape = log_ratios.dims[1:-1], log_ratios.values.shape[1:-1]
    columns = {"growth": [one.factor for one in found], "growth_low": [one.low for one in found]}
    return {name: NamedArray(dims, np.reshape(values, shape)) for name, values in columns.items()}


def by_direction(log_ratios: NamedArray) -> list[Floats]:
    """Split (sample, [direction,] lag) into directions."""
    values = log_ratios.values
    return list(np.moveaxis(values, 1, 0)) if "direction" in log_ratios.dims else [values]


def log_ratios(arrays: Arrays, layout: xr.Dataset) -> NamedArray:
    """Logarithm of each sample's gradient at each lag relative to lag 0: (sample, [direction,] lag).

    The error enters at one step. If the model reads several steps of the layer, only the error at its last
    step counts. NaN if the ratio is unknown: a state without a gradient, a sample without a usable lag 0, or
    a cell without a closed form.
    """
    directions = [dim for dim in ("direction",) if dim in layout.sizes]
    names = state_gradients(layout)
    if not all(name in arrays for name in names):
        shape = [layout.sizes[dim] for dim in ("sample", *directions, "time")]
        return NamedArray(("sample", *directions, "lag"), np.full(shape, np.nan))
    if reads_many_steps(arrays):
        alone = from_last_step(arrays, layout)
        signal = np.log(alone[LAST_STEP[0]].ordered("sample", *directions, "time").values)
    else:
        signal = log_joint_norm(*(_log_norm(arrays[name], directions) for name in names))
    valid = _valid(arrays, layout)
    rows = valid[:, None] if directions else valid
    by_lag = latest_first(signal, rows, runs_backward(layout).values)  # sample, [direction,] lag
    length = valid.sum(axis=1).reshape(-1, *(1,) * (by_lag.ndim - 2))
    return NamedArray(("sample", *directions, "lag"), to_first(by_lag, length)[0])


def reads_many_steps(arrays: Arrays) -> bool:
    """Whether the model reads several valid steps of a layer's output in any sample."""
    asked = arrays.get("output_gradient")
    if asked is None or "time" not in asked.dims:
        return False
    read = asked.ordered("sample", "time").values != 0
    read = read.any(axis=tuple(range(2, read.ndim)))
    if "valid" in arrays:
        read &= arrays["valid"].ordered("sample", "time").values
    return bool((read.sum(axis=1) > 1).any())


def from_last_step(arrays: Arrays, layout: xr.Dataset) -> dict[str, NamedArray]:
    """Norms of the gradient and of the step contributions if the error enters at the last step alone.

    (sample, time, [direction]); NaN if the cell has no closed form.
    """
    named = "direction" in layout.sizes
    shape = (layout.sizes["sample"], layout.sizes["time"])
    backward = np.atleast_1d(runs_backward(layout).values)
    found = []
    for at, flipped in enumerate(backward):
        of = {name: _one_direction(array, at) for name, array in arrays.items()}
        try:
            solved = solve_from_last_step(
                {"valid": np.ones(shape, dtype=bool), **of}, layout.attrs, backward=bool(flipped)
            )
        except (KeyError, ThroughTimeError):
            found.append([np.full(shape, np.nan)] * 2)
            continue
        norms = [log_norm_of(values, 1) for name, values in solved.items() if name.endswith("_gradient")]
        found.append([np.exp(log_joint_norm(*norms)), solved["step_contribution"]])
    dims = ("sample", "time", "direction") if named else ("sample", "time")
    parts = (np.stack(each, axis=-1) if named else each[0] for each in zip(*found, strict=True))
    return {name: NamedArray(dims, np.asarray(values)) for name, values in zip(LAST_STEP, parts, strict=True)}


def _one_direction(array: NamedArray, at: int) -> Values:
    return array.ordered("direction").values[at] if "direction" in array.dims else array.values


def _log_norm(gradient: NamedArray, directions: list[str]) -> Floats:
    """Logarithm of the norm of a state's gradient; time is the last axis."""
    kept = ("sample", *directions, "time")
    return log_norm_of(gradient.ordered(*kept).values, len(gradient.dims) - len(kept))


def _valid(arrays: Arrays, layout: xr.Dataset) -> Flags:
    if "valid" in arrays:
        return np.asarray(arrays["valid"].ordered("sample", "time").values, dtype=bool)
    return np.ones((layout.sizes["sample"], layout.sizes["time"]), dtype=bool)


def _broadcast(array: NamedArray, dims: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Give flags the dims listed; dims that they lack have length 1."""
    ordered = array.ordered(*(dim for dim in dims if dim in array.dims))
    sizes = dict(zip(ordered.dims, ordered.values.shape, strict=True))
    return np.asarray(ordered.values, dtype=bool).reshape([sizes.get(dim, 1) for dim in dims])
