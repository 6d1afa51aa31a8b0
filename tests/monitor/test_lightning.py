"""A monitor in Lightning's Trainer: steps of the optimizer, and training that stays the same."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tests.monitor import two_processes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import throughtime as tt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it says of itself when it is imported
    from lightning import pytorch as pl

X = torch.randn(24, 6, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum((1, 2))[:, None]
MSE = nn.MSELoss()


class Reader(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        x, y = batch
        return MSE(self(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


class Watching(Reader):
    """Notes norms before and after clipping, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[float] = []
        self.after: list[float] = []

    def norm(self) -> float:
        squares = [(weight.grad.numpy().astype(float) ** 2).sum() for weight in self.parameters()]
        return float(np.sqrt(sum(squares)))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.before.append(self.norm())

    def on_train_batch_end(self, *_: Any) -> None:
        self.after.append(self.norm())  # a step leaves gradients as clipping left them


def recorded(folder: Path, model: Reader, **options: Any) -> xr.DataTree:
    monitor = tt.Monitor(folder / "run.zarr", (X[:8], Y[:8]), every=1, loss=MSE)
    trained(folder, monitor.lightning(), model=model, **options)
    return tt.open_run(folder / "run.zarr")


def trained(folder: Path, *callbacks: Any, model: Reader | None = None, **options: Any) -> Reader:
    torch.manual_seed(0)
    model = model or Reader()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of workers, loggers and the machine
        pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=list(callbacks),
            **options,
        ).fit(model, DataLoader(TensorDataset(X, Y), batch_size=4))
    return model


@pytest.mark.parametrize(("together", "steps"), [(1, [0, 5, 10, 12]), (2, [0, 5, 6])])
def test_records_optimizer_steps_and_leaves_training_alone(
    tmp_path: Path, together: int, steps: list[int]
) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", (X[:8], Y[:8]), every=5, loss=MSE)
    seen = trained(tmp_path, monitor.lightning(), accumulate_grad_batches=together)
    alone = trained(tmp_path, accumulate_grad_batches=together)
    for left, right in zip(seen.parameters(), alone.parameters(), strict=True):
        assert torch.equal(left, right)
    assert tt.open_run(tmp_path / "run.zarr")["rnn"]["step"].values.tolist() == steps


def test_a_run_is_one_training(tmp_path: Path) -> None:
    model = Reader()
    recorded(tmp_path, model)
    with pytest.raises(tt.StoreError, match="with other weights"):
        recorded(tmp_path, Reader())
    recorded(tmp_path, model)
    assert int(tt.open_run(tmp_path / "run.zarr")["rnn"]["step"][-1]) == 24


def test_training_that_fails_ends_the_run(tmp_path: Path) -> None:
    class Failing(Reader):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            if self.global_step == 3:
                raise ValueError("no such word")
            return super().training_step(batch, index)

    with pytest.raises(ValueError, match="no such word"):
        recorded(tmp_path, model := Failing())
    assert tt.open_run(tmp_path / "run.zarr")["rnn"]["step"].values[-1] == 3
    found = tt.open_run(tmp_path / "run.zarr")["rnn"]["loss"].values[-1]
    assert float(found) == pytest.approx(float(MSE(model(X[:8]), Y[:8]).detach()), rel=1e-6)
    assert not list(tmp_path.glob(".*.lock"))


def test_a_monitor_among_callbacks_names_the_one_to_pass(tmp_path: Path) -> None:
    with pytest.raises(tt.MonitorError, match=r"callbacks=\[monitor.lightning\(\)\]"):
        trained(tmp_path, tt.Monitor(tmp_path / "run.zarr", (X, Y), loss=MSE))


def test_an_alarm_stops_the_trainer(tmp_path: Path) -> None:
    monitor = tt.Monitor(
        tmp_path / "run.zarr",
        (X[:8], Y[:8]),
        every=1,
        loss=lambda output, y: 0 * MSE(output, y),
        stop_on="dead_gradient",
        on_alarm=lambda alarm: None,
    )
    trained(tmp_path, monitor.lightning())
    assert monitor.should_stop
    assert tt.open_run(tmp_path / "run.zarr")["rnn"]["step"].values[-1] < 12


