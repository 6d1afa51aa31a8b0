"""Minimal gated unit: a forget gate that is its own input gate, the cell and its mathematics.

    f_t = σ(x_t W_f + h_{t−1} U_f + b_f)
    ĥ_t = tanh(x_t W_h + (f_t ⊙ h_{t−1}) U_h + b_h)
    h_t = (1 − f_t) ⊙ h_{t−1} + f_t ⊙ ĥ_t

Zhou, Wu, Zhang & Zhou (2016), Minimal gated unit for recurrent neural networks, arXiv 1603.09420.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

import throughtime as tt


def halves(array):
    """Split the last axis into the forget gate's part and the candidate's."""
    return np.split(array, 2, axis=-1)


def gates(weights, inputs, states):
    """Compute f and ĥ, each (sample, unit)."""
    input_f, input_h = halves(inputs @ weights["kernel"] + weights["bias"])
    recurrent_f, recurrent_h = halves(weights["recurrent_kernel"])
    f = 1 / (1 + np.exp(-(input_f + states["hidden"] @ recurrent_f)))
    return f, np.tanh(input_h + (f * states["hidden"]) @ recurrent_h)


def replay(weights, inputs, states):
    """One step forward: the new state, and the gates by name."""
    f, candidate = gates(weights, inputs, states)
    hidden = (1 - f) * states["hidden"] + f * candidate
    return {"hidden": hidden}, {"forget": f, "candidate": candidate}


def adjoint(weights, inputs, states, gradients):
    """One step back: from dL/dh to what the two gates, the inputs and the weights receive."""
    h, dh = states["hidden"], gradients["hidden"]
    f, candidate = gates(weights, inputs, states)
    recurrent_f, recurrent_h = halves(weights["recurrent_kernel"])
    dz_h = dh * f * (1 - candidate**2)
    through_candidate = dz_h @ recurrent_h.T  # dL/d(f ⊙ h)
    dz_f = (dh * (candidate - h) + through_candidate * h) * f * (1 - f)
    dz = np.concatenate([dz_f, dz_h], axis=-1)
    return tt.StepAdjoint(
        inputs=dz @ weights["kernel"].T,
        states={"hidden": dh * (1 - f) + through_candidate * f + dz_f @ recurrent_f.T},
        gates={"forget": dz_f, "candidate": dz_h},
        weights={
            "kernel": (inputs, dz),
            "recurrent_kernel": [(h, dz_f), (f * h, dz_h)],
            "bias": dz,
        },
    )


def jacobian(weights, inputs, states):
    """J = D(1−f) + D((ĥ−h) f') U_fᵀ + D(f ĥ') U_hᵀ [D(f) + D(h f') U_fᵀ]."""
    h, (f, candidate) = states["hidden"], gates(weights, inputs, states)
    u_f, u_h = (part.T for part in halves(weights["recurrent_kernel"]))
    slope = (f * (1 - f))[:, :, None] * u_f  # df/dh
    eye = np.eye(h.shape[1])
    gated = f[:, :, None] * eye + h[:, :, None] * slope  # d(f ⊙ h)/dh
    return (
        (1 - f)[:, :, None] * eye
        + (candidate - h)[:, :, None] * slope
        + (f * (1 - candidate**2))[:, :, None] * (u_h @ gated)
    )


MINIMAL_GATED_UNIT = tt.Cell(
    name="minimal_gated_unit",
    replay=replay,
    adjoint=adjoint,
    jacobian=jacobian,
    gates=("forget", "candidate"),
    recurrent_weight="recurrent_kernel",
)


@tt.register_cell(MINIMAL_GATED_UNIT)
@keras.saving.register_keras_serializable("throughtime_examples")
class MinimalGatedUnitCell(keras.layers.Layer):
    """What goes into `keras.layers.RNN(MinimalGatedUnitCell(units))`."""

    def __init__(self, units, **config):
        super().__init__(**config)
        self.units = self.state_size = units

    def build(self, input_shape):
        """Make the weights, both gates side by side; their names are those that the mathematics reads."""
        self.kernel = self.add_weight(shape=(input_shape[-1], 2 * self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, 2 * self.units), initializer="orthogonal", name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(2 * self.units,), initializer="zeros", name="bias")

    def call(self, inputs, states):
        """Compute one step; the output is the state."""
        h = states[0]
        input_f, input_h = ops.split(ops.matmul(inputs, self.kernel) + self.bias, 2, axis=-1)
        recurrent_f, recurrent_h = ops.split(ops.convert_to_tensor(self.recurrent_kernel), 2, axis=-1)
        f = ops.sigmoid(input_f + ops.matmul(h, recurrent_f))
        candidate = ops.tanh(input_h + ops.matmul(f * h, recurrent_h))
        after = (1 - f) * h + f * candidate
        return after, [after]

    def get_config(self):
        """Let Keras copy and save the cell."""
        return {**super().get_config(), "units": self.units}
