"""One direction of one recurrent layer, and the results of its kernel on a batch.

Adapters fill in these two records, from which the rest of `cells` computes. All arrays have the sample first,
and time in the order of the layer's input.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Layer:
    """Weights and activations: gates in the order of the schema, a SimpleRNN without a gate axis."""

    kind: str  # lstm, gru or simple_rnn
    kernel: Floats  # (feature, gate, unit)
    recurrent_kernel: Floats  # (unit_from, gate, unit)
    bias: Floats | None = None  # (gate, unit)
    recurrent_bias: Floats | None = None  # the same as `bias`, but for a GRU with `reset_after`
    activation: str = "tanh"  # names in `activations`
    recurrent_activation: str = "sigmoid"
    reset_after: bool = True  # a GRU's reset gate acts after the matrix product
    projection: Floats | None = None  # (cell_unit, unit), P of an LSTM with h_t = (o · φ(c_t)) P

    @classmethod
    def of(cls, weights: Mapping[str, Floats], attributes: Mapping[Any, Any]) -> Self:
        """Take the weights of one direction, and the attributes of its leaf, by their names in a tree."""
        return cls(
            kind=str(attributes.get("kind")),
            kernel=weights["kernel"],
            recurrent_kernel=weights["recurrent_kernel"],
            bias=weights.get("bias"),
            recurrent_bias=weights.get("recurrent_bias"),
            activation=str(attributes.get("activation", "tanh")),
            recurrent_activation=str(attributes.get("recurrent_activation", "sigmoid")),
            reset_after=bool(attributes.get("reset_after", 1)),
            projection=weights.get("projection"),
        )


@dataclass(frozen=True)
class Pass:
    """One batch through one layer: sample-major arrays in input time.

    Where several calls stand apart, `windows` has the steps of each: initial states and final gradients then
    have an axis of calls, (sample, call, unit). Only for a layer without masks that runs forward. In windows
    of one step `output_gradient` may be the total dL/dh_t.
    """

    inputs: Floats  # (sample, time, feature)
    hidden: Floats  # (sample, time, unit), undefined at masked steps
    # ∂L/∂out, (sample, [time,] unit); without time of the last step processed
    output_gradient: Floats | None = None
    valid: Mask | None = None  # (sample, time), False where all states are copied
    zero_output: bool = False  # a masked step emits 0 instead of the previous output
    runs_backward: bool = False  # the last input step is processed first
    initial: tuple[Floats | None, ...] = ()  # (sample, unit) of h, c before the first step; None for zeros
    # dL/d(h, c after the last step processed), beyond the output's
    final_gradients: tuple[Floats | None, ...] = ()
    windows: tuple[int, ...] = ()
    # gradients of inputs and kernels come summed over features, or units before, along `directions`
    along_directions: bool = False


def working_dtype(passed: Pass) -> np.dtype[np.floating[Any]]:
    """Return the precision of the computation, float32 or float64; half precisions become float32."""
    dtype: np.dtype[np.floating[Any]] = np.result_type(passed.hidden.dtype, np.float32)
    return dtype


def with_gate_axis(layer: Layer, dtype: npt.DTypeLike) -> Layer:
    """Copy a layer in one precision, with a gate axis, of length 1 for a SimpleRNN."""

    def prepared(weight: Floats) -> Floats:
        weight = np.asarray(weight, dtype)
        return np.expand_dims(weight, -2) if layer.kind == "simple_rnn" else weight

    return replace(
        layer,
        kernel=prepared(layer.kernel),
        recurrent_kernel=prepared(layer.recurrent_kernel),
        bias=None if layer.bias is None else prepared(layer.bias),
        recurrent_bias=None if layer.recurrent_bias is None else prepared(layer.recurrent_bias),
        projection=None if layer.projection is None else np.asarray(layer.projection, dtype),
    )
