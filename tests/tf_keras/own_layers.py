"""Models, layers and cells of a user's own."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tests.tf_keras.legacy import keras

L = keras.layers


class Encoder(keras.Model):
    """Layers in a list and in attributes, and a branch in Python on a tensor."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.layers_of_it = [
            L.LSTM(units, return_sequences=True),
            L.Bidirectional(L.GRU(2, return_sequences=True)),
        ]
        self.top = L.SimpleRNN(units)
        self.head = L.Dense(1)

    def call(self, x: Any) -> Any:
        for layer in self.layers_of_it:
            x = layer(x)
        return self.head(self.top(x))


class MinimalGate(L.Layer):
    """A cell with one gate."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.state_size = self.output_size = self.units = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight("kernel", (shape[-1], self.units))
        self.recurrent_kernel = self.add_weight("recurrent_kernel", (self.units, self.units))
        self.rate = self.add_weight("rate", (self.units,), initializer="ones")
        self.built = True

    def call(self, x: Any, states: Any) -> Any:
        keep = tf.sigmoid(self.rate)
        new = tf.tanh(x @ self.kernel + states[0] @ self.recurrent_kernel)
        h = keep * states[0] + (1 - keep) * new
        return h, [h]

    def get_config(self) -> Any:
        return {**super().get_config(), "units": self.units}


class Listed(MinimalGate):
    """The same with its weights in a list and a dict."""

    def build(self, shape: Any) -> None:
        self.kernels = [
            self.add_weight("kernel", (shape[-1], self.units)),
            self.add_weight("recurrent_kernel", (self.units, self.units)),
        ]
        self.others = {"rate": self.add_weight("rate", (self.units,))}
        self.built = True

    def call(self, x: Any, states: Any) -> Any:
        h = tf.tanh(x @ self.kernels[0] + states[0] @ self.kernels[1] + self.others["rate"])
        return h, [h]


class OfLayers(L.Layer):
    """A cell made of two Dense layers."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.state_size = self.output_size = units
        self.gate = L.Dense(units, activation="sigmoid", name="gate_layer")
        self.candidate = L.Dense(units, activation="tanh", name="candidate_layer")

    def build(self, shape: Any) -> None:
        width = shape[-1] + self.state_size
        self.gate.build((None, width))
        self.candidate.build((None, width))
        self.built = True

    def call(self, x: Any, states: Any) -> Any:
        both = tf.concat([x, states[0]], 1)
        gate = self.gate(both)
        h = gate * states[0] + (1 - gate) * self.candidate(both)
        return h, [h]


class OwnLoss(keras.Model):
    """A model with its own compute_loss around that of Keras."""

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None
    ) -> Any:
        return 3.0 * super().compute_loss(x, y, y_pred, sample_weight) + 0.1 * tf.reduce_mean(
            tf.square(y_pred)
        )
