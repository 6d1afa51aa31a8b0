"""What of a capture is stored at each recorded step: everything, a number a timestep, or a summary.

Norms are over units and in float64: gradients that fade leave the range of float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import xarray as xr

from throughtime import diagnostics
from throughtime._errors import DiagnosticError, MonitorError, SchemaError
from throughtime._schema import quantities, states
from throughtime.diagnostics.lags import signals

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


def stored(tree: xr.DataTree, level: str | frozenset[str], before: xr.DataTree | None) -> xr.DataTree:
    """Reduce a capture to what is stored.

    Parameters
    ----------
    tree : DataTree
    level : as `level_of` returns it
    before : DataTree or None
        The capture recorded last, for how far weights have moved since.
    """
    if not isinstance(level, str) or level == "full":
        return tree
    reduced = xr.DataTree()
    for leaf in tree.leaves:
        previous = None if before is None else before[leaf.path].to_dataset()
        with warnings.catch_warnings():
            # A step that is masked in all samples has no quantiles, one that is not finite no median.
            warnings.simplefilter("ignore", RuntimeWarning)
            reduced[leaf.path] = xr.DataTree(_reduced(leaf.to_dataset(), level, previous))
    reduced.attrs.update(tree.attrs)
    return reduced


def _reduced(leaf: xr.Dataset, level: str, before: xr.Dataset | None) -> xr.Dataset:
    arrays = {name: leaf[name] for name in _SCALARS if name in leaf}
    for name in (*_THROUGH_TIME, *(f"{state}_gradient" for state in states(leaf))):
        if name in leaf:
            norms = norm(leaf[name], _KEPT_DIMS)
            if "valid" in leaf and "time" in norms.dims:
                norms = norms.where(leaf["valid"])
            arrays[f"{name}_norm"] = norms if level == "timestep" else _quantiles(norms)
    arrays.update(_of_weights(leaf, before))
    if level == "timestep" and "valid" in leaf:
        arrays["valid"] = leaf["valid"]
    if "gate_activation" in leaf:
        arrays.update(_saturation(leaf))
    if any(f"{state}_gradient" in leaf for state in states(leaf)):
        arrays["lag_ratio"] = _lag_ratio(leaf)
    return xr.Dataset({name: array.drop_attrs() for name, array in arrays.items()}, attrs=leaf.attrs)


def norm(array: xr.DataArray, kept: tuple[str, ...] = ()) -> xr.DataArray:
    """Euclidean norm over all dims but those kept."""
    over = [dim for dim in array.dims if dim not in kept]
    return (array.astype(np.float64) ** 2).sum(over, skipna=False) ** 0.5


def _quantiles(norms: xr.DataArray) -> xr.DataArray:
    return norms.quantile(list(QUANTILES), "sample").transpose("quantile", ...)


def _of_weights(leaf: xr.Dataset, before: xr.Dataset | None) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield norms of weights and gradients, and how far weights moved since the last record."""
    kept = ("direction", "gate")
    for name in [str(name) for name in leaf.data_vars if f"{name}_gradient" in leaf]:
        if "sample" in leaf[name].dims:
            continue
        size = norm(leaf[name], kept)
        yield f"{name}_norm", size
        yield f"{name}_gradient_norm", norm(leaf[f"{name}_gradient"], kept)
        moved = xr.full_like(size, np.nan) if before is None else norm(leaf[name] - before[name], kept)
        yield f"{name}_change", moved / size.where(size > 0)


def _saturation(leaf: xr.Dataset) -> dict[str, xr.DataArray]:
    """Share of gate values at either end, over units; not known where the certificate fails."""
    try:
        ends = diagnostics.saturation(leaf).mean("unit")
    except DiagnosticError:
        ends = xr.Dataset(dict.fromkeys(("left", "right"), _unknown(leaf, "direction", "gate")))
    return {f"saturation_{side}": ends[side] for side in ("left", "right")}


def _lag_ratio(leaf: xr.Dataset) -> xr.DataArray:
    """Median over samples of the error signal at each lag as a share of lag 0."""
    try:
        ratios = signals(leaf)["log_ratio"].median("sample")
    except (DiagnosticError, SchemaError):
        return _unknown(leaf, "time", "direction").rename(time="lag")
    with np.errstate(over="ignore", under="ignore"):
        shares: xr.DataArray = xr.apply_ufunc(np.exp, ratios)
    return shares.drop_vars("lag").transpose("lag", ...)


def _unknown(leaf: xr.Dataset, *dims: str) -> xr.DataArray:
    """Make an array of NaN with those of the dims that the layer has."""
    own = [dim for dim in dims if dim in leaf.dims]
    coords = {dim: leaf[dim] for dim in own if dim in leaf.coords}
    return xr.DataArray(np.full([leaf.sizes[dim] for dim in own], np.nan), coords=coords, dims=own)
