"""A monitor stores what a capture at that step shows, gives alarms once, and leaves training as it is.

Here with torch, in loops of one's own; tests/keras/test_monitor.py has `fit`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tests.monitor.loops import BATCH, MSE, WAY, X, Y, made, train, watched
from torch import nn

import throughtime as tt


@pytest.fixture(autouse=True, params=[True, False], ids=["in background", "at once"])
def background(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """All of this holds in both ways."""
    monkeypatch.setitem(WAY, "background", request.param)
    return bool(request.param)


def test_full_records_are_captures(tmp_path: Path) -> None:
    run, _ = watched(tmp_path, made(), 7, every=3, quantities="full")
    assert run["rnn"]["step"].values.tolist() == [0, 3, 6, 7]
    model, last = made(), 0
    for step in (0, 3, 6, 7):
        train(model, step - last)
        last = step
        wanted = tt.capture(model, *BATCH, loss=MSE)["rnn"].to_dataset()
        xr.testing.assert_equal(run["rnn"].to_dataset().sel(step=step).drop_vars("step").compute(), wanted)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=["one way", "both ways"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_summary_tells_what_numpy_says(tmp_path: Path, kind: Any, options: dict[str, Any]) -> None:
    model = made(kind, **options)
    run, _ = watched(tmp_path, model, 2, every=1)
    leaf, wanted = run["rnn"].to_dataset().compute(), tt.capture(model, *BATCH, loss=MSE)["rnn"]
    assert leaf.sizes["step"] == 3
    norms = np.sqrt((wanted["hidden_gradient"].values.astype(float) ** 2).sum(-1))
    quantiles = np.quantile(norms, leaf["quantile"].values, axis=0)
    np.testing.assert_allclose(leaf["hidden_gradient_norm"].isel(step=-1), quantiles, rtol=1e-6)
    size = np.sqrt((wanted["kernel"].values.astype(float) ** 2).sum((-1, 0 if not options else 1)))
    np.testing.assert_allclose(leaf["kernel_norm"].isel(step=-1), size, rtol=1e-6)
    assert np.isnan(leaf["kernel_change"].isel(step=0)).all()
    assert (leaf["kernel_change"].isel(step=[1, 2]).max(leaf["kernel_change"].dims[1:]) > 0).all()
    profile = tt.diagnostics.lag_profile(wanted)["ratio"]
    np.testing.assert_allclose(leaf["lag_ratio"].isel(step=-1), profile.transpose("lag", ...), rtol=1e-5)
    assert float(leaf["loss"].isel(step=-1)) == float(wanted["loss"])


def test_a_timestep_record_has_every_sample(tmp_path: Path) -> None:
    model = made()
    run, _ = watched(tmp_path, model, 1, quantities="timestep")
    wanted = tt.capture(model, *BATCH, loss=MSE)["rnn"]["hidden_gradient"]
    norms = np.sqrt((wanted.values.astype(float) ** 2).sum(-1))
    np.testing.assert_allclose(run["rnn"]["hidden_gradient_norm"].isel(step=-1), norms, rtol=1e-6)


def test_training_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    alone, seen = made(), made()
    train(alone, 9)
    watched(tmp_path, seen, 9, every=2)
    for left, right in zip(alone.parameters(), seen.parameters(), strict=True):
        assert torch.equal(left, right)
        assert torch.equal(left.grad, right.grad)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_capture_is_solved_as_the_model_was_when_its_pass_ran(kind: Any) -> None:
    model, x = made(kind), X[:8].clone()
    probe = tt.Probe(model, loss=MSE)
    wanted = probe(x, BATCH[1])["rnn"].to_dataset().copy(deep=True)
    finish = probe.begin(x, BATCH[1])
    with torch.no_grad():
        x.zero_()
        for weight in model.parameters():
            weight.zero_()
    xr.testing.assert_equal(finish(pytest.fail).tree()["rnn"].to_dataset(), wanted)


def test_a_run_is_continued(tmp_path: Path) -> None:
    model = made()
    watched(tmp_path, model, 4, every=2)
    run, _ = watched(tmp_path, model, 3, every=2)
    assert run["rnn"]["step"].values.tolist() == [0, 2, 4, 6, 7]


def test_a_second_thread_is_never_two_records_behind(tmp_path: Path) -> None:
    """A record waits for the one before: alarms are late by one record at most, and memory is bounded."""
    model, kept = made(), []
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE, **WAY)
    with monitor.watch(model):
        for step in range(1, 9):
            train(model, 1)
            monitor.step()
            kept.append(step - monitor._recorder._run.steps[-1])
    assert set(kept) <= ({0, 1} if WAY["background"] else {0})


def test_a_budget_is_kept_by_thinning(tmp_path: Path) -> None:
    one = watched(tmp_path / "one", made(), 0)[0].nbytes
    with pytest.warns(tt.ThroughTimeWarning, match="every second record was dropped, and from now on one in"):
        run, _ = watched(tmp_path / "many", made(), 40, every=1, budget=8 * one)
    steps = run["rnn"]["step"].values
    assert run.nbytes <= 8 * one
    assert (steps[0], steps[-1]) == (0, 40)
    assert len(steps) >= 4
    model = made()
    train(model, int(steps[1]))
    wanted = float(tt.capture(model, *BATCH, loss=MSE)["rnn"]["loss"])
    assert float(run["rnn"]["loss"].isel(step=1)) == wanted
    assert not list((tmp_path / "many").glob("run.zarr.*"))


def test_training_that_was_interrupted_is_followed_again(tmp_path: Path) -> None:
    model = made()
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, loss=MSE, every=2, vanishing_lag=None, **WAY)
    monitor.begin(model)
    with pytest.raises(tt.MonitorError, match="recording already"):  # as if it were in callbacks= twice
        monitor.begin(model)
    train(model, 3, monitor)  # then, as by Ctrl-C in `fit`, nothing more is called
    with pytest.raises(tt.MonitorError, match="recording already"):
        monitor.begin(made())
    with pytest.warns(tt.ThroughTimeWarning, match="interrupted at step 3.* another training"):
        monitor.begin(model)
    train(model, 2, monitor)
    monitor.end()
    run = tt.open_run(monitor.path)["rnn"]
    assert run["step"].values.tolist() == [0, 2, 3, 4, 5]
    alone = made()
    train(alone, 5)
    assert float(run["loss"][-1]) == pytest.approx(float(MSE(alone(BATCH[0]), BATCH[1]).detach()), rel=1e-6)


@pytest.mark.parametrize(("every", "mode"), [(1, "auto"), (2, "auto"), (2, "new"), (2, "continue")])
def test_interrupted_training_that_begins_anew_is_another_training(
    tmp_path: Path, every: int, mode: str
) -> None:
    model = made()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    monitor = tt.Monitor(
        tmp_path / "run.zarr", BATCH, loss=MSE, every=every, vanishing_lag=None, mode=mode, **WAY
    )
    monitor.begin(model)
    train(model, 5, monitor)  # then Ctrl-C
    model.load_state_dict(start)
    interrupted, steps = monitor.path, list(range(0, 6, every))
    if mode == "auto":
        with pytest.raises(tt.StoreError, match=f"ended at step {steps[-1]} with other weights"):
            monitor.begin(model)
    else:
        monitor.begin(model)
        monitor.end()
    assert (monitor.path != interrupted) is (mode == "new")
    run, alone = tt.open_run(interrupted)["rnn"], made()
    assert run["step"].values.tolist() == steps
    for loss in run["loss"].values:
        assert float(loss) == pytest.approx(float(MSE(alone(BATCH[0]), BATCH[1]).detach()), rel=1e-6)
        train(alone, every)


def test_interrupted_training_that_has_no_record_yet_begins_anew(tmp_path: Path) -> None:
    model = made()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, loss=MSE, vanishing_lag=None, **WAY)  # every 50 steps
    monitor.begin(model)
    train(model, 5, monitor)
    model.load_state_dict(start)
    with monitor.watch(model):
        train(model, 3, monitor)
    run, alone = tt.open_run(monitor.path)["rnn"], made()
    train(alone, 3)
    assert run["step"].values.tolist() == [0, 3]
    assert float(run["loss"][-1]) == pytest.approx(float(MSE(alone(BATCH[0]), BATCH[1]).detach()), rel=1e-6)


def test_a_budget_too_small_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(tt.MonitorError, match="do not hold two records"):
        watched(tmp_path, made(), 1, budget=1000)


class TestAlarms:
    def test_a_nan_is_located_and_stops_on_request(self, tmp_path: Path, background: bool) -> None:
        model = made()
        monitor = tt.Monitor(
            tmp_path / "run.zarr", BATCH, every=1, loss=MSE, stop_on="nonfinite", vanishing_lag=None, **WAY
        )
        with monitor.watch(model), pytest.warns(tt.ThroughTimeWarning, match="step 3: nonfinite in rnn"):
            train(model, 9, monitor, spoiled_at=3)
        (alarm,) = monitor.alarms
        assert alarm.step == 3
        assert "recurrent_kernel" in alarm.evidence
        assert "forget" in alarm.evidence
        steps = tt.open_run(tmp_path / "run.zarr")["rnn"].sizes["step"]
        assert steps in ((alarm.step + 1, alarm.step + 2) if background else (alarm.step + 1,))

    def test_a_nan_at_one_timestep_of_one_gate_is_told_as_that(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Planted into what is captured after training step 37."""
        begun, taken, told = tt.Probe.begin, [], []

        def begin(probe: tt.Probe, *batch: Any, **options: Any) -> Any:
            finish, step = begun(probe, *batch, **options), len(taken) + 1
            taken.append(step)

            def spoiled(warn: Any) -> Any:
                captured = finish(warn)
                if step > 37:  # the first is that of step 0
                    gates = captured.leaves["/rnn"].arrays["gate_activation"].values
                    gates[2, 12, 1, 1] = np.nan  # input, forget, candidate, output
                return captured

            return spoiled

        monkeypatch.setattr(tt.Probe, "begin", begin)
        x, model = torch.randn(24, 20, 3, generator=torch.Generator().manual_seed(1)), made()
        monitor = tt.Monitor(
            tmp_path / "run.zarr",
            (x[:8], Y[:8]),
            every=1,
            loss=MSE,
            on_alarm=told.append,
            vanishing_lag=None,
            **WAY,
        )
        with monitor.watch(model):
            for step in range(1, 41):
                monitor.step()
                if step == 38:  # one recorded step later at the latest
                    assert [alarm.name for alarm in told] == ["nonfinite"]
        (alarm,) = told
        assert (alarm.layer, alarm.step) == ("rnn", 37)
        assert alarm.evidence == ("nan in gate_activation of rnn: sample 2, time 12, gate forget, unit 1")
        run = tt.open_run(tmp_path / "run.zarr")["rnn"].to_dataset().compute()
        assert run["step"].values.tolist() == list(range(41))
        share = run["saturation_left"].sel(gate="forget")
        assert np.isfinite(share).all()

    def test_saturation_once(self, tmp_path: Path) -> None:
        model = made()
        with torch.no_grad():
            model.rnn.bias_ih_l0[:10] = 9.0  # an open input gate is told, an open forget gate is memory
        seen: list[Any] = []
        _, monitor = watched(tmp_path, model, 3, every=1, on_alarm=seen.append)
        assert [alarm.name for alarm in monitor.alarms] == ["saturation"]
        assert seen == monitor.alarms
        assert "the input gate is open at" in seen[0].evidence

    def test_chrono_initialisation_is_no_saturation(self, tmp_path: Path) -> None:
        model = made()
        timescales = torch.log(torch.linspace(100, 1000, 5))
        with torch.no_grad():
            model.rnn.bias_hh_l0.zero_()
            model.rnn.bias_ih_l0[:5] = -timescales  # input gate: shut at every step
            model.rnn.bias_ih_l0[5:10] = timescales  # forget gate: open
        _, monitor = watched(tmp_path, model, 3, every=1)
        assert not [alarm for alarm in monitor.alarms if alarm.name == "saturation"]
        with torch.no_grad():
            model.rnn.bias_ih_l0[5:10] = 0  # now the cell neither keeps nor takes in
        seen: list[Any] = []
        watched(tmp_path / "again", model, 0, every=1, on_alarm=seen.append)
        found = [alarm.evidence for alarm in seen if alarm.name == "saturation"]
        assert found == ["the input gate is shut at 100% of the steps"]

    def test_explosion(self, tmp_path: Path) -> None:
        model = made(nn.RNN, nonlinearity="relu")
        with torch.no_grad():
            model.rnn.weight_hh_l0.copy_(1.5 * torch.eye(5))
            model.rnn.bias_ih_l0.fill_(3.0)
        seen: list[Any] = []
        watched(tmp_path, model, 0, on_alarm=seen.append)
        assert [alarm.name for alarm in seen] == ["explosion"]
        assert f"the gradient at lag 11 is {1.5**11:.3g} times that at lag 0" in seen[0].evidence

    def test_vanishing_at_a_lag(self, tmp_path: Path) -> None:
        model = made(nn.RNN)
        with torch.no_grad():
            model.rnn.weight_hh_l0.mul_(0.1)
        seen: list[Any] = []
        watched(tmp_path, model, 1, vanishing_lag=10, on_alarm=seen.append)
        assert [alarm.name for alarm in seen] == ["vanishing"]
        assert "at lag 10" in str(seen[0])
        assert "if the task" not in str(seen[0]), "a lag that was passed is one that the task needs"

    def test_dead_gradient(self, tmp_path: Path) -> None:
        model = made()
        with torch.no_grad():
            model.head.weight.zero_()
        seen: list[Any] = []
        watched(tmp_path, model, 0, on_alarm=seen.append)
        assert [alarm.name for alarm in seen] == ["dead_gradient"]


