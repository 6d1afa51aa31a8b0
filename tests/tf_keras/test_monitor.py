"""A monitor in `fit` of Keras 2: training stays the same bit for bit, and the last record is a capture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tf_keras.legacy import keras

import throughtime as tt

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6, 3)).astype("float32")
Y = X.sum((1, 2))[:, None]
BATCH = (X[:8], Y[:8])


def made() -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.LSTM(4, name="lstm", input_shape=(6, 3)), keras.layers.Dropout(0.2)]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def fit(model: Any, *callbacks: Any) -> list[np.ndarray]:
    model.fit(X, Y, batch_size=8, epochs=3, shuffle=True, verbose=0, callbacks=list(callbacks))
    return model.get_weights()


def callback(monitor: tt.Monitor) -> Any:
    return monitor.tf_keras() if keras.__name__ == "tf_keras" else monitor.keras()


@pytest.mark.parametrize("background", [True, False])
def test_records_by_schedule_and_leaves_training_alone(tmp_path: Path, background: bool) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=4, quantities="full", background=background)
    model = made()
    seen = fit(model, callback(monitor))
    for left, right in zip(fit(made()), seen, strict=True):
        np.testing.assert_array_equal(left, right)
    leaf = tt.open_run(tmp_path / "run.zarr")["lstm"].to_dataset().compute()
    assert leaf["step"].values.tolist() == [0, 4, 8, 9]
    wanted = tt.capture(model, *BATCH)["lstm"].to_dataset()
    for name in wanted.data_vars:
        np.testing.assert_allclose(leaf[name].isel(step=-1), wanted[name], rtol=1e-6, atol=1e-9)


def test_a_run_is_one_training(tmp_path: Path) -> None:
    model = made()
    fit(model, callback(tt.Monitor(tmp_path / "run.zarr", BATCH, every=4)))
    with pytest.raises(tt.StoreError, match="ended at step 9 with other weights"):
        fit(made(), callback(tt.Monitor(tmp_path / "run.zarr", BATCH, every=4)))
    fit(model, callback(tt.Monitor(tmp_path / "run.zarr", BATCH, every=4)))
    assert int(tt.open_run(tmp_path / "run.zarr")["lstm"]["step"][-1]) == 18


def test_a_monitor_among_callbacks_names_the_one_to_pass(tmp_path: Path) -> None:
    with pytest.raises(tt.MonitorError, match=r"monitor.tf_keras\(\)"):
        fit(made(), tt.Monitor(tmp_path / "run.zarr", BATCH))
