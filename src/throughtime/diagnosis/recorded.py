"""Recorded training steps as the layers that `judge` takes, by the level at which they were stored.

Norms of each sample at each timestep are sufficient: reach, share and horizon depend only on the norms of
vectors. A summary contains only medians over samples.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._tree import states
from throughtime._vocabulary import CERTIFICATES, WEIGHTS
from throughtime.diagnostics.state_jacobian import OPTIONAL

from .measure import FROM_LAST_STEP
from .swap import Swapped
from .words import phrase

FULL, TIMESTEP, SUMMARY = "full", "timestep", "summary"
_SCALARS = ("loss", "reduction_factor", *CERTIFICATES)
# Norms for error at the last step alone, if the model reads several steps.
LAST_STEP = ("last_step_gradient_norm", "last_step_contribution")
LAG_INTERVAL = ("lag_ratio_low", "lag_ratio_high", "lag_ratio_samples")
USE = ("use", "use_low", "use_high", "use_samples", "use_pays")  # of a sweep
_WEIGHT_NORMS = ("recurrent_kernel_norm", "recurrent_kernel_gradient_norm")
_READ = ("output_gradient", "step_contribution")


def level(leaf: xr.Dataset) -> str:
    """Return the level at which a layer was recorded."""
    names = (f"{state}_gradient_norm" for state in states(leaf))
    if any("sample" in leaf[name].dims for name in names if name in leaf):
        return TIMESTEP
    return SUMMARY if "lag_ratio" in leaf else FULL


def variables_to_read(leaf: xr.Dataset) -> list[str]:
    """List the variables that reach, share and horizon need, and weights, which may be broken."""
    of_states = [f"{state}_gradient" for state in states(leaf)]
    read = [*_SCALARS, *("valid", "lag_matrix", "lag_ratio", "input", "hidden")]
    read += [*LAG_INTERVAL, *USE, *LAST_STEP, *OPTIONAL]
    read += [name for base in (*_READ, *of_states, *WEIGHTS) for name in (base, f"{base}_norm")]
    return [name for name in read if name in leaf]


def as_captured(leaf: xr.Dataset) -> xr.Dataset:
    """Replace vectors by their norms, for each sample."""
    if level(leaf) != TIMESTEP:
        return leaf
    variables = {name: leaf[name] for name in (*_SCALARS, "valid") if name in leaf}
    for name in (*_READ, *(f"{state}_gradient" for state in states(leaf))):
        norms = leaf.get(f"{name}_norm")
        if norms is None or "sample" not in norms.dims:
            continue
        norms = norms.where(leaf["valid"], 0.0) if "valid" in leaf and "time" in norms.dims else norms
        variables[name] = norms if name == "step_contribution" else norms.expand_dims(unit=1, axis=-1)
    variables |= {name: leaf[name] for name in _WEIGHT_NORMS if name in leaf}
    if not all(name in leaf for name in LAST_STEP):
        return xr.Dataset(variables, attrs=leaf.attrs)
    joint, *others = (f"{state}_gradient" for state in states(leaf))
    norms, variables["step_contribution"] = (leaf[name].fillna(0.0) for name in LAST_STEP)
    variables[joint] = norms.expand_dims(unit=1, axis=-1)
    variables |= {name: xr.zeros_like(variables[joint]) for name in others}
    return xr.Dataset(variables, attrs={**leaf.attrs, FROM_LAST_STEP: 1})


def stored_swap(leaf: xr.Dataset) -> Swapped:
    """Return what each sample loses with exchanged inputs, if a sweep has stored it."""
    lags = np.flatnonzero(np.isfinite(leaf["use"].values)) if "use_changes" in leaf else ()
    if not len(lags):
        return Swapped(reason=phrase("needs_model"))
    return Swapped((0, *map(int, lags)), leaf["use_changes"].values, leaf["use_before"].values)


def find_nonfinite(leaf: xr.Dataset) -> str:
    """Name a loss or a norm of weights that is not finite; empty if there is none."""
    for name, values in leaf.data_vars.items():
        is_norm = str(name).endswith("_norm") and not {"time", "quantile"} & set(values.dims)
        if (name == "loss" or is_norm) and not np.isfinite(values).all():
            return str(name)
    return ""
