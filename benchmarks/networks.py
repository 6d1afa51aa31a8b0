"""The two-layer networks that the captures are timed on, and a batch for them; in Keras 3 or tf_keras."""

import os
from importlib import import_module

import numpy as np

keras = import_module(os.environ.get("THROUGHTIME_BENCH_LIBRARY", "keras"))


def network(kind: str, units: int, steps: int | None, *, loss_every_step: bool = False):
    layer = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}[kind]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((steps, 8)),
            layer(units, return_sequences=True),
            layer(units, return_sequences=loss_every_step),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


def batch(samples: int, steps: int, *, loss_every_step: bool = False):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(samples, steps, 8)), rng.normal(size=(samples, 1))
    if loss_every_step:
        y = rng.normal(size=(samples, steps, 1))
    return x.astype("float32"), y.astype("float32")


def told(kind: str, units: int, samples: int, steps: int) -> str:
    return f"{kind} n={units} B={samples} T={steps}"
