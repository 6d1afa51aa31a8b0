"""Correlation between units: Pearson's coefficient of their values over all valid steps.

It accepts any variable that has units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer, require
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Flags, Floats, valid_steps


@takes(DiagnosticError)
def unit_correlation(layer: Layer, *, variable: str = "hidden") -> xr.DataArray:
    """Pearson correlation between the units of one variable, over all valid steps of all samples.

    Steps of one sample depend on each other, so a correlation of n steps is less certain than n suggests.

    Parameters
    ----------
    layer : one layer of a capture
    variable : str
        Variable with `sample`, `time` and `unit`: `hidden`, `hidden_gradient`, `gate_activation`, …

    Returns
    -------
    DataArray ([direction,] [gate,] unit, unit_from), −1 to 1
        NaN for a unit that never changes, and if fewer than 2 steps are valid.

    Examples
    --------
    >>> from throughtime import testing
    >>> float(unit_correlation(testing.constant_gates(), variable="cell").values.round(6).min())
    1.0
    """
    captured = certified(layer)
    values = require(captured, variable)
    units_of = ("unit", f"{variable.removesuffix('_gradient')}_unit", "output_unit", "feature")
    unit = next((dim for dim in units_of if dim in values.dims), "")
    if not unit:
        raise DiagnosticError(
            f"{variable} has the dims {', '.join(map(str, values.dims))}: no units to correlate. Average "
            "over row and column, and rename channel to unit."
        )
    found: xr.DataArray = apply(
        _correlation,
        values,
        valid_steps(captured),
        over=[("sample", "time", unit), ("sample", "time")],
        returns=[(unit, "unit_from")],
        sizes={"unit_from": values.sizes[unit]},
        vectorize=True,
    )
    return found.rename("unit_correlation").assign_attrs(variable=variable)


def _correlation(values: npt.NDArray[Any], valid: Flags) -> Floats:
    taken = values[valid].astype(np.float64)
    if len(taken) < 2:
        return np.full((values.shape[-1],) * 2, np.nan)
    centred = taken - taken.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    # Rounding gives a constant unit a spread in its last digit.
    moving = size > 1e-14 * np.linalg.norm(taken, axis=0)
    scaled = centred / np.where(moving, size, np.nan)
    return np.asarray(np.clip(scaled.T @ scaled, -1.0, 1.0), dtype=np.float64)
