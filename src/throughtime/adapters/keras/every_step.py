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
from .library import is_float
from .loop import EMITTED, in_processing_order, wide

# What passes from one stacked cell to the next: not "input", the name of a gate, and no name of a state.
BETWEEN = "from below"
GATES = "all gates"
# What the gradients of gates are needed for.
OF_GATES = frozenset({"gate_gradient", "step_contribution", "certificate"})


@dataclass(frozen=True)
class Recorded:
    """What the loop left of one direction of one call: structures of tensors.

    Attributes
    ----------
    input : (sample, time, …) in input time
    mask : (sample, time) or None
    initial : sequence, one a state, inner cells one after the other
    dropout : list of the dialect's dropout masks by inner cell, empty where none is active
    kept : dict of str to tensor (time, sample, …)
        As `loop.Loop.kept`.
    gradients : dict of str to tensor
        Total derivatives of the same, by the same names, for those that have one.
    """

    input: Any
    mask: Any
    initial: Sequence[Any]
    dropout: Any
    kept: dict[str, Any]
    gradients: dict[str, Any]


class EveryStep:
    """One direction of a layer, as a step that a framework can differentiate.

    Parameters
    ----------
    keras : Dialect
    layer : a recurrent layer
    handed_on : sequence of str
        As `loop.Loop.handed_on`.
    request : Request
    recorded : Recorded
    """

    def __init__(
        self, keras: Dialect, layer: Any, handed_on: Sequence[str], request: Request, recorded: Recorded
    ) -> None:
        self._keras, self._layer, self._recorded = keras, layer, recorded
        self._handed_on, self._training = handed_on, request.training
        self._is_certified = "certificate" in request.quantities
        self._has_gates = bool(request.quantities & {"gate_activation", *OF_GATES})
        self._taps_gates = bool(request.quantities & OF_GATES)

    def weights(self) -> dict[str, Any]:
        """Return the variables whose gradients the certificate compares."""
        own = enumerate(self._layer.weights if self._is_certified else ())
        return {f"weight_{place}": each for place, each in own if is_float(self._keras.dtype_of(each))}

    def __call__(self, mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run every step; return what is differentiated, and the gates (time, sample, gate, …)."""
        keras, ops, layer, recorded = self._keras, self._keras.ops, self._layer, self._recorded
        x = recorded.input
        if self._is_certified and is_float(keras.dtype_of(x)):
            x = mark("input", x)
        x = in_processing_order(keras, layer, x)
        valid = None
        if recorded.mask is not None:
            valid = in_processing_order(keras, layer, ops.cast(recorded.mask, "bool"))
        steps, first = ops.shape(x)[0], 0
        terms: list[Any] = []
        left: dict[str, Any] = {}
        for place, part in enumerate(cells.inner_cells(layer.cell)):
            names = cells.state_names(keras, part)
            initial = recorded.initial[first : first + len(names)]
            x = mark(f"tap_{place}.{BETWEEN}", x) if place else x
            done = self._stepped(part, place, x, initial, mark)
            new = {f"{place}.{name}": state for name, state in zip(names, done.states, strict=True)}
            new[f"{place}.{EMITTED}"] = done.output
            terms += [
                ops.sum(wide(keras, tensor) * wide(keras, self._at_valid(valid, recorded.gradients[name])))
                for name, tensor in new.items()
                if name in recorded.gradients
            ]
            if done.gates and self._has_gates:
                gates = ops.stack(done.gates, axis=1)
                left[f"{place}.gate_activation"] = ops.reshape(gates, (steps, -1, *gates.shape[1:]))
            x, first = recorded.kept[self._handed_on[place]], first + len(names)
        return sum(terms) if terms else None, left

    def _stepped(self, part: Any, place: int, x: Any, initial: Sequence[Any], mark: Mark) -> Any:
        """Run one inner cell, time beside samples, from the states that the loop has found."""
        keras, ops, recorded = self._keras, self._keras.ops, self._recorded
        names, steps = cells.state_names(keras, part), ops.shape(x)[0]
        old = [
            self._flat(ops.concatenate([start[None], recorded.kept[f"{place}.{name}"][:-1]], axis=0))
            for start, name in zip(initial, names, strict=True)
        ]
        zeros = ops.zeros_like(recorded.kept[f"{place}.{names[0]}"])
        gates = cells.gate_names(part)
        taps = {}
        if gates and self._taps_gates:
            stacked = mark(f"tap_{place}.{GATES}", ops.stack([zeros] * len(gates), axis=2))
            taps = dict(zip(gates, ops.unstack(stacked, len(gates), axis=2), strict=True))
        if gates and CELL in names:
            taps[CELL] = mark(f"tap_{place}.{CELL}", zeros)
        taps = {name: self._flat(tap) for name, tap in taps.items()}
        masks = recorded.dropout[place] if recorded.dropout else keras.NO_DROPOUT
        with keras.with_dropout_masks(part, masks, steps):
            return cells.step(keras, part, self._flat(x), old, taps, training=self._training)

    def _flat(self, tensor: Any) -> Any:
        """(time, sample, …) to (time · sample, …)."""
        return self._keras.ops.reshape(tensor, (-1, *tensor.shape[2:]))

    def _at_valid(self, valid: Any, gradient: Any) -> Any:
        """Let through what arrives at valid steps: masked ones only hand on."""
        flat, ops = self._flat(gradient), self._keras.ops
        if valid is None:
            return flat
        chosen = ops.reshape(valid, (-1, *(1,) * (len(flat.shape) - 1)))
        return ops.where(chosen, flat, ops.zeros_like(flat))
