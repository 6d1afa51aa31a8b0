"""Reduces a capture to the level that a run stores: everything, one number per timestep, or a summary.

Norms are over units and in float64, because vanishing gradients leave the range of float32.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import xarray as xr

from throughtime._capture.label import Captured, Leaf, NamedArray
from throughtime._errors import MonitorError, SchemaError
from throughtime._tree import state_gradients
from throughtime._vocabulary import CERTIFICATES, quantities
from throughtime.diagnosis.layers import FULL, SUMMARY, TIMESTEP

from .arrays import Arrays, Reduced, Values, as_tree
from .reduce import (
    from_last_step,
    growth,
    lag_interval,
    lag_ratio,
    log_ratios,
    norm,
    sample_quantiles,
    saturation,
    where_valid,
)

LEVELS = (SUMMARY, TIMESTEP, FULL)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
THROUGH_TIME = ("output_gradient", "input_gradient", "gate_gradient", "step_contribution")
SCALARS = ("loss", "reduction_factor", *CERTIFICATES, "underflow")
OF_WEIGHTS = ("direction", "gate")  # dims that norms of weights keep
KEPT_DIMS = ("sample", "time", "direction", "gate", "outer_step")


def level_of(asked: str | Iterable[str]) -> str | frozenset[str]:
    """Check the name of a level, or the names of quantities, to store."""
    if isinstance(asked, str) and asked in LEVELS:
        return asked
    if isinstance(asked, str) and asked == "all":
        raise MonitorError(
            "quantities='all' is called 'full' in a monitor: the whole capture at each recorded step."
        )
    try:
        return quantities(asked)
    except SchemaError as error:
        raise MonitorError(
            f"quantities={asked!r}: expected one of {', '.join(LEVELS)}, or names of quantities. {error}"
        ) from None


Weights = Mapping[str, Mapping[str, Values]]  # by layer and name


def weights_of(captured: Captured) -> Weights:
    """Return the weights of a capture, with which the next record is compared."""
    return {
        path: {name: leaf.arrays[name].values for name in weight_names(leaf)}
        for path, leaf in captured.leaves.items()
    }


def stored(captured: Captured, level: str | frozenset[str], before: Weights | None) -> Reduced:
    """Reduce a capture to a level; changes are those from the weights `before`, of the last record."""
    if not isinstance(level, str) or level == FULL:
        return {path: leaf.arrays for path, leaf in captured.leaves.items()}
    with np.errstate(all="ignore"):  # NaN and infinities are stored unchanged
        return {
            path: _reduce(leaf, level, None if before is None else before[path])
            for path, leaf in captured.leaves.items()
        }


def reduce_tree(tree: xr.DataTree, level: str) -> xr.DataTree:
    """Reduce a labelled capture to a level."""
    captured = Captured.of(tree)
    return as_tree(stored(captured, level, None), captured, QUANTILES)


def _reduce(leaf: Leaf, level: str, before: Mapping[str, Values] | None) -> Arrays:
    arrays = leaf.arrays
    found = {name: arrays[name] for name in SCALARS if name in arrays}
    if level == TIMESTEP:
        found.update(of_samples(leaf))
    else:
        norms = norms_through_time(leaf)
        found.update({name: sample_quantiles(each, QUANTILES) for name, each in norms})
    found.update(_of_weights(arrays, weight_names(leaf), before))
    if "gate_activation" in arrays:
        shares = saturation(arrays, leaf.layout)
        found.update({f"saturation_{side}": share for side, share in shares.items()})
    if has_lags(leaf):
        found.update(of_lags(log_ratios(arrays, leaf.layout)))
    return found


def norms_through_time(leaf: Leaf) -> Iterator[tuple[str, NamedArray]]:
    """Yield norms over units, of each sample at each step."""
    arrays = leaf.arrays
    for name in (*THROUGH_TIME, *state_gradients(leaf.layout)):
        if name in arrays:
            yield f"{name}_norm", where_valid(norm(arrays[name], KEPT_DIMS), arrays.get("valid"))


def of_samples(leaf: Leaf) -> Iterator[tuple[str, NamedArray]]:
    """Yield what the level "timestep" keeps of each sample."""
    arrays = leaf.arrays
    yield from norms_through_time(leaf)
    if "valid" in arrays:
        yield "valid", arrays["valid"]
    if "output_gradient" in arrays and "time" in arrays["output_gradient"].dims:
        for name, array in from_last_step(arrays, leaf.layout).items():
            yield name, where_valid(array, arrays.get("valid"))


def has_lags(leaf: Leaf) -> bool:
    """Whether the gradient ratio by lag is known: a state has a gradient."""
    return any(name in leaf.arrays for name in state_gradients(leaf.layout))


def of_lags(log_ratios: NamedArray) -> dict[str, NamedArray]:
    """Return the gradient ratio by lag, its interval, and its largest value."""
    return {"lag_ratio": lag_ratio(log_ratios), **lag_interval(log_ratios), **growth(log_ratios)}


def weight_names(leaf: Leaf) -> list[str]:
    named = leaf.arrays.items()
    return [name for name, each in named if f"{name}_gradient" in leaf.arrays and "sample" not in each.dims]


def _of_weights(
    arrays: Arrays, names: Iterable[str], before: Mapping[str, Values] | None
) -> Iterator[tuple[str, NamedArray]]:
    """Yield norms of weights and gradients, and of the weights' changes since the last record."""
    for name in names:
        yield f"{name}_norm", norm(arrays[name], OF_WEIGHTS)
        yield f"{name}_gradient_norm", norm(arrays[f"{name}_gradient"], OF_WEIGHTS)
        yield f"{name}_change", change(arrays[name], None if before is None else before[name])


def change(weight: NamedArray, before: Values | None) -> NamedArray:
    """Norm of a weight's change since the last record, relative to its norm; NaN in the first record."""
    size = norm(weight, OF_WEIGHTS)
    found = np.full(size.values.shape, np.nan)
    if before is not None:
        moved = norm(NamedArray(weight.dims, weight.values - before), OF_WEIGHTS).values
        np.divide(moved, size.values, out=found, where=size.values > 0)
    return NamedArray(size.dims, found)
