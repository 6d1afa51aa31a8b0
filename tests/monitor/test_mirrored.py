"""Keras trains two replicas with MirroredStrategy on two logical CPU devices, and a monitor records."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import throughtime as tt

PROGRAM = """
import sys
import numpy as np, tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import throughtime as tt

def built():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 2)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model

x = np.random.default_rng(0).normal(size=(16, 6, 2)).astype("float32")
y = x.sum((1, 2))[:, None]
weights = {}
for name in ("one", "two", "unwatched"):
    strategy = tf.distribute.get_strategy()
    if name != "one":
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = built()
    monitor = tt.Monitor(f"{sys.argv[1]}/{name}.zarr", (x[:8], y[:8]), every=1, vanishing_lag=None)
    callbacks = [] if name == "unwatched" else [monitor.keras()]
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    weights[name] = model.get_weights()
print(strategy.num_replicas_in_sync)
print(all(map(np.array_equal, weights["two"], weights["unwatched"])))
"""


@pytest.mark.slow
def test_the_run_is_that_of_one_device(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["2", "True"], done.stderr  # trained bit by bit as without a monitor
    one, two = (tt.open_run(tmp_path / f"{name}.zarr")["lstm"].to_dataset() for name in ("one", "two"))
    assert two["step"].values.tolist() == [0, 1, 2, 3, 4]
    for name in one.data_vars:
        near = {"atol": 1e-6 if "certificate" in str(name) else 0, "err_msg": str(name)}
        np.testing.assert_allclose(two[name][0], one[name][0], rtol=1e-6, **near)
        # Later weights differ already: two replicas round otherwise when they add up gradients.
        np.testing.assert_allclose(two[name], one[name], rtol=2e-5, **near)
