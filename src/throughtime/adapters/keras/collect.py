"""Collects the arrays of one finished pass into records: one per layer call, in input time."""

from collections.abc import Mapping, Sequence

import numpy as np

from throughtime._errors import LayerNotFoundError
from throughtime._inputs.structures import owned
from throughtime.adapters import marking
from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import UNREACHED, Array, LayerRecord, ModelRecord

from . import attributes, directions, loss_scale, weights
from .cell import why_not
from .contracts import Tensor, Variable
from .dialect import Result
from .leaves import Whole
from .library import dtype_of, is_a, is_float, numpy, shape_of
from .program import Program
from .recorder import SeenCall
from .weights import Readers, Values

_OF_LOOPS = (".loop_0", ".tap_0", ".within_0")  # in keys of tensors that a loop over the steps has made
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


class Pass:
    """A finished pass: what ran, what came back, what was asked for.

    The calls of all outer steps of a TimeDistributed are one. `values` are those of variables, by their
    identity, as the framework has them.
    """

    def __init__(
        self, program: Program, calls: Sequence[SeenCall], result: Result, values: Mapping[int, object]
    ) -> None:
        self.program, self.calls, self.result, self._values = program, calls, result, values
        self.keras, self.model, self.found = program.keras, program.model, program.probe.found
        self.wanted = program.request.quantities
        self._keys = {id(variable): key for key, variable in program.variables().items()}
        self._arrays: dict[str, Array] = {}
        self._places: set[int] = set()  # memory that arrays have for themselves

    def has_gradient(self, variable: Variable) -> bool:
        """Whether the pass has returned the gradient of a weight."""
        return self.result.gradients.get(self._keys.get(id(variable), "")) is not None

    def variable_gradient(self, variable: Variable) -> Array | None:
        """Bring the gradient of a weight, all its uses together, to NumPy; None where there is none."""
        return self.gradient(self._keys.get(id(variable), ""))

    def tensor(self, key: str, *, copy: bool = False) -> Array:
        """Bring one tensor to NumPy, once."""
        if key not in self._arrays:
            self._arrays[key] = self._own(key, self.result.tensors[key], copy=copy)
        return self._arrays[key]

    def gradient(self, key: str) -> Array | None:
        """Bring the gradient of one tensor to NumPy, once; None where there is none."""
        name, tensor = f"gradient.{key}", self.result.gradients.get(key)
        if tensor is not None and name not in self._arrays:
            self._arrays[name] = self._own(name, tensor)
        return self._arrays.get(name)

    def _own(self, key: str, tensor: Tensor, *, copy: bool = False) -> Array:
        """Bring a tensor to NumPy, without a copy of JAX's memory or of a loop's: no variable shares it."""
        is_made = self.keras.BACKEND == "tensorflow" and any(part in key for part in _OF_LOOPS)
        is_made = is_made and hasattr(tensor, "_numpy") and dtype_of(tensor) in ("float32", "float64")
        array: Array = np.asarray(memoryview(tensor)) if is_made else numpy(tensor, copy=copy)  # type: ignore[arg-type]
        return owned(array, self._places) if is_made or self.keras.BACKEND == "jax" else array

    def value(self, variable: Variable) -> Array:
        """Bring a weight to NumPy, once; a copy, since torch's arrays share memory with what trains."""
        name = f"value.{id(variable)}"
        if name not in self._arrays:
            self._arrays[name] = numpy(self._values[id(variable)], copy=True)
        return self._arrays[name]


def records(done: Pass, reduced: tuple[float, str] | None) -> ModelRecord:
    """Turn a finished pass into records; LayerNotFoundError where no layer was called."""
    called = {seen.index for seen in done.calls}
    absent = [entry.path for index, entry in enumerate(done.found) if index not in called]
    if not called:
        reason = _LOOPED if done.program.in_a_loop else ""
        raise LayerNotFoundError(f"The model did not call {', '.join(absent)} on this batch{reason}.")
    layers = tuple(leaf for seen in done.calls for leaf in _Call(done, seen).leaves())
    marked = [
        marking.Marked(key.rpartition(".")[2], done.tensor(key), done.gradient(key))
        for key in done.program.named
    ]
    layers += marking.leaves(marked, done.wanted, {leaf.path for leaf in layers})
    paths = [done.found[seen.index].leaf(seen.group) for seen in done.calls]
    return ModelRecord(
        layers=layers,
        attributes=attributes.of_capture(done, reduced, called=paths, absent=absent),
        loss=float(done.tensor("loss")) if "loss" in done.result.tensors else None,
        reduction_factor=None if reduced is None else reduced[0],
    )


def _readers(done: Pass) -> Readers:
    """Make what reads the weights that were asked for, and their gradients."""
    readers: dict[str, Values] = {}
    if "weights" in done.wanted:
        readers[""] = done.value
    if "weight_gradients" in done.wanted:
        readers["_gradient"] = done.variable_gradient
    return readers


