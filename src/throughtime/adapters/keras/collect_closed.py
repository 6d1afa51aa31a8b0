"""Collects one direction of a layer with a closed form into the record that `cells` solves, in input time."""

from __future__ import annotations

from throughtime._record import Array, DirectionRecord

from . import weights
from .arrays import numpy
from .internals import zeroes_masked_output
from .program import Result, Seen


def closed_direction(result: Result, seen: Seen, part: int) -> DirectionRecord:
    """Bring what one direction computed to input time."""
    known = seen.inside[part]
    layer = known.layer()
    is_half = len(seen.inside) > 1
    flip = slice(None, None, -1 if layer.go_backwards else 1)
    tensors, gradients = result.tensors, result.gradients

    def gradient(name: str) -> Array | None:
        tensor = gradients.get(seen.key(name, part))
        return None if tensor is None else numpy(tensor)

    output_gradient = gradient("half_output" if is_half else "output")
    if output_gradient is not None and output_gradient.ndim == 3:
        output_gradient = output_gradient[:, flip]
    is_output = seen.key("sequence", part) not in tensors
    hidden = numpy(tensors[seen.key("output") if is_output else seen.key("sequence", part)])
    positions = {id(weight): position for position, weight in enumerate(layer.weights)}
    initial = [numpy(tensors[seen.key(f"initial_{k}", part)]) for k in range(known.initial_states)]
    return DirectionRecord(
        weights=weights.named(layer, lambda v: numpy(v.value, copy=True)),
        weight_gradients=weights.named(layer, lambda v: gradient(f"weight_{positions[id(v)]}"), "_gradient"),
        inputs=numpy(tensors[seen.key("input")], copy=True),
        hidden=hidden[:, flip],
        output_gradient=output_gradient,
        input_gradient=gradient("half_input" if is_half else "input"),
        valid=numpy(tensors[seen.key("inside_mask", part)]).astype(bool) if known.has_mask else None,
        zero_output=zeroes_masked_output(layer),
        runs_backward=bool(layer.go_backwards),
        initial=tuple(initial) or (None, None),
        final_gradients=tuple(gradient(f"state_{k}") for k in range(max(2, known.initial_states))),
    )
