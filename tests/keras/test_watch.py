"""`tt.watch` of a Keras model: `fit` as it is written without it, and the run that a callback makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import throughtime as tt


def made() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 2)), keras.layers.GRU(3, name="gru"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 6, 2)).astype("float32"), rng.normal(size=(20, 1)).astype("float32")


@pytest.mark.parametrize("callbacks", [None, "list"])
def test_fit_records_and_trains_the_same(callbacks: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = data()
    seen: list[int] = []
    mine = [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))]
    plain, model = made(), made()
    plain.fit(x, y, batch_size=5, epochs=2, shuffle=False, verbose=0)
    monitor = tt.watch(model, every=2, vanishing_lag=None)
    history = model.fit(
        x, y, 5, 2, 0, callbacks=mine if callbacks else None, shuffle=False
    )  # batch_size, epochs and verbose by position
    assert len(history.history["loss"]) == 2
    assert seen == ([0, 1] if callbacks else [])
    for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    other = made()
    callback = tt.Monitor("run.zarr", (x[:5], y[:5]), every=2, vanishing_lag=None)
    other.fit(x, y, batch_size=5, epochs=2, shuffle=False, verbose=0, callbacks=[callback.keras()])
    found, wanted = (tt.open_run(each)["gru"].to_dataset().compute() for each in (monitor.path, "run.zarr"))
    assert found["step"].values.tolist() == [0, 2, 4, 6, 8]
    for name in wanted.data_vars:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=str(name))
    model.fit(x, y, batch_size=5, epochs=1, verbose=0)
    assert tt.open_run(monitor.path)["gru"]["step"].values[-1] == 12
    model.save(tmp_path / "model.keras")
    del model.fit
    assert model.fit.__func__ is keras.Model.fit


def test_a_generator_gives_its_first_batch(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = data()

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, place: int) -> tuple[Any, Any]:
            return x[5 * place : 5 * place + 5], y[5 * place : 5 * place + 5]

    model = made()
    monitor = tt.watch(model, every=2, vanishing_lag=None)
    model.fit(Batches(), epochs=1, verbose=0)
    np.testing.assert_array_equal(monitor._settings.batch[0], x[:5])
    assert tt.open_run(monitor.path)["gru"]["step"].values.tolist() == [0, 2, 4]
