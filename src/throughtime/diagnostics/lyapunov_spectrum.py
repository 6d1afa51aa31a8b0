"""Lyapunov exponents: how fast neighbouring states separate along the trajectory of a layer.

`lyapunov_exponents` computes them from any Jacobians; `lyapunov_spectrum` uses those of `state_jacobian`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._inputs.rules import array, whole
from throughtime._tree import Layer
from throughtime.cells.parallel import one_thread
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Flags, Floats, runs_backward, valid_steps
from throughtime.diagnostics.state_jacobian import STATES, state_jacobian

MOST_WORK = 2e9  # multiplications


@takes(DiagnosticError, transient=whole(0))
def lyapunov_spectrum(layer: Layer, *, transient: int = 0) -> xr.DataArray:
    """Lyapunov exponents of a layer's state along each sample's trajectory, largest first.

    The state is h, for an LSTM h and c concatenated, for any other cell all its states. Over a finite window
    these are local exponents that start at the initial state. The cost grows with the cube of the state size:
    select samples with .isel.

    Parameters
    ----------
    layer : one layer of a capture, with what `state_jacobian` needs
    transient : int
        Number of valid steps at the beginning that the mean excludes.

    Returns
    -------
    DataArray (sample, [direction,] exponent), per timestep
        −∞ for a direction that a step erases; NaN if no valid step is left. See `lyapunov_exponents`.

    Raises
    ------
    DiagnosticError
        `transient` is negative, or as `state_jacobian`.

    References
    ----------
    Vogt et al. (2022), arXiv 2006.14123; Engelken, Wolf & Abbott (2023), arXiv 2006.02427.

    Examples
    --------
    >>> from throughtime import testing
    >>> lyapunov_spectrum(testing.decaying(rate=0.5, units=2)).values.round(6)  # ln 0.5
    array([[-0.693147, -0.693147]])
    """
    captured = certified(layer)
    jacobians = state_jacobian(captured)
    exponents: xr.DataArray = apply(
        _along_trajectory,
        jacobians,
        valid_steps(captured),
        runs_backward(captured),
        over=[("sample", "time", *STATES), ("sample", "time")],
        returns=[("sample", "exponent")],
        sizes={"exponent": jacobians.sizes["state_unit"]},
        vectorize=True,
        transient=transient,
    )
    return exponents.rename("lyapunov_spectrum").assign_attrs(units="1/timestep", transient=transient)


def of_few_samples(layer: xr.Dataset, samples: int = 4) -> xr.DataArray | None:
    """Measure the first few samples; None if that is too much work, or the layer has no states."""
    if samples < 1 or "hidden" not in layer or "sample" not in layer["hidden"].dims:
        return None
    few = layer.isel(sample=slice(samples))
    steps = few.sizes["sample"] * few.sizes["time"]
    if steps * (2 * few["hidden"].size / steps) ** 3 > MOST_WORK:
        return None
    with np.errstate(invalid="ignore", over="ignore"):  # of a layer that is not finite
        return lyapunov_spectrum(few)


def _along_trajectory(jacobians: Floats, valid: Flags, backward: bool, *, transient: int) -> Floats:
    order = slice(None, None, -1 if backward else 1)
    return lyapunov_exponents(jacobians[:, order], valid=valid[:, order], transient=transient)


@takes(DiagnosticError, jacobians=array(), valid=array(), transient=whole(0))
def lyapunov_exponents(
    jacobians: npt.ArrayLike, *, valid: npt.ArrayLike | None = None, transient: int = 0
) -> Floats:
    """Lyapunov exponents of a product of Jacobians by QR: λ_i = mean over steps of ln|R_ii|.

    Without a transient their sum is the mean of ln|det J|.

    Parameters
    ----------
    jacobians : array_like (sample, time, state, state)
        Rows new, columns old; time in processing order.
    valid : array_like of bool (sample, time), optional
        Steps that count; a masked step copies the state and is skipped.
    transient : int
        Number of valid steps at the beginning that the mean excludes.

    Returns
    -------
    ndarray (sample, state), per step, largest first

    Raises
    ------
    DiagnosticError
        An array has another shape, or `transient` is negative.

    References
    ----------
    Vogt et al. (2022), arXiv 2006.14123; Engelken, Wolf & Abbott (2023), arXiv 2006.02427.

    Examples
    --------
    >>> lyapunov_exponents(np.tile(np.diag([0.5, 2.0]), (1, 10, 1, 1))).round(6)
    array([[ 0.693147, -0.693147]])
    """
    steps = np.asarray(jacobians, dtype=np.float64)
    if steps.ndim != 4 or steps.shape[2] != steps.shape[3]:
        raise DiagnosticError(f"jacobians have shape {steps.shape}; expected (sample, time, state, state).")
    if valid is not None and np.shape(valid) != steps.shape[:2]:
        raise DiagnosticError(f"valid has shape {np.shape(valid)}; expected that of (sample, time).")
    mask: Flags = np.broadcast_to(np.asarray(True if valid is None else valid, dtype=bool), steps.shape[:2])
    counted: Flags = np.asarray(mask & (np.cumsum(mask, axis=1) > transient), dtype=np.bool_)
    with one_thread():  # factorising one step is too little work for a pool of threads
        total = _log_growth(steps, mask, counted)
    count = counted.sum(axis=1)[:, None]
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.asarray(-np.sort(-means, axis=1))


def _log_growth(steps: Floats, mask: Flags, counted: Flags) -> Floats:
    """Sum of ln|R_ii| over the counted steps: (sample, state)."""
    basis = np.broadcast_to(np.eye(steps.shape[-1]), steps.shape[:1] + steps.shape[2:]).copy()
    total = np.zeros((len(steps), steps.shape[-1]))
    for t in range(steps.shape[1]):
        # A Jacobian that is not finite cannot be factorised; the sample's exponents become NaN.
        finite: Flags = np.asarray(np.isfinite(steps[:, t]).all(axis=(1, 2)), dtype=np.bool_)
        moved = np.where(finite[:, None, None], steps[:, t], 0.0) @ basis
        turned, grown = np.linalg.qr(moved)
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs(np.diagonal(grown, axis1=1, axis2=2)))
        logs = np.where(finite[:, None], logs, np.nan)
        total += np.where(counted[:, t][:, None], logs, 0.0)
        basis = np.where(mask[:, t, None, None], turned, basis)
    return total
