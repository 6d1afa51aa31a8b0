"""Finds what lies within a cell's steps, all steps at once: gates, gradients of gates, inputs and weights.

The loop has found every state and its gradient. One step of the cell, run on all steps as if they were
samples, gives the rest by the framework's autodiff. The gradients of inputs and weights are thus found
twice, here and by the loop, and the certificate compares them.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from throughtime._record import Request
from throughtime.adapters.keras.gates import CELL
from throughtime.adapters.keras.unrolling import BETWEEN, GATES

from . import cell as cells
from .loop import EMITTED, in_processing_order, is_float, wide
from .program import all_variables
from .tap import Mark


@dataclass(frozen=True)
class Recorded:
    """What the loop left of one direction of one call: structures of tensors.

    Attributes
    ----------
    input : (sample, time, …) in input time
    mask : (sample, time) or None
    initial : list, one a state, inner cells one after the other
    dropout : list of dropout masks by inner cell, empty where none is active
    kept : dict of str to tensor (time, sample, …)
        As `loop.Loop.kept`.
    gradients : dict of str to tensor
        Total derivatives of the same, by the same names, for those that have one.
    scale : scalar that gradients are multiplied by, or None
    """

    input: Any
    mask: Any
    initial: list[Any]
    dropout: list[Any]
    kept: dict[str, Any]
    gradients: dict[str, Any]
    scale: Any = None

    def as_structure(self) -> dict[str, Any]:
        """Give them as a structure that a framework can trace."""
        return dict(vars(self))


class EveryStep:
    """One direction of a layer as a plain function of variable values and of what the loop left.

    Parameters
    ----------
    model, layer : held weakly
    handed_on : sequence of str
        As `loop.Loop.handed_on`.
    request : Request
    """

    def __init__(self, model: Any, layer: Any, handed_on: Sequence[str], request: Request) -> None:
        self._model, self._layer = weakref.ref(model), weakref.ref(layer)
        self._handed_on = handed_on
        self._training = request.training
        self._is_certified = "certificate" in request.quantities
        self._has_gates = bool(request.quantities & {"gate_activation", *cells.OF_GATES})
        self._taps_gates = bool(request.quantities & cells.OF_GATES)
        positions = {id(variable): index for index, variable in enumerate(all_variables(model))}
        floats = [w for w in layer.weights if keras.backend.is_float_dtype(w.dtype)]
        self.differentiated = sorted(positions[id(w)] for w in floats) if self._is_certified else []
        self.has_loss = True

    def __call__(self, values: Sequence[Any], inputs: dict[str, Any], mark: Mark) -> tuple[Any, Any]:
        """Run every step; return what is differentiated, and the gates (time, sample, gate, …)."""
        layer: Any = self._layer()
        recorded = Recorded(**inputs)
        mapping = list(zip(all_variables(self._model()), values, strict=True))
        x = recorded.input
        if self._is_certified and is_float(x):
            x = mark("input", x)
        x = in_processing_order(layer, x)
        valid = None
        if recorded.mask is not None:
            valid = in_processing_order(layer, ops.cast(recorded.mask, "bool"))
        steps, terms, left = x.shape[0], [], {}
        with keras.StatelessScope(mapping, initialize_variables=False):
            parts = cells.inner_cells(layer.cell)
            first = 0
            for place, part in enumerate(parts):
                names = cells.state_names(part)
                initial = recorded.initial[first : first + len(names)]
                x = mark(f"tap_{place}.{BETWEEN}", x) if place else x
                done = self._stepped(part, place, x, initial, recorded, mark)
                new = {f"{place}.{name}": state for name, state in zip(names, done.states, strict=True)}
                new[f"{place}.{EMITTED}"] = done.output
                terms += [
                    ops.sum(wide(tensor) * wide(_at_valid(valid, recorded.gradients[name], tensor)))
                    for name, tensor in new.items()
                    if name in recorded.gradients
                ]
                if done.gates and self._has_gates:
                    left[f"{place}.gate_activation"] = _by_time(ops.stack(done.gates, axis=1), steps)
                x, first = recorded.kept[self._handed_on[place]], first + len(names)
        loss = sum(terms) if terms else None
        if loss is None:
            return None, left
        return loss if recorded.scale is None else loss * recorded.scale, {**left, "loss": loss}

    def _stepped(
        self, part: Any, place: int, x: Any, initial: Sequence[Any], recorded: Recorded, mark: Mark
    ) -> Any:
        """Run one inner cell, time beside samples, from the states that the loop has found."""
        names, steps = cells.state_names(part), x.shape[0]
        old = [
            _flat(ops.concatenate([start[None], recorded.kept[f"{place}.{name}"][:-1]], axis=0))
            for start, name in zip(initial, names, strict=True)
        ]
        zeros = ops.zeros_like(recorded.kept[f"{place}.{names[0]}"])
        gates = cells.gate_names(part)
        taps = {}
        if gates and self._taps_gates:
            stacked = ops.stack([zeros] * len(gates), axis=2)
            taps = dict(zip(gates, ops.unstack(mark(f"tap_{place}.{GATES}", stacked), axis=2), strict=True))
        if gates and CELL in names:
            taps[CELL] = mark(f"tap_{place}.{CELL}", zeros)
        taps = {name: _flat(tap) for name, tap in taps.items()}
        masks = recorded.dropout[place] if recorded.dropout else [None, None]
        with ExitStack() as stack:
            repeated = keras.tree.map_structure(
                lambda mask: mask if mask is None else _tiled(mask, steps), masks
            )
            stack.enter_context(cells.with_dropout_masks(part, repeated))
            return cells.step(part, _flat(x), old, taps, training=self._training)


def _flat(tensor: Any) -> Any:
    """(time, sample, …) to (time · sample, …)."""
    return ops.reshape(tensor, (-1, *tensor.shape[2:]))


def _by_time(tensor: Any, steps: int) -> Any:
    """(time · sample, …) to (time, sample, …)."""
    return ops.reshape(tensor, (steps, -1, *tensor.shape[1:]))


def _tiled(mask: Any, steps: int) -> Any:
    return ops.tile(mask, (steps, *(1,) * (len(mask.shape) - 1)))


def _at_valid(valid: Any, gradient: Any, like: Any) -> Any:
    """Let through what arrives at valid steps: masked ones only hand on."""
    flat = _flat(gradient)
    if valid is None:
        return flat
    chosen = ops.reshape(valid, (-1, *(1,) * (len(like.shape) - 1)))
    return ops.where(chosen, flat, ops.zeros_like(flat))