class TestNothingOfOursRaisesIntoTraining:
    def test_a_schedule_that_raises(self, tmp_path: Path) -> None:
        def schedule(step: int) -> bool:
            if step > 1:
                raise RuntimeError("mine")
            return False

        with pytest.warns(tt.ThroughTimeWarning, match="RuntimeError: mine"):
            run, _ = watched(tmp_path, made(), 3, every=schedule)
        assert run["rnn"]["step"].values.tolist() == [0, 3]

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from throughtime._store.stored_array import StoredArray

        written = StoredArray.append

        def fails(array, rows):
            if array.dims == ("step",) and rows.dtype == np.int64 and 3 <= rows[0] <= 5:
                raise OSError(28, "No space left on device")
            written(array, rows)

        monkeypatch.setattr(StoredArray, "append", fails)
        with pytest.warns(tt.ThroughTimeWarning, match="No space left on device") as caught:
            run, _ = watched(tmp_path, made(), 8, every=1)
        assert len([each for each in caught if "No space" in str(each.message)]) == 1
        assert run["rnn"]["step"].values.tolist() == [0, 1, 2, 6, 7, 8]

    def test_an_alarm_of_the_users_own_that_raises(self, tmp_path: Path) -> None:
        def on_alarm(alarm: Any) -> None:
            raise KeyError("mine")

        model = made()
        with torch.no_grad():
            model.head.weight.zero_()
        with pytest.warns(tt.ThroughTimeWarning, match="KeyError"):
            watched(tmp_path, model, 1, on_alarm=on_alarm)


