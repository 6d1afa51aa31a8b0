"""The verdict from each layer's answers, and its sentences."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from throughtime._capture.lag_matrix import READ_OFTEN
from throughtime.diagnostics.rules import has_risen
from throughtime.diagnostics.thresholds import FAINT

from . import causes, integrity, measure
from .diagnosis import Diagnosis
from .results import (
    NO,
    NOT_MEASURED,
    UNCLEAR,
    YES,
    Answer,
    Asked,
    LayerDiagnosis,
    Remedy,
    Results,
    Verdict,
    steps_of,
)
from .words import join_words, number, phrase, size, with_interval

_MOST_NAMED = 8  # layers in a sentence
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

    >>> verdict_of(Answer("yes"), Answer("no"))
    <Verdict.WEAK_SIGNAL: 'weak_signal'>
    """
    if used.answer == YES:
        return Verdict.WEAK_SIGNAL if reached.answer == NO else Verdict.USES
    if used.answer == NO and reached.answer in (YES, NO):
        return Verdict.UNUSED if reached.answer == YES else Verdict.NO_EVIDENCE
    return Verdict.CANNOT_SAY


def conclude(
    found: Diagnosis, directions: Mapping[str, xr.Dataset], *, asked: Asked, leaves: Mapping[str, xr.Dataset]
) -> Diagnosis:
    """Add the verdict on the model, its sentences, notes and remedies."""
    found, path = decide(found)
    misread = misread_layers(directions)
    sentences = (*sentences_of(found, path, asked, leaves), *misread.values())
    notes = (*found.notes, *notes_of(found, directions, misread))
    return with_remedies(replace(found, sentences=sentences, notes=notes), asked, misread)


def with_remedies(found: Diagnosis, asked: Asked, misread: Collection[str] = ()) -> Diagnosis:
    """Add whether the model is solved, in a sentence as well, and the remedies."""
    is_solved, sentences = None if asked.solved is None else found.loss <= asked.solved, found.sentences
    proposed = [causes.reading_remedy(each) for each in misread]
    if is_solved:
        solved = number(float(asked.solved or 0.0))
        sentences = (*sentences, phrase("solved", loss=number(found.loss), solved=solved))
    else:
        of_data = _remedies_of_data(found, asked)
        if not of_data or _has_certain_cause(found):
            lag = found.dependency_length if asked.solved is not None else None
            for layer in _measured_layers(found.layers).values():
                proposed += causes.remedies(layer, found.verdict, lag, asked.optimizer)
        proposed += of_data
    remedies = {each.text: each for each in reversed(proposed)}
    return replace(
        found, sentences=sentences, remedies=tuple(reversed(remedies.values())), is_solved=is_solved
    )


def _remedies_of_data(found: Diagnosis, asked: Asked) -> list[Remedy]:
    """Propose what the data suggest, if old inputs are not used."""
    if found.largest_use.answer == NO and (far := asked.far_labels(found.loss)):
        return [causes.remedy("remedy_far_labels", far)]
    if found.largest_use.answer in (NO, UNCLEAR) and (padding := asked.padding()):
        return [causes.remedy("remedy_padding", padding)]
    return []


def _has_certain_cause(found: Diagnosis) -> bool:
    """Whether more is known than data suggest: gradients explode, or training does not reach the weights."""
    known = {name for layer in found.layers.values() for name in layer.evidence}
    return found.verdict is Verdict.UNSTABLE or bool(known & {"frozen", "cut"})


def decide(found: Diagnosis) -> tuple[Diagnosis, str]:
    """Add the verdict on the model and its evidence; return also the path of the layer that explains it."""
    counted = _measured_layers(found.layers)
    verdict = min((layer.verdict for layer in counted.values()), key=_FIRST.index)
    those = [path for path, layer in counted.items() if layer.verdict is verdict]
    # The layer with the best reach explains the verdict.
    path = max(those, key=lambda path: np.nan_to_num(counted[path].reach.value, nan=-1.0))
    return replace(found, verdict=verdict, why=found.layers[path].why), path


