"""What can be told of a record that is a summary: medians over samples, without intervals.

`judge` needs samples; here the same questions are answered as far as medians go, and the level that would
answer the rest is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import theilslopes

from throughtime._recorded import evenly

from . import integrity, measure
from .diagnosis import Diagnosis
from .findings import NAN, NOT_MEASURED, UNCLEAR, Answer, Evidence, Found, LayerDiagnosis, Verdict
from .recorded import not_finite
from .words import number, percent, say

_FIRST_LAG = 5  # of a fit, as in `decay_rate`
_SATURATED = 0.5  # share of the values at either end of a gate's range


def judged(leaves: Mapping[str, xr.Dataset], lag: int | None) -> dict[str, Any]:
    """Answer what a summary can; the fields of a `Diagnosis`.

    Parameters
    ----------
    leaves : mapping of str to Dataset
        Directions of layers at one training step.
    lag : int or None
        By default the largest power of two within half of the window, as for a capture.
    """
    losses = [float(leaf["loss"]) for leaf in leaves.values() if "loss" in leaf]
    found: dict[str, Any] = {
        "verdict": Verdict.CANNOT_SAY,
        "lag": lag,
        "dependency_length": lag,
        "loss": losses[0] if losses else NAN,
    }
    if (stopped := broken(leaves)) is not None:
        return found | {"verdict": stopped[0], "sentences": (stopped[1],)}
    longest = max(longest_lag(leaf) for leaf in leaves.values())
    if longest < 0:
        return found | {"sentences": (say("no_signal", layer=next(iter(leaves))),)}
    if (lag or 1) > longest:
        return found | {"sentences": (say("beyond_window", lag=lag or 1, longest=longest),)}
    asked = lag or max(measure.lags_up_to(longest, None), default=1)
    layers = {path: layer_of(leaf, asked, why=True) for path, leaf in leaves.items()}
    path = max(layers, key=lambda each: np.nan_to_num(layers[each].reach.value, nan=-1.0))
    reach = number(layers[path].reach.value)
    sentences = (
        say("use_not_measured", lag=asked, reason=say("needs_model")),
        say("reach_of_summary", lag=asked, layer=path, reach=reach),
    )
    notes = [
        say("read_at_many_steps", layer=path) for path, leaf in leaves.items() if _reads_many_steps(leaf)
    ]
    told = {"sentences": sentences, "notes": tuple(notes), "layers": layers, "why": layers[path].why}
    return found | {"lag": asked, **told}


def _reads_many_steps(leaf: xr.Dataset) -> bool:
    """Whether a layer's output is asked for gradient at more than one step, by its largest quantile."""
    norms = leaf.get("output_gradient_norm")
    if norms is None or "time" not in norms.dims:
        return False
    others = [dim for dim in norms.dims if dim != "time"]
    return int((norms > 0).any(others).sum()) > 1


def broken(leaves: Mapping[str, xr.Dataset]) -> tuple[Verdict, str] | None:
    """Find what makes every number of a summary meaningless."""
    for path, leaf in leaves.items():
        if name := not_finite(leaf):
            return Verdict.UNSTABLE, say("nonfinite_record", name=name, layer=path)
    return integrity.uncertified(leaves)


def longest_lag(leaf: xr.Dataset) -> int:
    """Largest lag with a ratio; −1 without any."""
    ratios = leaf["lag_ratio"].values if "lag_ratio" in leaf else np.empty(0)
    told = np.flatnonzero(~np.isnan(ratios))
    return int(told[-1]) if len(told) else -1


def layer_of(leaf: xr.Dataset, lag: int, *, why: bool = False) -> LayerDiagnosis:
    """Answer for one direction of one layer."""
    ratios = leaf["lag_ratio"].values
    value = float(ratios[lag]) if lag < len(ratios) else NAN
    known = not np.isnan(value)
    reach = Answer(
        UNCLEAR if known else NOT_MEASURED,
        value,
        threshold=measure.THRESHOLD,
        reason=say("summary_reach") if known else say("too_short", lag=lag),
    )
    return LayerDiagnosis(
        kind=str(leaf.attrs.get("kind", "")),
        reach=reach,
        share=Answer(NOT_MEASURED, threshold=measure.THRESHOLD, reason=say("summary_share")),
        use=Answer(NOT_MEASURED, threshold=measure.THRESHOLD, reason=say("needs_model")),
        why=tuple(_evidence(leaf)) if why else (),
        curve=_curve(ratios),
        horizon=horizon_of(ratios),
    )


def _curve(ratios: Any) -> xr.Dataset:
    lags = measure.lags_up_to(len(ratios) - 1, None)
    none = ("lag", np.full(len(lags), np.nan))
    return xr.Dataset(
        {"ratio": ("lag", ratios[lags]), "low": none, "high": none},
        coords={"lag": lags},
        attrs={"window": len(ratios)},
    )


def horizon_of(ratios: Any) -> str:
    """Largest lag at which the median over samples is above the threshold."""
    told = np.flatnonzero(~np.isnan(ratios))
    reached = np.flatnonzero(np.nan_to_num(ratios) >= measure.THRESHOLD * (1 - 1e-12))
    if not len(reached):
        return NOT_MEASURED
    return f"{'≥ ' if reached[-1] == told[-1] else ''}{reached[-1]}"


def _evidence(leaf: xr.Dataset) -> list[Evidence]:
    found = []
    if {"saturation_left", "saturation_right"} <= set(leaf.data_vars):
        for gate in map(str, leaf["gate"].values):
            left, right = (float(leaf[f"saturation_{side}"].sel(gate=gate)) for side in ("left", "right"))
            if gate != "candidate" and left + right >= _SATURATED:
                text = say("saturation", gate=gate, left=percent(left), right=percent(right))
                found.append(Evidence(f"saturation_{gate}", left + right, text))
    if (rate := _rate(leaf["lag_ratio"].values)) is not None:
        found.append(Evidence("decay_rate", rate, say("decay", rate=number(rate), fit="")))
    return found


def _rate(ratios: Any) -> float | None:
    """Slope of ln R(k) of the medians, above the smallest float32; None with fewer than 3 lags."""
    first = _FIRST_LAG if len(ratios) > measure.SHORT else 0
    lags = np.flatnonzero(np.nan_to_num(ratios, posinf=0.0) > np.finfo(np.float32).tiny)
    lags = lags[lags >= first]
    lags = lags[np.array(evenly(len(lags), 100), int)]
    return float(theilslopes(np.log(ratios[lags]), lags)[0]) if len(lags) >= 3 else None


def diagnosis_of(leaves: Mapping[str, xr.Dataset], lag: int | None) -> Diagnosis:
    """Diagnose one recorded summary."""
    return Diagnosis(**vars(Found(**judged(leaves, lag))))
