"""The prefix swap: the rise of the loss if inputs older than some lag come from another sample.

It makes the exchanged batches, on which a probe evaluates the loss of each sample; `use` turns the losses
into answers. It uses only arrays, no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from throughtime._inputs import structures
from throughtime._inputs.batch import Batch

from .words import phrase

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.intp]
REPEATS = 4  # partners of each sample, one after another
ROUNDING = 1e-6  # of the losses, which are often float32
_SHARED = 8  # samples whose inputs all samples get, one after another


class Losing(Protocol):
    """An object that evaluates the loss of each sample: `Probe`."""

    def losses(self, x: Any, y: Any, *, sample_weight: Any, step: int | None) -> Any:
        """Return an array (sample)."""


@dataclass(frozen=True)
class Reading:
    """The time of the layers of a model, as they read it.

    `valid` is (sample, time), `ways` are the directions in which they process it, "forward" and "backward",
    and, if the loss has a value for each step, `anchors` the steps whose losses are evaluated. They are some
    of `counted`, (sample, time), which have weight. If `is_reversed`, time begins at the last input.
    """

    valid: Flags
    ways: frozenset[str]
    anchors: tuple[int, ...] = ()
    counted: Flags = field(default_factory=lambda: np.zeros((0, 0), bool))
    is_reversed: bool = False

    @property
    def turned(self) -> Reading:
        """Layers that read backwards, in time from the last input on."""
        return replace(self, valid=self.valid[:, ::-1], ways=frozenset({"forward"}), is_reversed=True)


@dataclass(frozen=True)
class Swapped:
    """The rise of the loss of each sample, for each lag; 0 is the first lag: all inputs exchanged.

    `changes` (sample, lag) is what a sample contributes to the mean rise over anchors, both as receiver and
    as giver of inputs; NaN if it has no inputs that old, or no partner. `before` (sample) is the loss with
    unchanged inputs, and `shared` (draw, sample) that with the inputs of one sample for all; it has no draws
    if inputs lower the loss. With a `reason`, nothing was measured, and the arrays are empty.
    """

    lags: tuple[int, ...] = ()
    changes: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    before: Floats = field(default_factory=lambda: np.zeros(0))
    shared: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    without_partner: int = 0
    reason: str = ""

    def scaled(self, factor: float) -> Swapped:
        """Multiply all losses."""
        changes, before, shared = (each * factor for each in (self.changes, self.before, self.shared))
        return replace(self, changes=changes, before=before, shared=shared)


def passes(lags: Sequence[int], anchors: Sequence[int]) -> int:
    """Return the number of passes of a swap."""
    return 1 + max(1, len(anchors)) * (1 + REPEATS * (len(lags) + 1))


def prefix_swap(
    losing: Losing,
    batch: Batch,
    reading: Reading,
    lags: Sequence[int],
    *,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> Swapped:
    """Measure the rise of each sample's loss with older inputs from another sample of its length and mask.

    Lags are 1 or more; 0, the full swap, is added. `advance` is called after each pass.
    """
    lags = (0, *lags)
    leaves = Leaves(batch.x, reading)
    if not leaves.has_time:
        return Swapped(reason=phrase("no_time_axis", steps=leaves.sizes[1], layer="its recurrent layers"))
    rng = np.random.default_rng(seed)
    partners = [_partners(reading.valid, rng) for _ in range(REPEATS)]
    alone = partners[0] < 0
    if alone.all():
        return Swapped(reason=phrase("single" if len(alone) == 1 else "no_partner"))
    if not any(leaves.differ(partner, ages(reading, None) >= 0) for partner in partners):
        return Swapped(reason=phrase("equal_inputs"))
    before, changes = [], []
    for anchor in reading.anchors or (None,):
        before.append(own := _losses(losing, batch, batch.x, anchor))
        advance()
        if len(before) == 1 and _mixes(losing, batch, partners[0], reading, own, advance):
            return Swapped(reason=phrase("mixed"))
        changes.append(np.full((len(own), len(lags)), np.nan))
        for place, lag in enumerate(lags):
            old = (ages(reading, anchor) >= lag) & (partners[0] >= 0)[:, None]
            lost = []
            for partner in partners:
                lost.append(_losses(losing, batch, leaves.exchange(partner, old), anchor) - own)
                advance()
            usable = np.asarray(old.any(axis=1))
            if usable.any():
                changes[-1][usable, place] = _parts(np.array(lost), np.array(partners), usable)
    if np.isnan(before).all():
        return Swapped(reason=phrase("no_losses", reason="it is not finite"))
    return Swapped(lags, _mean(changes), _mean(before), without_partner=alone[reading.valid.any(1)].sum())


def _mixes(
    losing: Losing, batch: Batch, partner: Whole, reading: Reading, own: Floats, advance: Callable[[], None]
) -> bool:
    """Whether exchanging every second sample's inputs changes the other samples' losses, which were `own`."""
    even = np.arange(len(partner)) % 2 == 0
    x = Leaves(batch.x, reading).exchange(partner, reading.valid & even[:, None])
    after = _losses(losing, batch, x, next(iter(reading.anchors), None))
    advance()
    moved = np.abs(np.nan_to_num(after) - np.nan_to_num(own))
    return bool(moved[~even].sum() > moved[even].sum() / 100 + ROUNDING * np.nansum(np.abs(own)))


def predicts_at_steps(
    losing: Losing, batch: Batch, reading: Reading, *, seed: int, label: int = 0, otherwise: bool = False
) -> bool:
    """Whether some labels of an array are predicted at steps before the newest input is read.

    If the newest input plays no part in the prediction of a label, the effects of both on the loss add up.
    `label` is the place of the array among all, and `otherwise` the answer where this does not decide.
    """
    leaves, rng = Leaves(batch.x, reading), np.random.default_rng(seed)
    partner = _partners(reading.valid, rng)
    given = structures.leaves(batch.y)[label]
    changed = _exchange_label(given, partner, -1 if reading.ways == {"backward"} else 0)
    if changed is None or not leaves.has_time or reading.anchors or len(reading.ways) > 1:
        return otherwise
    labels = structures.mapped(lambda leaf: changed if leaf is given else leaf, batch.y)
    newer = leaves.exchange(partner, ages(reading, None) == 0)
    own, by_input, by_label, by_both = (
        _losses(losing, replace(batch, y=y), x, None) for y in (batch.y, labels) for x in (batch.x, newer)
    )
    rounding = ROUNDING * float(np.abs([own, by_input, by_label, by_both]).mean())
    joint = float(np.abs(by_both - by_input - by_label + own).mean())
    alone = min(float(np.abs(each - own).mean()) for each in (by_input, by_label))
    return joint <= rounding and (otherwise or rounding < alone / 100)


def _exchange_label(y: Any, partner: Whole, place: int) -> Any:
    """Exchange one of the labels that differ between samples; None if a sample has only one."""
    changed = structures.to_numpy(y).copy() if len(getattr(y, "shape", ())) > 1 else np.zeros((0, 0))
    if len(partner) not in changed.shape[:2]:
        return None
    by_sample = changed if len(changed) == len(partner) else changed.swapaxes(0, 1)
    given = by_sample[np.where(partner >= 0, partner, np.arange(len(partner)))]
    differ = np.flatnonzero((given != by_sample).any(axis=(0, *range(2, given.ndim))))
    if len(differ) < 2:
        return None
    by_sample[:, differ[place]] = given[:, differ[place]]
    return _like(y, changed)


def losses_with_shared_inputs(losing: Losing, batch: Batch, reading: Reading, *, seed: int) -> Floats:
    """Evaluate (draw, sample) losses if all samples of a mask have the inputs of one of them.

    Then the samples are indistinguishable, and the loss is that of a prediction that ignores the inputs.
    """
    leaves, rng = Leaves(batch.x, reading), np.random.default_rng(seed)
    _, group = np.unique(reading.valid, axis=0, return_inverse=True)
    losses = []
    for _ in range(_SHARED):
        drawn = [rng.choice(np.flatnonzero(group.ravel() == each)) for each in range(group.max() + 1)]
        inputs = leaves.exchange(np.array(drawn)[group.ravel()], reading.valid)
        each = [_losses(losing, batch, inputs, anchor) for anchor in reading.anchors or (None,)]
        losses.append(_mean(each))
    return np.array(losses)


def ages(reading: Reading, anchor: int | None) -> Whole:
    """How many valid steps each step lies before the anchor; −1 after it and where masked.

    The anchor is the last valid step that a layer processes. In both directions a step is as old as it is
    far from the nearer of the two ends; with an anchor, as it is far from that, on either side.
    """
    found = [_ages(reading.valid, way == "backward", anchor) for way in sorted(reading.ways)]
    if len(found) == 1:
        return found[0]
    if anchor is not None:
        return np.maximum(*found)
    return np.minimum(*found)


def _ages(valid: Flags, backward: bool, anchor: int | None) -> Whole:
    time = np.arange(valid.shape[1])
    counted = valid
    if anchor is not None:
        counted = valid & ((time >= anchor) if backward else (time <= anchor))
    order = slice(None) if backward else slice(None, None, -1)
    age = np.cumsum(counted[:, order], axis=1)[:, order] - 1
    return np.where(counted, age, -1).astype(np.intp)


def _partners(valid: Flags, rng: np.random.Generator) -> Whole:
    """Assign to each sample another one of its mask, at random and each once; −1 if there is none."""
    partner = np.full(len(valid), -1, dtype=np.intp)
    _, group = np.unique(valid, axis=0, return_inverse=True)
    for number in np.unique(group):
        members = rng.permutation(np.flatnonzero(group.ravel() == number))
        if len(members) > 1:  # along a random cycle: no fixed points
            partner[members] = np.roll(members, 1)
    return partner


def _parts(lost: Floats, partners: Whole, usable: Flags) -> Floats:
    """Divide the mean rise (partner, sample) among the samples on which it depends.

    A sample contributes twice, as receiver and as giver of inputs. Resampling only the rise as receiver would
    treat partners as fixed, with intervals that are too narrow. The part of a sample is the linear term of a
    two-sample statistic (Hoeffding 1948): the rise as receiver and as giver, less the mean. If two samples
    exchange only with each other, they have the same part; with many such pairs, intervals are up to √2
    times too wide.
    """
    as_giver = np.zeros(lost.shape)
    for given, partner, rise in zip(as_giver, partners, lost, strict=True):
        given[partner[usable]] = rise[usable]
    received = lost[:, usable].mean(axis=0)
    return np.asarray(received + as_giver[:, usable].mean(axis=0) - received.mean())


def _losses(losing: Losing, batch: Batch, x: Any, anchor: int | None) -> Floats:
    lost = losing.losses(x, batch.y, sample_weight=batch.sample_weight, step=anchor)
    return np.where(np.isfinite(lost), np.asarray(lost, dtype=np.float64), np.nan)


def _mean(parts: Sequence[Floats]) -> Floats:
    """Return the mean over anchors without NaN."""
    stacked = np.array(parts)
    count = (~np.isnan(stacked)).sum(axis=0)
    total = np.nansum(stacked, axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


class Leaves:
    """The arrays of a batch's inputs, of which some have the samples and steps of the layers, `sizes`."""

    def __init__(self, x: Any, reading: Reading) -> None:
        self._x, self.sizes, self._is_reversed = x, reading.valid.shape, reading.is_reversed
        shapes = [tuple(np.shape(leaf))[:2] for leaf in arrays(x)]
        # Steps first, as torch modules may take them, only if no array has its samples first.
        self._time_first = self.sizes not in shapes and self.sizes[::-1] in shapes
        self._wanted = self.sizes[::-1] if self._time_first else self.sizes
        self.has_time = self._wanted in shapes
        self.are_all = {*shapes} == {self._wanted}

    def exchange(self, partner: Whole, old: Flags) -> Any:
        """Replace the old steps of each sample by those of its partner."""
        return structures.mapped(lambda leaf: self._exchange_leaf(leaf, partner, old), self._x)

    def differ(self, partner: Whole, old: Flags) -> bool:
        """Whether an exchange changes anything."""
        pairs = zip(arrays(self._x), arrays(self.exchange(partner, old)), strict=True)
        return any((structures.to_numpy(one) != structures.to_numpy(other)).any() for one, other in pairs)

    def _exchange_leaf(self, leaf: Any, partner: Whole, old: Flags) -> Any:
        if tuple(np.shape(leaf))[:2] != self._wanted:
            return leaf
        array = structures.to_numpy(leaf)
        old = old[:, ::-1] if self._is_reversed else old
        samples = array.swapaxes(0, 1) if self._time_first else array
        given = samples[np.where(partner >= 0, partner, np.arange(len(partner)))]
        mixed = np.where(old.reshape(*old.shape, *(1,) * (samples.ndim - 2)), given, samples)
        mixed = np.ascontiguousarray(mixed.swapaxes(0, 1) if self._time_first else mixed)
        return _like(leaf, mixed)


def _like(leaf: Any, array: Any) -> Any:
    return array if isinstance(leaf, np.ndarray) or not hasattr(leaf, "detach") else leaf.new_tensor(array)


def arrays(structure: Any) -> list[Any]:
    """List the arrays that may have samples and steps; a packed sequence has no shape."""
    return [each for each in structures.leaves(structure) if getattr(each, "shape", ())]
