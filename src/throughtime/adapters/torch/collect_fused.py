"""Collects a call of an nn.RNN, LSTM or GRU: a record for each inner layer, with both its directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from throughtime.adapters.records import UNREACHED, Array, DirectionRecord, LayerRecord

from . import settings, weights
from .call import Call
from .finished import STATES_ONLY, Pass
from .fused import Direction
from .layout import Packed
from .structure import name_of, numpy


def leaves(done: Pass, call: Call) -> list[LayerRecord]:
    """One leaf, or one for each inner layer that was asked for."""
    from . import collect_windows  # noqa: PLC0415 - which reads each window as this module does

    asked = [entry.inner for entry in done.found if entry.layer is call.entry.layer]
    chosen = [place for place in range(len(call.layers)) if None in asked or place in asked]
    reader = collect_windows.Windows if call.windows else Leaf
    return [reader(done, call, place).record() for place in chosen]


class Leaf:
    """Reads one inner layer of one call."""

    def __init__(self, done: Pass, call: Call, place: int) -> None:
        self.done, self.call, self.place = done, call, place
        self.layer = call.layers[place]
        self.layout: Any = call.layout
        self.missing: dict[str, str] = {}

    def record(self) -> LayerRecord:
        """Make the record."""
        wanted, both = self.done.wanted, self.layer.directions
        arrays = self._outside()
        inside = (
            [self.inside(number, arrays) for number in range(len(both))] if self.done.wants_inside else []
        )
        is_projected = weights.PROJECTION in weights.names(len(both[0].weights))
        kept = {name: array for name, array in arrays.items() if name in wanted}
        return LayerRecord(
            path=self.call.path(self.place if len(self.call.layers) > 1 else None),
            kind=self.call.kind,
            arrays={**kept, **self._weights()},
            directions=("forward", "backward") if len(both) > 1 else (),
            flags=self._flags(),
            missing=self.missing,
            inside=tuple(inside),
            dims=weights.projected_dims(len(both) > 1) if is_projected else {},
        )

    def _flags(self) -> dict[str, Any]:
        flags = settings.of_recurrent(self.call, self.done.frozen)
        dtype = self.call.autocast or name_of(self.layer.output.dtype)
        is_last = self.place == len(self.call.layers) - 1
        return {**flags, "inner_layer": self.place, "is_last": int(is_last), "dtype": dtype}

    def _outside(self) -> dict[str, Array]:
        """Everything that enters and leaves, as far as it is asked for or the inside needs it."""
        wanted, needed, found = self.done.wanted, self.done.wants_inside, {}
        if "input" in wanted or needed:
            found["input"] = self._by_sample(self.layer.input, copy=True)
        if "output" in wanted or needed:
            found["output"] = self._by_sample(self.layer.output)
        if "valid" in wanted:
            found["valid"] = self.layout.valid
        gradients = {
            "output_gradient": self.done.gradients.of(self.layer.output),
            "input_gradient": self.done.gradients.total(one.input for one in self.layer.directions),
        }
        for name, gradient in gradients.items():
            if gradient is not None:
                found[name] = self.layout.by_sample(gradient)
            elif name in wanted:
                self.missing[name] = UNREACHED
        if "output_gradient" in self.missing and self._reaches_states():
            self.missing["output_gradient"] = STATES_ONLY
        return found

    def _reaches_states(self) -> bool:
        states = [state for one in self.layer.directions for state in one.final]
        return any(self.done.gradients.of(state) is not None for state in states)

    def _by_sample(self, tensor: torch.Tensor, *, copy: bool = False) -> Array:
        array: Array = self.layout.by_sample(numpy(tensor, copy=copy))
        return array

    def _weights(self) -> dict[str, Array]:
        each = []
        for number, direction in enumerate(self.layer.directions):
            marks = [list(self._marks(number, place)) for place in range(len(direction.weights))]
            arrays, missing = self.done.weights(self.call.kind, direction.weights, marks)
            self.missing |= missing
            each.append(arrays)
        if len(each) == 1:
            return each[0]
        return {name: np.stack([one[name] for one in each]) for name in each[0] if name in each[1]}

    def _marks(self, number: int, place: int) -> Iterator[torch.Tensor]:
        """Give the marks of one weight in all calls of the layer."""
        for call in self.done.calls_of(self.call):
            yield call.layers[self.place].directions[number].marked[place]

    def inside(self, number: int, arrays: dict[str, Array]) -> DirectionRecord:
        """Bring what one direction computed to input time."""
        direction = self.layer.directions[number]
        gradients, units = self.done.gradients, arrays["output"].shape[-1] // len(self.layer.directions)
        own = slice(number * units, (number + 1) * units)
        output_gradient = arrays.get("output_gradient")
        input_gradient = gradients.of(direction.input)
        packed = isinstance(self.layout, Packed)
        return DirectionRecord(
            weights=self._read_weights(direction),
            weight_gradients=self._own_gradients(direction),
            inputs=arrays["input"],
            hidden=arrays["output"][..., own],
            output_gradient=None if output_gradient is None else output_gradient[..., own],
            input_gradient=None if input_gradient is None else self.layout.by_sample(input_gradient),
            valid=self.layout.valid if packed else None,
            zero_output=packed,
            runs_backward=direction.runs_backward,
            initial=tuple(self.layout.in_order(numpy(state, copy=True)) for state in direction.initial),
            final_gradients=tuple(self._final(state) for state in direction.final),
        )

    def _read_weights(self, direction: Direction) -> dict[str, Array]:
        return weights.oriented(self.call.kind, [numpy(w, copy=True) for w in direction.weights])

    def _own_gradients(self, direction: Direction) -> dict[str, Array]:
        found = [self.done.gradients.of(mark) for mark in direction.marked]
        return weights.oriented(self.call.kind, found, "_gradient")

    def _final(self, state: torch.Tensor) -> Array | None:
        gradient = self.done.gradients.of(state)
        return None if gradient is None else self.layout.in_order(gradient)
