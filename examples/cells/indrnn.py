"""Independently recurrent network: h_t = relu(x_t W + u ⊙ h_{t−1} + b), as a Keras cell.

Li, Li, Cook, Zhu & Gao (2018), Independently recurrent neural network (IndRNN), arXiv 1803.04831, eq. 2.
"""

from __future__ import annotations

import keras
from keras import ops

import throughtime as tt


@keras.saving.register_keras_serializable("throughtime_examples")
class IndRNNCell(keras.layers.Layer):
    """What goes into `keras.layers.RNN(IndRNNCell(units))`."""

    def __init__(self, units, **config):
        super().__init__(**config)
        self.units = self.state_size = units

    def build(self, input_shape):
        """Make the weights."""
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units,), initializer=keras.initializers.RandomUniform(0, 1), name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs, states):
        """Compute one step; the output is the state."""
        drive = tt.mark(ops.matmul(inputs, self.kernel) + self.bias, "drive")
        h = ops.relu(drive + self.recurrent_kernel * states[0])
        return h, [h]

    def get_config(self):
        """Let Keras copy and save the cell."""
        return {**super().get_config(), "units": self.units}
