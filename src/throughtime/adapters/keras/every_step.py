"""Finds what lies within a cell's steps, all steps at once: gates, gradients of gates, inputs and weights.

The loop has found every state and its gradient. One step of the cell, run on all steps as if they were
samples, gives the rest by the framework's autodiff. The gradients of inputs and weights are thus found
twice, here and by the loop, and the certificate compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from throughtime.adapters.records import Request

from . import cell as cells
from .cell import CELL
from .dialect import Dialect, Mark
from .loop import EMITTED, in_processing_order, where_valid, wide
from .tensors import dtype_of, is_float

# What passes from one stacked cell to the next: not "input", the name of a gate, and no name of a state.
BETWEEN = "from below"
GATES = "all gates"
# What the gradients of gates are needed for.
OF_GATES = frozenset({"gate_gradient", "step_contribution", "certificate"})


@dataclass(frozen=True)
class EveryStep:
    """One direction of one call, as a step that a framework can differentiate.

    Attributes
    ----------
    handed_on, kept, initial
        As `loop.Loop` has left them.
    input : (sample, time, …) in input time
    mask : (sample, time) or None
    dropout : list of the dialect's dropout masks by inner cell, empty where none is active
    gradients : dict of str to tensor (time, sample, …)
        Total derivatives of `kept`, by the same names, for those that have one.
    """

    keras: Dialect
    layer: Any
    request: Request
    handed_on: Sequence[str]
    kept: dict[str, Any]
    initial: Sequence[Any]
    input: Any
    mask: Any
    dropout: Any
    gradients: dict[str, Any]

    @property
    def _is_certified(self) -> bool:
        return "certificate" in self.request.quantities

    def weights(self) -> dict[str, Any]:
        """Return the variables whose gradients the certificate compares."""
        own = enumerate(self.layer.weights if self._is_certified else ())
        return {f"weight_{place}": each for place, each in own if is_float(dtype_of(each))}

    def __call__(self, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run every step; return what is differentiated, and the gates (time, sample, gate, …)."""
        keras, ops, layer, x = self.keras, self.keras.ops, self.layer, self.input
        if self._is_certified and is_float(dtype_of(x)):
            x = mark("input", x)
        x = in_processing_order(keras, layer, x)
        valid = None
        if self.mask is not None:
            valid = in_processing_order(keras, layer, ops.cast(self.mask, "bool"))
        steps, first = ops.shape(x)[0], 0
        terms: list[Any] = []
        left: dict[str, Any] = {}
        for place, part in enumerate(cells.inner_cells(layer.cell)):
            names = cells.state_names(part)
            initial = self.initial[first : first + len(names)]
            x = mark(f"tap_{place}.{BETWEEN}", x) if place else x
            done = self._stepped(part, place, x, initial, mark)
            new = {f"{place}.{name}": state for name, state in zip(names, done.states, strict=True)}
            new[f"{place}.{EMITTED}"] = done.output
            for name in filter(self.gradients.__contains__, new):
                arriving = self._flat(self.gradients[name])  # at masked steps it is only handed on
                arriving = where_valid(keras, valid, arriving, ops.zeros_like(arriving))
                terms.append(ops.sum(wide(keras, new[name]) * wide(keras, arriving)))
            if done.gates and self.request.quantities & {"gate_activation", *OF_GATES}:
                gates = ops.stack(done.gates, axis=1)
                left[f"{place}.gate_activation"] = ops.reshape(gates, (steps, -1, *gates.shape[1:]))
            x, first = self.kept[self.handed_on[place]], first + len(names)
        return sum(terms) if terms else None, left

    def _stepped(self, part: Any, place: int, x: Any, initial: Sequence[Any], mark: Mark) -> Any:
        """Run one inner cell, time beside samples, from the states that the loop has found."""
        keras, ops = self.keras, self.keras.ops
        names, steps = cells.state_names(part), ops.shape(x)[0]
        old = [
            self._flat(ops.concatenate([start[None], self.kept[f"{place}.{name}"][:-1]], axis=0))
            for start, name in zip(initial, names, strict=True)
        ]
        zeros = ops.zeros_like(self.kept[f"{place}.{names[0]}"])
        gates = cells.gate_names(part)
        taps = {}
        if gates and self.request.quantities & OF_GATES:
            stacked = mark(f"tap_{place}.{GATES}", ops.stack([zeros] * len(gates), axis=2))
            taps = dict(zip(gates, ops.unstack(stacked, len(gates), axis=2), strict=True))
        if gates and CELL in names:
            taps[CELL] = mark(f"tap_{place}.{CELL}", zeros)
        taps = {name: self._flat(tap) for name, tap in taps.items()}
        masks = self.dropout[place] if self.dropout else keras.NO_DROPOUT
        with keras.with_dropout_masks(part, masks, steps):
            return cells.step(keras, part, self._flat(x), old, taps, training=self.request.training)

    def _flat(self, tensor: Any) -> Any:
        """(time, sample, …) to (time · sample, …)."""
        return self.keras.ops.reshape(tensor, (-1, *tensor.shape[2:]))
