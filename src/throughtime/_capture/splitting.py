"""Captures a batch that is too large for the memory in parts, and joins their records.

Arrays with samples are filled part by part; sums over samples are added as in the loss. `probe` captures one
part.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from throughtime import _vocabulary
from throughtime._common.memory.budget import Budget, ExceededError, Need, too_large
from throughtime._errors import BatchError, ThroughTimeError
from throughtime.adapters.records import ONE_SAMPLE, SUM, Array, LayerRecord, ModelRecord

Capture = Callable[[slice, Budget], ModelRecord]

_ARRAYS = "the arrays returned would not fit even so"
_PART = "one sample at a time would not fit beside the arrays returned"
_TRIED = (
    "one sample at a time would fit, but a single one does not show whether the loss is a mean or a sum; a "
    "keras.losses.Loss declares it"
)
_FAILS = "the model fails on a part of it ({kind}: {error})"
_CALLS = "the model calls other layers on other samples"
_LENGTHS = "{name} of {path} has other lengths in one part than in another"
_NO_SAMPLES = "the first axis of {name} of {path}, {length}, is not that of the {samples} samples"


def capture_split(capture: Capture, budget: Budget, need: Need, why_whole: str) -> ModelRecord:
    """Capture a batch in as few parts as fit, one after the other.

    The gradients of a part are those of the loss of each sample, and its layers are solved. `budget` is that
    of the whole batch, whose estimate `need`, as far as it is known, exceeds it. `why_whole` is the reason
    why parts would not add up, if it is known before the capture. TooLargeError: they do not, or do not fit
    either.
    """
    size = budget.samples
    while True:
        size = min(size - 1, budget.fitting(need))
        if why_whole or size < 1:
            lacking = _PART if need.returned.of(budget.samples) < (budget.available or 0) else _ARRAYS
            raise too_large(need, budget, why_whole or lacking)
        try:
            # Equal parts that are as few as with `size`.
            part = -(-budget.samples // -(-budget.samples // size))
            return _joined(capture, replace(budget, part=part), need)
        except ExceededError as exceeded:  # a layer that was not reached before needs more
            need = exceeded.need


def _joined(capture: Capture, budget: Budget, need: Need) -> ModelRecord:
    joined = Joined(budget.samples)
    for start in range(0, budget.samples, budget.part):
        rows = slice(start, min(start + budget.part, budget.samples))
        # Nested calls, so that no reference to a part remains after it is joined.
        if why_whole := joined.add(_part(capture, rows, budget, need), rows):
            raise too_large(need, budget, why_whole)
    return joined.record()


def _part(capture: Capture, rows: slice, budget: Budget, need: Need) -> ModelRecord:
    try:
        return capture(rows, budget)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, BatchError) else error
        if cause is None or isinstance(cause, (ThroughTimeError, Warning)):
            raise
        raise too_large(need, budget, _FAILS.format(kind=type(cause).__name__, error=cause)) from error


class Joined:
    """The record of a batch of some samples, into which those of its parts are joined one after another."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._rows: list[slice] = []
        self._weights: list[float] = []
        self._leaves: list[_Leaf] = []
        self._first: ModelRecord | None = None
        self._loss = 0.0

    def add(self, part: ModelRecord, rows: slice) -> str:
        """Add the next part; return the reason if it does not add up, otherwise an empty text."""
        if self._first is None:
            self._first = replace(part, layers=())
            self._leaves = [_Leaf(leaf, self._samples) for leaf in part.layers]
        why_whole = self._why_whole(part, rows)
        if why_whole:
            return why_whole
        share = self._share(part.weight)
        for leaf, record in zip(self._leaves, part.layers, strict=True):
            leaf.add(record, rows, share)
        self._loss = _added(self._loss, part.loss or 0.0, share)
        self._rows.append(rows)
        self._weights.append(part.weight)
        return ""

    def _share(self, weight: float) -> float | None:
        """Return the weight of the next part in the mean so far; None if the loss is a sum."""
        assert self._first is not None
        if self._first.attributes.get("loss_reduction") == SUM:
            return None
        return weight / (sum(self._weights) + weight) if weight else 0.0

    def _why_whole(self, part: ModelRecord, rows: slice) -> str:
        if not self._rows and part.attributes.get("loss_reduction") == ONE_SAMPLE:
            return _TRIED
        if [leaf.path for leaf in part.layers] != [leaf.first.path for leaf in self._leaves]:
            return _CALLS
        lacking = (
            _without_samples(leaf, rows.stop - rows.start) or joined.why_not(leaf)
            for joined, leaf in zip(self._leaves, part.layers, strict=True)
        )
        return part.why_whole or next(filter(None, lacking), "")

    def record(self) -> ModelRecord:
        assert self._first is not None
        first, has_loss = self._first, self._first.loss is not None
        is_mean = has_loss and first.attributes.get("loss_reduction") != SUM
        if is_mean:
            self._reweigh()
        return replace(
            first,
            layers=tuple(leaf.record() for leaf in self._leaves),
            attributes={**first.attributes, "chunks": len(self._rows)},
            loss=self._loss if has_loss else None,
            reduction_factor=1.0 / self._samples if is_mean else first.reduction_factor,
            weight=sum(self._weights),
        )

    def _reweigh(self) -> None:
        """Scale each part by its weight in the mean over the whole batch.

        Its gradients are those of its samples alone, which for a mean over samples makes no difference.
        """
        total = sum(self._weights)
        for rows, weight in zip(self._rows, self._weights, strict=True):
            factor = weight * self._samples / (total * (rows.stop - rows.start)) if total else 1.0
            if factor != 1.0:
                for leaf in self._leaves:
                    leaf.scale(rows, factor)


