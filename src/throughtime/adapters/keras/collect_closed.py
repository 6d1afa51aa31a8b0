"""Collects one direction of a layer with a closed form into the record that `cells` solves, in input time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from throughtime.adapters.records import Array, DirectionRecord

from . import weights

if TYPE_CHECKING:
    from .collect import Pass
    from .seen import SeenCall


def closed_direction(done: Pass, seen: SeenCall, part: int) -> DirectionRecord:
    """Bring what one direction computed to input time."""
    known = seen.inside[part]
    layer = known.layer()
    is_half = len(seen.inside) > 1
    flip = slice(None, None, -1 if layer.go_backwards else 1)

    def gradient(name: str) -> Array | None:
        return done.gradient(seen.key(name, part))

    output_gradient = gradient("half_output" if is_half else "output")
    if output_gradient is not None and output_gradient.ndim == 3:
        output_gradient = output_gradient[:, flip]
    is_output = seen.key("sequence", part) not in done.result.tensors
    hidden = done.tensor(seen.key("output") if is_output else seen.key("sequence", part))
    positions = {id(weight): position for position, weight in enumerate(layer.weights)}
    initial = [done.tensor(seen.key(f"initial_{k}", part)) for k in range(known.initial_states)]
    return DirectionRecord(
        weights=weights.named(done.keras, layer, done.value),
        weight_gradients=weights.named(
            done.keras, layer, lambda v: gradient(f"weight_{positions[id(v)]}"), "_gradient"
        ),
        inputs=done.tensor(seen.key("input"), copy=True),
        hidden=hidden[:, flip],
        output_gradient=output_gradient,
        input_gradient=gradient("half_input" if is_half else "input"),
        valid=done.tensor(seen.key("inside_mask", part)).astype(bool) if known.has_mask else None,
        zero_output=done.keras.zeroes_masked_output(layer),
        runs_backward=bool(layer.go_backwards),
        initial=tuple(initial) or (None, None),
        final_gradients=tuple(gradient(f"state_{k}") for k in range(max(2, known.initial_states))),
    )
