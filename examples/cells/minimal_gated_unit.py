"""Minimal gated unit: a forget gate that is its own input gate, as a Keras cell.

    f_t = σ(x_t W_f + h_{t−1} U_f + b_f)
    ĥ_t = tanh(x_t W_h + (f_t ⊙ h_{t−1}) U_h + b_h)
    h_t = (1 − f_t) ⊙ h_{t−1} + f_t ⊙ ĥ_t

Zhou, Wu, Zhang & Zhou (2016), Minimal gated unit for recurrent neural networks, arXiv 1603.09420.
"""

from __future__ import annotations

import keras
from keras import ops

import throughtime as tt


@keras.saving.register_keras_serializable("throughtime_examples")
class MinimalGatedUnitCell(keras.layers.Layer):
    """What goes into `keras.layers.RNN(MinimalGatedUnitCell(units))`."""

    def __init__(self, units, **config):
        super().__init__(**config)
        self.units = self.state_size = units

    def build(self, input_shape):
        """Make the weights, both gates side by side."""
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
        f = tt.mark(ops.sigmoid(input_f + ops.matmul(h, recurrent_f)), "forget")
        candidate = tt.mark(ops.tanh(input_h + ops.matmul(f * h, recurrent_h)), "candidate")
        after = (1 - f) * h + f * candidate
        return after, [after]

    def get_config(self):
        """Let Keras copy and save the cell."""
        return {**super().get_config(), "units": self.units}
