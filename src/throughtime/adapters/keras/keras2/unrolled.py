"""TensorFlow's own autodiff through a recurrent layer step by step: for every cell without closed forms.

A second computation beside `program.Program`: it repeats one direction of one call from what the first pass
recorded, cell by cell, with zero taps on every state and gate. Time order, masks and the loop are written
here anew, so that the certificate compares two independent ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from throughtime._errors import UnsupportedModelError
from throughtime.adapters.keras.unrolling import BETWEEN, Recorded, Tapped, of_cell, tap_shapes

from . import cell as cells
from . import dropout
from .arrays import is_float, shape_of
from .internals import autograph_enabled, compute_dtype
from .tap import Mark


class Unrolled:
    """One direction of a layer as a computation on what was recorded.

    Parameters
    ----------
    output_shape : tuple of int
        Of one step's output, without samples.
    """

    def __init__(
        self, model: Any, layer: Any, output_shape: tuple[int, ...], *, training: bool, has_loss: bool
    ) -> None:
        self.model = model
        self._layer = layer
        self._output_shape = output_shape
        self._training = training
        self.differentiated = [weight for weight in layer.weights if has_loss and weight.dtype.is_floating]

    def __call__(self, inputs: dict[str, Any], mark: Mark) -> tuple[Any, dict[str, Any]]:
        """Run the layer; return what is differentiated, and every state and gate (time, sample, …)."""
        recorded = Recorded(**inputs)
        with autograph_enabled():
            final, sequences = self._run(recorded, mark)
        output = sequences.pop("output")
        loss = _pulled(self._layer, recorded, final, output)
        if loss is None:
            return None, sequences
        scaled = loss if recorded.scale is None else loss * tf.cast(recorded.scale, loss.dtype)
        return scaled, {**sequences, "loss": loss}

    def _run(self, recorded: Recorded, mark: Mark) -> tuple[Any, Any]:
        layer = self._layer
        parts = cells.inner_cells(layer.cell)
        dtype = compute_dtype(layer.cell if hasattr(layer.cell, "compute_dtype") else layer)
        initial = [tf.cast(state, dtype) for state in recorded.initial]
        begun = [mark(f"initial_{position}", state) for position, state in enumerate(initial)]
        x = mark("input", recorded.input) if is_float(recorded.input.dtype) else recorded.input
        by_time: dict[str, Any] = {"x": _in_processing_order(layer, x)}
        if is_float(x.dtype):
            by_time["x"] = tf.cast(by_time["x"], dtype)
        if recorded.mask is not None:
            by_time["valid"] = _in_processing_order(layer, tf.cast(recorded.mask, tf.bool))
        steps = shape_of(by_time["x"])[0]
        widths = [*map(_width, parts[:-1]), 0]
        tapped = [
            Tapped(cells.state_names(part), cells.gate_names(part), width)
            for part, width in zip(parts, widths, strict=True)
        ]
        shapes = [shape_of(state) for state in initial]
        by_time["taps"] = {
            name: mark(f"tap_{name}", tf.zeros((steps, *shape), dtype))
            for name, shape in tap_shapes(tapped, shapes, shape_of(recorded.input)[0]).items()
        }
        by_time["dropout"] = tf.nest.map_structure(_swapped, recorded.dropout or [{} for _ in parts])
        output = tf.zeros((shape_of(initial[0])[0], *self._output_shape), dtype)

        def advance(carry: Any, now: Any) -> tuple[Any, Any]:
            return self._advance(parts, carry, now)

        (final, _), sequences = scan(advance, (begun, output), by_time)
        return final, sequences

    def _advance(self, parts: tuple[Any, ...], carry: Any, now: Any) -> tuple[Any, Any]:
        """One step of all inner cells, masked steps held."""
        before, repeated = carry
        valid, x = now.get("valid"), now["x"]
        after: list[Any] = []
        left: dict[str, Any] = {}
        for place, part in enumerate(parts):
            names = cells.state_names(part)
            taps = of_cell(place, now["taps"])
            x = x + taps[BETWEEN] if place else x
            left[f"{place}.input"] = x
            old = before[len(after) : len(after) + len(names)]
            with dropout.masks_given(part, now["dropout"][place]):
                done = cells.step(part, x, old, taps, training=self._training)
            _check_shapes(part, done.states, old)
            new = [
                _where(valid, state, past) + taps[name]
                for state, past, name in zip(done.states, old, names, strict=True)
            ]
            x = done.output if done.output_state is None else new[done.output_state]
            left |= {f"{place}.{name}": state for name, state in zip(names, new, strict=True)}
            if done.gates:
                left[f"{place}.gate_activation"] = tf.stack(done.gates, axis=1)
            after += new
        x = tf.cast(x, repeated.dtype)
        if self._layer.zero_output_for_mask:
            repeated = tf.zeros_like(x)
        output = _where(valid, x, repeated)
        return (after, output), {**left, "output": output}


def scan(step: Any, carry: Any, sequences: Any) -> tuple[Any, Any]:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis."""
    first = tf.nest.map_structure(lambda sequence: sequence[0], sequences)
    # tf.scan keeps outputs in its carry, and wants to know their shapes.
    empty = tf.nest.map_structure(tf.zeros_like, step(carry, first)[1])
    carries, outputs = tf.scan(lambda kept, values: step(kept[0], values), sequences, (carry, empty))
    return tf.nest.map_structure(lambda values: values[-1], carries), outputs


def _check_shapes(part: Any, after: Sequence[Any], before: Sequence[Any]) -> None:
    """Refuse a cell whose states grow."""
    for name, new, old in zip(cells.state_names(part), after, before, strict=True):
        if not new.shape.is_compatible_with(old.shape):
            raise UnsupportedModelError(
                f"The state {name!r} of {type(part).__name__} has shape {shape_of(old)} before a step and "
                f"{shape_of(new)} after it, so that there is no gradient through time. Let state_size or "
                "get_initial_state give the shape that call returns, or ask for quantities='output_gradient'."
            )


def _width(part: Any) -> int:
    """Features that a cell hands to the cell above it."""
    size = getattr(part, "output_size", None)
    if size is None:
        size = part.state_size[0] if isinstance(part.state_size, (list, tuple)) else part.state_size
    return int(tf.TensorShape(size)[-1])


def _where(valid: Any, value: Any, otherwise: Any) -> Any:
    if valid is None:
        return value
    return tf.where(tf.reshape(valid, (-1, *(1,) * (value.shape.rank - 1))), value, otherwise)


def _in_processing_order(layer: Any, tensor: Any) -> Any:
    """(sample, time, …) in input time to (time, sample, …) as the layer processes it."""
    swapped = _swapped(tensor)
    return tf.reverse(swapped, [0]) if layer.go_backwards else swapped


def _swapped(tensor: Any) -> Any:
    """(sample, time, …) to (time, sample, …) and back."""
    return tf.transpose(tensor, (1, 0, *range(2, tensor.shape.rank)))


def _pulled(layer: Any, recorded: Recorded, final: list[Any], output: Any) -> Any:
    """Make the scalar whose gradient is the loss's: each result times what the first pass found for it.

    None where nothing arrives.
    """
    pairs = [pair for pair in zip(final, recorded.final_gradients, strict=True) if pair[1] is not None]
    if recorded.output_gradient is not None:
        returned = _swapped(output) if layer.return_sequences else output[-1]
        pairs.append((returned, recorded.output_gradient))
    if not pairs:
        return None
    return tf.add_n([tf.reduce_sum(_wide(value) * _wide(gradient)) for value, gradient in pairs])


def _wide(tensor: Any) -> Any:
    return tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)
