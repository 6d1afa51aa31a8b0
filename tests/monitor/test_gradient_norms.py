"""Norms before clipping that loops of one's own tell, against NumPy on the gradients themselves."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from tests.monitor.loops import BATCH, MSE, X, Y, made, watched

import throughtime as tt

NAMES = {"gradient_norm", "gradient_norm_largest", "clip_ratio", "clipped_share"}
FINGERPRINT = {"weights_fingerprint"}  # which every run has
LIMIT = 2.5


def norm_of(model: torch.nn.Module) -> float:
    """Norm over all weights, in float64 and without torch's own function."""
    return float(
        np.sqrt(sum((weight.grad.numpy().astype(float) ** 2).sum() for weight in model.parameters()))
    )


def clipped(monitor: tt.Monitor, steps: int, **told: Any) -> tuple[list[float], list[float]]:
    """Train with clipping; returns norms before and after it."""
    model, before, after = made(), [], []
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with monitor.watch(model, loss=MSE):
        for _ in range(steps):
            optimizer.zero_grad()
            MSE(model(X), Y).backward()
            before.append(norm_of(model))
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
            after.append(norm_of(model))
            optimizer.step()
            monitor.step(gradient_norm=norm, clip_norm=LIMIT, **told)
    return before, after


def stepped(path: Path, norms: list[Any], **options: Any) -> tuple[xr.DataTree, tt.Monitor]:
    """Tell norms, one a step, and record each; the model stays as it is."""
    arguments = options.pop("arguments", {})
    monitor = tt.Monitor(path / "run.zarr", BATCH, loss=MSE, vanishing_lag=None, **{"every": 1, **options})
    with monitor.watch(made()):
        for norm in norms:
            monitor.step(gradient_norm=norm, **arguments)
    return tt.open_run(path / "run.zarr"), monitor


def test_a_run_has_what_numpy_says_of_the_gradients(tmp_path: Path) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=3, loggers=tt.loggers.CSV(tmp_path / "run.csv"))
    before, after = clipped(monitor, 8)
    assert min(before) < LIMIT < max(before)  # some are clipped, some are not
    run = tt.open_run(tmp_path / "run.zarr")
    assert run["step"].values.tolist() == [0, 3, 6, 8]
    assert set(run.data_vars) == NAMES | FINGERPRINT
    assert np.isnan([run[name][0] for name in NAMES]).all()  # no step was made before the first record
    since = [slice(0, 3), slice(3, 6), slice(6, 8)]
    ratio = np.divide(after, before)
    wanted = {
        "gradient_norm": [before[part][-1] for part in since],
        "gradient_norm_largest": [max(before[part]) for part in since],
        "clip_ratio": [ratio[part][-1] for part in since],
        "clipped_share": [np.mean(np.array(before[part]) > LIMIT) for part in since],
    }
    table = pd.read_csv(tmp_path / "run.csv").iloc[1:]
    for name, values in wanted.items():
        np.testing.assert_allclose(run[name][1:], values, rtol=2e-6)
        group = "throughtime" if name == "gradient_norm" else "detail"
        np.testing.assert_allclose(table[f"{group}/{name}"], run[name][1:], rtol=1e-15)


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    weights = []
    for told in (True, False):
        model = made()
        monitor = tt.Monitor(tmp_path / f"{told}.zarr", BATCH, every=2, loss=MSE)
        optimizer = torch.optim.Adam(model.parameters())
        with monitor.watch(model):
            for _ in range(5):
                optimizer.zero_grad()
                MSE(model(X), Y).backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
                optimizer.step()
                monitor.step(**({"gradient_norm": norm, "clip_norm": LIMIT} if told else {}))
        weights.append(torch.cat([weight.detach().ravel() for weight in model.parameters()]))
    assert torch.equal(*weights)
    assert set(tt.open_run(tmp_path / "False.zarr").data_vars) == FINGERPRINT


@pytest.mark.parametrize(
    "kind", [float, np.float32, torch.tensor, lambda value: torch.tensor(value).requires_grad_()]
)
def test_any_number_is_read(tmp_path: Path, kind: Any) -> None:
    run, _ = stepped(tmp_path, [kind(2.0), kind(0.0)], arguments={"clip_norm": kind(0.5)})
    assert run["gradient_norm"].values[1:].tolist() == [2.0, 0.0]
    assert run["clip_ratio"].values[1:].tolist() == [0.25, 1.0]


def test_many_norms_between_two_records(tmp_path: Path) -> None:
    norms = [torch.tensor(float(place % 2500)) for place in range(1, 3001)]
    run, _ = stepped(tmp_path, norms, every=3000, arguments={"clip_norm": 624.5})
    assert run["gradient_norm"].values[1] == 500
    assert run["gradient_norm_largest"].values[1] == 2499
    assert run["clipped_share"].values[1] == (2499 - 624) / 3000


class TestMixedPrecision:
    def test_norms_are_told_without_the_scale(self, tmp_path: Path) -> None:
        scaler, model = torch.amp.GradScaler("cpu", init_scale=1024.0), made()
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        wanted = []
        monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE)
        with monitor.watch(model):
            for place in range(4):
                optimizer.zero_grad()
                loss = MSE(model(X), Y)
                wanted.append(
                    float(
                        torch.stack(
                            [
                                gradient.double().square().sum()
                                for gradient in torch.autograd.grad(
                                    loss, list(model.parameters()), retain_graph=True
                                )
                            ]
                        )
                        .sum()
                        .sqrt()
                    )
                )
                scaler.scale(loss).backward()
                scale = scaler.get_scale()
                if place % 2:
                    scaler.unscale_(optimizer)
                    scale = 1.0
                norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
                scaler.step(optimizer)
                scaler.update()
                monitor.step(gradient_norm=norm, loss_scale=scale)
        norms = tt.open_run(tmp_path / "run.zarr")["gradient_norm"].values[1:]
        np.testing.assert_allclose(norms, wanted, rtol=1e-6)

    def test_a_step_that_the_scaler_skips_is_no_alarm(self, tmp_path: Path) -> None:
        norms = [3.0, float("inf"), 2.0, float("nan")]
        run, monitor = stepped(tmp_path, norms, every=4, arguments={"loss_scale": 2.0, "clip_norm": 1.25})
        assert not monitor.alarms
        assert np.isnan(run["gradient_norm"].values[1])  # the last step is told as it was
        assert run["gradient_norm_largest"].values[1] == 1.5
        assert run["clipped_share"].values[1] == 0.5


