"""What a summary is made of, in plain NumPy: norms, quantiles, saturation, the signal by lag.

The measures of `diagnostics` say the same of labelled, lazy arrays of any run. A monitor reduces each record
while a model trains; on arrays of a few kilobytes, labels would cost thirty times what the numbers do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime import cells
from throughtime._schema import states
from throughtime.diagnostics.checks import CERTIFICATES, dtype_of
from throughtime.diagnostics.lags import latest_first, log_norm_of, log_of_sum, runs_backward
from throughtime.diagnostics.saturation import ends

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_LOW, _HIGH = 0.1, 0.9  # as `diagnostics.saturation` has them


def norm(array: xr.Variable, kept: Sequence[str] = ()) -> xr.Variable:
    """Euclidean norm over all dims but those kept, in float64; NaN where a value is."""
    over = tuple(place for place, dim in enumerate(array.dims) if dim not in kept)
    squares = np.square(array.values, dtype=np.float64)
    return xr.Variable([dim for dim in array.dims if dim in kept], np.sqrt(squares.sum(axis=over)))


def where_valid(norms: xr.Variable, valid: xr.Variable | None) -> xr.Variable:
    """Put NaN at steps that are masked."""
    if valid is None or "time" not in norms.dims:
        return norms
    return norms.copy(data=np.where(_broadcast(valid, norms.dims), norms.values, np.nan))


def quantiles(norms: xr.Variable, asked: Sequence[float]) -> xr.Variable:
    """Quantiles over samples, of those that have a value."""
    ordered = norms.transpose("sample", ...)
    return xr.Variable(("quantile", *ordered.dims[1:]), _quantiles(ordered.values, asked))


def _quantiles(values: Floats, asked: Sequence[float]) -> Floats:
    """Interpolate linearly over the first axis, NaN left out; infinities stay what they are."""
    ordered = np.sort(values, axis=0)  # NaN last
    count = len(values) - np.isnan(values).sum(axis=0)
    last = np.maximum(count - 1, 0)
    found = np.empty((len(asked), *values.shape[1:]))
    for place, fraction in enumerate(asked):
        below = np.floor(fraction * last).astype(np.intp)
        share = fraction * last - below
        low = np.take_along_axis(ordered, below[None], axis=0)[0]
        high = np.take_along_axis(ordered, np.minimum(below + 1, last)[None], axis=0)[0]
        with np.errstate(invalid="ignore"):
            between = low * (1 - share) + high * share
        found[place] = np.where((share == 0) | (low == high), low, between)
    found[:, count == 0] = np.nan
    return found


def is_certified(leaf: xr.Dataset) -> bool:
    """Whether the layer's gradients add up to the framework's own, as far as that is defined."""
    held = [leaf.variables[name].values for name in CERTIFICATES if name in leaf.variables]
    bar = cells.bar(dtype_of(leaf))
    return not any((value > bar).any() for value in held)


def saturation(leaf: xr.Dataset) -> dict[str, xr.Variable]:
    """Share of gate values at the left and right end, (direction, gate): a mean over units.

    NaN where the certificate fails, no step is valid, or an activation has no two ends.
    """
    gates = leaf.variables["gate_activation"].transpose("sample", "time", ..., "gate", "unit")
    dims, shape = gates.dims[2:-1], gates.shape[2:-1]
    if not is_certified(leaf):
        return {side: xr.Variable(dims, np.full(shape, np.nan)) for side in ("left", "right")}
    start, end = (each.values[:, None] for each in ends(leaf))
    position = (gates.values - start) / (end - start)
    counted = ~np.isnan(position)
    if "valid" in leaf.variables:
        counted &= _broadcast(leaf.variables["valid"].astype(bool), gates.dims)
    steps = counted.sum(axis=(0, 1))
    at_end = {"left": position < _LOW, "right": position > _HIGH}
    return {
        side: xr.Variable(dims, _mean_share((flags & counted).sum(axis=(0, 1)), steps))
        for side, flags in at_end.items()
    }


def _mean_share(hits: npt.NDArray[np.int_], steps: npt.NDArray[np.int_]) -> Floats:
    """Mean over units, the last axis, of those that have a step."""
    shares, known = hits / np.maximum(steps, 1), steps > 0
    return np.where(known.any(-1), (shares * known).sum(-1) / np.maximum(known.sum(-1), 1), np.nan)


def lag_ratio(leaf: xr.Dataset) -> xr.Variable:
    """Median over samples of the error signal at each lag, as a share of lag 0: (lag, direction).

    NaN where the signal is not known: a state without its gradient, no sample with a usable lag 0.
    """
    directions = [dim for dim in ("direction",) if dim in leaf.sizes]
    names = [f"{state}_gradient" for state in states(leaf)]
    if not all(name in leaf.variables for name in names):
        shape = [leaf.sizes[dim] for dim in ("time", *directions)]
        return xr.Variable(("lag", *directions), np.full(shape, np.nan))
    signal, *others = (_log_norm(leaf.variables[name], directions) for name in names)
    for other in others:
        signal = log_of_sum(2 * signal, 2 * other) / 2
    valid = _valid(leaf)
    rows = valid[:, None] if directions else valid
    by_lag = latest_first(signal, rows, runs_backward(leaf).values)  # sample, [direction,] lag
    ratios = _to_first(by_lag, valid.sum(axis=1).reshape(-1, *(1,) * (by_lag.ndim - 1)))
    with np.errstate(over="ignore", under="ignore"):
        shares = np.exp(_quantiles(ratios, [0.5])[0])
    return xr.Variable((*directions, "lag"), shares).transpose("lag", ...)


def _to_first(by_lag: Floats, length: npt.NDArray[np.int_]) -> Floats:
    """Take each sample's signal relative to its lag 0; all NaN where that is 0, or a lag is not finite."""
    first = by_lag[..., :1]
    inside = np.arange(by_lag.shape[-1]) < length
    broken = ((np.isnan(by_lag) | (by_lag == np.inf)) & inside).any(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return by_lag - np.where(np.isfinite(first) & ~broken, first, np.nan)


def _log_norm(gradient: xr.Variable, directions: list[str]) -> Floats:
    """Logarithm of the norm of a state's gradient, time last."""
    kept = ("sample", *directions, "time")
    return log_norm_of(gradient.transpose(*kept, ...).values, gradient.ndim - len(kept))


def _valid(leaf: xr.Dataset) -> Flags:
    if "valid" in leaf.variables:
        return np.asarray(leaf.variables["valid"].transpose("sample", "time").values, dtype=bool)
    return np.ones((leaf.sizes["sample"], leaf.sizes["time"]), dtype=bool)


def _broadcast(array: xr.Variable, dims: Sequence[object]) -> npt.NDArray[np.bool_]:
    """Give an array the axes of others, of length 1 where it has none."""
    ordered = array.transpose(*(dim for dim in dims if dim in array.dims))
    sizes = ordered.sizes
    return np.asarray(ordered.values).reshape([sizes.get(dim, 1) for dim in dims])
