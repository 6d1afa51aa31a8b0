"""Cells of a user's own that name what they compute, and models made of them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

import throughtime as tt

SAMPLES, STEPS, FEATURES, UNITS, MEMORY = 3, 6, 2, 3, 4


@keras.saving.register_keras_serializable("throughtime_tests")
class ReservoirCell(keras.layers.Layer):
    """A memory of another width beside the hidden state, which can start from anything."""

    def __init__(self, units: int, rate: float = 0.5, start: float = 0.0, **config: Any) -> None:
        super().__init__(**config)
        self.units, self.rate, self.start = units, rate, start
        self.state_size, self.state_names = [units, MEMORY], ["hidden", "memory"]

    def build(self, shape: Any) -> None:
        features = shape[-1]
        self.input_map = self.add_weight(shape=(features, MEMORY), name="input_map")
        self.offset = self.add_weight(shape=(MEMORY,), name="offset")
        self.kernel = self.add_weight(shape=(features, self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias")
        self.readout = self.add_weight(shape=(MEMORY, self.units), name="readout")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, x: Any, states: Any) -> Any:
        hidden, memory = states
        memory = self.rate * memory + ops.matmul(x, self.input_map) + self.offset
        gate = tt.mark(ops.sigmoid(ops.matmul(x, self.kernel) + self.bias), "output")
        hidden = gate * ops.tanh(ops.matmul(memory, self.readout) + ops.matmul(hidden, self.recurrent))
        return hidden, [hidden, memory]

    def get_initial_state(self, batch_size: Any = None) -> Any:
        return [ops.full((batch_size, width), self.start, self.compute_dtype) for width in self.state_size]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "rate": self.rate, "start": self.start}


def mask_of(name: str) -> np.ndarray:
    """(sample, time), True where valid: a gap, masked ends, a masked start."""
    mask = np.ones((SAMPLES, STEPS), bool)
    if name != "none":
        mask[0, 4:] = mask[1, 2] = mask[2, :2] = False
    return mask


def batch(mask: np.ndarray, *, sequences: bool, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(SAMPLES, STEPS, FEATURES)) * mask[:, :, None]
    return x.astype(dtype), rng.normal(size=(SAMPLES, STEPS, 2) if sequences else (SAMPLES, 2)).astype(dtype)


def randomise(model: Any, seed: int = 2) -> Any:
    """Give every weight seeded values of order 0.5."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.weights])
    model.compile(loss=keras.losses.MeanSquaredError(dtype=model.layers[-1].compute_dtype))
    return model


def model_of(layer: Any, *, masked: bool = False, dtype: str = "float32") -> Any:
    """[Masking →] one layer → Dense."""
    inputs = keras.Input((STEPS, FEATURES), dtype=dtype)
    value = keras.layers.Masking(dtype=dtype)(inputs) if masked else inputs
    return randomise(keras.Model(inputs, keras.layers.Dense(2, dtype=dtype)(layer(value))))
