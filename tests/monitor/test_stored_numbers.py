"""Saturation and change of weights that a run stores, against models computed anew in NumPy.

Nothing here goes through a capture: gates are replayed from torch's own weights, updates from its gradients.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tests.monitor.loops import BATCH, MSE, X, Y, made, train, watched
from torch import nn

import throughtime as tt

GATES = ("input", "forget", "candidate", "output")  # in torch's order
UNITS = 5
WEIGHTS = {"kernel": "weight_ih_l0", "recurrent_kernel": "weight_hh_l0"}


def by_gate(weights: torch.Tensor) -> np.ndarray:
    """Take (gate · unit, column) as (gate, everything else), in float64."""
    return weights.detach().numpy().astype(float).reshape(len(GATES), -1)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def replayed(lstm: nn.LSTM, x: np.ndarray, suffix: str = "") -> np.ndarray:
    """Run an LSTM in float64: gate values (sample, time, gate, unit), in the order of `x`."""
    kernel, recurrent, *biases = (
        getattr(lstm, f"{name}_l0{suffix}").detach().numpy().astype(float)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = c = np.zeros((len(x), UNITS))
    steps = []
    for t in range(x.shape[1]):
        z = (x[:, t] @ kernel.T + h @ recurrent.T + sum(biases)).reshape(len(x), len(GATES), UNITS)
        i, f, o = (sigmoid(z[:, gate]) for gate in (0, 1, 3))
        g = np.tanh(z[:, 2])
        c = f * c + i * g
        h = o * np.tanh(c)
        steps.append(np.stack([i, f, g, o], 1))
    return np.stack(steps, 1)


def shares(gates: np.ndarray, valid: np.ndarray) -> tuple[list[float], list[float]]:
    """Count, value by value: the lowest and the highest tenth of a range, −1 to 1 for the candidate."""
    left, right = [], []
    for place, name in enumerate(GATES):
        values = gates[:, :, place][valid]
        low, high = (-0.8, 0.8) if name == "candidate" else (0.1, 0.9)
        left.append(sum(value < low for value in values.ravel()) / values.size)
        right.append(sum(value > high for value in values.ravel()) / values.size)
    return left, right


def wide(model: nn.Module) -> nn.Module:
    """Make weights large enough for gates to reach their ends."""
    with torch.no_grad():
        for weight in model.rnn.parameters():
            weight.mul_(6.0)
    return model


class TestSaturation:
    def test_of_known_biases(self, tmp_path: Path) -> None:
        model = made()
        with torch.no_grad():
            for weight in model.rnn.parameters():
                weight.zero_()
            # σ(±2.2) is 0.0998 and 0.9002, σ(±2.19) lies inside;
            # tanh(1.0987) is 0.80005, tanh(1.0985) 0.79998.
            model.rnn.bias_ih_l0.copy_(
                torch.tensor(
                    [
                        *(-2.2, -2.2, -2.19, 0.0, 2.2),
                        *(2.2, 2.2, 2.2, 2.2, 2.19),
                        *(-1.0987, -1.0985, 1.0985, 1.0987, 1.0987),
                        *(0.0, 0.0, 0.0, 0.0, 0.0),
                    ]
                )
            )
        run, _ = watched(tmp_path, model, 0, on_alarm=lambda alarm: None)
        leaf = run["rnn"].to_dataset().isel(step=0).sel(gate=list(GATES))
        assert leaf["saturation_left"].values.tolist() == [0.4, 0.0, 0.2, 0.0]
        np.testing.assert_allclose(leaf["saturation_right"], [0.2, 0.8, 0.4, 0.0], rtol=1e-15)

    @pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=["one way", "both ways"])
    def test_of_a_model_replayed_in_numpy(self, tmp_path: Path, options: dict[str, Any]) -> None:
        model, x = wide(made(**options)), BATCH[0].numpy().astype(float)
        run, _ = watched(tmp_path, model, 2, every=1, on_alarm=lambda alarm: None, quantities="summary")
        leaf = run["rnn"].to_dataset().isel(step=-1).sel(gate=list(GATES))
        ways = {"forward": ("", x), "backward": ("_reverse", x[:, ::-1])}
        for name, (suffix, ordered) in ways.items() if options else [("forward", ways["forward"])]:
            part = leaf.sel(direction=name) if options else leaf
            wanted = shares(replayed(model.rnn, ordered, suffix), np.ones(x.shape[:2], bool))
            assert min(map(max, wanted)) > 0.2
            np.testing.assert_allclose(part["saturation_left"], wanted[0], rtol=1e-12)
            np.testing.assert_allclose(part["saturation_right"], wanted[1], rtol=1e-12)

    def test_counts_valid_steps_only(self, tmp_path: Path) -> None:
        class Packed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                whole = wide(made())
                self.rnn, self.head = whole.rnn, whole.head

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
                return self.head(self.rnn(packed)[1][0][0])

        model = Packed()
        monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, loss=MSE, on_alarm=lambda alarm: None)
        with monitor.watch(model):
            pass
        leaf = tt.open_run(tmp_path / "run.zarr")["rnn"].to_dataset().isel(step=0).sel(gate=list(GATES))
        valid = np.arange(12) < LENGTHS.numpy()[:, None]
        wanted = shares(replayed(model.rnn, BATCH[0].numpy().astype(float)), valid)
        np.testing.assert_allclose(leaf["saturation_left"], wanted[0], rtol=1e-12)
        np.testing.assert_allclose(leaf["saturation_right"], wanted[1], rtol=1e-12)


LENGTHS = torch.tensor([12, 3, 7, 1, 12, 5, 9, 2])


class TestChangeOfWeights:
    def test_is_the_step_of_the_optimizer_over_the_size_of_the_weights(self, tmp_path: Path) -> None:
        model, rate = made(), 0.05  # that of `train`
        run, _ = watched(tmp_path, model, 1, every=1)
        trained, again = model, made()
        MSE(again(X), Y).backward()
        for name, own in WEIGHTS.items():
            update = rate * by_gate(getattr(again.rnn, own).grad)
            weights = by_gate(getattr(trained.rnn, own))
            wanted = np.linalg.norm(update, axis=1) / np.linalg.norm(weights, axis=1)
            check(run, f"{name}_change", wanted, rtol=2e-4)  # a small difference of float32 numbers

    def test_is_since_the_last_record(self, tmp_path: Path) -> None:
        run, _ = watched(tmp_path, made(), 7, every=3)
        steps = [0, 3, 6, 7]
        models = []
        for step in steps:
            models.append(made())
            train(models[-1], step)
        for name, own in WEIGHTS.items():
            held = [by_gate(getattr(model.rnn, own)) for model in models]
            for place in range(1, len(steps)):
                moved = np.linalg.norm(held[place] - held[place - 1], axis=1)
                wanted = moved / np.linalg.norm(held[place], axis=1)
                check(run, f"{name}_change", wanted, place=place, rtol=1e-6)
                check(run, f"{name}_norm", np.linalg.norm(held[place], axis=1), place=place, rtol=1e-6)

    def test_of_a_run_that_goes_on_is_since_it_went_on(self, tmp_path: Path) -> None:
        model = made()
        watched(tmp_path, model, 2, every=2)
        with torch.no_grad():
            for weight in model.rnn.parameters():
                weight.mul_(3.0)  # between two trainings
        middle = by_gate(model.rnn.weight_ih_l0).copy()
        run, _ = watched(tmp_path, model, 2, every=2, mode="continue")
        last = by_gate(model.rnn.weight_ih_l0)
        wanted = np.linalg.norm(last - middle, axis=1) / np.linalg.norm(last, axis=1)
        check(run, "kernel_change", wanted, rtol=1e-6)

    @pytest.mark.parametrize("level", ["summary", "timestep"])
    @pytest.mark.parametrize(("factor", "wanted"), [(2.0, 0.5), (0.5, 1.0), (1.0, 0.0), (-1.0, 2.0)])
    def test_of_weights_multiplied_by_a_factor(
        self, tmp_path: Path, level: str, factor: float, wanted: float
    ) -> None:
        model = made()
        monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE, quantities=level)
        with monitor.watch(model):
            with torch.no_grad():
                for weight in model.rnn.parameters():
                    weight.mul_(factor)
            monitor.step()
        run = tt.open_run(tmp_path / "run.zarr")
        for name in ("kernel", "recurrent_kernel", "bias"):
            check(run, f"{name}_change", np.full(4, wanted), rtol=1e-15)


def check(run: xr.DataTree, name: str, wanted: np.ndarray, *, place: int = -1, rtol: float) -> None:
    found = run["rnn"][name].isel(step=place).sel(gate=list(GATES))
    np.testing.assert_allclose(found, wanted, rtol=rtol, err_msg=name)
