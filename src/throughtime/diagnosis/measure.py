"""Reach and share of one direction of one captured layer, as answers with intervals.

Joins the measures of `diagnostics` and what the verdict asks of them; `judge` concludes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import DegenerateDataWarning

from throughtime._errors import DiagnosticError, SchemaError
from throughtime._schema import reason_key, states
from throughtime.diagnostics import (
    decay_rate,
    effective_steps,
    horizon_text,
    lag_profile,
    memory_horizon,
    memory_horizon_median,
    temporal_coherence,
)
from throughtime.diagnostics.lags import Floats, by_lag, runs_backward, signals, valid_steps

from .findings import NAN, NOT_MEASURED, UNCLEAR, Answer
from .statistics import censored_median_interval, held_against, interval
from .words import number, say

THRESHOLD = 0.01
GROWTH = 10.0  # from lag 0 to the end of the window, from which on gradients count as exploding
SHORT = 12  # lags below which a rate is fitted from the first one on


@dataclass(frozen=True)
class Signal:
    """What is known of a layer's signal before any lag is asked about.

    Attributes
    ----------
    samples, measured, without_signal : int
        All samples; those with a signal at lag 0; those with valid steps and none.
    longest : int
        Largest lag of any sample, −1 where every step is masked.
    per_step : bool
        Read from a lag matrix.
    read_at_many_steps : bool
        What reads the layer's output reads several steps of it, in one loss.
    """

    samples: int
    measured: int
    without_signal: int
    longest: int
    per_step: bool
    read_at_many_steps: bool


def why_no_gradient(layer: xr.Dataset) -> str:
    """Tell why there is no gradient of a layer's states; empty where there is."""
    name = f"{states(layer)[0]}_gradient"
    if "lag_matrix" in layer or name in layer:
        return ""
    key = reason_key("hidden_gradient", layer.attrs)
    otherwise = "it was not captured" if "loss" in layer else "there are no labels"
    return str(layer.attrs.get(f"missing_{key}", otherwise))


def signal(layer: xr.Dataset) -> Signal:
    """Count what a layer's signal can be told from."""
    found = signals(layer)
    return Signal(
        samples=int(layer.sizes["sample"]),
        measured=int((found["log_ratio"].notnull().any("lag")).sum()),
        without_signal=int(found["no_signal"].sum()),
        longest=int(found["length"].max()) - 1,
        per_step=found.attrs["basis"] == "lag_matrix",
        read_at_many_steps="lag_matrix" not in layer and reads_many_steps(layer),
    )


def reads_many_steps(layer: xr.Dataset) -> bool:
    """Whether a layer's output is asked for gradient at more than one valid step of some sample."""
    asked = layer.get("output_gradient")
    if asked is None or "time" not in asked.dims:
        return False
    others = [dim for dim in asked.dims if dim not in ("sample", "time")]
    steps = ((asked != 0).any(others) & valid_steps(layer)).sum("time")
    return bool((steps > 1).any())


def lags_up_to(longest: int, dependency_length: int | None) -> list[int]:
    """1, 2, 4, … up to half of a window, and the lag asked about where the window has it.

    Examples
    --------
    >>> lags_up_to(20, 15)
    [1, 2, 4, 8, 15]
    """
    half = (longest + 1) // 2
    powers = [2**power for power in range(half.bit_length()) if 2**power <= half and 2**power <= longest]
    asked = [dependency_length] if dependency_length is not None and dependency_length <= longest else []
    return sorted({*powers, *asked})


def reach_curve(layer: xr.Dataset, lags: list[int], *, seed: int) -> xr.Dataset:
    """R at some lags, with its intervals."""
    return lag_profile(layer, lags=lags, seed=seed).drop_vars("direction", errors="ignore")


