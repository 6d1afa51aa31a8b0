"""A stateful forecaster: row i of every batch continues where row i of the last one ended.

Ask it where backpropagation stops: states cross the border between batches, gradients do not.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("lstm", "lstm_1")
SERIES, STEPS = 8, 15


def build() -> keras.Model:
    """Make the forecaster for a fixed number of series at once."""
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(SERIES, STEPS, 1)),
            layers.LSTM(8, return_sequences=True, stateful=True),
            layers.LSTM(8, stateful=True),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cut piece number `seed` out of endless waves, and the value that follows it."""
    period = np.linspace(8, 40, SERIES)[:, None]
    time = seed * STEPS + np.arange(STEPS + 1)
    noise = np.random.default_rng(seed).normal(0, 0.05, (SERIES, STEPS + 1))
    wave = (np.sin(2 * np.pi * time / period) + noise).astype("float32")
    return wave[:, :-1, None], wave[:, -1:]


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