class TestAlarms:
    def test_a_norm_that_is_not_finite_is_an_alarm_of_its_step(self, tmp_path: Path) -> None:
        with pytest.warns(tt.ThroughTimeWarning, match="step 3: nonfinite: the norm of all gradients before"):
            _, monitor = stepped(
                tmp_path, [1.0, 2.0, torch.tensor(torch.inf), 2.0], every=4, stop_on="nonfinite"
            )
        (alarm,) = monitor.alarms
        assert (alarm.name, alarm.layer, alarm.step) == ("nonfinite", "", 3)
        assert alarm.evidence == "the norm of all gradients before clipping was inf at step 3"
        assert monitor.should_stop

    def test_a_located_nan_has_it_as_evidence(self, tmp_path: Path) -> None:
        model, seen = made(), []
        monitor = tt.Monitor(
            tmp_path / "run.zarr", BATCH, every=1, loss=MSE, vanishing_lag=None, on_alarm=seen.append
        )
        with monitor.watch(model):
            with torch.no_grad():
                model.rnn.weight_hh_l0[6, 0] = float("nan")
            monitor.step(gradient_norm=float("nan"))
        (alarm,) = seen
        assert alarm.layer == "rnn"
        assert "forget" in alarm.evidence
        assert alarm.evidence.endswith("; the norm of all gradients before clipping was nan at step 1")

    def test_an_explosion_has_it_as_evidence(self, tmp_path: Path) -> None:
        model, seen = made(torch.nn.RNN, nonlinearity="relu"), []
        monitor = tt.Monitor(
            tmp_path / "run.zarr", BATCH, every=1, loss=MSE, vanishing_lag=None, on_alarm=seen.append
        )
        with monitor.watch(model):
            with torch.no_grad():
                model.rnn.weight_hh_l0.copy_(1.5 * torch.eye(5))
                model.rnn.bias_ih_l0.fill_(3.0)
            monitor.step(gradient_norm=50.0)
        (explosion,) = (alarm for alarm in seen if alarm.name == "explosion")
        assert explosion.evidence.endswith("before clipping was 50 at step 1")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"gradient_norm": "large"},
            r"step\(gradient_norm=...\) takes a number or a scalar tensor, not 'large'",
        ),
        ({"gradient_norm": torch.ones(3)}, "takes a number or a scalar tensor"),
        ({"gradient_norm": -1.0}, "gradient_norm must be 0 or more"),
        ({"gradient_norm": 1.0, "clip_norm": -2.0}, "clip_norm must be 0 or more"),
        ({"gradient_norm": 1.0, "loss_scale": 0.0}, "loss_scale must be positive"),
    ],
)
def test_what_is_no_norm_is_a_warning(tmp_path: Path, told: dict[str, Any], message: str) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE)
    with monitor.watch(made()):
        with pytest.warns(tt.ThroughTimeWarning, match=message):
            monitor.step(**told)
        monitor.step(gradient_norm=2.0)
    norms = tt.open_run(tmp_path / "run.zarr")["gradient_norm"].values
    np.testing.assert_array_equal(norms, [np.nan, np.nan, 2.0])


def test_what_is_no_norm_never_raises_however_often_it_is_told(tmp_path: Path) -> None:
    with pytest.warns(tt.ThroughTimeWarning, match="takes a number"):
        run, _ = stepped(tmp_path, ["large"] * 1500, every=2000)
    assert run["step"].values.tolist() == [0, 1500]


class TestRuns:
    def test_norms_may_begin_late_and_end(self, tmp_path: Path) -> None:
        for norms in ([None, None], [1.0, None, 3.0], [None]):
            stepped(tmp_path, norms)
        run = tt.open_run(tmp_path / "run.zarr")
        wanted = [np.nan, np.nan, np.nan, 1.0, np.nan, 3.0, np.nan]
        np.testing.assert_array_equal(run["gradient_norm"], wanted)
        assert run["rnn"]["loss"].isel(step=slice(None)).notnull().all()

    def test_thinning_keeps_them(self, tmp_path: Path) -> None:
        one = watched(tmp_path / "one", made(), 0)[0].nbytes
        with pytest.warns(tt.ThroughTimeWarning, match="every second record was dropped"):
            run, _ = stepped(tmp_path, [float(step) for step in range(1, 21)], budget=6 * one)
        np.testing.assert_array_equal(run["gradient_norm"].values[1:], run["step"].values[1:])

    def test_what_reads_a_run_reads_its_layers_only(self, tmp_path: Path) -> None:
        run, _ = stepped(tmp_path, [1.0, float("inf"), 2.0], quantities="full", arguments={"loss_scale": 1.0})
        assert tt.diagnostics.first_nonfinite(run) is None
        assert tt.plots.evolution(run).panels
        assert set(tt.diagnose(run).layers) == {"rnn"}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            page = tt.report(run, tmp_path / "report.html")
        assert page.stat().st_size > 10_000
