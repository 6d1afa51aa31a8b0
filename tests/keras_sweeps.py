"""A sweep of a Keras model, whichever Keras it is: sums of its shards, and weights from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import throughtime as tt


def built(keras: Any) -> Any:
    layers = [keras.Input((10, 2)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(loss="mse")
    return model


def check_each_checkpoint(keras: Any, folder: Path) -> None:
    """Each checkpoint of a sweep is one capture of all data."""
    x = np.random.default_rng(0).normal(size=(20, 10, 2)).astype("float32")
    y = x[:, -3, :1]
    model, other = built(keras), built(keras)
    other.save(folder / "one.keras")
    other.save_weights(folder / "two.weights.h5")
    before = model.get_weights()
    files = {"given": before, "one": folder / "one.keras", "two": folder / "two.weights.h5"}
    found = tt.sweep(model, (x, y), checkpoints=files, to=folder / "sweep", shard_size=8)["lstm"]
    for step, exact in enumerate(tt.capture(each, x, y)["lstm"] for each in (model, other, other)):
        one = found.isel(step=step)
        np.testing.assert_allclose(one["loss"], exact["loss"], rtol=1e-6)
        gradient = np.moveaxis(exact["recurrent_kernel_gradient"].values, -2, 0).reshape(4, -1)
        norms = np.linalg.norm(gradient, axis=1)
        np.testing.assert_allclose(one["recurrent_kernel_gradient_norm"], norms, rtol=2e-6)
    assert all(map(np.array_equal, before, model.get_weights()))
    model.compile(loss="mae")
    with pytest.raises(tt.SweepError, match="differs in loss"):
        tt.sweep(model, (x, y), checkpoints=files, to=folder / "sweep", shard_size=8)