def misread_layers(directions: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Describe the layers that are read only after their first step, by path."""
    return {
        path: phrase("first_step_only", layer=path, way="this direction" if path.endswith("]") else "it")
        for path, leaf in directions.items()
        if measure.read_after_first_step(leaf)
    }


def _measured_layers(layers: Mapping[str, LayerDiagnosis]) -> dict[str, LayerDiagnosis]:
    """Select the directions whose reach was measured; all if there are none."""
    measured = {path: each for path, each in layers.items() if each.reach.answer != NOT_MEASURED}
    return measured or dict(layers)


def sentences_of(found: Results, path: str, asked: Asked, leaves: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """Write the verdict; `leaves` are captured layers, whose norms explain a verdict of instability."""
    layer, lag = found.layers[path], found.lag
    sizes = sizes_of(found)
    if is_unstable := found.verdict is Verdict.UNSTABLE:
        yield instability_sentence(found, path, asked)
        yield from integrity.norms_sentence(leaves, asked)
    if layer.use.answer == NO and layer.use.reason:
        yield layer.use.reason
    match found.verdict:
        case _ if found.uses_newest_alone:
            yield phrase("newest", sizes=sizes).rstrip()
        case Verdict.USES | Verdict.WEAK_SIGNAL:
            value = found.largest_use.value
            share = f"{100 * value:.0f} %" if value < 1 else "All"  # but for noise
            yield phrase(found.verdict.value, lag=lag, inputs=found.inputs, use=share, sizes=sizes).rstrip()
        case Verdict.UNUSED:
            reached = [each.reach for each in found.layers.values() if each.reach.answer != NOT_MEASURED]
            arrives = all(each.answer == YES for each in reached)
            is_faint = arrives and any(each.value < FAINT for each in reached)
            key = "unused_faint" if is_faint else "unused" if arrives else "unused_mixed"
            yield phrase(key, sizes=sizes)
        case Verdict.NO_EVIDENCE:
            is_asked = found.dependency_length is not None
            yield phrase("no_evidence" if is_asked else "no_evidence_open", lag=lag, sizes=sizes)
        case Verdict.CANNOT_SAY:
            yield from _undecided_sentences(found, layer, sizes)
    if not is_unstable:
        yield from _growth_sentences(found, asked)
    lags = found.use_curve["lag"].values if found.use_curve is not None else ()
    is_open = found.dependency_length is None and found.verdict in (Verdict.USES, Verdict.WEAK_SIGNAL)
    if is_open and len(lags) > 1:
        yield phrase("open_lags", lag=lag, lags=", ".join(map(str, lags)))


def sizes_of(found: Results) -> str:
    """Describe the gradient that arrives at the lag in each layer; empty if nothing was measured.

    It is called vanishing only at a lag that the caller requested.
    """
    reached = {path: each.reach for path, each in found.layers.items() if not np.isnan(each.reach.value)}
    parts: list[str] = []
    named, others = _named({path: reach.value for path, reach in reached.items()})
    for path, reach in ((path, reached[path]) for path in named):
        text = size(reach.value)
        if not parts:
            text = phrase("of_lag_0", size=text).replace("× of", "×")
        low, high = map(size, reach.interval)
        is_vanishing = reach.answer == NO and found.dependency_length is not None
        is_unclear = reach.answer == UNCLEAR and reach.n > 1
        key = "size_vanishing" if is_vanishing else "size_unclear" if is_unclear else "size"
        parts.append(phrase(key, layer=path, size=text, low=low, high=high))
    return phrase("sizes", lag=found.lag, sizes=join_words(parts) + others) if parts else ""


def _named(values: Mapping[str, float]) -> tuple[list[str], str]:
    """Choose the layers that a sentence names: a few, or else those with the least and the largest value."""
    if len(values) <= _MOST_NAMED:
        return [*values], ""
    ordered = sorted(values, key=lambda path: values[path])
    return [ordered[0], ordered[-1]], phrase("others_between", n=len(values) - 2)


def sentences_without_use(found: Results, sizes: str) -> Iterator[str]:
    """Describe the measurements, and how to measure use, which needs the model."""
    yield from [sizes] if sizes else []
    horizons = {path: each.horizon for path, each in found.layers.items() if each.horizon != NOT_MEASURED}
    if horizons:
        named, others = _named({path: steps_of(horizon) for path, horizon in horizons.items()})
        words = join_words([f"{horizons[path]} in {path}" for path in named])
        yield phrase("horizons", horizons=words + others)
    reason = next(iter(found.layers.values())).use.reason
    key = "use_needs_model" if reason == phrase("needs_model") else "use_not_measured"
    yield phrase(key, lag=found.lag, reason=reason)


def _undecided_sentences(found: Results, layer: LayerDiagnosis, sizes: str) -> Iterator[str]:
    used, lag = layer.use, found.lag
    if used.answer == NOT_MEASURED:
        yield from sentences_without_use(found, sizes)
    elif used.answer == NO:
        yield phrase("no_evidence_unclear", lag=lag, sizes=sizes).rstrip()
    else:
        values = {"use": with_interval(used.value, used.interval), "threshold": used.threshold, "n": used.n}
        key = "no_settled_use" if used.reason else "use_unclear"
        yield phrase(key, reason=used.reason, lag=lag, **values)
        yield from [sizes] if sizes else []


def instability_sentence(found: Results, path: str, asked: Asked) -> str:
    """Describe why a layer is unstable: its risen loss, or else its large step."""
    layer = found.layers[path]
    longest = int(layer.curve.attrs["window"]) - 1 if layer.curve is not None else 0
    values = {"layer": path, "factor": number(layer.evidence["growth"].value), "lag": longest}
    if has_risen((*asked.losses, found.loss)):
        return phrase("exploding_loss", **values, times=number(found.loss / asked.losses[0]))
    key = "optimizer" if asked.optimizer.is_known else "optimizer_assumed"
    optimizer = phrase(key, rate=number(asked.optimizer.rate))
    return phrase("exploding_step", **values, optimizer=optimizer, step=number(layer.evidence["step"].value))


def _growth_sentences(found: Results, asked: Asked) -> Iterator[str]:
    """Explain why gradients that grow are no fault here, for the layer with the largest."""
    known = {path: each.evidence for path, each in found.layers.items()}
    grown = {path: each["growth"].value for path, each in known.items() if "growth" in each}
    for path in sorted(grown, key=lambda each: -grown[each])[:1]:
        step = known[path].get("step") if asked.optimizer.is_known else None
        words = phrase("rescaled") if asked.optimizer.rescales else f"; {step.text}" if step else ""
        yield phrase("growth_alone", layer=path, factor=number(grown[path]), step=words)


def notes_of(found: Results, directions: Mapping[str, xr.Dataset], misread: Collection[str]) -> Iterator[str]:
    """Yield notes that qualify the answers for the layers."""
    read_often = [
        path
        for path, leaf in directions.items()
        if measure.needs_last_step(leaf) or measure.FROM_LAST_STEP in leaf.attrs
    ]
    is_direct = all(path in read_often or leaf.attrs.get(READ_OFTEN) for path, leaf in directions.items())
    if is_direct and found.verdict in (Verdict.USES, Verdict.WEAK_SIGNAL):
        yield phrase("no_memory", layers=join_words(list(directions)))
    if many := [path for path in read_often if found.layers[path].reach.n]:
        yield phrase("from_last_step", layers=join_words(many))
    for path, leaf in directions.items():
        if measure.why_no_gradient(leaf):
            continue
        signal = measure.signal(leaf)
        if signal.measured == 0 and path not in misread:
            yield phrase("unread_direction", layer=path)
        elif signal.without_signal and path not in misread:
            yield phrase("dead_samples", n=signal.without_signal, all=signal.samples, layer=path)
        if found.layers[path].share.n and (noise := measure.noise(leaf)) is not None:
            yield phrase("noise", layer=path, **noise)
        if leaf.attrs.get("stateful"):
            yield phrase("stateful", layer=path, steps=leaf.sizes["time"])
    first = next(iter(directions.values()))
    if "valid" in first and not bool(first["valid"].all()):
        yield phrase("masked", share=f"{float(1 - first['valid'].mean()):.0%}")
