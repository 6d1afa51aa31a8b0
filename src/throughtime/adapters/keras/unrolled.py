"""The framework's own autodiff through a recurrent layer step by step: for every cell without closed forms.

A second program beside `program.Program`, with the same protocol: it repeats one direction of one call from
what the first pass recorded, cell by cell, with zero taps on every state and gate. Time order, masks and the
loop are written here anew, so that the certificate compares two independent ways.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import keras
from keras import ops

from throughtime._errors import UnsupportedModelError
from throughtime.adapters.unrolling import BETWEEN, Recorded, Tapped, of_cell, tap_shapes

from . import cell as cells
from .internals import repeats_first_state, zeroes_masked_output
from .program import all_variables
from .tap import Mark

# (step, carry, sequences) -> (final carry, outputs), time first.
Scan = Callable[[Callable[[Any, Any], tuple[Any, Any]], Any, Any], tuple[Any, Any]]


class Unrolled:
    """One direction of a layer as a plain function of variable values and of what was recorded.

    Parameters
    ----------
    model, layer : held weakly
    scan : Scan
        The framework's loop.
    output_shape : tuple of int
        Of one step's output, without samples.
    """

    def __init__(
        self, model: Any, layer: Any, scan: Scan, output_shape: tuple[int, ...], *, training: bool
    ) -> None:
        self._model, self._layer = weakref.ref(model), weakref.ref(layer)
        self._scan = scan
        self._output_shape = output_shape
        self._training = training
        positions = {id(variable): index for index, variable in enumerate(all_variables(model))}
        floats = [w for w in layer.weights if keras.backend.is_float_dtype(w.dtype)]
        self.differentiated = sorted(positions[id(weight)] for weight in floats)
        self.has_loss = True

    def __call__(self, values: Sequence[Any], inputs: dict[str, Any], mark: Mark) -> tuple[Any, Any]:
        """Run the layer; return what is differentiated, and every state and gate (time, sample, …)."""
        layer: Any = self._layer()
        recorded = Recorded(**inputs)
        mapping = list(zip(all_variables(self._model()), values, strict=True))
        with (
            keras.StatelessScope(mapping, initialize_variables=False),
            ExitStack() as stack,
        ):
            parts = cells.inner_cells(layer.cell)
            for part, masks in zip(parts, recorded.dropout or [[None, None]] * len(parts), strict=True):
                stack.enter_context(cells.with_dropout_masks(part, masks))
            final, sequences = self._run(layer, parts, recorded, mark)
        has_gradient = recorded.output_gradient is not None or any(
            gradient is not None for gradient in recorded.final_gradients
        )
        output = sequences.pop("output")
        if not has_gradient:
            return None, sequences
        loss = _pulled(layer, recorded, final, output)
        scaled = loss if recorded.scale is None else loss * recorded.scale
        return scaled, {**sequences, "loss": loss}

    def _run(self, layer: Any, parts: tuple[Any, ...], recorded: Recorded, mark: Mark) -> tuple[Any, Any]:
        dtype = layer.cell.compute_dtype
        initial = [ops.cast(state, dtype) for state in recorded.initial]
        begun = [mark(f"initial_{position}", state) for position, state in enumerate(initial)]
        x = mark("input", recorded.input) if _is_float(recorded.input) else recorded.input
        by_time = {"x": _in_processing_order(layer, x)}
        if recorded.mask is not None:
            by_time["valid"] = _in_processing_order(layer, ops.cast(recorded.mask, "bool"))
        steps = by_time["x"].shape[0]
        widths = [*map(_width, parts[:-1]), 0]
        tapped = [
            Tapped(cells.state_names(part), cells.gate_names(part), width)
            for part, width in zip(parts, widths, strict=True)
        ]
        shapes = [tuple(state.shape) for state in initial]
        taps = {
            name: mark(f"tap_{name}", ops.zeros((steps, *shape), dtype))
            for name, shape in tap_shapes(tapped, shapes, recorded.input.shape[0]).items()
        }
        output = ops.zeros((initial[0].shape[0], *self._output_shape), dtype)

        def advance(carry: Any, now: Any) -> tuple[Any, Any]:
            return self._advance(layer, parts, carry, now)

        (final, _), sequences = self._scan(advance, (begun, output), {**by_time, "taps": taps})
        return final, sequences

    def _advance(self, layer: Any, parts: tuple[Any, ...], carry: Any, now: Any) -> tuple[Any, Any]:
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
            done = cells.step(part, x, old, taps, training=self._training)
            _check_shapes(part, done.states, old)
            new = [
                _where(valid, state, past) + taps[name]
                for state, past, name in zip(done.states, old, names, strict=True)
            ]
            x = done.output if done.output_state is None else new[done.output_state]
            left |= {f"{place}.{name}": state for name, state in zip(names, new, strict=True)}
            if done.gates:
                left[f"{place}.gate_activation"] = ops.stack(done.gates, axis=1)
            after += new
        x = ops.cast(x, repeated.dtype)
        if zeroes_masked_output(layer):
            repeated = ops.zeros_like(x)
        elif repeats_first_state(layer) and done.output_state != 0:
            repeated = old[0]
        output = _where(valid, x, repeated)
        return (after, output), {**left, "output": output}


def _check_shapes(part: Any, after: Sequence[Any], before: Sequence[Any]) -> None:
    """Refuse a cell whose states grow, which Keras' loop on torch allows."""
    for name, new, old in zip(cells.state_names(part), after, before, strict=True):
        if tuple(new.shape) != tuple(old.shape):
            raise UnsupportedModelError(
                f"The state {name!r} of {type(part).__name__} has shape {tuple(old.shape)} before a step and "
                f"{tuple(new.shape)} after it, so that there is no gradient through time. Let state_size or "
                "get_initial_state give the shape that call returns, or ask for quantities='output_gradient'."
            )


def _width(part: Any) -> int:
    """Features that a cell hands to the cell above it."""
    size = getattr(part, "output_size", None)
    if size is None:
        size = keras.tree.flatten(part.state_size)[0]
    return int(size)


def _where(valid: Any, value: Any, otherwise: Any) -> Any:
    if valid is None:
        return value
    return ops.where(ops.reshape(valid, (-1, *(1,) * (len(value.shape) - 1))), value, otherwise)


def _in_processing_order(layer: Any, tensor: Any) -> Any:
    """(sample, time, …) in input time to (time, sample, …) as the layer processes it."""
    swapped = ops.swapaxes(tensor, 0, 1)
    return ops.flip(swapped, axis=0) if layer.go_backwards else swapped


def _pulled(layer: Any, recorded: Recorded, final: list[Any], output: Any) -> Any:
    """Make the scalar whose gradient is the loss's: each result times what the first pass found for it."""
    pairs = [pair for pair in zip(final, recorded.final_gradients, strict=True) if pair[1] is not None]
    if recorded.output_gradient is not None:
        returned = ops.swapaxes(output, 0, 1) if layer.return_sequences else output[-1]
        pairs.append((returned, recorded.output_gradient))
    return sum(ops.sum(_wide(value) * _wide(gradient)) for value, gradient in pairs)


def _wide(tensor: Any) -> Any:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return tensor if dtype == "float64" else ops.cast(tensor, "float32")


def _is_float(tensor: Any) -> bool:
    return bool(keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)))
