"""The verdict from each layer's answers, and the sentences it is told in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from . import causes, integrity, measure
from .findings import NO, NOT_MEASURED, UNCLEAR, YES, Answer, Found, LayerDiagnosis, Remedy, Verdict
from .words import number, percent, say, with_interval

_FIRST = (
    Verdict.UNSTABLE,
    Verdict.USES,
    Verdict.WEAK_SIGNAL,
    Verdict.UNUSED,
    Verdict.CANNOT_SAY,
    Verdict.NO_EVIDENCE,
)


def verdict_of(used: Answer, reached: Answer) -> Verdict:
    """Combine use and reach of one layer.

    Examples
    --------
    >>> verdict_of(Answer("yes"), Answer("no"))
    <Verdict.WEAK_SIGNAL: 'weak_signal'>
    """
    if used.answer == YES:
        return Verdict.WEAK_SIGNAL if reached.answer == NO else Verdict.USES
    if used.answer == NO and reached.answer in (YES, NO):
        return Verdict.UNUSED if reached.answer == YES else Verdict.NO_EVIDENCE
    return Verdict.CANNOT_SAY


def concluded(
    found: Found,
    directions: Mapping[str, xr.Dataset],
    *,
    solved: float | None,
    leaves: Mapping[str, xr.Dataset],
) -> Found:
    """Complete what was found by the verdict on the model, its sentences, notes and remedies."""
    counted = _counted(found.layers)
    verdict = min((layer.verdict for layer in counted.values()), key=_FIRST.index)
    path = _deciding(counted, verdict)
    found = replace(found, verdict=verdict, why=found.layers[path].why)
    sentences = [*_sentences(found, path, leaves)]
    is_solved = solved is not None and found.loss <= solved
    if is_solved:
        sentences.append(say("solved", loss=number(found.loss), solved=number(float(solved or 0.0))))
    remedies: dict[str, Remedy] = {}
    if found.dependency_length is not None and solved is not None and not is_solved:
        for layer in counted.values():
            for each in causes.remedies(layer, verdict, found.dependency_length):
                remedies.setdefault(each.text, each)
    notes = (*found.notes, *notes_of(found, directions))
    return replace(found, sentences=tuple(sentences), remedies=tuple(remedies.values()), notes=notes)


def _counted(layers: Mapping[str, LayerDiagnosis]) -> dict[str, LayerDiagnosis]:
    """Leave out directions whose reach cannot be told, if another's can."""
    measured = {path: each for path, each in layers.items() if each.reach.answer != NOT_MEASURED}
    return measured or dict(layers)


def _deciding(layers: Mapping[str, LayerDiagnosis], verdict: Verdict) -> str:
    """Choose the layer that the verdict is told of: among those that came to it, the one reached best."""
    those = {path: each for path, each in layers.items() if each.verdict is verdict}
    return max(those, key=lambda path: np.nan_to_num(those[path].reach.value, nan=-1.0))


def _sentences(found: Found, path: str, leaves: Mapping[str, xr.Dataset]) -> Iterator[str]:
    layer, lag = found.layers[path], found.lag
    reach = with_interval(layer.reach.value, layer.reach.interval)
    match found.verdict:
        case Verdict.UNSTABLE:
            yield from _exploding(found, path, leaves)
        case Verdict.USES if layer.reach.answer != YES:
            yield say("uses_unclear_reach", lag=lag, reach=reach)
        case Verdict.USES | Verdict.UNUSED | Verdict.WEAK_SIGNAL:
            yield say(found.verdict.value, lag=lag, reach=reach)
        case Verdict.NO_EVIDENCE:
            is_asked = found.dependency_length is not None
            yield say("no_evidence" if is_asked else "no_evidence_open", lag=lag, reach=reach)
        case _:
            yield from _cannot_say(layer, lag, reach)
    curve = found.use_curve
    if found.dependency_length is None and found.verdict in (Verdict.USES, Verdict.WEAK_SIGNAL):
        lags = ", ".join(str(each) for each in curve["lag"].values) if curve is not None else ""
        yield say("open_lags", lag=lag, lags=lags)


def _cannot_say(layer: LayerDiagnosis, lag: int | None, reach: str) -> Iterator[str]:
    used = layer.use
    if used.answer == NOT_MEASURED:
        yield say("use_not_measured", lag=lag, reason=used.reason)
    elif used.answer == NO:
        yield say("no_evidence_unclear", lag=lag, reach=reach)
        return
    elif used.reason:
        yield say("no_settled_use", reason=used.reason)
    else:
        told = with_interval(used.value, used.interval)
        yield say("use_unclear", lag=lag, use=told, threshold=used.threshold, n=used.n)
    if layer.reach.answer in (YES, NO, UNCLEAR):
        yield say("reach_too", lag=lag, reach=reach, answer=layer.reach.answer)


def _exploding(found: Found, path: str, leaves: Mapping[str, xr.Dataset]) -> Iterator[str]:
    layer = found.layers[path]
    rate = next(each for each in layer.why if each.name == "decay_rate")
    longest = int(layer.curve.attrs["window"]) - 1 if layer.curve is not None else 0
    factor = number(float(np.exp(min(rate.value * longest, 700.0))))
    yield say("exploding", layer=path, factor=factor, lag=longest, rate=number(rate.value))
    norms = integrity.gradient_norms(leaves)
    if norms:
        yield say("norms", norms=norms)


def notes_of(found: Found, directions: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """Say what a reader has to know of the layers, beside the verdict."""
    for path, leaf in directions.items():
        if measure.why_no_gradient(leaf):
            continue
        signal = measure.signal(leaf)
        if signal.measured == 0:
            yield say("unread_direction", layer=path)
        elif signal.without_signal:
            yield say("dead_samples", n=signal.without_signal, all=signal.samples, layer=path)
        if signal.read_at_many_steps:
            yield say("read_at_many_steps", layer=path)
        if (noise := measure.noise(leaf)) is not None:
            yield say("noise", layer=path, **noise)
        if leaf.attrs.get("stateful"):
            yield say("stateful", layer=path, steps=leaf.sizes["time"])
    first = next(iter(directions.values()))
    if "valid" in first and not bool(first["valid"].all()):
        yield say("masked", share=percent(float(1 - first["valid"].mean())))
