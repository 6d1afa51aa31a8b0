"""A monitor in `learn` of stable-baselines3, by a stand-in that calls a callback in the same order."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.monitor.loops import MSE, X, Y, made

import throughtime as tt

NAMES = ("stable_baselines3", "stable_baselines3.common", "stable_baselines3.common.callbacks")


class BaseCallback:
    """The hooks that `learn` calls."""

    model: Any = None

    def _on_training_start(self) -> None: ...
    def _on_rollout_start(self) -> None: ...
    def _on_rollout_end(self) -> None: ...
    def _on_training_end(self) -> None: ...
    def _on_step(self) -> bool:
        raise NotImplementedError


def learn(policy: Any, callback: Any, rollouts: int) -> int:
    """Collect and train by turns, as PPO does; return the rollouts that were trained on."""
    optimizer = policy.optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    callback.model = SimpleNamespace(policy=policy)
    callback._on_training_start()
    trained = 0
    while trained < rollouts:
        callback._on_rollout_start()
        if not all(callback._on_step() for _ in range(4)):
            break
        callback._on_rollout_end()
        optimizer.zero_grad()
        MSE(policy(X), Y).backward()
        optimizer.step()
        trained += 1
    callback._on_training_end()
    return trained


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[NAMES[-1]], "BaseCallback", BaseCallback, raising=False)


def test_a_step_is_one_rollout_that_was_trained_on(tmp_path: Path) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", batch=(X, Y), loss=MSE, every=1, vanishing_lag=None)
    callback = monitor.sb3()
    assert isinstance(callback, BaseCallback)
    assert learn(made(), callback, 3) == 3
    run = tt.open_run(tmp_path / "run.zarr")
    leaf = next(node for node in run.leaves if "hidden_gradient_norm" in node.data_vars)
    assert leaf["step"].values.tolist() == [0, 1, 2, 3]


def test_a_policy_is_captured_as_it_evaluates_a_rollout(tmp_path: Path) -> None:
    policy = made()
    policy.evaluate_actions = lambda x, actions: (policy(x), actions)

    def loss(output: Any, y: Any) -> Any:
        values, actions = output
        return MSE(values, y) + 0 * actions.sum()

    batch = ((X, torch.zeros(len(X))), Y)
    monitor = tt.Monitor(tmp_path / "run.zarr", batch=batch, loss=loss, every=1, vanishing_lag=None)
    assert learn(policy, monitor.sb3(), 1) == 1
    run = tt.open_run(tmp_path / "run.zarr")
    losses = [float(value) for value in next(iter(run.leaves))["loss"]]
    assert losses[0] == pytest.approx(float(MSE(made()(X), Y).detach()), rel=1e-6)


def test_without_stable_baselines3_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, NAMES[-1], None)
    with pytest.raises(tt.MissingDependencyError, match="pip install stable-baselines3"):
        tt.Monitor(tmp_path / "run.zarr", batch=(X, Y), loss=MSE).sb3()
