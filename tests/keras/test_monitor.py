"""A monitor in `fit`: what is recorded when, and training that stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import throughtime as tt

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6, 3)).astype("float32")
Y = X.sum((1, 2))[:, None]
BATCH = (X[:8], Y[:8])


def made(**options: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 3)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dropout(0.2)]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("adam", "mse", **options)
    return model


def fit(model: Any, *callbacks: Any) -> list[np.ndarray]:
    model.fit(X, Y, batch_size=8, epochs=3, shuffle=True, verbose=0, callbacks=list(callbacks))
    return model.get_weights()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("together", [1] if keras.backend.backend() == "torch" else [1, 2])
def test_records_by_schedule_and_leaves_training_alone(
    tmp_path: Path, together: int, background: bool
) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=4, background=background)
    seen = fit(made(steps_per_execution=together), monitor.keras())
    for left, right in zip(fit(made(steps_per_execution=together)), seen, strict=True):
        np.testing.assert_array_equal(left, right)
    steps = tt.open_run(tmp_path / "run.zarr")["lstm"]["step"].values.tolist()
    # Three batches an epoch: with two to an execution, batches 2 and 3 end it.
    assert steps == ([0, 4, 8, 9] if together == 1 else [0, 5, 8, 9])


def test_a_capture_is_solved_as_the_model_was_when_its_pass_ran(tmp_path: Path) -> None:
    model, x = made(), X[:8].copy()
    probe = tt.Probe(model)
    wanted = probe(x, BATCH[1])["lstm"].to_dataset().copy(deep=True)
    finish = probe.begin(x, BATCH[1])
    fit(model)
    x[...] = 0
    found = finish(pytest.fail).tree()["lstm"].to_dataset()
    for name in wanted.data_vars:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_the_last_record_is_a_capture_of_the_trained_model(tmp_path: Path) -> None:
    model = made()
    fit(model, tt.Monitor(tmp_path / "run.zarr", BATCH, quantities="full").keras())
    leaf = tt.open_run(tmp_path / "run.zarr")["lstm"].to_dataset().isel(step=-1).compute()
    wanted = tt.capture(model, *BATCH)["lstm"].to_dataset()
    for name in wanted.data_vars:
        np.testing.assert_allclose(leaf[name], wanted[name], rtol=1e-6, atol=1e-9)


def test_an_alarm_stops_fit(tmp_path: Path) -> None:
    model = made()
    model.layers[-1].set_weights([np.zeros((4, 1)), np.zeros(1)])
    monitor = tt.Monitor(
        tmp_path / "run.zarr", BATCH, every=1, stop_on="dead_gradient", on_alarm=lambda alarm: None
    )
    fit(model, monitor.keras())
    assert monitor.alarms[0].name == "dead_gradient"
    assert int(model.optimizer.iterations) < 9


def test_a_loop_tells_norms_as_scalars_of_its_backend(tmp_path: Path) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1)
    with monitor.watch(made()):
        for norm in (3.0, 1.0):
            monitor.step(gradient_norm=keras.ops.convert_to_tensor(norm), clip_norm=2.0)
    run = tt.open_run(tmp_path / "run.zarr")
    np.testing.assert_array_equal(run["gradient_norm"], [np.nan, 3.0, 1.0])
    np.testing.assert_array_equal(run["clip_ratio"], [np.nan, 2 / 3, 1.0])


class TestARunIsOneTraining:
    def test_a_second_fresh_model_is_refused(self, tmp_path: Path) -> None:
        fit(made(), tt.Monitor(tmp_path / "run.zarr", BATCH, every=4).keras())
        again = made()
        with pytest.raises(tt.StoreError, match="ended at step 9 with other weights") as caught:
            fit(again, tt.Monitor(tmp_path / "run.zarr", BATCH, every=4).keras())
        assert all(f'"{mode}"' in str(caught.value) for mode in ("continue", "overwrite", "new"))
        fit(again, tt.Monitor(tmp_path / "run.zarr", BATCH, every=4, mode="overwrite").keras())
        assert tt.open_run(tmp_path / "run.zarr")["lstm"]["step"].values.tolist() == [0, 4, 8, 9]

    def test_fit_goes_on_from_a_checkpoint_and_without_one(self, tmp_path: Path) -> None:
        model, monitor = made(), tt.Monitor(tmp_path / "run.zarr", BATCH, every=4)
        fit(model, monitor.keras())
        fit(model, monitor.keras())
        model.save(tmp_path / "model.keras")
        fit(
            keras.models.load_model(tmp_path / "model.keras"),
            tt.Monitor(tmp_path / "run.zarr", BATCH, every=4).keras(),
        )
        steps = tt.open_run(tmp_path / "run.zarr")["lstm"]["step"].values.tolist()
        assert (steps[0], steps[-1]) == (0, 27)
        assert {9, 18} <= set(steps)


def test_fit_after_an_interrupt_continues_the_run_and_with_the_first_weights_does_not(tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                raise KeyboardInterrupt

    def stopped() -> tuple[Any, tt.Monitor]:
        model, monitor = made(), tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, mode="overwrite")
        with pytest.raises(KeyboardInterrupt):
            fit(model, monitor.keras(), Stop())
        return model, monitor

    model, monitor = stopped()
    fit(model, monitor.keras())
    assert tt.open_run(monitor.path)["lstm"]["step"].values.tolist() == list(range(2 + 9 + 1))
    model, monitor = stopped()
    model.set_weights(made().get_weights())
    fit(model, monitor.keras())
    assert tt.open_run(monitor.path)["lstm"]["step"].values.tolist() == list(range(9 + 1))


def test_a_monitor_among_callbacks_names_the_one_to_pass(tmp_path: Path) -> None:
    with pytest.raises(tt.MonitorError, match=r"callbacks=\[monitor.keras\(\)\]"):
        fit(made(), tt.Monitor(tmp_path / "run.zarr", BATCH))
