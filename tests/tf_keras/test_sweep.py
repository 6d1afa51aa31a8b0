"""A sweep of a model of legacy Keras: sums of its shards, and weights from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.tf_keras.legacy import keras

import throughtime as tt


def built() -> Any:
    layers = [keras.Input((10, 2)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(loss="mse")
    return model


def test_each_checkpoint_is_one_capture_of_all_data(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 10, 2)).astype("float32")
    y = x[:, -3, :1]
    model, other = built(), built()
    other.save(tmp_path / "one.keras")
    other.save_weights(tmp_path / "two.weights.h5")
    before = model.get_weights()
    files = {"given": before, "one": tmp_path / "one.keras", "two": tmp_path / "two.weights.h5"}
    found = tt.sweep(model, (x, y), checkpoints=files, to=tmp_path / "sweep", shard_size=8)["lstm"]
    for step, exact in enumerate(tt.capture(each, x, y)["lstm"] for each in (model, other, other)):
        one = found.isel(step=step)
        np.testing.assert_allclose(one["loss"], exact["loss"], rtol=1e-6)
        gradient = np.moveaxis(exact["recurrent_kernel_gradient"].values, -2, 0).reshape(4, -1)
        norms = np.linalg.norm(gradient, axis=1)
        np.testing.assert_allclose(one["recurrent_kernel_gradient_norm"], norms, rtol=2e-6)
    assert all(map(np.array_equal, before, model.get_weights()))
