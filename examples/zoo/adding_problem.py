"""The adding problem: a rectified simple network, started at the identity, adds two marked numbers.

Ask it how the gradient decays over the steps between the marks and the end, at the start and after training.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("simple_rnn",)
STEPS = 40


def build() -> keras.Model:
    """Make the network of Le, Jaitly & Hinton (2015): recurrent weights start as the identity."""
    model = keras.Sequential(
        [
            keras.Input((STEPS, 2)),
            layers.SimpleRNN(8, activation="relu", recurrent_initializer="identity"),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01, clipnorm=1.0), "mse")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw numbers between 0 and 1 with a mark on one in each half; the label is the sum of those two."""
    rng = np.random.default_rng(seed)
    numbers, marks = rng.random((16, STEPS)), np.zeros((16, STEPS))
    for low, high in ((0, STEPS // 2), (STEPS // 2, STEPS)):
        marks[np.arange(16), rng.integers(low, high, 16)] = 1
    x = np.stack([numbers, marks], axis=-1).astype("float32")
    return x, (numbers * marks).sum(axis=1, keepdims=True).astype("float32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
