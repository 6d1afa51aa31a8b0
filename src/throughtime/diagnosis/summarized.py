"""Answers from a record that is a summary: medians over samples, with their intervals.

`judge` needs numbers of each sample. A question that only those can answer, such as share, is not measured,
and the reason names the level that stores them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import theilslopes

from throughtime._tree import evenly
from throughtime.diagnostics.rules import Growth, answer, explodes, is_bounded
from throughtime.diagnostics.thresholds import REACHES, ROUNDING, SHARE, USED

from . import causes, integrity, measure
from .conclude import decide, sentences_of, sentences_without_use, sizes_of, verdict_of, with_remedies
from .diagnosis import Diagnosis
from .layers import LAG_INTERVAL, USE, find_nonfinite
from .results import (
    NAN,
    NOT_MEASURED,
    UNCLEAR,
    Answer,
    Asked,
    Evidence,
    LayerDiagnosis,
    Results,
    Verdict,
    steps_of,
)
from .use import use_answer
from .words import join_words, number, phrase

_FIRST_LAG = 5  # of a fit, as in `decay_rate`


def diagnosis_of(leaves: Mapping[str, xr.Dataset], asked: Asked) -> Diagnosis:
    """Diagnose the directions of the layers of one recorded summary.

    The default lag is the largest power of two within half of the window, as for a capture.
    """
    losses = [float(leaf["loss"]) for leaf in leaves.values() if "loss" in leaf]
    lag = asked.dependency_length
    found = Diagnosis(Verdict.CANNOT_SAY, (), lag, lag, loss=losses[0] if losses else NAN)
    if (stopped := find_fault(leaves)) is not None:
        return replace(found, stopped=stopped.cause, sentences=(stopped.sentence,), verdict=stopped.verdict)
    longest, layer = max(
        ((longest_lag(leaf), path) for path, leaf in leaves.items()), key=lambda each: each[0]
    )
    if longest < 0 and any(map(_reads_many_steps, leaves.values())):
        reason = phrase("no_settled_use", reason=phrase("summary_not_comparable"))
        return replace(found, sentences=(reason,))
    values = {"layer": layer, "lag": lag or 1, "longest": longest}
    if longest < 0:
        return replace(found, sentences=(phrase("no_signal" if found.loss else "no_signal_of_0", **values),))
    if (lag or 1) > longest:
        return replace(found, sentences=(phrase("beyond_window" if longest else "one_step", **values),))
    lag = lag or _used_lag(leaves) or max(measure.lags_up_to(longest, None), default=1)
    asked = replace(asked, losses=(*asked.losses, found.loss))
    layers = {path: _judge_layer(leaf, lag, asked) for path, leaf in leaves.items()}
    found, path = decide(replace(found, lag=lag, layers=layers))
    many = [
        path for path, leaf in leaves.items() if _reads_many_steps(leaf) and layers[path].curve is not None
    ]
    notes = (phrase("from_last_step", layers=join_words(many)),) if many else ()
    return with_remedies(replace(found, sentences=tuple(_sentences(found, path, asked)), notes=notes), asked)


def _used_lag(leaves: Mapping[str, xr.Dataset]) -> int | None:
    """Return the largest lag at which use was measured, if any."""
    lags = [np.flatnonzero(np.isfinite(leaf["use"].values)) for leaf in leaves.values() if "use" in leaf]
    return max((int(each[-1]) for each in lags if len(each)), default=None)


def _sentences(found: Results, path: str, asked: Asked) -> Iterator[str]:
    is_measured = found.layers[path].use.answer != NOT_MEASURED
    if found.verdict is Verdict.UNSTABLE or is_measured:
        yield from sentences_of(found, path, asked, {})
    if not is_measured:
        yield from sentences_without_use(found, sizes_of(found))


def _judge_layer(leaf: xr.Dataset, lag: int, asked: Asked) -> LayerDiagnosis:
    """Answer for one direction of one layer, with evidence and stability."""
    grown, step, clip = _growth(leaf), *measure.next_step(leaf, asked.optimizer)
    is_unstable = explodes(grown, step, asked.losses, is_bounded=is_bounded(leaf.attrs), solved=asked.solved)
    layer = layer_of(leaf, lag)
    return replace(
        layer,
        why=(*causes.growth_evidence(grown, step, clip), *_evidence(leaf)),
        verdict=Verdict.UNSTABLE if is_unstable else verdict_of(layer.use, layer.reach),
    )


def _growth(leaf: xr.Dataset) -> Growth:
    if "growth" not in leaf:
        return Growth()
    lag = int(np.nanargmax(leaf["lag_ratio"].values)) if longest_lag(leaf) >= 0 else 0
    return Growth(float(leaf["growth"]), float(leaf["growth_low"]), lag)


def _reads_many_steps(leaf: xr.Dataset) -> bool:
    """Whether any quantile of the output gradient is above 0 at several steps."""
    norms = leaf.get("output_gradient_norm")
    if norms is None or "time" not in norms.dims:
        return False
    others = [dim for dim in norms.dims if dim != "time"]
    return int((norms > 0).any(others).sum()) > 1


def find_fault(leaves: Mapping[str, xr.Dataset]) -> integrity.Stop | None:
    """Find a reason not to judge a summary."""
    for path, leaf in leaves.items():
        if name := find_nonfinite(leaf):
            sentence = phrase("nonfinite_record", name="the loss" if name == "loss" else f"{name} of {path}")
            return integrity.Stop(Verdict.UNSTABLE, sentence, "nonfinite")
    return integrity.find_failed_certificate(leaves)


def longest_lag(leaf: xr.Dataset) -> int:
    """Return the largest lag with a ratio; −1 if there is none."""
    ratios = leaf["lag_ratio"].values if "lag_ratio" in leaf else np.empty(0)
    known_lags = np.flatnonzero(~np.isnan(ratios))
    return int(known_lags[-1]) if len(known_lags) else -1


def layer_of(leaf: xr.Dataset, lag: int) -> LayerDiagnosis:
    """Answer for one direction of one layer."""
    ratios = leaf["lag_ratio"].values
    value = float(ratios[lag]) if lag < len(ratios) else NAN
    known = not np.isnan(value)
    missing = "summary_not_comparable" if longest_lag(leaf) < 0 and _reads_many_steps(leaf) else "too_short"
    ends, n = (NAN, NAN), 0
    if known:
        low, high, n = (leaf[name].values[lag].item() for name in LAG_INTERVAL)
        ends = (low, high)
    reach = Answer(
        (answer(*ends) if n > 1 else UNCLEAR) if known else NOT_MEASURED,
        value,
        ends,
        n,
        REACHES,
        reason="" if n > 1 else phrase("one_sample" if n else missing, lag=lag),
    )
    return LayerDiagnosis(
        kind=str(leaf.attrs.get("kind", "")),
        reach=reach,
        share=Answer(NOT_MEASURED, threshold=SHARE, reason=phrase("summary_share")),
        use=_use(leaf, lag),
        curve=_curve(leaf),
        horizon=horizon_of(ratios),
        horizon_interval=_horizon_interval(leaf),
    )


def _use(leaf: xr.Dataset, lag: int) -> Answer:
    """Answer from the use that a sweep measured over its data set."""
    if "use" not in leaf or not np.isfinite(leaf["use"].values[lag]):
        return Answer(NOT_MEASURED, threshold=USED, reason=phrase("needs_model"))
    value, low, high, n = (float(leaf[name].values[lag]) for name in USE[:4])
    return use_answer(value, (low, high), int(n), does_pay=bool(leaf["use_pays"]))


def _ends(leaf: xr.Dataset) -> list[Any]:
    """Return the ends of the interval of the median ratio, by lag."""
    return [leaf[name].values for name in LAG_INTERVAL[:2]]


def _horizon_interval(leaf: xr.Dataset) -> tuple[float, float]:
    """Return the lags at which the ends of the interval fall below the threshold; infinite if none does."""
    ends = map(horizon_of, _ends(leaf))
    low, high = (np.inf if end.startswith("≥") else steps_of(end) for end in ends)
    return low, high


def _curve(leaf: xr.Dataset) -> xr.Dataset:
    ratios = leaf["lag_ratio"].values
    lags = measure.lags_up_to(len(ratios) - 1, None)
    curves = zip(("ratio", "low", "high"), (ratios, *_ends(leaf)), strict=True)
    return xr.Dataset(
        {name: ("lag", values[lags]) for name, values in curves},
        coords={"lag": lags},
        attrs={"window": len(ratios)},
    )


def horizon_of(ratios: Any) -> str:
    """Return the largest lag at which the median over samples reaches the threshold."""
    known_lags = np.flatnonzero(~np.isnan(ratios))
    reached = np.flatnonzero(np.nan_to_num(ratios) >= REACHES * (1 - ROUNDING))
    if not len(reached):
        return NOT_MEASURED
    return f"{'≥ ' if reached[-1] == known_lags[-1] else ''}{reached[-1]}"


def _evidence(leaf: xr.Dataset) -> list[Evidence]:
    found: list[Evidence] = []
    if {"saturation_left", "saturation_right"} <= set(leaf.data_vars):
        left, right = leaf["saturation_left"], leaf["saturation_right"]
        found += causes.saturation_evidence(left, right, str(leaf.attrs.get("kind")))
    if (rate := _rate(leaf["lag_ratio"].values)) is not None:
        found.append(Evidence("decay_rate", rate, phrase("decay", rate=number(rate), fit="")))
    return found


def _rate(ratios: Any) -> float | None:
    """Return the slope of ln R(k) above the smallest float32; None with fewer than 3 lags."""
    first = _FIRST_LAG if len(ratios) > measure.SHORT else 0
    lags = np.flatnonzero(np.nan_to_num(ratios, posinf=0.0) > np.finfo(np.float32).tiny)
    lags = lags[lags >= first]
    lags = lags[np.array(evenly(len(lags), 100), int)]
    return float(theilslopes(np.log(ratios[lags]), lags)[0]) if len(lags) >= 3 else None
