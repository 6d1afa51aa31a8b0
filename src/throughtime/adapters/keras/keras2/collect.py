"""Collects the arrays of one finished pass into records: one per layer call, in input time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime._errors import LayerNotFoundError
from throughtime._record import Array, DirectionRecord, LayerRecord, ModelRecord, SolvedRecord
from throughtime.adapters.keras import reasons
from throughtime.adapters.keras.alignment import returns_reversed
from throughtime.adapters.keras.cell_weights import Readers, Values
from throughtime.adapters.needs import INSIDE

from . import loss_scale, settings, weights
from .arrays import is_float, numpy, shape_of
from .attributes import of_capture
from .collect_closed import closed_direction
from .collect_unrolled import Direction, solved_records
from .find import Found
from .internals import compute_dtype
from .leaf_parts import READING
from .library import is_a
from .program import Program, Result
from .tap import Call
from .ways import halves_of, why_not


@dataclass(frozen=True)
class Pass:
    """A finished pass: what ran, what came back, what was asked for.

    `values` are the weights' values by the identity of their variables; `unrolled` is what the second pass
    found, by the position of the call and the direction.
    """

    model: Any
    found: Sequence[Found]
    program: Program
    result: Result
    wanted: frozenset[str]
    values: Mapping[int, Array]
    unrolled: Mapping[tuple[int, int], Result]

    def value_of(self, variable: Any) -> Array:
        """Return a weight's value."""
        return numpy(self.values[id(variable)])

    def gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient; None where the loss does not reach it."""
        differentiated = enumerate(self.program.differentiated)
        position = next((k for k, each in differentiated if each is variable), None)
        gradient = self.result.gradients.get(f"variable.{position}")
        return None if gradient is None else numpy(gradient)


def records(done: Pass, reduced: tuple[float, str] | None) -> ModelRecord:
    """Turn a finished pass into records.

    Raises
    ------
    LayerNotFoundError
        A layer was never called.
    """
    calls = done.program.calls
    called = {call.index for call in calls}
    absent = [entry.path for index, entry in enumerate(done.found) if index not in called]
    if not called:
        inside = done.program.in_a_loop
        why = " where it can be watched: it is called within a loop or branch of the graph" if inside else ""
        raise LayerNotFoundError(f"The model did not call {', '.join(absent)} on this batch{why}.")
    loss = done.result.tensors.get("loss")
    paths = [_path(done.found[call.index], call.number) for call in calls]
    return ModelRecord(
        layers=tuple(leaf for position in range(len(calls)) for leaf in _records(done, position)),
        attributes=of_capture(done, reduced, called=paths, absent=absent),
        loss=None if loss is None else float(loss),
        reduction_factor=None if reduced is None else reduced[0],
    )


def _records(done: Pass, position: int) -> tuple[LayerRecord, ...]:
    """One leaf for a call; several where a layer holds stacked cells, or two halves that differ."""
    call = done.program.calls[position]
    halves, whole = halves_of(_layer(done, call)), _whole(done, call)
    if not is_a(halves[0], "RNN"):
        return (whole,)
    inside = [_solved(done, position, part) for part in range(len(call.inside))]
    return READING.leaves(whole, halves, _readers(done), inside)


def _readers(done: Pass) -> Readers:
    """Make what reads the weights that were asked for, and their gradients."""
    readers: dict[str, Values] = {}
    if "weights" in done.wanted:
        readers[""] = done.value_of
    if "weight_gradients" in done.wanted:
        readers["_gradient"] = done.gradient_of
    return readers


def _whole(done: Pass, call: Call) -> LayerRecord:
    """Everything of a call but its inside."""
    entry = done.found[call.index]
    arrays: dict[str, Array] = {}
    missing: dict[str, str] = {}
    for collect in (_activations, _gradients, _weights):
        collect(done, call, arrays, missing)
    if entry.is_recurrent and done.wanted & INSIDE and not call.inside:
        missing["inside"] = call.not_inside or why_not(entry.watched, done.program.training)
    return LayerRecord(
        path=_path(entry, call.number),
        kind=weights.kind(entry.watched),
        arrays=arrays,
        directions=weights.directions(entry.watched),
        flags=settings.of_layer(entry.watched),
        missing=missing,
        outer_steps=call.outer_steps,
    )


def _solved(done: Pass, position: int, part: int) -> tuple[DirectionRecord, ...] | tuple[SolvedRecord, ...]:
    """Read what is known inside one direction: for its cell, or for each of its stacked cells."""
    call = done.program.calls[position]
    if call.inside[part].is_closed:
        return (closed_direction(done.result, call, part, done.value_of),)
    second = done.unrolled[position, part]
    return solved_records(Direction(call.inside[part].layer, call, part, done.result, second))


def _path(entry: Found, number: int) -> str:
    # A container asked for itself has its content below its own path, so its leaf stands beside it.
    if entry.is_container:
        return f"{entry.path}@{number}"
    return entry.path if number == 1 else f"{entry.path}@{number}"


def _activations(done: Pass, call: Call, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    tensors = done.result.tensors
    if "output" in done.wanted:
        parts = [numpy(tensors[call.key("output", part)]) for part in range(call.outputs)]
        if parts:
            arrays["output"] = _in_input_time(done, call, _joined(parts))
        else:
            missing["output"] = reasons.NO_TENSOR
    if not done.found[call.index].is_recurrent:
        return
    sequence = tensors.get(call.key("input"))
    if "input" in done.wanted:
        if sequence is None:
            missing["input"] = reasons.SEVERAL_INPUTS
        else:
            arrays["input"] = numpy(sequence)
    if "valid" in done.wanted:
        if call.has_mask:
            arrays["valid"] = tensors[call.key("mask")].astype(bool)
        elif sequence is not None:
            arrays["valid"] = np.ones(sequence.shape[:2], bool)


def _gradients(done: Pass, call: Call, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    gradients = done.result.gradients
    logits_gradient = _logits_gradient(done, call)
    if "output_gradient" in done.wanted:
        parts = [gradients.get(call.key("output", part)) for part in range(call.outputs)]
        if parts and all(part is not None for part in parts):
            array = _joined([numpy(part) for part in parts])
            arrays["output_gradient"] = _in_input_time(done, call, array)
            if compute_dtype(_layer(done, call)) == "float16":
                lost = loss_scale.underflow(array, loss_scale.of_training(done.model))
                arrays["underflow"] = np.asarray(lost)
        else:
            missing["output_gradient"] = reasons.of_output_gradient(
                call, done.result.gradients, reads_logits=logits_gradient is not None
            )
    if "logits_gradient" in done.wanted and logits_gradient is not None:
        arrays["logits_gradient"] = logits_gradient
    if "input_gradient" in done.wanted:
        gradient = gradients.get(call.key("input"))
        if gradient is not None:
            arrays["input_gradient"] = numpy(gradient)
        else:
            is_recurrent = done.found[call.index].is_recurrent
            missing["input_gradient"] = reasons.of_input_gradient(call, is_recurrent=is_recurrent)


def _logits_gradient(done: Pass, call: Call) -> Array | None:
    gradients = [done.result.gradients.get(key) for key in call.logits]
    return numpy(gradients[0]) if len(gradients) == 1 and gradients[0] is not None else None


def _weights(done: Pass, call: Call, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    layer = _layer(done, call)
    if "weights" in done.wanted:
        arrays.update(weights.named(layer, done.value_of))
    if "weight_gradients" in done.wanted:
        found = weights.named(layer, done.gradient_of, "_gradient")
        arrays.update(found)
        floats = weights.named(layer, _is_float, "_gradient")
        missing.update(reasons.of_weight_gradients(floats, found))


def _is_float(variable: Any) -> Array:
    return np.full(shape_of(variable), is_float(variable.dtype))


def _layer(done: Pass, call: Call) -> Any:
    return done.found[call.index].watched


def _joined(parts: list[Array]) -> Array:
    """Put the two outputs of an unmerged Bidirectional on a direction axis before the units."""
    return parts[0] if len(parts) == 1 else np.stack(parts, axis=-2)


def _in_input_time(done: Pass, call: Call, array: Array) -> Array:
    """Flip what a layer that runs backwards returns in processing order."""
    return array[:, ::-1] if returns_reversed(_layer(done, call)) else array
