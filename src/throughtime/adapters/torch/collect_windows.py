"""Collects the calls of an nn.RNN, LSTM or GRU that continue each other: a record for each inner layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from throughtime.adapters.records import Array, DirectionRecord, LayerRecord

from . import collect_fused, transitions, weights
from .call import Call
from .calls import Key
from .finished import Pass
from .structure import numpy


class Windows(collect_fused.Leaf):
    """Reads one inner layer of several calls, its windows joined along time."""

    def __init__(self, done: Pass, call: Call, place: int) -> None:
        super().__init__(done, call, place)
        self._each = [_Window(done, one, place) for one in (call, *call.windows)]

    def record(self) -> LayerRecord:
        """Make the record."""
        record = super().record()
        arrays = {**record.arrays, **self._transitions()}
        flags = {**record.flags, "states_changed": int(any(map(self._is_changed, range(len(self._states)))))}
        return replace(record, arrays=arrays, flags=flags, windows=self._lengths)

    @property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(one.layout.steps for one in self._each)

    def _outside(self) -> dict[str, Array]:
        self._parts = [one._outside() for one in self._each]
        names = {name for part in self._parts for name in part}
        missing = [one.missing for one in self._each]
        self.missing |= {name: why for name, why in missing[0].items() if all(name in one for one in missing)}
        return {name: self._over_time(name) for name in names}

    def _over_time(self, name: str) -> Array:
        pairs = zip(self._parts, self._each, strict=True)
        return np.concatenate([part[name] if name in part else one.zeros(name) for part, one in pairs], 1)

    def _marks(self, number: int, place: int) -> Any:
        for call in self.done.calls_of(self.call):
            for one in (call, *call.windows):
                yield one.layers[self.place].directions[number].marked[place]

    def _own_gradients(self, direction: Any) -> dict[str, Array]:
        every = [one.layer.directions[0].marked for one in self._each]
        marks = [{id(mark): mark for mark in each}.values() for each in zip(*every, strict=True)]
        found = [self.done.gradients.total(each) for each in marks]
        return weights.oriented(self.call.kind, found, "_gradient")

    def inside(self, number: int, arrays: dict[str, Array]) -> DirectionRecord:
        """Join what the direction computed in all windows."""
        pairs = zip(self._each, self._parts, strict=True)
        records = [one.inside(number, part) for one, part in pairs]
        first = records[0]
        final = zip(*(one.final_gradients for one in records), strict=True)
        input_gradients = [one.input_gradient for one in records]
        return replace(
            first,
            weights=self._read_weights(self.layer.directions[number]),
            weight_gradients=self._own_gradients(self.layer.directions[number]),
            inputs=arrays["input"],
            hidden=arrays["output"],
            output_gradient=arrays.get("output_gradient"),
            input_gradient=_joined(input_gradients, [one.inputs for one in records], np.concatenate),
            initial=tuple(np.stack(each, 1) for each in zip(*(one.initial for one in records), strict=True)),
            final_gradients=tuple(
                _joined(each, [like] * len(records), np.stack)
                for each, like in zip(final, first.initial, strict=True)
            ),
            windows=self._lengths,
        )

    # What goes from call to call.

    @property
    def _states(self) -> list[int]:
        return list(self.call.step.leaving) if self.call.step else []

    @cached_property
    def _crossings(self) -> transitions.Transitions:
        states: list[tuple[Key, int]] = [(("states", str(place)), place) for place in self._states]
        steps = [one.call.step for one in self._each if one.call.step is not None]
        return transitions.between(steps, states, self.done.gradients)

    def _is_changed(self, place: int) -> bool:
        return transitions.is_changed(self._crossings, place)

    def _rows(self, states: torch.Tensor) -> torch.Tensor:
        return states[self.place]

    def _transitions(self) -> dict[str, Array]:
        """Put what crosses between calls at the last step of the earlier one; NaN elsewhere, solved later."""
        if not {"reset", "carried_gradient"} & self.done.wanted:
            return {}
        through = transitions.through_changes(self._crossings)
        found = transitions.variables(self._crossings, through, self._rows, self.done.gradients.unscaled)
        ends = np.cumsum(self._lengths)
        samples, steps = self.layout.samples, ends[-1]
        reset = np.zeros((samples, steps), bool)
        reset[:, ends[:-1]] = found["reset"][:, 1:]
        if not self.done.has_labels:
            return {"reset": reset}
        carried = np.full((samples, steps, len(self._states)), np.nan, found["carried_by_state"].dtype)
        carried[:, ends - 1] = found["carried_by_state"]
        norms = np.sqrt(np.square(carried).sum(-1))
        return {"reset": reset, "carried_gradient": norms, "carried_by_state": carried}


class _Window(collect_fused.Leaf):
    """Reads one call; what all calls have in common is read once."""

    def zeros(self, name: str) -> Array:
        tensor = self.layer.input if name.startswith("input") else self.layer.output
        found: Array = np.zeros_like(self.layout.by_sample(numpy(tensor)))
        return found

    def _read_weights(self, direction: Any) -> dict[str, Array]:
        return {}

    def _own_gradients(self, direction: Any) -> dict[str, Array]:
        return {}


def _joined(arrays: Sequence[Array | None], like: Sequence[Any], join: Callable[..., Array]) -> Array | None:
    """Put arrays together along the second axis, 0 where there is none; None where there is none at all."""
    if all(array is None for array in arrays):
        return None
    pairs = zip(arrays, like, strict=True)
    return join([np.zeros_like(one) if array is None else array for array, one in pairs], axis=1)
