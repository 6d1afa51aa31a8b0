"""Tomorrow's temperature from two days of weather: stacked GRUs with dropout on inputs and recurrence.

Ask it how much of the gradient dropout takes away in training: capture with `training=True` and without.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("gru", "gru_1")
HOURS = 24  # readings, two hours apart


def build() -> keras.Model:
    """Make the regression."""
    model = keras.Sequential(
        [
            keras.Input((HOURS, 4)),
            layers.GRU(8, return_sequences=True, dropout=0.1, recurrent_dropout=0.3),
            layers.GRU(8, dropout=0.1, recurrent_dropout=0.3),
            layers.Dense(1),
        ]
    )
    model.compile("rmsprop", "mse", metrics=["mae"])
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw temperature, pressure, humidity and wind; pressure falls before it gets colder."""
    rng = np.random.default_rng(seed)
    hour = np.arange(HOURS + 12) * 2
    front = rng.uniform(20, 110, (12, 1))  # the hour at which cold air comes in
    cold = 1 / (1 + np.exp((front - hour) / 6))
    daily = np.sin(2 * np.pi * (hour + rng.uniform(0, 24, (12, 1))) / 24)
    pressure = -1 / (1 + np.exp((front - 12 - hour) / 4))
    readings = np.stack([daily - 2 * cold, pressure, -daily + cold, cold * (1 - cold) * 4], axis=-1)
    readings = (readings + 0.05 * rng.normal(size=readings.shape)).astype("float32")
    return readings[:, :HOURS], readings[:, -1, :1]


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
