"""An LSTM cell with layer normalisation, made from Keras' own by another step.

Ask it whether normalising the cell state changes how far the gradient travels. The step follows Ba et al.
2016, supplement.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

RECURRENT = ("normalised",)
STEPS, SHAPES = 24, 3


class LayerNormLSTMCell(layers.LSTMCell):
    """An LSTM step whose gates and cell state are normalised before they are used."""

    def build(self, shape: tuple[int, ...]) -> None:
        """Add gains and offsets to the weights of an LSTM."""
        super().build(shape)
        self.norm_gates, self.norm_cell = layers.LayerNormalization(), layers.LayerNormalization()
        self.norm_gates.build((None, 4 * self.units))
        self.norm_cell.build((None, self.units))

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        """Take one step."""
        h, c = states
        z = ops.matmul(x, self.kernel) + ops.matmul(h, self.recurrent_kernel)
        i, f, candidate, o = ops.split(self.norm_gates(z) + self.bias, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(candidate)
        h = ops.sigmoid(o) * ops.tanh(self.norm_cell(c))
        return h, [h, c]


def build() -> keras.Model:
    """Make the classifier of wave forms."""
    wave = keras.Input((STEPS, 1))
    last = layers.RNN(LayerNormLSTMCell(8), name="normalised")(wave)
    model = keras.Model(wave, layers.Dense(SHAPES, activation="softmax")(last))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw noisy sines, squares and saws of random pitch and phase."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(0, SHAPES, 12)
    phase = rng.uniform(0, 1, (12, 1)) + np.arange(STEPS) * rng.uniform(0.05, 0.15, (12, 1))
    sine = np.sin(2 * np.pi * phase)
    waves = np.stack([sine, np.sign(sine), 2 * (phase % 1) - 1])[shape, np.arange(12)]
    return (waves + 0.1 * rng.normal(size=waves.shape)).astype("float32")[..., None], shape.astype("int32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
