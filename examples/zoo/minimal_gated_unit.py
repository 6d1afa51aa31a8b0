"""A custom cell: the minimal gated unit, whose single gate forgets and lets in at once.

Ask it whether one gate is enough to carry the gradient from the end back to the marked steps. The cell is
Zhou et al. 2016, eq. 6.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

RECURRENT = ("memory",)
STEPS, SYMBOLS = 20, 6


class MinimalGatedUnit(layers.Layer):
    """h_t = (1 − f)·h + f·tanh(W x + U (f·h)), with the gate f = σ(W x + U h)."""

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(**config)
        self.units = self.state_size = units

    def build(self, shape: tuple[int, ...]) -> None:
        """Add weights for the gate and the candidate, side by side."""
        self.kernel = self.add_weight(shape=(shape[-1], 2 * self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(2, self.units, self.units), name="recurrent")
        self.bias = self.add_weight(shape=(2 * self.units,), initializer="zeros", name="bias")

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        """Take one step."""
        (h,) = states
        gate, candidate = ops.split(ops.matmul(x, self.kernel) + self.bias, 2, axis=-1)
        gate = ops.sigmoid(gate + ops.matmul(h, self.recurrent[0]))
        candidate = ops.tanh(candidate + ops.matmul(gate * h, self.recurrent[1]))
        h = (1 - gate) * h + gate * candidate
        return h, [h]


def build() -> keras.Model:
    """Make the classifier of four orders."""
    symbols = keras.Input((STEPS, SYMBOLS))
    last = layers.RNN(MinimalGatedUnit(8), name="memory")(symbols)
    model = keras.Model(symbols, layers.Dense(4, activation="softmax")(last))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw noise symbols with a 0 or 1 early and a 0 or 1 in the middle; the label is which came when."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(2, SYMBOLS, (12, STEPS))
    marks = rng.integers(0, 2, (12, 2))
    rows = np.arange(12)
    symbols[rows, rng.integers(1, 5, 12)], symbols[rows, rng.integers(8, 12, 12)] = marks.T
    return np.eye(SYMBOLS, dtype="float32")[symbols], (marks @ [2, 1]).astype("int32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
