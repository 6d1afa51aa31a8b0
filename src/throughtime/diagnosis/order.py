"""The order of time in layers, and of labels at each step: a model may reverse its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from throughtime._capture.lag_matrix import at_steps, draw
from throughtime._errors import LossError
from throughtime._inputs import structures
from throughtime._inputs.batch import Batch
from throughtime.diagnostics.lags import valid_steps

from .layers import REVERSED, reading_of, recurrent_layers
from .swap import ROUNDING, Leaves, Losing, Reading, arrays

_LOSS_STEPS = 32


class Mirror:
    """Mirrors layers that read time backwards because the model reverses it.

    The first inputs of the model enter such a layer at the last step, and not in the first half. The first
    batch that can show this of a layer decides: not one sample, nor samples that begin with the same inputs,
    nor a layer with a mask, which inputs of another sample may change.
    """

    def __init__(self, capture: Callable[..., xr.DataTree]) -> None:
        self._capture = capture
        self._is_reversed: dict[str, bool] = {}  # of the layers that a batch has shown

    def __call__(self, leaves: Mapping[str, xr.Dataset], batch: Batch) -> dict[str, xr.Dataset]:
        """Return the layers of a batch, with their time in the order of the model's input."""
        self._judge(leaves, batch)
        found = self._is_reversed
        return {path: _mirrored(leaf) if found.get(path) else leaf for path, leaf in leaves.items()}

    def _judge(self, leaves: Mapping[str, xr.Dataset], batch: Batch) -> None:
        known = [*map(structures.to_numpy, arrays(batch.x))]
        after: dict[str, xr.Dataset] = {}
        for path, leaf in leaves.items():
            valid = np.asarray(valid_steps(leaf))
            is_whole = (
                len(valid) > 1 and valid.all() and not {"direction", "call"} & {*leaf.dims, *leaf.coords}
            )
            inputs = Leaves(batch.x, Reading(valid, frozenset()))
            shows = path not in self._is_reversed and is_whole and inputs.has_time and "input" in leaf
            if shows and _is_any(leaf["input"], known):
                self._is_reversed[path] = False
            elif shows:
                after = after or self._exchanged(inputs, batch)
                changes = after[path]["input"].fillna(0) != leaf["input"].fillna(0)
                enters = changes.any([dim for dim in changes.dims if dim != "time"]).values
                if enters.any():
                    self._is_reversed[path] = bool(enters[-1] and not enters[: (len(enters) + 1) // 2].any())
            if "output" in leaf and not self._is_reversed.get(path):
                known.append(leaf["output"].values)  # what the next layer may read

    def _exchanged(self, inputs: Leaves, batch: Batch) -> dict[str, xr.Dataset]:
        """Capture again, with the first quarter of each sample's inputs from another one."""
        samples, steps = inputs.sizes
        first = np.broadcast_to(np.arange(steps) < max(steps // 4, 1), inputs.sizes)
        x = inputs.exchange(np.roll(np.arange(samples), 1), first)
        return recurrent_layers(self._capture(x, batch.y, sample_weight=batch.sample_weight))


def _mirrored(leaf: xr.Dataset) -> xr.Dataset:
    backward = 1 - int(leaf.attrs.get("go_backwards", 0))
    return leaf.isel(time=slice(None, None, -1)).assign_attrs(go_backwards=backward)


def with_labels(losing: Losing, leaves: Mapping[str, xr.Dataset], batch: Batch) -> dict[str, xr.Dataset]:
    """Return layers that read backwards to their own order, if the labels at each step are in that order.

    The label that is farthest from the middle decides: in one order it is predicted from the inputs between
    its step and the mirror image of that, in the other from none of them.
    """
    same = {path: leaf for path, leaf in leaves.items() if leaf.sizes.get("time") == batch.y.shape[1]}
    reading = reading_of(same, batch, by_step=True, lag=None)
    inputs, steps = Leaves(batch.x, reading), np.flatnonzero(reading.counted.any(axis=0))
    if reading.ways != {"backward"} or not inputs.has_time or not len(steps):
        return dict(leaves)
    last = reading.valid.shape[1] - 1
    label = int(steps[np.argmax(np.abs(2 * steps - last))])
    between = np.zeros(reading.valid.shape, bool)
    between[:, min(label, last - label) : max(label, last - label)] = True
    given = inputs.exchange(np.roll(np.arange(len(between)), 1), between)
    try:
        own, after = (
            np.asarray(losing.losses(x, batch.y, sample_weight=batch.sample_weight, step=label))
            for x in (batch.x, given)
        )
    except LossError:  # single steps have none
        return dict(leaves)
    is_moved = np.abs(after - own).sum() > ROUNDING * np.abs(own).sum()
    if is_moved != (2 * label > last):
        return dict(leaves)
    return {**leaves, **{path: _mirrored(leaf).assign_attrs({REVERSED: 1}) for path, leaf in same.items()}}


def lag_matrices(model: Any, batch: Batch, lag: int, *, seed: int, **settings: Any) -> xr.DataTree:
    """Compute lag matrices of some loss steps; add both ends if none is `lag` steps from one of them."""
    drawn, among = draw(batch, _LOSS_STEPS, seed)
    if lag > min(drawn[-1], int(batch.y.shape[1]) - 1 - drawn[0]):
        drawn = np.union1d(drawn, among[[0, -1]])
    return at_steps(model, batch, (drawn, among), **settings)


def _is_any(array: xr.DataArray, known: Sequence[Any]) -> bool:
    return any(np.array_equal(array, each) for each in known)
