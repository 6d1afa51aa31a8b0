"""One direction of one recurrent layer, and the results of its kernel on a batch.

Adapters fill in these two records, from which the rest of `cells` computes. All arrays have the sample first,
and time in the order of the layer's input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Layer:
    """Weights and activations: gates in the order of the schema, a SimpleRNN without a gate axis.

    Attributes
    ----------
    kind : {"lstm", "gru", "simple_rnn"}
    kernel : ndarray (feature, gate, unit)
    recurrent_kernel : ndarray (unit_from, gate, unit)
    bias : ndarray (gate, unit) or None
    recurrent_bias : ndarray (gate, unit) or None
        Added on the recurrent side; for all but a GRU with `reset_after` that is the same as `bias`.
    activation, recurrent_activation : str
        Names in `activations`; a SimpleRNN has no recurrent activation and ignores it.
    reset_after : bool
        A GRU's reset gate acts after the matrix product.
    projection : ndarray (cell_unit, unit) or None
        P of an LSTM with h_t = (o · φ(c_t)) P, whose gates and cell are wider than its hidden state.
    """

    kind: str
    kernel: Floats
    recurrent_kernel: Floats
    bias: Floats | None = None
    recurrent_bias: Floats | None = None
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    reset_after: bool = True
    projection: Floats | None = None


@dataclass(frozen=True)
class Pass:
    """One batch through one layer: sample-major arrays in input time.

    Attributes
    ----------
    inputs : ndarray (sample, time, feature)
    hidden : ndarray (sample, time, unit)
        Output of the layer at each step; undefined at masked steps.
    output_gradient : ndarray (sample, time, unit), (sample, unit) or None
        ∂L/∂out with the output tensor as a leaf. Two axes: the output of the step processed last.
    valid : ndarray of bool (sample, time) or None
        False for masked steps, over which all states are copied.
    zero_output : bool
        A masked step emits 0 (`zero_output_for_mask`, a packed sequence) instead of the previous output.
    runs_backward : bool
        The last input step is processed first.
    initial, final_gradients : tuple of ndarray (sample, unit) or None
        First h, then c: the states before the first step, and dL/d(state after the step processed last),
        beyond what reaches it through the output. None, or nothing, stands for zeros.
    windows : tuple of int
        Steps of each call, where several stand apart, from states that are given to states that are handed
        out: initial states and final gradients then have an axis of calls, (sample, call, unit). Only for a
        layer without masks that runs forward. In windows of one step `output_gradient` may be the total
        dL/dh_t.
    """

    inputs: Floats
    hidden: Floats
    output_gradient: Floats | None = None
    valid: Mask | None = None
    zero_output: bool = False
    runs_backward: bool = False
    initial: tuple[Floats | None, ...] = ()
    final_gradients: tuple[Floats | None, ...] = ()
    windows: tuple[int, ...] = ()


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
