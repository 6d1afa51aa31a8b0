"""A variational autoencoder of sequences, for anomalies in several sensors: the code is drawn at random.

Ask it how much gradient the encoder gets through the noise, and how much from the divergence alone.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

RECURRENT = ("encoder", "decoder")
STEPS, SENSORS, CODE = 16, 3, 2


class Sampling(layers.Layer):
    """Draws a code from its mean and log variance, whose divergence from N(0, 1) joins the loss."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, moments: Any) -> Any:
        """Return the code, (sample, code)."""
        mean, log_variance = moments
        divergence = ops.square(mean) + ops.exp(log_variance) - log_variance - 1
        self.add_loss(0.01 * ops.mean(ops.sum(divergence, axis=-1)) / 2)
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        return mean + ops.exp(log_variance / 2) * noise


def build() -> keras.Model:
    """Make encoder, code and decoder."""
    sensors = keras.Input((STEPS, SENSORS))
    summary = layers.GRU(8, name="encoder")(sensors)
    moments = layers.Dense(CODE, name="mean")(summary), layers.Dense(CODE, name="log_variance")(summary)
    repeated = layers.RepeatVector(STEPS)(Sampling()(moments))
    sequence = layers.GRU(8, return_sequences=True, name="decoder")(repeated)
    model = keras.Model(sensors, layers.Dense(SENSORS)(sequence))
    model.compile("adam", "mse")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a machine's cycle as three sensors see it, each later than the one before; labels are inputs."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 1, (12, 1, 1)) + np.arange(STEPS)[:, None] / 12 - np.arange(SENSORS) / 9
    cycle = np.sin(2 * np.pi * phase) * rng.uniform(0.7, 1.3, (12, 1, 1))
    cycle = (cycle + 0.05 * rng.normal(size=cycle.shape)).astype("float32")
    return cycle, cycle


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
