"""Saturated gates: the share of gate values at an end of their range, where the slope is flat.

Reads the gates' values; `timescale` measures how long an open gate remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._inputs.rules import number
from throughtime._tree import Layer, require
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Flags, Floats, valid_steps
from throughtime.diagnostics.thresholds import GATE_HIGH, GATE_LOW

Whole = npt.NDArray[np.int64]
# Range of each activation that saturates at both ends.
RANGES = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0)}


@takes(DiagnosticError, low=number(0, 1, inside=True), high=number(0, 1, inside=True))
def saturation(layer: Layer, *, low: float = GATE_LOW, high: float = GATE_HIGH) -> xr.Dataset:
    """Share of valid steps at which a gate lies at the left or at the right end of its range.

    A right-saturated forget (LSTM) or update (GRU) gate keeps memory and is no fault. The candidate's range,
    −1 to 1 for tanh, is mapped to 0 to 1 first, so that 0.9 corresponds to a value of 0.8.

    Parameters
    ----------
    layer : one LSTM or GRU of a capture, with `gate_activation`
    low, high : float in (0, 1)
        Ends of the range, as fractions of it.

    Returns
    -------
    Dataset ([direction,] gate, unit)
        `left`, `right`: shares over all valid steps of all samples. NaN for an activation without two ends
        (relu), and if no step is valid.

    References
    ----------
    Karpathy, Johnson & Fei-Fei (2015), Visualizing and understanding recurrent networks, arXiv 1506.02078.

    Examples
    --------
    >>> from throughtime import testing
    >>> found = saturation(testing.saturated_gates(left=0.25, right=0.5)).sel(gate="forget").isel(unit=0)
    >>> found["left"].item(), found["right"].item()
    (0.25, 0.5)
    """
    if low >= high:
        raise DiagnosticError(f"low={low} must be below high={high}.")
    captured = certified(layer)
    values, valid = require(captured, "gate_activation"), valid_steps(captured)
    left, right, counted = apply(
        partial(count_ends, low=low, high=high),
        values,
        *ends(captured),
        valid,
        over=[("sample", "time"), (), (), ("sample", "time")],
        returns=[()] * 3,
        types=[np.int64] * 3,
    )
    known = counted.where(counted > 0)
    return xr.Dataset({"left": left / known, "right": right / known}, attrs={"low": low, "high": high})


def count_ends(
    values: npt.NDArray[Any], start: Floats, end: Floats, valid: Flags, *, low: float, high: float
) -> tuple[Whole, Whole, Whole]:
    """Count values at the left end of their range, at the right end, and all; NaN is not counted.

    The last two axes, sample and time, are summed; `start` and `end` of the range lack them.
    """
    start, end = start[..., None, None], end[..., None, None]
    position = (values.astype(np.float64) - start) / (end - start)
    counted = valid & ~np.isnan(position)
    left, right = ((side & counted).sum(axis=(-2, -1)) for side in (position < low, position > high))
    return left, right, counted.sum(axis=(-2, -1))


def ends(layer: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the ends of each gate's range, (gate); NaN for an activation without two ends."""
    names = layer["gate"].values
    start, end = (
        xr.DataArray(each, dims="gate", coords={"gate": names})
        for each in ends_of([str(name) for name in names], layer.attrs)
    )
    return start, end


def ends_of(gates: Sequence[str], attributes: Mapping[Any, Any]) -> tuple[Floats, Floats]:
    """Do the same as `ends` for plain names and attributes."""
    of_gate = {"candidate": attributes.get("activation", "tanh")}
    usual = attributes.get("recurrent_activation", "sigmoid")
    ranges = [RANGES.get(str(of_gate.get(gate, usual)), (np.nan, np.nan)) for gate in gates]
    start, end = np.array(ranges, dtype=np.float64).T
    return start, end
