"""Independently recurrent network: h_t = relu(x_t W + u ⊙ h_{t−1} + b), the cell and its mathematics.

Li, Li, Cook, Zhu & Gao (2018), Independently recurrent neural network (IndRNN), arXiv 1803.04831, eq. 2.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

import throughtime as tt


def pre_activation(weights, inputs, states):
    """Compute z = x W + u ⊙ h + b."""
    return inputs @ weights["kernel"] + weights["recurrent_kernel"] * states["hidden"] + weights["bias"]


def replay(weights, inputs, states):
    """One step forward: the new state, and no gates."""
    return {"hidden": np.maximum(pre_activation(weights, inputs, states), 0)}, {}


def adjoint(weights, inputs, states, gradients):
    """One step back: dz = dh · relu'(z)."""
    dz = gradients["hidden"] * (pre_activation(weights, inputs, states) > 0)
    return tt.StepAdjoint(
        inputs=dz @ weights["kernel"].T,
        states={"hidden": dz * weights["recurrent_kernel"]},
        weights={"kernel": (inputs, dz), "recurrent_kernel": dz * states["hidden"], "bias": dz},
    )


def jacobian(weights, inputs, states):
    """J = D(relu'(z) u): the units do not see each other."""
    slope = pre_activation(weights, inputs, states) > 0
    return slope[:, :, None] * np.diag(weights["recurrent_kernel"])


INDRNN = tt.Cell(
    name="indrnn",
    replay=replay,
    adjoint=adjoint,
    jacobian=jacobian,
    recurrent_weight="recurrent_kernel",
)


@tt.register_cell(INDRNN)
@keras.saving.register_keras_serializable("throughtime_examples")
class IndRNNCell(keras.layers.Layer):
    """What goes into `keras.layers.RNN(IndRNNCell(units))`."""

    def __init__(self, units, **config):
        super().__init__(**config)
        self.units = self.state_size = units

    def build(self, input_shape):
        """Make the weights; their names are those that the mathematics reads."""
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units,), initializer=keras.initializers.RandomUniform(0, 1), name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs, states):
        """Compute one step; the output is the state."""
        z = ops.matmul(inputs, self.kernel) + self.recurrent_kernel * states[0] + self.bias
        h = ops.relu(z)
        return h, [h]

    def get_config(self):
        """Let Keras copy and save the cell."""
        return {**super().get_config(), "units": self.units}
