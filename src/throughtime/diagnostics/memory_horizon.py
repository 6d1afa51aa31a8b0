"""The memory horizon: the last lag at which the gradient exceeds a threshold, censored by the length.

Computed per sample, and as the Kaplan-Meier median of a batch; `horizon_text` formats the results.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import captured, takes
from throughtime._inputs.rules import number
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Flags, Floats, exclusions, signals
from throughtime.diagnostics.statistics import censored_median
from throughtime.diagnostics.thresholds import REACHES, ROUNDING


@takes(DiagnosticError, threshold=number(0, 1, inside=True))
def memory_horizon(layer: Layer, *, threshold: float = REACHES) -> xr.DataArray:
    """Largest lag at which the loss still sends gradient back, per sample.

    The sequence length censors it on the right: if `censored` is True, the value is a lower bound. See
    `memory_horizon_median` for a batch, `horizon_text` for text, `lag_profile` for limits.

    Parameters
    ----------
    layer : one layer of a capture, with `hidden_gradient` (sample, time, unit) or `lag_matrix`
        An LSTM is judged on hidden and cell together.
    threshold : float in (0, 1)
        Fraction of the norm at lag 0; 0.01 is a convention.

    Returns
    -------
    DataArray (sample, [direction]), in timesteps
        Coordinate `censored`. Integers, or floats if `layer` is lazy or a sample has no signal at lag 0; such
        a sample is NaN, and `lag_profile` counts the reasons.

    References
    ----------
    Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, §2.

    Examples
    --------
    >>> from throughtime import testing
    >>> memory_horizon(testing.decaying(rate=0.5)).values
    array([6])
    """
    found = signals(certified(layer))
    horizon = _horizons(found, threshold)
    if horizon.chunks is None and bool(horizon.notnull().all()):
        horizon = horizon.astype(np.int64)
    return horizon.assign_attrs(threshold=threshold, units="timesteps")


def _horizons(found: xr.Dataset, threshold: float) -> xr.DataArray:
    log_threshold = np.log(threshold) - ROUNDING
    lag, reached = found["lag"], found["log_ratio"] >= log_threshold
    # Every measured sample has a horizon, because lag 0 is reached by definition.
    horizon = lag.where(reached).max("lag").astype(float).rename("memory_horizon")
    censored = (horizon == found["length"] - 1).drop_vars("lag", errors="ignore")
    return horizon.assign_coords(censored=censored)


@takes(DiagnosticError, threshold=number(0, 1, inside=True))
def memory_horizon_median(layer: Layer, *, threshold: float = REACHES) -> xr.Dataset:
    """Median memory horizon of a batch, with censoring by the sequence ends (Kaplan-Meier).

    Parameters
    ----------
    layer, threshold
        See `memory_horizon`.

    Returns
    -------
    Dataset ([direction])
        `median`, in timesteps. If the sequences are too short, `median` is NaN, `censored` is True and
        `at_least` is the longest observed horizon; otherwise `at_least` is the median. `samples` counts
        measured samples, `censored_samples` the censored ones among them; excluded samples are counted by
        reason.

    References
    ----------
    Kaplan-Meier as in scipy.stats.ecdf.

    Examples
    --------
    >>> from throughtime import testing
    >>> result = memory_horizon_median(testing.decaying(rate=[0.5, 0.6, 1.0]))
    >>> float(result["median"]), bool(result["censored"]), int(result["censored_samples"])
    (9.0, False, 1)
    """
    found = signals(certified(layer))
    horizon = _horizons(found, threshold)
    censored = horizon["censored"].drop_vars("censored")
    median, at_least = apply(
        _kaplan_meier,
        horizon.drop_vars("censored"),
        censored,
        over=[("sample",)] * 2,
        returns=[()] * 2,
        vectorize=True,
    )
    variables = {"median": median, "at_least": at_least, "censored": median.isnull() & at_least.notnull()}
    counts = {"samples": horizon.notnull().sum("sample"), "censored_samples": censored.sum("sample")}
    return xr.Dataset({**variables, **counts, **exclusions(found)})


def _kaplan_meier(horizon: Floats, censored: Flags) -> tuple[float, float]:
    """Return the median, and a lower bound that always holds."""
    measured = ~np.isnan(horizon)
    ended: npt.NDArray[np.bool_] = np.asarray(censored, dtype=bool)[measured]
    lengths = horizon[measured]
    if not lengths.size:
        return np.nan, np.nan
    median = censored_median(lengths, ended)
    return (median, median) if np.isfinite(median) else (np.nan, float(lengths.max()))


@takes(DiagnosticError, horizon=captured)
def horizon_text(horizon: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Format each horizon as "6", as "≥ 49" if the sequence ended first, or as "not measured".

    Parameters
    ----------
    horizon : result of `memory_horizon` or `memory_horizon_median`

    Returns
    -------
    DataArray of str, dims as in `horizon`

    Raises
    ------
    DiagnosticError
        An argument is not as described above.
    SchemaError
        The layer lacks a required variable, or its layout differs from that of a capture.

    Examples
    --------
    >>> from throughtime import testing
    >>> horizon_text(memory_horizon(testing.decaying(rate=[0.5, 1.0]))).values.tolist()
    ['6', '≥ 49']
    """
    if "censored" not in (horizon if isinstance(horizon, xr.Dataset) else horizon.coords):
        raise DiagnosticError(
            "The horizon has no 'censored', so it could be a lower bound. Pass the unchanged result of "
            "memory_horizon or memory_horizon_median."
        )
    bound = horizon["at_least"] if isinstance(horizon, xr.Dataset) else horizon
    texts: xr.DataArray = apply(_text, bound, horizon["censored"], vectorize=True, types=[object])
    return texts.drop_vars("censored", errors="ignore")


def _text(bound: float, censored: bool) -> str:
    if np.isnan(bound):
        return "not measured"
    return f"{'≥ ' if censored else ''}{bound:g}"
