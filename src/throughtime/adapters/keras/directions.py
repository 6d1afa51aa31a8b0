"""Collects what is known inside one direction of a call into records for its cells, in input time.

A direction that ran in the loop has all of it from the framework; one that kept its own kernel, on torch, is
solved by `cells`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from throughtime._errors import warn
from throughtime.adapters.marking import MarkedSteps, of_steps
from throughtime.adapters.records import Array, DirectionRecord, SolvedRecord

from . import cell as cells
from . import weights
from .contracts import RECURRENT, Layer, Variable
from .dialect import Dialect
from .every_step import BETWEEN, OF_GATES
from .loop import GATES, MARKED, zeroes_masked_output
from .recorder import SeenInside

if TYPE_CHECKING:
    from .collect import Pass


def records(done: Pass, known: SeenInside) -> tuple[DirectionRecord, ...] | tuple[SolvedRecord, ...]:
    """Make the record of a direction's cell, or one for each of its stacked cells, the lowest first."""
    direction = Direction(done, known)
    if known.is_closed:
        return (direction.closed(),)
    parts = cells.inner_cells(direction.layer.cell)
    counts = [len(cells.state_names(cell)) for cell in parts]
    each = [_Cell(direction, place, cell, sum(counts[:place])) for place, cell in enumerate(parts)]
    return tuple(one.record() for one in each)


@dataclass(frozen=True)
class Direction:
    """One direction of one call; arrays are in input time, (sample, time, …)."""

    done: Pass
    known: SeenInside

    @property
    def layer(self) -> Layer:
        """The recurrent layer."""
        return self.known.layer()

    def has(self, name: str) -> bool:
        """Whether the pass has returned a tensor."""
        return self.known.key(name) in self.done.result.tensors

    def tensor(self, name: str, *, copy: bool = False) -> Array:
        """Return one tensor of this direction."""
        return self.done.tensor(self.known.key(name), copy=copy)

    def of_call(self, name: str, *, copy: bool = False) -> Array:
        """Return one tensor of the whole call."""
        return self.done.tensor(self.known.call.key(name), copy=copy)

    def gradient(self, name: str) -> Array | None:
        """Return the gradient of one tensor of this direction, None where there is none."""
        return self.done.gradient(self.known.key(name))

    def of_layer(self, name: str) -> Array | None:
        """Return the gradient of the input or output, of one half of a Bidirectional where it is one."""
        return self.gradient(f"half_{name}" if len(self.known.call.inside) > 1 else name)

    def of_weight(self, variable: Variable, start: str = "") -> Array | None:
        """Return a weight's gradient through the loop or kernel, or as the steps add it up: "within_"."""
        place = next(index for index, one in enumerate(self.layer.weights) if one is variable)
        return self.gradient(f"{start}weight_{place}")

    def in_input_time(self, by_time: Array) -> Array:
        """(time, sample, …) in processing order to (sample, time, …) in input time."""
        array = by_time.swapaxes(0, 1)
        return array[:, ::-1] if self.layer.go_backwards else array

    def closed(self) -> DirectionRecord:
        """Bring what a kernel computed to input time."""
        done, layer = self.done, self.layer
        flip = slice(None, None, -1 if layer.go_backwards else 1)
        given = filter(self.has, ("initial_0", "initial_1"))
        output_gradient = self.of_layer("output")
        if output_gradient is not None and output_gradient.ndim == 3:
            output_gradient = output_gradient[:, flip]
        return DirectionRecord(
            weights=weights.named(layer, done.value),
            weight_gradients=weights.named(layer, self.of_weight, "_gradient"),
            inputs=self.of_call("input", copy=True),
            hidden=self.tensor("sequence")[:, flip],
            output_gradient=output_gradient,
            input_gradient=self.of_layer("input"),
            valid=self.tensor("inside_mask").astype(bool) if self.has("inside_mask") else None,
            zero_output=zeroes_masked_output(done.keras, layer),
            runs_backward=bool(layer.go_backwards),
            initial=tuple(self.tensor(name, copy=True) for name in given) or (None, None),
            final_gradients=(self.gradient("state_0"), self.gradient("state_1")),
        )