def reach(curve: xr.Dataset, lag: int) -> Answer:
    """Whether error signal reaches a lag."""
    at = curve.sel(lag=lag)
    value, n = float(at["ratio"]), int(at["samples"])
    if n == 0 or np.isnan(value):
        return Answer(NOT_MEASURED, threshold=THRESHOLD, reason=say("too_short", lag=lag))
    ends = float(at["low"]), float(at["high"])
    if np.isnan(ends).any():
        return Answer(UNCLEAR, value, ends, n, THRESHOLD, say("one_sample"))
    return Answer(held_against(*ends, THRESHOLD), value, ends, n, THRESHOLD)


def share(layer: xr.Dataset, lag: int, *, seed: int) -> Answer:
    """Find the fraction of the step contributions from a lag and beyond: median over samples."""
    if "lag_matrix" in layer:
        return Answer(NOT_MEASURED, threshold=THRESHOLD, reason=say("share_per_step"))
    if "step_contribution" not in layer:
        key = reason_key("step_contribution", layer.attrs)
        reason = str(layer.attrs.get(f"missing_{key}", "step_contribution was not captured"))
        return Answer(NOT_MEASURED, threshold=THRESHOLD, reason=reason)
    weights = by_lag(layer["step_contribution"], valid_steps(layer), runs_backward(layer)).fillna(0.0)
    total = weights.sum("lag")
    part = weights.sel(lag=slice(lag, None)).sum("lag")
    usable = (total > 0) & (total < np.inf)
    values: Floats = np.asarray(part / total.where(usable))[np.asarray(usable)]
    if not len(values):
        return Answer(NOT_MEASURED, threshold=THRESHOLD, reason=say("no_contributions"))
    ends = interval(np.median, values, seed=seed)
    answer = UNCLEAR if np.isnan(ends).any() else held_against(*ends, THRESHOLD)
    return Answer(answer, float(np.median(values)), ends, len(values), THRESHOLD)


def noise(layer: xr.Dataset) -> dict[str, Any] | None:
    """κ and its noise floor where the samples' gradients are not told from noise, κ ≤ 2/√B; else None."""
    try:
        found = temporal_coherence(layer)
    except (DiagnosticError, SchemaError):
        return None
    kappa, floor = float(found["kappa"]), float(found["noise_floor"])
    if not 2 * floor < 1 or not kappa <= 2 * floor:
        return None
    return {"kappa": number(kappa), "floor": number(floor)}


def horizon(layer: xr.Dataset, *, seed: int) -> tuple[str, tuple[float, float]]:
    """Median memory horizon in words, and its interval in timesteps."""
    lengths = memory_horizon(layer)
    usable = lengths.notnull().values
    if not usable.any():
        return NOT_MEASURED, (NAN, NAN)
    text = str(horizon_text(memory_horizon_median(layer)).item())
    ends = censored_median_interval(lengths.values[usable], lengths["censored"].values[usable])
    return text, ends


def k90(layer: xr.Dataset) -> float:
    """Median of the lag within which 90 % of the step contributions lie; NaN without them."""
    if "step_contribution" not in layer or "lag_matrix" in layer:
        return NAN
    return float(effective_steps(layer)["k90"].median("sample"))


def rate(layer: xr.Dataset, longest: int, *, seed: int) -> xr.Dataset:
    """Rate of the signal a step, fitted from lag 0 on where the window is short."""
    with warnings.catch_warnings():
        # Resamples of few long sequences may hold too few lags: then there is no interval.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        return decay_rate(layer, first_lag=0 if longest < SHORT else 5, seed=seed)


def explodes(fitted: xr.Dataset, found: Signal) -> bool:
    """Whether the signal surely grows, tenfold or more within the window.

    The low end of the rate's interval has to be above 0, and where other steps are read as well a rate has
    to describe it: sources that add up grow, too.
    """
    low = float(fitted["rate"] if found.measured == 1 else fitted["low"])
    if not low > 0 or low * found.longest < np.log(GROWTH):
        return False
    return bool(fitted["exponential"]) or not found.read_at_many_steps
