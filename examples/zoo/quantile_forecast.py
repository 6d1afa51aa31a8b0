"""A subclassed model that brings its own loss: three quantiles of tomorrow's wind, by the pinball loss.

Ask it whether the loss of a model without graph and without `compile(loss=...)` is followed as well.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

RECURRENT = ("lower", "upper")
STEPS = 18
QUANTILES = (0.1, 0.5, 0.9)


class QuantileForecast(keras.Model):
    """Two GRUs and a Dense layer with one output a quantile."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = layers.GRU(8, return_sequences=True)
        self.upper = layers.GRU(8)
        self.quantiles = layers.Dense(len(QUANTILES))

    def call(self, x: Any, training: bool = False) -> Any:
        """Return the quantiles, (sample, quantile)."""
        return self.quantiles(self.upper(self.lower(x)))

    def compute_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the pinball loss: an error above costs q, one below 1 − q."""
        error = y - y_pred
        q = ops.convert_to_tensor(QUANTILES, error.dtype)
        return ops.mean(ops.maximum(q * error, (q - 1) * error))


def build() -> keras.Model:
    """Make the model, and its weights by a first call."""
    model = QuantileForecast()
    model.compile("adam")
    model(np.zeros((1, STEPS, 2), "float32"))
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw wind that wanders, gustier when it is strong, with its direction, and the next hour's speed."""
    rng = np.random.default_rng(seed)
    mean = 2 + np.cumsum(0.3 * rng.normal(size=(12, STEPS + 1)), axis=1)
    speed = np.abs(mean * (1 + 0.2 * rng.normal(size=mean.shape)))
    direction = np.cumsum(0.2 * rng.normal(size=mean.shape), axis=1)
    series = np.stack([speed, direction], axis=-1).astype("float32")
    return series[:, :-1], series[:, -1, :1]


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
