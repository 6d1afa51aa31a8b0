"""Collects the arrays of one finished pass into records: one per layer call, in input time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from throughtime._errors import LayerNotFoundError
from throughtime._record import UNREACHED, Array, Attribute, DirectionRecord, LayerRecord, ModelRecord

from . import loss_scale, weights
from .attributes import of_capture, returns_reversed
from .find import Found
from .inside import why_not
from .program import INSIDE, Program, Result, Seen, all_variables

_INTEGER_INPUT = "its input is {dtype}, which has no gradient; differentiate the layer that embeds it"
_READS_LOGITS = (
    "the loss reads the logits behind this activation, not its output: logits_gradient of capture() has them"
)
_NO_TENSOR = "what the layer returns is no tensor and no list of tensors"
_INTEGER_WEIGHT = "its values are integers, which have no gradient"
_NOT_RECURRENT = "inputs are captured for recurrent layers only"


@dataclass(frozen=True)
class Pass:
    """A finished pass: what ran, what came back, what was asked for."""

    model: Any
    found: Sequence[Found]
    program: Program
    result: Result
    wanted: frozenset[str]


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
    layers = tuple(_record(done, seen) for seen in done.program.calls)
    loss = done.result.tensors.get("loss")
    return ModelRecord(
        layers=layers,
        attributes=of_capture(done, reduced, called=_called(done), absent=absent),
        loss=None if loss is None else float(numpy(loss)),
        reduction_factor=None if reduced is None else reduced[0],
    )


def _record(done: Pass, seen: Seen) -> LayerRecord:
    entry = done.found[seen.index]
    layer = entry.layer
    arrays: dict[str, Array] = {}
    missing: dict[str, str] = {}
    for collect in (_activations, _gradients, _weights, _weight_gradients):
        collect(done, seen, arrays, missing)
    if entry.is_recurrent and done.wanted & INSIDE and not seen.inside:
        missing["inside"] = why_not(layer, done.program.training)
    return LayerRecord(
        path=_path(entry, seen.number),
        kind=weights.kind(layer),
        arrays=arrays,
        directions=weights.directions(layer),
        flags=_flags(layer),
        missing=missing,
        inside=tuple(_direction(done, seen, part) for part in range(len(seen.inside))),
    )


def _called(done: Pass) -> list[str]:
    return [_path(done.found[seen.index], seen.number) for seen in done.program.calls]


def _path(entry: Found, number: int) -> str:
    # A container asked for itself has its content below its own path, so its leaf stands beside it.
    if entry.is_container:
        return f"{entry.path}@{number}"
    return entry.path if number == 1 else f"{entry.path}@{number}"


def _activations(done: Pass, seen: Seen, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    tensors = done.result.tensors
    if "output" in done.wanted:
        parts = [numpy(tensors[seen.key("output", part)]) for part in range(seen.outputs)]
        if parts:
            arrays["output"] = _in_input_time(done, seen, _joined(parts))
        else:
            missing["output"] = _NO_TENSOR
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
        gradients = [done.result.gradients.get(seen.key("output", part)) for part in range(seen.outputs)]
        if gradients and all(gradient is not None for gradient in gradients):
            array = _joined([numpy(gradient) for gradient in gradients])
            arrays["output_gradient"] = _in_input_time(done, seen, array)
            if _layer(done, seen).compute_dtype == "float16":
                lost = loss_scale.underflow(array, loss_scale.of_training(done.model))
                arrays["underflow"] = np.asarray(lost)
        else:
            missing["output_gradient"] = _why_no_output_gradient(done, seen)
    logits_gradient = _logits_gradient(done, seen)
    if "logits_gradient" in done.wanted and logits_gradient is not None:
        arrays["logits_gradient"] = logits_gradient
    if "input_gradient" in done.wanted:
        gradient = done.result.gradients.get(seen.key("input"))
        if gradient is not None:
            arrays["input_gradient"] = numpy(gradient)
        else:
            missing["input_gradient"] = _why_no_input_gradient(done, seen)


def _why_no_output_gradient(done: Pass, seen: Seen) -> str:
    if not seen.outputs:
        return _NO_TENSOR
    if not keras.backend.is_float_dtype(seen.output_dtype):
        return f"its output is {seen.output_dtype}, which has no gradient"
    if _logits_gradient(done, seen) is not None:
        return _READS_LOGITS
    if any(seen.key("state_0", part) in done.result.gradients for part in range(len(seen.inside))):
        return "the loss depends on the layer's final states, not on its output"
    return UNREACHED


def _logits_gradient(done: Pass, seen: Seen) -> Array | None:
    gradients = [done.result.gradients.get(key) for key in seen.logits]
    if not gradients or any(gradient is None for gradient in gradients):
        return None
    parts = [numpy(gradient) for gradient in gradients]
    is_by_step = isinstance(_layer(done, seen), keras.layers.TimeDistributed)
    return np.stack(parts, axis=1) if is_by_step else parts[0]


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
    found = weights.named(layer, _gradient_of(done), "_gradient")
    arrays.update(found)
    is_float = weights.named(layer, _is_float, "_gradient")
    for name in is_float.keys() - found.keys():
        missing[name] = UNREACHED if is_float[name].all() else _INTEGER_WEIGHT


def _is_float(variable: Any) -> Array:
    return np.full(variable.shape, keras.backend.is_float_dtype(variable.dtype))


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
        zero_output=bool(layer.zero_output_for_mask),
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


def numpy(tensor: Any, *, copy: bool = False) -> Array:
    """Bring a tensor to NumPy; bfloat16, which NumPy has not, as float32."""
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    return array.copy() if copy else array


def _flags(layer: Any) -> dict[str, Attribute]:
    """Read the configuration a reader of the tree needs, as plain strings and numbers."""
    flags: dict[str, Attribute] = {"layer_name": layer.name, "layer_class": type(layer).__name__}
    inner = getattr(layer, "forward_layer", layer)
    for name in ("return_sequences", "go_backwards", "stateful", "units", "zero_output_for_mask"):
        if hasattr(inner, name):
            flags[name] = int(getattr(inner, name) or 0)
    cell = getattr(inner, "cell", None)
    for name in ("activation", "recurrent_activation"):
        function = getattr(cell, name, None)
        if function is not None:
            flags[name] = getattr(function, "__name__", type(function).__name__)
    if getattr(cell, "reset_after", None) is not None:
        flags["reset_after"] = int(inner.reset_after)
    if hasattr(layer, "merge_mode"):
        flags["merge_mode"] = str(layer.merge_mode)
    flags.update(trainable=int(layer.trainable), dtype=str(layer.compute_dtype))
    flags["output_reversed"] = int(returns_reversed(layer))
    return flags
