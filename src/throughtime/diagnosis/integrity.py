"""Reasons not to judge: numbers that are not finite, and certificates that fail."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr

from throughtime import cells
from throughtime._inputs import structures
from throughtime._inputs.batch import Batch
from throughtime._tree import reads_many_steps
from throughtime._vocabulary import CERTIFICATES
from throughtime.diagnostics.checks import certificate_error, dtype_of, why_refused
from throughtime.diagnostics.first_nonfinite import first_nonfinite
from throughtime.diagnostics.lags import valid_steps
from throughtime.diagnostics.thresholds import MOSTLY

from . import measure
from .layers import directions_of
from .results import Asked, Verdict
from .swap import arrays
from .words import join_words, number, phrase

_FAR = 10  # standard deviations of the labels from 0 that count as far
_BACKWARD = ("gradient", "contribution", "lag_matrix")


class Stop(NamedTuple):
    """The verdict if nothing can be judged, its sentence, and the name of the cause for scripts.

    `may_be_label` is whether a label that is not finite can be the cause.
    """

    verdict: Verdict
    sentence: str
    cause: str
    may_be_label: bool = False


def find_fault(leaves: Mapping[str, xr.Dataset]) -> Stop | None:
    """Find a reason not to judge; None if there is none."""
    tree = xr.DataTree.from_dict({f"/{path}": leaf for path, leaf in leaves.items()})
    found = first_nonfinite(tree)
    if found is not None:
        is_backward = any(part in found.variable for part in _BACKWARD)
        leaf = leaves[found.layer.strip("/")]
        if found.variable == "input" and found.layer.strip("/") == next(iter(leaves)):
            return Stop(Verdict.CANNOT_SAY, phrase("nonfinite_data", where=found), "nonfinite")
        if is_backward and str(leaf.attrs.get("dtype")) == "float16":
            return Stop(Verdict.CANNOT_SAY, phrase("loss_scaling", where=found), "loss_scaling")
        phase = "backward" if is_backward else "forward"
        key = "nonfinite_loss" if (is_loss := found.variable == "loss") else "nonfinite"
        sentence = phrase(key, where=found, phase=phase)
        return Stop(Verdict.UNSTABLE, sentence, "nonfinite", is_loss or is_backward)
    return find_failed_certificate(leaves)


def find_failed_certificate(leaves: Mapping[str, xr.Dataset]) -> Stop | None:
    """Find a certificate beyond its limit; None if there is none."""
    for leaf in leaves.values():
        if reason := why_refused(leaf):
            return Stop(Verdict.CANNOT_SAY, phrase("certificate", reason=reason), "certificate")
    return None


def accept_rounding(leaves: Mapping[str, xr.Dataset]) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Accept layers whose certificate is above its bar but within the limit, and note them."""
    passed, notes = dict(leaves), []
    for path, leaf in leaves.items():
        error, bar = certificate_error(leaf), cells.bar(dtype_of(leaf))
        if error > bar:
            notes.append(phrase("rounded", layer=path, error=f"{error:.1e}", bar=f"{bar:.0e}"))
            passed[path] = leaf.drop_vars([name for name in CERTIFICATES if name in leaf])
    return passed, notes


def norms_sentence(leaves: Mapping[str, xr.Dataset], asked: Asked) -> Iterator[str]:
    """Write the norm of the gradient of each layer's recurrent weights, before any clipping."""
    norms = {path: measure.norm(leaf, "recurrent_kernel_gradient") for path, leaf in leaves.items()}
    if parts := [f"{number(norm)} in {path}" for path, norm in norms.items() if not math.isnan(norm)]:
        yield phrase("norms", norms=join_words(parts), clipping=" before clipping" * asked.optimizer.clips)


def samples_as_steps(leaves: Mapping[str, xr.Dataset], labels: tuple[int, ...]) -> str:
    """Return the first layer with as many steps as there are labels, and another number of samples."""
    for path, leaf in leaves.items():
        if 1 < leaf.sizes.get("sample", 1) not in labels[:2] and labels[:1] == (leaf.sizes.get("time"),):
            return path
    return ""


def with_data(asked: Asked, batches: Sequence[Batch], leaves: Mapping[str, xr.Dataset]) -> Asked:
    """Add the facts about the data."""
    labels, found = tuple(getattr(batches[0].y, "shape", ())), partial(_bad_label, batches)
    asked = replace(asked, labels=labels, bad_label=found, far_labels=partial(_far_labels, batches))
    is_whole = directions_of(leaves) == {"forward"} and not any(
        "lag_matrix" in leaf or reads_many_steps(leaf) or not valid_steps(leaf).all()
        for leaf in leaves.values()
    )
    steps = next(iter(leaves.values())).sizes.get("time", 0)
    return replace(asked, padding=partial(_padding, batches[0], steps)) if is_whole else asked


def _padding(batch: Batch, length: int) -> str:
    """Describe samples that end in one value, which occurs nowhere else, for different numbers of steps."""
    for given in map(structures.to_numpy, arrays(batch.x)):
        is_time_first = given.ndim > 1 and given.shape[0] == length != given.shape[1]
        array = given.swapaxes(0, 1) if is_time_first else given
        is_series = array.ndim > 1 and array.shape[1] == length and array.dtype.kind in "iuf"
        if not is_series or length < 3 or len(np.unique(array)) < 3:  # as a mask that the model takes
            continue
        steps = array.reshape(*array.shape[:2], -1)
        last, count = np.unique(steps[:, -1], axis=0, return_counts=True)
        is_pad = (steps == last[count.argmax()]).all(axis=2)
        at_end = np.minimum.accumulate(is_pad[:, ::-1], axis=1)[:, ::-1]
        lengths = at_end.sum(axis=1)
        share = float((lengths > 1).mean())
        if share >= MOSTLY and len(np.unique(lengths)) > 2 and (is_pad == at_end).all():
            return phrase("padding", share=f"{share:.0%}")
    return ""


def _far_labels(batches: Sequence[Batch], loss: float) -> str:
    """Describe labels far from 0 if the loss is far above that of predicting their mean; empty otherwise."""
    labels = structures.to_numpy(batches[0].y) if hasattr(batches[0].y, "shape") else np.zeros(1)
    if labels.dtype.kind != "f" or ((labels >= 0) & (labels <= 1)).all():  # classes, or their probabilities
        return ""
    mean, spread = float(labels.mean()), float(labels.std())
    is_far = 0 < _FAR * spread < min(abs(mean), loss / max(spread, 1))
    values = {"mean": number(mean), "spread": number(spread), "loss": number(loss)}
    return phrase("far_labels", **values) if is_far else ""


def _bad_label(batches: Sequence[Batch]) -> str:
    """Name the first label that is not finite; empty if there is none."""
    given = (leaf for each in batches for leaf in structures.leaves(each.y))
    arrays = (leaf.data if structures.is_packed(leaf) else leaf for leaf in given)
    for labels in (structures.to_numpy(each) for each in arrays if hasattr(each, "shape")):
        if labels.dtype.kind == "f" and len(places := np.argwhere(~np.isfinite(labels))):
            return f"{labels[tuple(places[0])]} in y[{', '.join(map(str, places[0]))}]"
    return ""