@dataclass
class _Leaf:
    """One layer call, joined."""

    first: LayerRecord
    samples: int
    arrays: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = replace(self.first, arrays={})

    def why_not(self, part: LayerRecord) -> str:
        """Describe an array whose lengths differ from those in previous parts; empty if there is none."""
        for name, array in part.arrays.items():
            if name in self.arrays and self.arrays[name].shape[1:] != array.shape[1:]:
                return _LENGTHS.format(name=name, path=part.path)
        return ""

    def add(self, part: LayerRecord, rows: slice, share: float | None) -> None:
        for name, array in part.arrays.items():
            if _is_per_sample(name, part):
                if name not in self.arrays:
                    shape = (self.samples * _per_sample(part), *array.shape[1:])
                    self.arrays[name] = np.zeros(shape, array.dtype)
                self._own(name, rows)[...] = array
            elif name not in self.arrays:
                self.arrays[name] = array.copy()
            elif name.startswith("certificate"):
                self.arrays[name] = np.fmax(self.arrays[name], array)
            elif name.endswith("_gradient"):
                self.arrays[name] = _added(self.arrays[name], array, share)

    def scale(self, rows: slice, factor: float) -> None:
        for name, array in self.arrays.items():
            is_gradient = name.endswith("_gradient") or name in _vocabulary.PER_SAMPLE
            if is_gradient and _is_per_sample(name, self.first):
                self._own(name, rows)[...] *= array.dtype.type(factor)

    def _own(self, name: str, rows: slice) -> Array:
        each = _per_sample(self.first)
        return self.arrays[name][rows.start * each : rows.stop * each]

    def record(self) -> LayerRecord:
        missing = {name: why for name, why in self.first.missing.items() if name not in self.arrays}
        return replace(self.first, arrays=self.arrays, missing=missing)


def _added(total: Any, part: Any, share: float | None) -> Any:
    """Add the next part to a sum, or to a mean with this share."""
    return total + part if share is None else total + (part - total) * share


def _per_sample(leaf: LayerRecord) -> int:
    """Return the number of rows of a leaf for each sample of the batch."""
    return leaf.outer_steps or 1


def _is_per_sample(name: str, leaf: LayerRecord) -> bool:
    if name in leaf.dims:
        return leaf.dims[name][0] == "sample"
    known = _vocabulary.words(leaf.states, leaf.marks)
    return name in known and known[name].dims[:1] == ("sample",)


def _without_samples(leaf: LayerRecord, samples: int) -> str:
    """Describe an array whose first axis is not the batch; empty if there is none."""
    expected = samples * _per_sample(leaf)
    for name, array in leaf.arrays.items():
        if _is_per_sample(name, leaf) and len(array) != expected:
            return _NO_SAMPLES.format(name=name, path=leaf.path, length=len(array), samples=samples)
    return ""