class _Call:
    """Reads one call of one layer."""

    def __init__(self, done: Pass, seen: SeenCall) -> None:
        self._done, self._seen, self._wanted = done, seen, done.wanted
        self._entry = done.found[seen.index]
        self._layer = self._entry.layer
        self._arrays: dict[str, Array] = {}
        self._missing: dict[str, str] = {}

    def leaves(self) -> tuple[LayerRecord, ...]:
        """Make one leaf; several where a layer holds stacked cells, or two halves that differ."""
        done, seen, layer, readers = self._done, self._seen, self._layer, _readers(self._done)
        self._read_output()
        self._read_input()
        self._read_weights(readers)
        if self._entry.is_recurrent and self._wanted & INSIDE and not seen.inside:
            self._missing["inside"] = seen.not_inside or why_not(layer)
        whole = LayerRecord(
            path=self._entry.leaf(seen.group),
            kind=weights.kind(layer),
            arrays=self._arrays,
            directions=weights.directions(layer),
            flags=attributes.of_layer(done.keras, layer),
            missing=self._missing,
            outer_steps=seen.outer_steps,
        )
        inside = [directions.records(done, known) for known in seen.inside]
        return Whole(done.keras, layer, whole, readers, inside).leaves()

    def _read_output(self) -> None:
        done, seen, arrays = self._done, self._seen, self._arrays
        keys = [seen.key("output", part) for part in range(seen.outputs)]
        if "output" in self._wanted and keys:
            arrays["output"] = self._joined([done.tensor(key) for key in keys])
        elif "output" in self._wanted:
            self._missing["output"] = _NO_TENSOR
        logits_gradient = self._logits_gradient()
        if "logits_gradient" in self._wanted and logits_gradient is not None:
            arrays["logits_gradient"] = logits_gradient
        if "output_gradient" not in self._wanted:
            return
        gradients = [gradient for key in keys if (gradient := done.gradient(key)) is not None]
        if not keys or len(gradients) < len(keys):
            why = self._why_no_output_gradient(reads_logits=logits_gradient is not None)
            self._missing["output_gradient"] = why
            return
        arrays["output_gradient"] = self._joined(gradients)
        if done.keras.compute_dtype(self._layer) == "float16":
            scale = loss_scale.scale_of_training(done.model)
            arrays["underflow"] = np.asarray(loss_scale.underflow(arrays["output_gradient"], scale))

    def _joined(self, parts: list[Array]) -> Array:
        """Put two outputs of an unmerged Bidirectional on an axis before the units, in input time."""
        array = parts[0] if len(parts) == 1 else np.stack(parts, axis=-2)
        return array[:, ::-1] if attributes.returns_reversed(self._layer) else array

    def _logits_gradient(self) -> Array | None:
        keys = self._seen.logits
        parts = [gradient for key in keys if (gradient := self._done.gradient(key)) is not None]
        if not parts or len(parts) < len(keys):
            return None
        is_by_step = len(parts) > 1 or is_a(self._layer, "TimeDistributed")
        return np.stack(parts, axis=1) if is_by_step else parts[0]

    def _why_no_output_gradient(self, *, reads_logits: bool) -> str:
        seen, gradients = self._seen, self._done.result.gradients
        if not seen.outputs:
            return _NO_TENSOR
        if not is_float(seen.output_dtype):
            return _INTEGER_OUTPUT.format(dtype=seen.output_dtype)
        if reads_logits:
            return _READS_LOGITS
        return _FINAL_STATES if any(known.key("state_0") in gradients for known in seen.inside) else UNREACHED

    def _read_input(self) -> None:
        done, seen, arrays = self._done, self._seen, self._arrays
        key, tensors = seen.key("input"), done.result.tensors
        if "input" in self._wanted and key in tensors:
            arrays["input"] = done.tensor(key, copy=True)
        elif "input" in self._wanted and self._entry.is_recurrent:
            self._missing["input"] = _SEVERAL_INPUTS
        if (mask := seen.key("mask")) in tensors:
            arrays["valid"] = done.tensor(mask).astype(bool)
        elif "valid" in self._wanted and (seen.input_shape or key in tensors):
            arrays["valid"] = np.ones((seen.input_shape or tensors[key].shape)[:2], bool)
        if "input_gradient" in self._wanted:
            gradient = done.gradient(key)
            if gradient is not None:
                arrays["input_gradient"] = gradient
            else:
                self._missing["input_gradient"] = self._why_no_input_gradient()

    def _why_no_input_gradient(self) -> str:
        dtype = self._seen.input_dtype
        if dtype and not is_float(dtype):
            return _INTEGER_INPUT.format(dtype=dtype)
        if not self._entry.is_recurrent:
            return _NOT_RECURRENT
        return UNREACHED if dtype else _SEVERAL_INPUTS

    def _read_weights(self, readers: Readers) -> None:
        for suffix, read in readers.items():
            self._arrays |= weights.named(self._layer, read, suffix)
        if "weight_gradients" in self._wanted and not all(map(self._done.has_gradient, self._layer.weights)):
            are_float = weights.named(
                self._layer, lambda weight: np.full(shape_of(weight), is_float(dtype_of(weight))), "_gradient"
            )
            for name in are_float.keys() - self._arrays.keys():
                self._missing[name] = UNREACHED if are_float[name].all() else _INTEGER_WEIGHT