class TestBeforeTrainingStarts:
    def test_settings(self, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        with pytest.raises(tt.MonitorError, match="every"):
            tt.Monitor(path, BATCH, every=0)
        with pytest.raises(tt.MonitorError, match="a pair"):
            tt.Monitor(path, X)
        with pytest.raises(tt.MonitorError, match="summary, timestep, full"):
            tt.Monitor(path, BATCH, quantities="nonsense")
        with pytest.raises(tt.MonitorError, match="stop_on='panic': expected one of nonfinite"):
            tt.Monitor(path, BATCH, stop_on="panic")
        with pytest.raises(tt.MonitorError, match="stop_on=3: expected one of nonfinite"):
            tt.Monitor(path, BATCH, stop_on=3)
        with pytest.raises(tt.MonitorError, match="budget='much': expected a number of bytes, 1 or more"):
            tt.Monitor(path, BATCH, budget="much")
        with pytest.raises(tt.MonitorError, match="vanishing_lag=0: expected a whole number of timesteps"):
            tt.Monitor(path, BATCH, vanishing_lag=0)
        with pytest.raises(tt.MonitorError, match=r"every= raised for step 1, ZeroDivisionError"):
            watched(path.parent, made(), 1, every=lambda step: 1 // 0)
        assert not path.exists()

    def test_a_batch_that_does_not_fit(self, tmp_path: Path) -> None:
        monitor = tt.Monitor(tmp_path / "run.zarr", (X[:8], Y[:3]), loss=MSE)
        with pytest.raises(tt.ThroughTimeError), monitor.watch(made()):
            pass
        assert not (tmp_path / "run.zarr").exists()

    def test_no_loss(self, tmp_path: Path) -> None:
        with pytest.raises(tt.LossError), tt.Monitor(tmp_path / "run.zarr", BATCH).watch(made()):
            pass

    def test_another_models_run(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 1)
        with pytest.raises(tt.StoreError, match="another model"):
            watched(tmp_path, made(nn.GRU), 1)
        run, _ = watched(tmp_path, made(), 1, mode="continue")
        assert run["rnn"].sizes["step"] == 3
