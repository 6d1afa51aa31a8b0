"""`judge`: the diagnosis from captured layers and swapped losses, as a pure function."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from throughtime.diagnostics.labelled import remember
from throughtime.diagnostics.rules import explodes, is_bounded
from throughtime.diagnostics.thresholds import REACHES, USED

from . import causes, integrity, measure
from .conclude import conclude, misread_layers, verdict_of
from .diagnosis import Diagnosis
from .layers import by_direction
from .results import NOT_MEASURED, Answer, Asked, LayerDiagnosis, Remedy, Verdict
from .swap import Swapped
from .use import largest_used, use, use_curve
from .words import phrase

_CELLS = ("LSTMCell", "GRUCell", "RNNCell")


@remember()
def judge(leaves: Mapping[str, xr.Dataset], swaps: Mapping[str, Swapped], asked: Asked) -> Diagnosis:
    """Diagnose captured recurrent layers; `swaps` has for each the losses with exchanged inputs."""
    first = next(iter(swaps.values()))
    loss, samples = _loss(leaves, first), int(next(iter(leaves.values())).sizes["sample"])
    lag, notes = asked.dependency_length, (*note_few_samples(samples), *asked.notes)
    found = Diagnosis(Verdict.CANNOT_SAY, (), lag, lag, notes=notes, loss=loss, samples=samples)
    stopped = integrity.find_fault(leaves)
    if stopped is not None:
        verdict, sentence, cause, may_be_label = stopped
        if may_be_label and (label := asked.bad_label()):
            verdict, sentence = Verdict.CANNOT_SAY, phrase("nonfinite_data", where=label)
        norms = integrity.norms_sentence(leaves, asked) if verdict is Verdict.UNSTABLE else ()
        return replace(found, verdict=verdict, sentences=(sentence, *norms), stopped=cause)
    if path := integrity.samples_as_steps(leaves, asked.labels):
        wrong = phrase("samples_as_steps", layer=path, samples=leaves[path].sizes["time"])
        mended = causes.remedy("remedy_batch_first", wrong)
        return replace(found, sentences=(f"Cannot decide: {wrong}.",), remedies=(mended,))
    leaves, rounding = integrity.accept_rounding(leaves)
    found = replace(found, notes=(*found.notes, *rounding))
    directions = by_direction(leaves)
    why_not = _reason_without_lag(directions, asked, loss)
    if why_not is not None:
        sentence, remedies = why_not
        return replace(found, sentences=(sentence,), remedies=remedies)
    curve = use_curve(first, seed=asked.seed)
    lag = _lag(asked, curve, directions)
    layers = {}
    for path, leaf in directions.items():
        whole = path if path in leaves else path.rpartition("[")[0]  # without its direction
        layers[path] = _layer(leaf, swaps[whole], lag, asked, (*asked.losses, loss), asked.unread.get(whole))
    found = replace(found, lag=lag, use_curve=curve, layers=layers)
    return conclude(found, directions, asked=asked, leaves=leaves)


def _loss(leaves: Mapping[str, xr.Dataset], swapped: Swapped) -> float:
    """Return the loss of the batch as training has it, or else the mean of what its samples lose alone."""
    known = [float(leaf["loss"]) for leaf in leaves.values() if "loss" in leaf and leaf["loss"].ndim == 0]
    alone = swapped.before[np.isfinite(swapped.before)]
    return known[0] if known else float(alone.mean()) if alone.size else float("nan")


def note_few_samples(samples: int) -> list[str]:
    """Note that intervals over so few samples are rough."""
    if samples == 1:
        return [phrase("one_sample")]
    return [phrase("few_samples", n=samples)] if samples < 16 else []


def _reason_without_lag(
    directions: Mapping[str, xr.Dataset], asked: Asked, loss: float
) -> tuple[str, tuple[Remedy, ...]] | None:
    """Find why no lag can be judged: no gradient, no valid step, or a window that is too short."""
    reasons = {path: measure.why_no_gradient(leaf) for path, leaf in directions.items()}
    known = {path: leaf for path, leaf in directions.items() if not reasons[path]}
    if not known:
        path, reason = next(iter(reasons.items()))
        labels = (causes.remedy("remedy_labels", reason),) if reason == measure.NO_LABELS else ()
        return phrase("no_gradient", layer=path, reason=reason), labels
    signals = {path: measure.signal(leaf) for path, leaf in known.items()}
    path = max(signals, key=lambda path: signals[path].longest)
    longest = signals[path].longest
    if longest < 0:
        return phrase("all_masked"), ()
    wanted = asked.dependency_length or 1
    if wanted > longest:
        values = {"lag": wanted, "longest": longest, "layer": path, "s": "s" * (wanted > 1)}
        sentence, remedy = ("beyond_window" if longest else "one_step", "remedy_window")
        if any("@" in path for path in directions):  # a layer that is called anew
            sentence, remedy = ("beyond_call", "remedy_calls")
        return phrase(sentence, **values), (causes.remedy(remedy, f"largest lag {longest}", **values),)
    if not any(one.measured for one in signals.values()):
        misread = misread_layers(known)
        silent = phrase("no_signal" if loss else "no_signal_of_0", layer=next(iter(signals)))
        remedies = tuple({causes.reading_remedy(path): None for path in misread})
        return " ".join(misread.values()) or silent, remedies
    return None


def _lag(asked: Asked, curve: xr.Dataset | None, directions: Mapping[str, xr.Dataset]) -> int:
    """Return the lag to judge: the requested one, or else the largest in use, or else 1.

    If use was not measured, it is the largest of 1, 2, 4, … within half of the window.
    """
    if asked.dependency_length is not None:
        return asked.dependency_length
    if curve is not None:
        return largest_used(curve) or 1
    known = [leaf for leaf in directions.values() if not measure.why_no_gradient(leaf)]
    return max(max(measure.lags_up_to(measure.signal(leaf).longest, None), default=1) for leaf in known)


def _layer(
    leaf: xr.Dataset, swapped: Swapped, lag: int, asked: Asked, losses: tuple[float, ...], unread: str | None
) -> LayerDiagnosis:
    seed = asked.seed
    used = Answer(NOT_MEASURED, threshold=USED, reason=phrase("too_short", lag=lag))
    if lag in swapped.lags or swapped.reason:
        used = use(swapped, lag, seed=seed)
    kind, is_cell = str(leaf.attrs.get("kind", "")), leaf.attrs.get("layer_class") in _CELLS
    alone, why_not = measure.at_one_step(leaf)
    reason = unread or measure.why_no_gradient(leaf) or why_not
    if reason:
        nothing = Answer(NOT_MEASURED, threshold=REACHES, reason=reason)
        shared = nothing if why_not else measure.share(leaf, lag, seed=seed)
        why = causes.evidence(leaf, None, asked.optimizer)
        return LayerDiagnosis(kind, nothing, shared, used, why, is_cell=is_cell)
    longest = measure.signal(alone).longest
    curve = measure.reach_curve(alone, sorted({*measure.lags_up_to(longest, asked.dependency_length), lag}))
    reached = measure.reach(curve, lag)
    grown, step, clip = measure.growth(alone), *measure.next_step(leaf, asked.optimizer)
    is_unstable = explodes(grown, step, losses, is_bounded=is_bounded(leaf.attrs), solved=asked.solved)
    fitted = measure.rate(alone, longest, seed=seed)
    horizon, ends = measure.horizon(alone)
    return LayerDiagnosis(
        kind=kind,
        reach=reached,
        share=measure.share(alone, lag, seed=seed),
        use=used,
        why=(*causes.growth_evidence(grown, step, clip), *causes.evidence(leaf, fitted, asked.optimizer)),
        curve=curve,
        horizon=horizon,
        horizon_interval=ends,
        k90=measure.k90(alone),
        verdict=Verdict.UNSTABLE if is_unstable else verdict_of(used, reached),
        is_cell=is_cell,
    )
