"""Collects the arrays of one finished pass into records: one per layer call, in input time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from throughtime._errors import LayerNotFoundError
from throughtime.adapters import marking
from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import UNREACHED, Array, LayerRecord, ModelRecord

from . import attributes, directions, loss_scale, weights
from .cell import why_not
from .contracts import Layer, Tensor, Variable
from .dialect import Dialect, Result
from .find import Found
from .leaves import Whole
from .library import dtype_of, halves, is_a, is_float, numpy, shape_of
from .program import Program
from .recorder import SeenCall
from .weights import Readers, Values

_LOOPED = " where it can be captured: it is called within a loop or branch of the graph"
_NO_TENSOR = "the layer returns neither a tensor nor a list of tensors"
_SEVERAL_INPUTS = "its input is several tensors, not one"
_INTEGER_INPUT = "its input is {dtype}, which has no gradient; differentiate the layer that embeds it"
_INTEGER_OUTPUT = "its output is {dtype}, which has no gradient"
_INTEGER_WEIGHT = "its values are integers, which have no gradient"
_NOT_RECURRENT = "inputs are captured for recurrent layers only"
_FINAL_STATES = "the loss depends on the layer's final states, not on its output"
_READS_LOGITS = (
    "the loss reads the logits behind this activation, not its output: logits_gradient of capture() has them"
)


@dataclass(frozen=True)
class Pass:
    """A finished pass: what ran, what came back, what was asked for."""

    program: Program
    calls: Sequence[SeenCall]  # those of all outer steps of a TimeDistributed are one
    result: Result
    values: Callable[[Variable], object]  # variable -> its value as the framework has it
    _arrays: dict[str, Array] = field(default_factory=dict)

    @property
    def keras(self) -> Dialect:
        """The Keras of the model."""
        return self.program.keras

    @property
    def found(self) -> Sequence[Found]:
        """The layers asked for."""
        return self.program.probe.found

    @cached_property
    def wanted(self) -> frozenset[str]:
        """Quantities."""
        return self.program.request.quantities

    @cached_property
    def _keys(self) -> dict[int, str]:
        return {id(variable): key for key, variable in self.program.variables().items()}

    def variable_gradient(self, variable: Variable) -> Array | None:
        """Bring the gradient of a weight, all its uses together, to NumPy; None where there is none."""
        return self.gradient(self._keys.get(id(variable), ""))

    def tensor(self, key: str, *, copy: bool = False) -> Array:
        """Bring one tensor to NumPy, once."""
        if key not in self._arrays:
            self._arrays[key] = numpy(self.result.tensors[key], copy=copy)
        return self._arrays[key]

    def gradient(self, key: str) -> Array | None:
        """Bring the gradient of one tensor to NumPy, once; None where there is none."""
        name, tensor = f"gradient.{key}", self.result.gradients.get(key)
        if tensor is not None and name not in self._arrays:
            self._arrays[name] = numpy(tensor)
        return self._arrays.get(name)

    def value(self, variable: Variable) -> Array:
        """Bring a weight to NumPy, once; a copy, since torch's arrays share memory with what trains."""
        name = f"value.{id(variable)}"
        if name not in self._arrays:
            self._arrays[name] = numpy(self.values(variable), copy=True)
        return self._arrays[name]


def records(done: Pass, reduced: tuple[float, str] | None) -> ModelRecord:
    """Turn a finished pass into records; LayerNotFoundError where no layer was called."""
    called = {seen.index for seen in done.calls}
    absent = [entry.path for index, entry in enumerate(done.found) if index not in called]
    if not called:
        reason = _LOOPED if done.program.in_a_loop else ""
        raise LayerNotFoundError(f"The model did not call {', '.join(absent)} on this batch{reason}.")
    layers = tuple(leaf for seen in done.calls for leaf in _records(done, seen))
    marked = [
        marking.Marked(key.rpartition(".")[2], done.tensor(key), done.gradient(key))
        for key in done.program.named
    ]
    layers += marking.leaves(marked, done.wanted, {leaf.path for leaf in layers})
    paths = [_path(done.found[seen.index], seen.group) for seen in done.calls]
    return ModelRecord(
        layers=layers,
        attributes=attributes.of_capture(done, reduced, called=paths, absent=absent),
        loss=float(done.tensor("loss")) if "loss" in done.result.tensors else None,
        reduction_factor=None if reduced is None else reduced[0],
    )


def _records(done: Pass, seen: SeenCall) -> tuple[LayerRecord, ...]:
    """One leaf for a call; several where a layer holds stacked cells, or two halves that differ."""
    each, whole = halves(_layer(done, seen)), _whole(done, seen)
    if not is_a(each[0], "RNN"):
        return (whole,)
    inside = [directions.records(done, seen, part) for part in range(len(seen.inside))]
    return Whole(done.keras, whole, each, _readers(done), inside).leaves()


def _readers(done: Pass) -> Readers:
    """Make what reads the weights that were asked for, and their gradients."""
    readers: dict[str, Values] = {}
    if "weights" in done.wanted:
        readers[""] = done.value
    if "weight_gradients" in done.wanted:
        readers["_gradient"] = done.variable_gradient
    return readers


