"""Collects one direction of a layer with a closed form into the record that `cells` solves, in input time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from throughtime._record import Array, DirectionRecord

from . import weights
from .arrays import numpy
from .program import Result
from .tap import Call


def closed_direction(
    result: Result, call: Call, part: int, value_of: Callable[[Any], Array]
) -> DirectionRecord:
    """Bring what one direction computed to input time."""
    known = call.inside[part]
    layer = known.layer
    is_half = len(call.inside) > 1
    flip = slice(None, None, -1 if layer.go_backwards else 1)

    def gradient(name: str) -> Array | None:
        array = result.gradients.get(call.key(name, part))
        return None if array is None else numpy(array)

    output_gradient = gradient("half_output" if is_half else "output")
    if output_gradient is not None and output_gradient.ndim == 3:
        output_gradient = output_gradient[:, flip]
    positions = {id(weight): position for position, weight in enumerate(layer.weights)}
    initial = [numpy(result.tensors[call.key(f"initial_{k}", part)]) for k in range(known.initial)]
    mask = result.tensors[call.key("inside_mask", part)] if known.has_mask else None
    return DirectionRecord(
        weights=weights.named(layer, value_of),
        weight_gradients=weights.named(layer, lambda v: gradient(f"weight_{positions[id(v)]}"), "_gradient"),
        inputs=numpy(result.tensors[call.key("input")]),
        hidden=numpy(result.tensors[call.key("sequence", part)])[:, flip],
        output_gradient=output_gradient,
        input_gradient=gradient("half_input" if is_half else "input"),
        valid=None if mask is None else mask.astype(bool),
        zero_output=bool(layer.zero_output_for_mask),
        runs_backward=bool(layer.go_backwards),
        initial=tuple(initial) or (None, None),
        final_gradients=tuple(gradient(f"state_{k}") for k in range(max(2, known.initial))),
    )