@dataclass(frozen=True)
class _Cell:
    """One inner cell of a direction that ran in the loop, by its place; its states begin at `first`."""

    direction: Direction
    place: int
    cell: Layer
    first: int

    @property
    def keras(self) -> Dialect:
        return self.direction.done.keras

    @property
    def states(self) -> tuple[str, ...]:
        return cells.state_names(self.cell)

    @property
    def has_gates(self) -> bool:
        return self.direction.has(f"within_{self.place}.gate_activation")

    def record(self) -> SolvedRecord:
        """Gather everything."""
        one, place = self.direction, self.place
        arrays = self._values()
        has_gradients = any(one.gradient(f"tap_{name}") is not None for name in one.known.kept)
        if has_gradients:
            arrays |= self._state_gradients(arrays)
            arrays |= self._gate_gradient(arrays)
            between = self._tap(BETWEEN) if place else one.gradient("within_input")
            arrays |= {} if between is None else {"input_gradient": between}
            arrays |= self._weights(lambda variable: one.of_weight(variable, "within_"))
        is_product = cells.standard_kind(self.cell) in cells.PRODUCTS
        marked = self._marked(has_gradients)
        return SolvedRecord(
            arrays={**arrays, **marked.arrays},
            weight_gradients=self._weights(one.of_weight),
            # Time is certified where the layer's input enters; cells above share the loop.
            input_gradient=one.of_layer("input") if place == 0 else None,
            initial=tuple(self._initial(k) for k in range(len(self.states))),
            hidden_before=self._hidden_before(arrays) if is_product else None,
            kernel=weights.of_cell(self.cell, one.done.value)["kernel"] if is_product else None,
            output_error=float(one.tensor("loop_error")) if one.has("loop_error") else None,
            gates=marked.gates,
            marks=marked.names,
        )

    def _weights(self, values: weights.Values) -> dict[str, Array]:
        return weights.of_cell(self.cell, values, "_gradient")

    def _initial(self, state: int) -> Array:
        """Return a copy of a state before the first step."""
        return self.direction.tensor(f"initial_{self.first + state}", copy=True)

    def _value(self, name: str) -> Array:
        """Return the input, a state or the gates."""
        one = self.direction
        if name == "gate_activation":
            return one.in_input_time(one.tensor(f"within_{self.place}.{name}"))
        if name == "input" and not self.place:
            return one.of_call("input", copy=True)
        source = one.known.handed_on[self.place - 1] if name == "input" else f"{self.place}.{name}"
        return one.in_input_time(one.tensor(f"loop_{source}"))

    def _tap(self, name: str) -> Array | None:
        """Return the total derivative of a state or gate: from the loop, and within its step."""
        each = (self.direction.gradient(f"{start}tap_{self.place}.{name}") for start in ("", "within_"))
        found = [gradient for gradient in each if gradient is not None]
        if name == GATES and len(found) == 2:  # of some samples, from what their states are handed out with
            whole, some = found
            found = [whole if whole.flags.writeable else whole.copy()]
            found[0][:, : some.shape[1]] = some
        return self.direction.in_input_time(sum(found[1:], found[0])) if found else None

    def _values(self) -> dict[str, Array]:
        kept = self.direction.known.kept
        names = ["input", *(name for name in self.states if f"{self.place}.{name}" in kept)]
        # The only gate of a simple RNN is its state.
        names += ["gate_activation"] * (self.has_gates and cells.standard_kind(self.cell) != "simple_rnn")
        arrays = {name: self._value(name) for name in names}
        jacobian = f"within_{self.place}.state_jacobian"
        if self.direction.has(jacobian):
            arrays["state_jacobian"] = self.direction.in_input_time(self.direction.tensor(jacobian))
        return arrays

    def _state_gradients(self, values: Mapping[str, Array]) -> dict[str, Array]:
        arrays = {}
        for position, name in enumerate(self.states, self.first):
            if name in values:
                tap, initial = self._tap(name), self.direction.gradient(f"initial_{position}")
                total = np.zeros_like(values[name]) if tap is None else tap
                arrays[f"{name}_gradient"] = total
                arrays[f"initial_{name}_gradient"] = (
                    np.zeros_like(total[:, 0]) if initial is None else initial
                )
        return arrays

    def _gate_gradient(self, values: Mapping[str, Array]) -> dict[str, Array]:
        names = cells.gate_names(self.cell)
        if not self.direction.done.wanted & OF_GATES or not self.has_gates:
            return {}
        stacked, like = self._tap(GATES), values["hidden"]
        if stacked is not None and stacked.ndim == 3:
            stacked = stacked.reshape(*like.shape[:2], len(names), -1)
        if stacked is None:
            stacked = np.zeros((*like.shape[:2], len(names), *like.shape[2:]), like.dtype)
        self._warn_of_flat_activations(dict(zip(names, np.moveaxis(stacked, 2, 0), strict=True)), values)
        return {"gate_gradient": stacked if len(names) > 1 else stacked[:, :, 0]}

    def _warn_of_flat_activations(self, gates: Mapping[str, Array], values: Mapping[str, Array]) -> None:
        """Warn where a gradient arrives at the state and none passes an activation."""
        for attribute, places in cells.gates_by_activation(self.cell).items():
            if any(sample.any() for gate in places for sample in gates[gate]):
                continue
            if np.nan_to_num(values["hidden_gradient"], posinf=0.0, neginf=0.0).any():
                name = self.keras.activation_name(self.cell, getattr(self.cell, attribute))
                warn(
                    f"No gradient passes {name}, the {attribute} of {self.direction.layer.name}: dL/dz is 0 "
                    "at every step although dL/dh is not. Check that it is differentiable."
                )

    def _hidden_before(self, arrays: Mapping[str, Array]) -> Array | None:
        """h_{t-1} as it met the recurrent kernel of a cell whose product with it is a matrix product."""
        if "hidden" not in arrays:
            return None
        one, initial, hidden = self.direction, self._initial(0)[:, None], arrays["hidden"]
        backwards = one.layer.go_backwards
        parts = [hidden[:, 1:], initial] if backwards else [initial, hidden[:, :-1]]
        before = np.concatenate(parts, axis=1)
        dropout = one.known.dropout
        keys = dropout[self.place].get(RECURRENT, ()) if dropout else ()
        # Masks of all steps are (time, sample, unit), those of any one step (sample, unit).
        masks = [
            one.in_input_time(mask) if mask.ndim > 2 else mask[:, None] for mask in map(one.done.tensor, keys)
        ]
        if len(masks) > 1:
            return np.stack([before * mask for mask in masks], axis=2)
        return before * masks[0] if masks else before

    def _marked(self, has_gradients: bool) -> MarkedSteps:
        """Read what the author of a cell has named within its step."""
        start = f"{self.place}.{MARKED}"
        names = [name.removeprefix(start) for name in self.direction.known.kept if name.startswith(start)]
        if not names:
            return MarkedSteps()
        of_cell = weights.of_cell(self.cell, self.direction.done.value)
        return of_steps(
            {name: self._value(f"{MARKED}{name}") for name in names},
            {name: self._tap(f"{MARKED}{name}") for name in names},
            {*self.states, *of_cell},
            has_gradients=has_gradients,
        )