class TestGradientNorms:
    """Norms before clipping, against those of the module's own `on_before_optimizer_step`."""

    @pytest.mark.parametrize("limit", [None, 0.8])
    @pytest.mark.parametrize("algorithm", ["norm", "value"])
    def test_are_those_before_clipping(self, tmp_path: Path, algorithm: str, limit: float | None) -> None:
        limit = limit and limit / (1 if algorithm == "norm" else 10)
        model = Watching()
        run = recorded(tmp_path, model, gradient_clip_val=limit, gradient_clip_algorithm=algorithm)
        np.testing.assert_allclose(run["gradient_norm"][1:], model.before, rtol=1e-6)
        if limit is None:
            assert np.isnan(run["clip_ratio"]).all()
        else:
            ratio = np.divide(model.after, model.before)
            assert min(ratio) < 0.99
            np.testing.assert_allclose(run["clip_ratio"][1:], ratio, rtol=1e-5)

    @pytest.mark.parametrize("is_fused", [False, True], ids=["Lightning unscales", "the optimizer unscales"])
    def test_are_without_the_loss_scale(self, tmp_path: Path, is_fused: bool) -> None:
        class Fused(Watching):
            def configure_optimizers(self) -> Any:
                return torch.optim.Adam(self.parameters(), fused=is_fused)

        scaler, model = torch.amp.GradScaler("cpu", init_scale=256.0), Fused()
        before = copy.deepcopy(model)
        precision = pl.plugins.precision.MixedPrecision("16-mixed", "cpu", scaler)
        run = recorded(tmp_path, model, plugins=[precision])
        scale = 256.0 if is_fused else 1.0  # what the module's own hook finds
        np.testing.assert_allclose(run["gradient_norm"][1:], np.divide(model.before, scale), rtol=1e-6)
        gradients = torch.autograd.grad(MSE(before(X[:4]), Y[:4]), list(before.parameters()))
        wanted = torch.cat([gradient.ravel() for gradient in gradients]).norm()
        np.testing.assert_allclose(run["gradient_norm"][1], wanted, rtol=0.02)  # in half precision

    def test_clipping_of_the_modules_own_is_not_guessed(self, tmp_path: Path) -> None:
        class Own(Watching):
            def configure_gradient_clipping(self, optimizer: Any, **_: Any) -> None:
                self.clip_gradients(optimizer, 0.01, "norm")

        model = Own()
        run = recorded(tmp_path, model)
        np.testing.assert_allclose(run["gradient_norm"][1:], model.before, rtol=1e-6)
        assert np.isnan(run["clip_ratio"]).all()

    def test_a_loop_of_the_modules_own_tells_none(self, tmp_path: Path) -> None:
        class Manual(Reader):
            def __init__(self) -> None:
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch: Any, index: int) -> None:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(MSE(self(batch[0]), batch[1]))
                self.clip_gradients(optimizer, 0.01, "norm")
                optimizer.step()

        assert set(recorded(tmp_path, Manual()).data_vars) == {"weights_fingerprint"}

    @pytest.mark.slow
    def test_of_two_processes_are_those_of_both(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "tests.monitor.two_processes", str(tmp_path / "run.zarr")]
        where = Path(__file__).parents[2]
        finished = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        run = tt.open_run(tmp_path / "run.zarr")
        assert run["step"].values.tolist() == [0, 1, 2]
        model = two_processes.Reader()
        first = tt.capture(model, two_processes.X[:8], two_processes.Y[:8], loss=MSE)["rnn"]
        assert run["rnn"]["lag_ratio_samples"].values[0, 0] == 8  # each process had four of them
        np.testing.assert_allclose(run["rnn"]["loss"][0], first["loss"], rtol=1e-6)
        optimizer, wanted = model.configure_optimizers(), []
        for start in (0, 8):
            optimizer.zero_grad()
            batch = slice(start, start + 8)  # four samples of each
            MSE(model(two_processes.X[batch]), two_processes.Y[batch]).backward()
            wanted.append(float(nn.utils.clip_grad_norm_(model.parameters(), two_processes.LIMIT)))
            optimizer.step()
        np.testing.assert_allclose(run["gradient_norm"][1:], wanted, rtol=1e-5)
        assert float(run["clip_ratio"].min()) < 1
        ratio = np.minimum(1, np.divide(two_processes.LIMIT, wanted))
        np.testing.assert_allclose(run["clip_ratio"][1:], ratio, rtol=1e-5)
