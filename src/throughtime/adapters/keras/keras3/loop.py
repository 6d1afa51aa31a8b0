"""Runs a layer's own cells in the backend's loop, with a zero added to every state that a step hands on.

The gradient with respect to such a zero is the state's total derivative through time, whatever the cell
computes. The loop takes the place of the layer's `inner_loop`: it is the pass from which the loss is
computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from throughtime._errors import UnsupportedModelError

from . import cell as cells
from .backend import module
from .internals import repeats_first_state, zeroes_masked_output

# What a cell hands out where that is none of its states.
EMITTED = "emitted"


@dataclass
class Loop:
    """One run over the time of one layer.

    Attributes
    ----------
    layer : keras.layers.RNN
    mark : callable (name, tensor) -> tensor
        Makes a copy that the loss can be differentiated with respect to.
    training : bool
    own : callable
        The layer's own `inner_loop`, to compare with; None where it would draw other random numbers.
    error : tensor or None
        Relative error of this loop's output and final states against the layer's own, the largest.
    initial : list of tensors
        States before the first step, inner cells one after the other.
    kept : dict of str to tensor
        Every state, `0.hidden`, and what cells emit besides, `0.emitted`: (time, sample, …) as processed.
    handed_on : list of str
        For each inner cell, which of these it hands to the next one.
    """

    layer: Any
    mark: Callable[[str, Any], Any]
    training: bool
    own: Callable[..., tuple[Any, Any, Any]] | None = None
    error: Any = None
    initial: list[Any] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)
    handed_on: list[str] = field(default_factory=list)

    def __call__(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, Any]:
        """Return the last output, all outputs and the final states, as `RNN.inner_loop` does."""
        self.training = bool(training)
        parts = cells.inner_cells(self.layer.cell)
        flat = keras.tree.flatten(initial_state)
        self.initial = [self.mark(f"initial_{position}", state) for position, state in enumerate(flat)]
        by_time = {"x": in_processing_order(self.layer, sequences)}
        mask = mask[0] if keras.tree.is_nested(mask) else mask
        if mask is not None:
            by_time["valid"] = in_processing_order(self.layer, ops.cast(mask, "bool"))
        start, tapped = self._dry_step(parts, by_time["x"][0])
        steps = ops.shape(by_time["x"])[0]
        by_time["taps"] = {
            name: self.mark(f"tap_{name}", ops.zeros((steps, *ops.shape(tensor)), tensor.dtype))
            for name, tensor in tapped.items()
        }

        def advance(carry: Any, now: Any) -> tuple[Any, Any]:
            return self._advance(parts, carry, now)

        (final, last), self.kept = module().scan(advance, (self.initial, start), by_time)
        outputs = self.kept.pop("output", None)
        outputs = last[:, None] if outputs is None else ops.swapaxes(outputs, 0, 1)
        if self.own is not None:
            given = keras.tree.map_structure(ops.stop_gradient, (sequences, initial_state))
            expected = self.own(*given, mask, training)
            self.error = _error(
                (outputs if self.layer.return_sequences else last, *final), expected, self.layer
            )
        return last, outputs, keras.tree.pack_sequence_as(initial_state, list(final))

    def _dry_step(self, parts: Sequence[Any], x: Any) -> tuple[Any, dict[str, Any]]:
        """Run the first step once: what a masked first step emits, and what zeros are added to, by name."""
        tapped: dict[str, Any] = {}
        position = 0
        for place, part in enumerate(parts):
            names = cells.state_names(part)
            old = self.initial[position : position + len(names)]
            done = cells.plain_step(part, x, old, training=self.training)
            _check_shapes(part, done.states, old)
            added = dict(zip(names, old, strict=True))
            if done.output_state is None:
                added[EMITTED] = done.output
            tapped |= {f"{place}.{name}": tensor for name, tensor in added.items() if is_float(tensor)}
            source = EMITTED if done.output_state is None else names[done.output_state]
            self.handed_on.append(f"{place}.{source}")
            x, position = done.output, position + len(names)
        emits_state = done.output_state == 0 and repeats_first_state(self.layer)
        return old[0] if emits_state else ops.zeros_like(x), tapped

    def _advance(self, parts: Sequence[Any], carry: Any, now: Any) -> tuple[Any, Any]:
        """Take one step of all inner cells; masked steps hand on what they were given."""
        before, repeated = carry
        valid, x, taps = now.get("valid"), now["x"], now["taps"]
        after: list[Any] = []
        left: dict[str, Any] = {}
        for place, part in enumerate(parts):
            names = [f"{place}.{name}" for name in cells.state_names(part)]
            old = before[len(after) : len(after) + len(names)]
            done = cells.plain_step(part, x, old, training=self.training)
            new = [
                _plus(where(valid, state, past), taps.get(name))
                for state, past, name in zip(done.states, old, names, strict=True)
            ]
            left |= dict(zip(names, new, strict=True))
            if done.output_state is None:
                x = left[f"{place}.{EMITTED}"] = _plus(done.output, taps.get(f"{place}.{EMITTED}"))
            else:
                x = new[done.output_state]
            after += new
        if zeroes_masked_output(self.layer):
            repeated = ops.zeros_like(x)
        elif repeats_first_state(self.layer) and done.output_state != 0:
            repeated = old[0]
        output = where(valid, x, repeated)
        if self.layer.return_sequences:
            left["output"] = output
        return (after, output), left


def where(valid: Any, value: Any, otherwise: Any) -> Any:
    """Choose `value` at valid samples; at all where nothing is masked."""
    if valid is None:
        return value
    return ops.where(ops.reshape(valid, (-1, *(1,) * (len(value.shape) - 1))), value, otherwise)


def in_processing_order(layer: Any, tensor: Any) -> Any:
    """(sample, time, …) in input time to (time, sample, …) as the layer processes it."""
    swapped = ops.swapaxes(tensor, 0, 1)
    return ops.flip(swapped, axis=0) if layer.go_backwards else swapped


def is_float(tensor: Any) -> bool:
    """Whether a gradient with respect to this tensor can exist."""
    return bool(keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)))


def _error(found: Sequence[Any], results: tuple[Any, Any, Any], layer: Any) -> Any:
    """Largest relative error ‖found − expected‖ / ‖expected‖ of the output and each final state."""
    last, outputs, final = results
    known = (outputs if layer.return_sequences else last, *keras.tree.flatten(final))
    errors = []
    for ours, theirs in zip(found, known, strict=True):
        expected = ops.stop_gradient(wide(theirs))
        size = ops.sqrt(ops.sum(ops.square(expected)))
        difference = ops.sqrt(ops.sum(ops.square(ops.stop_gradient(wide(ours)) - expected)))
        errors.append(ops.where(difference > 0, difference / ops.where(size > 0, size, 1.0), 0.0))
    return ops.max(ops.stack(errors))


def wide(tensor: Any) -> Any:
    """Give half precision, and integers, in float32."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return tensor if dtype in ("float32", "float64") else ops.cast(tensor, "float32")


def _plus(value: Any, tap: Any) -> Any:
    return value if tap is None else value + tap


def _check_shapes(part: Any, after: Sequence[Any], before: Sequence[Any]) -> None:
    """Refuse a cell whose states grow, which Keras' loop on torch allows."""
    for name, new, old in zip(cells.state_names(part), after, before, strict=True):
        if tuple(new.shape) != tuple(old.shape):
            raise UnsupportedModelError(
                f"The state {name!r} of {type(part).__name__} has shape {tuple(old.shape)} before a step and "
                f"{tuple(new.shape)} after it, so that there is no gradient through time. Let state_size or "
                "get_initial_state give the shape that call returns, or ask for quantities='output_gradient'."
            )