def _whole(done: Pass, seen: SeenCall) -> LayerRecord:
    """Everything of a call but its inside."""
    entry = done.found[seen.index]
    arrays: dict[str, Array] = {}
    missing: dict[str, str] = {}
    for collect in (_activations, _gradients, _weights):
        collect(done, seen, arrays, missing)
    if entry.is_recurrent and done.wanted & INSIDE and not seen.inside:
        missing["inside"] = seen.not_inside or why_not(entry.watched)
    return LayerRecord(
        path=_path(entry, seen.group),
        kind=weights.kind(entry.watched),
        arrays=arrays,
        directions=weights.directions(entry.watched),
        flags=attributes.of_layer(done.keras, entry.watched),
        missing=missing,
        outer_steps=seen.outer_steps,
    )


def _path(entry: Found, number: int) -> str:
    # A container asked for itself has its content below its own path, so its leaf stands beside it.
    if entry.is_container:
        return f"{entry.path}@{number}"
    return entry.path if number == 1 else f"{entry.path}@{number}"


def _activations(done: Pass, seen: SeenCall, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    if "output" in done.wanted:
        parts = [done.tensor(seen.key("output", part)) for part in range(seen.outputs)]
        if parts:
            arrays["output"] = _in_input_time(done, seen, _joined(parts))
        else:
            missing["output"] = _NO_TENSOR
    if not done.found[seen.index].is_recurrent:
        return
    is_one = seen.key("input") in done.result.tensors
    if "input" in done.wanted:
        if is_one:
            arrays["input"] = done.tensor(seen.key("input"), copy=True)
        else:
            missing["input"] = _SEVERAL_INPUTS
    if "valid" in done.wanted:
        if seen.has_mask:
            arrays["valid"] = done.tensor(seen.key("mask")).astype(bool)
        elif is_one or seen.input_shape:
            shape = seen.input_shape or done.result.tensors[seen.key("input")].shape
            arrays["valid"] = np.ones(shape[:2], bool)


def _gradients(done: Pass, seen: SeenCall, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    logits_gradient = _logits_gradient(done, seen)
    if "output_gradient" in done.wanted:
        keys = [seen.key("output", part) for part in range(seen.outputs)]
        gradients = [gradient for key in keys if (gradient := done.gradient(key)) is not None]
        if keys and len(gradients) == len(keys):
            array = _joined(gradients)
            arrays["output_gradient"] = _in_input_time(done, seen, array)
            if done.keras.compute_dtype(_layer(done, seen)) == "float16":
                lost = loss_scale.underflow(array, loss_scale.scale_of_training(done.program.model))
                arrays["underflow"] = np.asarray(lost)
        else:
            missing["output_gradient"] = _why_no_output_gradient(
                seen, done.result.gradients, reads_logits=logits_gradient is not None
            )
    if "logits_gradient" in done.wanted and logits_gradient is not None:
        arrays["logits_gradient"] = logits_gradient
    if "input_gradient" in done.wanted:
        gradient = done.gradient(seen.key("input"))
        if gradient is not None:
            arrays["input_gradient"] = gradient
        else:
            is_recurrent = done.found[seen.index].is_recurrent
            missing["input_gradient"] = _why_no_input_gradient(seen, is_recurrent=is_recurrent)


def _logits_gradient(done: Pass, seen: SeenCall) -> Array | None:
    parts = [gradient for key in seen.logits if (gradient := done.gradient(key)) is not None]
    if not parts or len(parts) < len(seen.logits):
        return None
    is_by_step = len(parts) > 1 or is_a(_layer(done, seen), "TimeDistributed")
    return np.stack(parts, axis=1) if is_by_step else parts[0]


def _weights(done: Pass, seen: SeenCall, arrays: dict[str, Array], missing: dict[str, str]) -> None:
    layer = _layer(done, seen)
    for suffix, read in _readers(done).items():
        arrays.update(weights.named(layer, read, suffix))
    if "weight_gradients" in done.wanted:
        are_float = weights.named(
            layer, lambda weight: np.full(shape_of(weight), is_float(dtype_of(weight))), "_gradient"
        )
        missing.update(_why_no_weight_gradients(are_float, arrays))


def _layer(done: Pass, seen: SeenCall) -> Layer:
    return done.found[seen.index].watched


def _joined(parts: list[Array]) -> Array:
    """Put the two outputs of an unmerged Bidirectional on a direction axis before the units."""
    return parts[0] if len(parts) == 1 else np.stack(parts, axis=-2)


def _in_input_time(done: Pass, seen: SeenCall, array: Array) -> Array:
    """Flip what a layer that runs backwards returns in processing order."""
    return array[:, ::-1] if attributes.returns_reversed(_layer(done, seen)) else array


def _why_no_output_gradient(call: SeenCall, gradients: Mapping[str, Tensor], *, reads_logits: bool) -> str:
    """Tell why a call's output has no gradient."""
    if not call.outputs:
        return _NO_TENSOR
    if not is_float(call.output_dtype):
        return _INTEGER_OUTPUT.format(dtype=call.output_dtype)
    if reads_logits:
        return _READS_LOGITS
    if any(call.key("state_0", part) in gradients for part in range(len(call.inside))):
        return _FINAL_STATES
    return UNREACHED


def _why_no_input_gradient(call: SeenCall, *, is_recurrent: bool) -> str:
    """Tell why a call's input has no gradient."""
    if call.input_dtype and not is_float(call.input_dtype):
        return _INTEGER_INPUT.format(dtype=call.input_dtype)
    if not is_recurrent:
        return _NOT_RECURRENT
    return UNREACHED if call.input_dtype else _SEVERAL_INPUTS


def _why_no_weight_gradients(are_float: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, str]:
    """Tell why weights have no gradient: by name, for those that are not among the gradients found."""
    return {
        name: UNREACHED if are_float[name].all() else _INTEGER_WEIGHT
        for name in are_float.keys() - found.keys()
    }
