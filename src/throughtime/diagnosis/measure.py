"""Reach, share and growth of one direction of one captured layer, as answers with intervals.

It applies the measures of `diagnostics`; `judge` concludes.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import DegenerateDataWarning

from throughtime._errors import DiagnosticError, SchemaError, ThroughTimeError
from throughtime._tree import reads_many_steps, state_gradients
from throughtime._vocabulary import reason_key
from throughtime.adapters.optimizer import OptimizerStep
from throughtime.diagnostics import (
    decay_rate,
    effective_steps,
    from_last_step,
    horizon_text,
    lag_profile,
    memory_horizon,
    memory_horizon_median,
    temporal_coherence,
)
from throughtime.diagnostics.lags import Floats, by_lag, runs_backward, signals, valid_steps
from throughtime.diagnostics.rules import Growth, answer
from throughtime.diagnostics.rules import growth as growth_of
from throughtime.diagnostics.statistics import censored_median_interval, interval
from throughtime.diagnostics.thresholds import REACHES, SHARE

from .results import NAN, NOT_DEFINED, NOT_MEASURED, UNCLEAR, Answer
from .words import number, phrase

FROM_LAST_STEP = "from_last_step"  # attribute of a layer whose gradients are those of its last step's error
UNTIL_READ = "until_read"  # attribute of a layer whose time ends at the one step that the model reads
NO_LABELS = "there are no labels"
CLIPPED = 0.01  # step relative to the recurrent weights, to which a large one is clipped
SHORT = 12  # lags below which a rate is fitted from the first one on


@dataclass(frozen=True)
class Signal:
    """The samples and lags of the gradient of a layer.

    `measured` samples have a gradient at lag 0; those `without_signal` have none, but are not masked.
    `longest` is the largest lag of any sample, −1 if every step is masked.
    """

    samples: int
    measured: int
    without_signal: int
    longest: int


def why_no_gradient(layer: xr.Dataset) -> str:
    """Return the reason why a layer has no state gradients; empty if it has."""
    name = state_gradients(layer)[0]
    if "lag_matrix" in layer or name in layer:
        return ""
    key = reason_key("hidden_gradient", layer.attrs)
    otherwise = "it was not captured" if "loss" in layer else NO_LABELS
    return str(layer.attrs.get(f"missing_{key}", otherwise))


def signal(layer: xr.Dataset) -> Signal:
    """Count the samples and lags of the gradient of a layer."""
    found = signals(layer)
    silent = found["no_signal"] | (found["no_steps"] & (UNTIL_READ in layer.attrs))
    return Signal(
        samples=int(layer.sizes["sample"]),
        measured=int((found["log_ratio"].notnull().any("lag")).sum()),
        without_signal=int(silent.sum()),
        longest=int(found["length"].max()) - 1,
    )


def at_one_step(layer: xr.Dataset) -> tuple[xr.Dataset, str]:
    """Return a layer with the gradients of error at one step only, and a reason if that is impossible.

    If the model reads many steps, gradients are sums over all of them and have no lag.
    """
    if not needs_last_step(layer):
        return layer, ""
    try:
        return from_last_step(layer).assign_attrs({FROM_LAST_STEP: 1}), ""
    except ThroughTimeError as error:
        return layer, phrase("not_comparable", reason=str(error).partition("\n")[0].rstrip("."))


def needs_last_step(layer: xr.Dataset) -> bool:
    """Whether the gradients of a layer are sums over several steps at which error enters."""
    apart = "lag_matrix" in layer or FROM_LAST_STEP in layer.attrs
    return not apart and not why_no_gradient(layer) and reads_many_steps(layer)


def read_after_first_step(layer: xr.Dataset) -> bool:
    """Whether all error enters after the first of several steps that a layer has processed."""
    if "lag_matrix" in layer or why_no_gradient(layer):
        return False
    found = signals(layer)
    has_error = found["log_signal"] > -np.inf
    nearest = has_error.argmax("lag").where(has_error.any("lag"))
    read = np.asarray(nearest.notnull())
    return bool(read.any() and ((nearest == found["length"] - 1) & (found["length"] > 1)).values[read].all())


def growth(layer: xr.Dataset) -> Growth:
    """Measure the growth of the gradient relative to lag 0, see `rules.growth`."""
    return growth_of(np.asarray(signals(layer)["log_ratio"].transpose("sample", "lag")))


def next_step(layer: xr.Dataset, optimizer: OptimizerStep) -> tuple[float, float]:
    """Return the next step relative to the recurrent weights, and a clip norm; NaN if they are unknown."""
    gradient, weights = (norm(layer, name) for name in ("recurrent_kernel_gradient", "recurrent_kernel"))
    count = float(layer["recurrent_kernel"].size) if "recurrent_kernel" in layer else math.inf
    clip = CLIPPED * weights / optimizer.rate if optimizer.is_known and optimizer.rate > 0 else NAN
    return optimizer.relative(gradient, weights, count), clip


def norm(layer: xr.Dataset, name: str) -> float:
    """Return the norm of a weight, if necessary from the norms of its gates that a run keeps."""
    values = layer[name] if name in layer else layer.get(f"{name}_norm", NAN)
    return float(np.linalg.norm(np.asarray(values, np.float64).ravel()))


def lags_up_to(longest: int, dependency_length: int | None) -> list[int]:
    """Return 1, 2, 4, … up to half of a window, and the requested lag if the window contains it.

    >>> lags_up_to(20, 15)
    [1, 2, 4, 8, 15]
    """
    half = (longest + 1) // 2
    powers = [2**power for power in range(half.bit_length()) if 2**power <= half and 2**power <= longest]
    asked = [dependency_length] if dependency_length is not None and dependency_length <= longest else []
    return sorted({*powers, *asked})


def reach_curve(layer: xr.Dataset, lags: list[int]) -> xr.Dataset:
    """Return R at some lags, with its intervals."""
    return lag_profile(layer, lags=lags).drop_vars("direction", errors="ignore")


def reach(curve: xr.Dataset, lag: int) -> Answer:
    """Answer whether the gradient reaches a lag."""
    at = curve.sel(lag=lag)
    value, n = float(at["ratio"]), int(at["samples"])
    if n == 0 or np.isnan(value):
        unread = int(curve["no_signal"]) > 0 and int(curve["samples"].max()) == 0
        reason = phrase("no_error_at_end") if unread else phrase("too_short", lag=lag)
        return Answer(NOT_MEASURED, threshold=REACHES, reason=reason)
    ends = float(at["low"]), float(at["high"])
    if np.isnan(ends).any():
        return Answer(UNCLEAR, value, ends, n, REACHES, phrase("one_sample"))
    return Answer(answer(*ends), value, ends, n, REACHES)


def share(layer: xr.Dataset, lag: int, *, seed: int) -> Answer:
    """Answer which fraction of the step contributions comes from a lag and beyond, as median over samples."""
    if "lag_matrix" in layer:
        return Answer(NOT_MEASURED, threshold=SHARE, reason=phrase("share_per_step"))
    if "step_contribution" not in layer:
        key = reason_key("step_contribution", layer.attrs)
        reason = str(layer.attrs.get(f"missing_{key}", "step_contribution was not captured"))
        return Answer(NOT_MEASURED, threshold=SHARE, reason=reason)
    valid = valid_steps(layer)
    weights = by_lag(layer["step_contribution"], valid, runs_backward(layer)).fillna(0.0)
    total = weights.sum("lag")
    part = weights.sel(lag=slice(lag, None)).sum("lag")
    has_gradient = np.asarray((total > 0) & (total < np.inf))
    if not has_gradient.any():
        return Answer(NOT_MEASURED, threshold=SHARE, reason=phrase("no_contributions"))
    # The first step has no state before it, unless one was passed.
    old_enough = np.asarray(valid.sum("time") > lag + ("initial_hidden" not in layer))
    usable = has_gradient & old_enough
    if not usable.any():
        return Answer(NOT_DEFINED, threshold=SHARE, reason=phrase("share_undefined", lag=lag))
    values: Floats = np.asarray(part)[usable] / np.asarray(total)[usable]
    ends = interval(np.median, values, seed=seed)
    return Answer(answer(*ends, SHARE), float(np.median(values)), ends, len(values), SHARE)


def noise(layer: xr.Dataset) -> dict[str, Any] | None:
    """Return κ and its noise floor if the samples' gradients may be noise, κ ≤ 2/√B; otherwise None."""
    try:
        found = temporal_coherence(layer)
    except (DiagnosticError, SchemaError):
        return None
    kappa, floor = float(found["kappa"]), float(found["noise_floor"])
    if not 2 * floor < 1 or not kappa <= 2 * floor:
        return None
    return {"kappa": number(kappa), "floor": number(floor)}


def horizon(layer: xr.Dataset) -> tuple[str, tuple[float, float]]:
    """Return the median memory horizon in words, and its interval in timesteps."""
    lengths = memory_horizon(layer)
    usable = lengths.notnull().values
    if not usable.any():
        return NOT_MEASURED, (NAN, NAN)
    text = str(horizon_text(memory_horizon_median(layer)).item())
    ends = censored_median_interval(lengths.values[usable], lengths["censored"].values[usable])
    return text, ends


def k90(layer: xr.Dataset) -> float:
    """Return the median lag within which 90 % of the step contributions lie; NaN without them."""
    if "step_contribution" not in layer or "lag_matrix" in layer:
        return NAN
    return float(effective_steps(layer)["k90"].median("sample"))


def rate(layer: xr.Dataset, longest: int, *, seed: int) -> xr.Dataset:
    """Fit the rate of the gradient per step, from lag 0 if the window is short."""
    with warnings.catch_warnings():
        # Resamples of few long sequences may contain too few lags; then there is no interval.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        return decay_rate(layer, first_lag=0 if longest < SHORT else 5, seed=seed)
