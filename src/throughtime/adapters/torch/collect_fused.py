"""Collects an nn.RNN, LSTM or GRU: a record for each inner layer, with both its directions.

Calls that continue each other are windows of one sequence, joined along time; a single call is one window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from throughtime.adapters.records import UNREACHED, Array, DirectionRecord, LayerRecord

from . import graph, settings, weights
from .calls import Key
from .finished import STATES_ONLY, Call, Pass
from .fused import InnerLayer
from .layout import Packed
from .structure import name_of, numpy


def leaves(done: Pass, call: Call) -> list[LayerRecord]:
    """One leaf, or one for each inner layer that was asked for."""
    asked = [entry.inner for entry in done.found if entry.layer is call.entry.layer]
    chosen = [place for place in range(len(call.layers)) if None in asked or place in asked]
    return [_Leaf(done, call, place).record() for place in chosen]


class _Window:
    """Reads what enters and leaves one inner layer in one call."""

    def __init__(self, done: Pass, call: Call, place: int) -> None:
        self.done, self.layer = done, call.layers[place]
        self.layout: Any = call.layout

    def zeros(self, name: str) -> Array:
        """Stand for a gradient that does not exist."""
        tensor = self.layer.input if name.startswith("input") else self.layer.output
        found: Array = np.zeros_like(self.layout.by_sample(numpy(tensor)))
        return found

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """Everything that enters and leaves, as far as it is asked for or the inside needs it."""
        wanted, needed, found = self.done.wanted, self.done.wants_inside, {}
        if "input" in wanted or needed:
            found["input"] = self.layout.by_sample(numpy(self.layer.input, copy=True))
        if "output" in wanted or needed:
            found["output"] = self.layout.by_sample(numpy(self.layer.output))
        if "valid" in wanted:
            found["valid"] = self.layout.valid
        gradients = {
            "output_gradient": self.done.gradients.of(self.layer.output),
            "input_gradient": self.done.gradients.of(*(one.input for one in self.layer.directions)),
        }
        by_sample = self.layout.by_sample
        return found | {name: by_sample(one) for name, one in gradients.items() if one is not None}

    def reaches_states(self) -> bool:
        """Whether the loss depends on the states that the call has ended in."""
        states = (state for one in self.layer.directions for state in one.final)
        return any(self.done.gradients.of(state) is not None for state in states)

    def input_gradient(self, number: int) -> Array | None:
        """Read dL/dx through one direction."""
        gradient = self.done.gradients.of(self.layer.directions[number].input)
        return None if gradient is None else self.layout.by_sample(gradient)

    def initial(self, number: int) -> list[Array]:
        """Read the states that one direction started from."""
        states = self.layer.directions[number].initial
        return [self.layout.in_order(numpy(state, copy=True)) for state in states]

    def final_gradients(self, number: int) -> list[Array | None]:
        """Read the gradients of the states that one direction has ended in."""
        found = (self.done.gradients.of(state) for state in self.layer.directions[number].final)
        return [None if gradient is None else self.layout.in_order(gradient) for gradient in found]


class _Leaf:
    """Reads one inner layer of one sequence."""

    def __init__(self, done: Pass, call: Call, place: int) -> None:
        self.done, self.call, self.place = done, call, place
        self.windows = [_Window(done, one, place) for one in (call, *call.windows)]
        self.layer, self.layout = self.windows[0].layer, self.windows[0].layout
        self.missing: dict[str, str] = {}

    def record(self) -> LayerRecord:
        """Make the record."""
        wanted, both = self.done.wanted, self.layer.directions
        arrays = self._outside()
        inside = (
            [self._inside(number, arrays) for number in range(len(both))] if self.done.wants_inside else []
        )
        is_projected = weights.PROJECTION in weights.names(len(both[0].weights))
        kept = {name: array for name, array in arrays.items() if name in wanted}
        return LayerRecord(
            path=self.call.path(self.place if len(self.call.layers) > 1 else None),
            kind=self.call.kind,
            arrays={**kept, **self._weights(), **(self._transitions() if self._lengths else {})},
            directions=("forward", "backward") if len(both) > 1 else (),
            flags=self._flags(),
            missing=self.missing,
            inside=tuple(inside),
            dims=weights.projected_dims(len(both) > 1) if is_projected else {},
            windows=self._lengths,
        )

    @property
    def _lengths(self) -> tuple[int, ...]:
        """Steps of each window; empty for a single one."""
        return tuple(one.layout.steps for one in self.windows) if len(self.windows) > 1 else ()

    def _flags(self) -> dict[str, Any]:
        flags = settings.of_recurrent(self.call, self.done.frozen)
        dtype = self.call.autocast or name_of(self.layer.output.dtype)
        is_last = self.place == len(self.call.layers) - 1
        if self._lengths:
            flags["states_changed"] = int(graph.any_changed(self._crossings))
        return {**flags, "inner_layer": self.place, "is_last": int(is_last), "dtype": dtype}

    def _outside(self) -> dict[str, Array]:
        parts = [one.arrays for one in self.windows]
        found = {name: self._over_time(name) for name in {name for part in parts for name in part}}
        for name in {"output_gradient", "input_gradient"} & self.done.wanted - found.keys():
            self.missing[name] = UNREACHED
        if "output_gradient" in self.missing and any(one.reaches_states() for one in self.windows):
            self.missing["output_gradient"] = STATES_ONLY
        return found

    def _over_time(self, name: str) -> Array:
        parts = [one.arrays[name] if name in one.arrays else one.zeros(name) for one in self.windows]
        return np.concatenate(parts, 1) if self._lengths else parts[0]

    def _weights(self) -> dict[str, Array]:
        each = []
        for number, direction in enumerate(self.layer.directions):
            every = [one for call in self.done.calls_of(self.call) for one in (call, *call.windows)]
            marks = self._marks([one.layers[self.place] for one in every], number)
            arrays, missing = self.done.weights(self.call.kind, direction.weights, marks)
            self.missing |= missing
            each.append(arrays)
        if len(each) == 1:
            return each[0]
        return {name: np.stack([one[name] for one in each]) for name in each[0] if name in each[1]}

    def _marks(self, layers: Sequence[InnerLayer], number: int) -> list[tuple[torch.Tensor, ...]]:
        """List the marks of each weight: a parametrization computes it anew for each call."""
        return list(zip(*(one.directions[number].marked for one in layers), strict=True))

    def _inside(self, number: int, arrays: dict[str, Array]) -> DirectionRecord:
        """Bring what one direction computed to input time."""
        direction, units = (
            self.layer.directions[number],
            arrays["output"].shape[-1] // len(self.layer.directions),
        )
        own, packed = slice(number * units, (number + 1) * units), isinstance(self.layout, Packed)
        output_gradient = arrays.get("output_gradient")
        marks = self._marks([one.layer for one in self.windows], number)
        own_weights, gradients = self.done.used(self.call.kind, direction.weights, marks)
        initial = [one.initial(number) for one in self.windows]
        final = zip(*(one.final_gradients(number) for one in self.windows), strict=True)
        return DirectionRecord(
            weights=own_weights,
            weight_gradients=gradients,
            inputs=arrays["input"],
            hidden=arrays["output"][..., own],
            output_gradient=None if output_gradient is None else output_gradient[..., own],
            input_gradient=_joined(
                [one.input_gradient(number) for one in self.windows],
                [one.arrays["input"] for one in self.windows],
                np.concatenate,
            ),
            valid=self.layout.valid if packed else None,
            zero_output=packed,
            runs_backward=direction.runs_backward,
            initial=tuple(_joined(each, each, np.stack) for each in zip(*initial, strict=True)),
            final_gradients=tuple(
                _joined(each, [like] * len(self.windows), np.stack)
                for each, like in zip(final, initial[0], strict=True)
            ),
            windows=self._lengths,
        )

    # What goes from call to call.

    @cached_property
    def _crossings(self) -> graph.Transitions:
        steps = [one.step for one in (self.call, *self.call.windows) if one.step is not None]
        states: list[tuple[Key, int]] = [(("states", str(place)), place) for place in steps[0].leaving]
        return graph.between(steps, states, self.done.gradients)

    def _transitions(self) -> dict[str, Array]:
        """Put what crosses between calls at the last step of the earlier one; NaN elsewhere, solved later."""
        if not {"reset", "carried_gradient"} & self.done.wanted:
            return {}
        through, unscaled = graph.through_changes(self._crossings), self.done.gradients.unscaled
        found = graph.variables(self._crossings, through, lambda states: states[self.place], unscaled)
        ends = np.cumsum(self._lengths)
        reset = np.zeros((self.layout.samples, ends[-1]), bool)
        reset[:, ends[:-1]] = found["reset"][:, 1:]
        if not self.done.has_labels:
            return {"reset": reset}
        across = found["carried_by_state"]
        carried = np.full((*reset.shape, across.shape[-1]), np.nan, across.dtype)
        carried[:, ends - 1] = across
        norms = np.sqrt(np.square(carried).sum(-1))
        return {"reset": reset, "carried_gradient": norms, "carried_by_state": carried}


def _joined(arrays: Sequence[Array | None], like: Sequence[Any], join: Callable[..., Array]) -> Array | None:
    """Put arrays together along the second axis, 0 where there is none; None where there is none at all."""
    if all(array is None for array in arrays):
        return None
    filled = [np.zeros_like(one) if array is None else array for array, one in zip(arrays, like, strict=True)]
    return join(filled, axis=1) if len(filled) > 1 else filled[0]
