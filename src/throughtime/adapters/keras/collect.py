"""Collects the arrays of one finished pass into records: one per layer call, in input time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from throughtime._errors import LayerNotFoundError
from throughtime._record import (
    UNREACHED,
    Array,
    DirectionRecord,
    LayerRecord,
    ModelRecord,
    SolvedRecord,
)

from . import settings, weights
from .arrays import numpy
from .cell import is_stack
from .collect_unrolled import Direction, solved_records
from .dims import with_own_axes
from .find import Found
from .inside import why_not
from .internals import zeroes_masked_output
from .model_attributes import model_attributes
from .program import INSIDE, Program, Result, Seen, all_variables
from .settings import returns_reversed
from .several_leaves import stacked, unlike_halves
from .time_distributed import joined_over_outer_steps

_INTEGER_INPUT = "its input is {dtype}, which has no gradient; differentiate the layer that embeds it"
_NOT_RECURRENT = "inputs are captured for recurrent layers only"


@dataclass(frozen=True)
class Pass:
    """A finished pass: what ran, what came back, what was asked for."""

    model: Any
    found: Sequence[Found]
    program: Program
    result: Result
    wanted: frozenset[str]
    unrolled: Mapping[tuple[int, int], Result]


def records(done: Pass, reduced: tuple[float, str] | None) -> ModelRecord:
    """Turn a finished pass into records.

    Raises
    ------
    LayerNotFoundError
        A layer was never called.
    """
    called = {seen.index for seen in done.program.calls}
    absent = [entry.path for index, entry in enumerate(done.found) if index not in called]
    if not called:
        raise LayerNotFoundError(f"The model did not call {', '.join(absent)} on this batch.")
    layers = tuple(leaf for group in _groups(done) for leaf in _of_group(done, group))
    loss = done.result.tensors.get("loss")
    return ModelRecord(
        layers=layers,
        attributes={
            **model_attributes(done.model, _order_of_calls(done), reduced, absent),
            "training": int(done.program.training),
        },
        loss=None if loss is None else float(numpy(loss)),
        reduction_factor=None if reduced is None else reduced[0],
    )


def _groups(done: Pass) -> list[list[int]]:
    """Positions of the calls that make one leaf together, in call order."""
    groups: dict[tuple[int, int], list[int]] = {}
    for position, seen in enumerate(done.program.calls):
        groups.setdefault((seen.index, seen.group), []).append(position)
    return list(groups.values())


def _order_of_calls(done: Pass) -> list[str]:
    first = [done.program.calls[group[0]] for group in _groups(done)]
    return [_path(done.found[seen.index], seen.group) for seen in first]


def _of_group(done: Pass, positions: list[int]) -> tuple[LayerRecord, ...]:
    steps = [_records(done, position) for position in positions]
    if done.found[done.program.calls[positions[0]].index].outer is None:
        return steps[0]
    return tuple(joined_over_outer_steps(step) for step in zip(*steps, strict=True))


def _records(done: Pass, position: int) -> tuple[LayerRecord, ...]:
    """One leaf for a call; several where a layer holds stacked cells, or two halves that differ."""
    seen = done.program.calls[position]
    halves, whole = _halves(_layer(done, seen)), _whole(done, seen)
    if not _is_recurrent(halves[0]):
        return (whole,)
    inside = [_solved(done, position, part) for part in range(len(seen.inside))]
    if is_stack(halves[0].cell):
        return stacked(whole, halves, inside, _readers(done))
    if len(halves) > 1 and not whole.directions and inside:
        return (whole, *unlike_halves(whole, halves, inside, _readers(done)))
    return (with_own_axes(replace(whole, inside=tuple(cells[0] for cells in inside)), halves[0]),)


def _is_recurrent(layer: Any) -> bool:
    return isinstance(layer, keras.layers.RNN)


def _readers(done: Pass) -> weights.Readers:
    """Make what reads the weights that were asked for, and their gradients."""
    readers: dict[str, weights.Values] = {}
    if "weights" in done.wanted:
        readers[""] = lambda variable: numpy(variable.value, copy=True)
    if "weight_gradients" in done.wanted:
        readers["_gradient"] = _gradient_of(done)
    return readers


def _halves(layer: Any) -> tuple[Any, ...]:
    if isinstance(layer, keras.layers.Bidirectional):
        return layer.forward_layer, layer.backward_layer
    return (layer,)


def _whole(done: Pass, seen: Seen) -> LayerRecord:
    """Everything of a call but its inside."""
    entry = done.found[seen.index]
    arrays: dict[str, Array] = {}
    missing: dict[str, str] = {}
    for collect in (_activations, _gradients, _weights, _weight_gradients):
        collect(done, seen, arrays, missing)
    if entry.is_recurrent and done.wanted & INSIDE and not seen.inside:
        missing["inside"] = why_not(entry.layer, done.program.training)
    return LayerRecord(
        path=_path(entry, seen.group),
        kind=weights.kind(entry.layer),
        arrays=arrays,
        directions=weights.directions(entry.layer),
        flags=settings.of_layer(entry.layer),
        missing=missing,
    )


def _solved(done: Pass, position: int, part: int) -> tuple[DirectionRecord, ...] | tuple[SolvedRecord, ...]:
    """Read what is known inside one direction: for its cell, or for each of its stacked cells."""
    seen = done.program.calls[position]
    known = seen.inside[part]
    if known.is_closed:
        return (_direction(done, seen, part),)
    second = done.unrolled[position, part]
    return solved_records(Direction(done.model, known.layer(), seen, part, done.program, done.result, second))


def _path(entry: Found, number: int) -> str:
    # A container asked for itself has its content below its own path, so its leaf stands beside it.
    if entry.is_container:
        return f"{entry.path}@{number}"
    return entry.path if number == 1 else f"{entry.path}@{number}"


def _activations(done: Pass, seen: Seen, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    tensors = done.result.tensors
    if "output" in done.wanted:
        parts = [numpy(tensors[seen.key("output", part)]) for part in range(seen.outputs)]
        arrays["output"] = _in_input_time(done, seen, _joined(parts))
    if not done.found[seen.index].is_recurrent:
        return
    if "input" in done.wanted:
        arrays["input"] = numpy(tensors[seen.key("input")], copy=True)
    if "valid" in done.wanted:
        shape = seen.input_shape[:2]
        arrays["valid"] = (
            numpy(tensors[seen.key("mask")]).astype(bool) if seen.has_mask else np.ones(shape, bool)
        )


def _gradients(done: Pass, seen: Seen, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    if "output_gradient" in done.wanted:
        keys = [seen.key("output", part) for part in range(seen.outputs)]
        gradients = [done.result.gradients.get(key) for key in keys]
        if all(gradient is not None for gradient in gradients):
            array = _joined([numpy(gradient) for gradient in gradients])
            arrays["output_gradient"] = _in_input_time(done, seen, array)
        elif seen.key("logits") in done.result.gradients:
            missing["output_gradient"] = "the loss reads the logits behind this activation, not its output"
        elif any(seen.key("state_0", part) in done.result.gradients for part in range(len(seen.inside))):
            missing["output_gradient"] = "the loss depends on the layer's final states, not on its output"
        else:
            missing["output_gradient"] = UNREACHED
    if "input_gradient" in done.wanted:
        gradient = done.result.gradients.get(seen.key("input"))
        if gradient is not None:
            arrays["input_gradient"] = numpy(gradient)
        else:
            missing["input_gradient"] = _why_no_input_gradient(done, seen)


def _why_no_input_gradient(done: Pass, seen: Seen) -> str:
    if seen.input_dtype and not keras.backend.is_float_dtype(seen.input_dtype):
        return _INTEGER_INPUT.format(dtype=seen.input_dtype)
    return UNREACHED if done.found[seen.index].is_recurrent else _NOT_RECURRENT


def _weights(done: Pass, seen: Seen, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    if "weights" in done.wanted:
        # A copy: torch's arrays share the memory that training writes to.
        arrays.update(weights.named(_layer(done, seen), lambda variable: numpy(variable.value, copy=True)))


def _weight_gradients(done: Pass, seen: Seen, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    if "weight_gradients" not in done.wanted:
        return
    layer = _layer(done, seen)
    names = weights.named(layer, lambda variable: np.zeros(variable.shape, bool), "_gradient")
    found = weights.named(layer, _gradient_of(done), "_gradient")
    arrays.update(found)
    missing.update({name: UNREACHED for name in names if name not in found})


def _gradient_of(done: Pass) -> Callable[[Any], Array | None]:
    positions = {id(variable): index for index, variable in enumerate(all_variables(done.model))}

    def gradient(variable: Any) -> Array | None:
        tensor = done.result.gradients.get(f"variable.{positions[id(variable)]}")
        return None if tensor is None else numpy(tensor)

    return gradient


def _direction(done: Pass, seen: Seen, part: int) -> DirectionRecord:
    """Bring what one direction computed to input time."""
    known = seen.inside[part]
    layer = known.layer()
    is_half = len(seen.inside) > 1
    flip = slice(None, None, -1 if layer.go_backwards else 1)
    tensors, gradients = done.result.tensors, done.result.gradients

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
        final_gradients=(gradient("state_0"), gradient("state_1")),
    )


def _layer(done: Pass, seen: Seen) -> Any:
    return done.found[seen.index].layer


def _joined(parts: list[Array]) -> Array:
    """Put the two outputs of an unmerged Bidirectional on a direction axis before the units."""
    return parts[0] if len(parts) == 1 else np.stack(parts, axis=-2)


def _in_input_time(done: Pass, seen: Seen, array: Array) -> Array:
    """Flip what a layer that runs backwards returns in processing order."""
    return array[:, ::-1] if returns_reversed(_layer(done, seen)) else array
