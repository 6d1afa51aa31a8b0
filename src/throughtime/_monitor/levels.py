"""What of a capture is stored at each recorded step: everything, a number a timestep, or a summary.

Norms are over units and in float64: gradients that fade leave the range of float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import MonitorError, SchemaError
from throughtime._schema import quantities, states

from .reduce import lag_ratio, norm, quantiles, saturation, where_valid

LEVELS = ("summary", "timestep", "full")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_THROUGH_TIME = ("output_gradient", "input_gradient", "gate_gradient", "step_contribution")
_SCALARS = ("loss", "reduction_factor", "certificate_weights", "certificate_time", "underflow")
_KEPT_DIMS = ("sample", "time", "direction", "gate", "outer_step")


def level_of(asked: str | Iterable[str]) -> str | frozenset[str]:
    """Check what is to be stored: a level's name, or names of quantities."""
    if isinstance(asked, str) and asked in LEVELS:
        return asked
    try:
        return quantities(asked)
    except SchemaError as error:
        raise MonitorError(
            f"quantities={asked!r} is none of {', '.join(LEVELS)}, nor names of quantities: {error}"
        ) from None


Weights = Mapping[str, Mapping[str, npt.NDArray[Any]]]  # by layer and name


def weights_of(tree: xr.DataTree) -> Weights:
    """Take from a capture what the next record is compared with."""
    leaves = {leaf.path: _held(leaf.to_dataset()) for leaf in tree.leaves}
    return {path: {name: leaf[name].values for name in _weights(leaf)} for path, leaf in leaves.items()}


def stored(tree: xr.DataTree, level: str | frozenset[str], before: Weights | None) -> xr.DataTree:
    """Reduce a capture to what is stored.

    Parameters
    ----------
    tree : DataTree
    level : as `level_of` returns it
    before : mapping or None
        The weights of the capture recorded last, for how far they have moved since.
    """
    if not isinstance(level, str) or level == "full":
        return tree
    reduced = xr.DataTree()
    for leaf in tree.leaves:
        previous = None if before is None else before[leaf.path]
        with np.errstate(all="ignore"):  # what is not finite is stored as it is
            reduced[leaf.path] = xr.DataTree(_reduced(leaf.to_dataset(), level, previous))
    reduced.attrs.update(tree.attrs)
    return reduced


def _reduced(leaf: xr.Dataset, level: str, before: Mapping[str, Any] | None) -> xr.Dataset:
    held = _held(leaf)
    arrays = {name: held[name] for name in _SCALARS if name in held}
    for name in (*_THROUGH_TIME, *(f"{state}_gradient" for state in states(leaf))):
        if name in held:
            norms = where_valid(norm(held[name], _KEPT_DIMS), held.get("valid"))
            whole = level == "timestep"
            arrays[f"{name}_norm"] = norms if whole else quantiles(norms, QUANTILES)
    arrays.update(_of_weights(held, before))
    if level == "timestep" and "valid" in held:
        arrays["valid"] = held["valid"]
    if "gate_activation" in held:
        arrays.update({f"saturation_{side}": share for side, share in saturation(leaf).items()})
    if any(f"{state}_gradient" in held for state in states(leaf)):
        arrays["lag_ratio"] = lag_ratio(leaf)
    plain = {name: xr.Variable(array.dims, array.values) for name, array in arrays.items()}
    return xr.Dataset(plain, coords=_coordinates(leaf, plain.values()), attrs=leaf.attrs)


def _held(leaf: xr.Dataset) -> dict[str, xr.Variable]:
    return {str(name): leaf.variables[name] for name in leaf.data_vars}


def _coordinates(leaf: xr.Dataset, arrays: Iterable[xr.Variable]) -> dict[str, Any]:
    """Keep the labels of the dims that are left."""
    dims = {dim for array in arrays for dim in array.dims}
    coords = {str(name): each for name, each in leaf.coords.items() if {*each.dims} <= dims}
    return {**coords, "quantile": list(QUANTILES)} if "quantile" in dims else coords


def _weights(held: Mapping[str, xr.Variable]) -> list[str]:
    names = [name for name in held if f"{name}_gradient" in held]
    return [name for name in names if "sample" not in held[name].dims]


def _of_weights(
    held: Mapping[str, xr.Variable], before: Mapping[str, Any] | None
) -> Iterator[tuple[str, xr.Variable]]:
    """Yield norms of weights and gradients, and how far weights moved since the last record."""
    kept = ("direction", "gate")
    for name in _weights(held):
        weight = held[name]
        size = norm(weight, kept)
        yield f"{name}_norm", size
        yield f"{name}_gradient_norm", norm(held[f"{name}_gradient"], kept)
        change = np.full(size.shape, np.nan)
        if before is not None:
            moved = norm(xr.Variable(weight.dims, weight.values - before[name]), kept).values
            np.divide(moved, size.values, out=change, where=size.values > 0)
        yield f"{name}_change", size.copy(data=change)
