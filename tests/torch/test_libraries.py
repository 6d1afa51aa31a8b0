"""Layers of other libraries as they are installed: nothing registered, each compared with plain autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from torch import nn

import throughtime as tt

torchrecurrent = pytest.importorskip("torchrecurrent")
snntorch = pytest.importorskip("snntorch")
ncps = pytest.importorskip("ncps.torch")
policies = pytest.importorskip("sb3_contrib.ppo_recurrent.policies")
from gymnasium import Env, spaces  # noqa: E402 - after the libraries are known to be there
from sb3_contrib import RecurrentPPO  # noqa: E402
from sb3_contrib.common.recurrent.type_aliases import RNNStates  # noqa: E402

B, T, N = 3, 6, 4
BARS = {torch.float64: 1e-12, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", BARS, ids=str)
RECURRENT = sorted(
    name for name, one in vars(torchrecurrent).items() if inspect.isclass(one) and not name.endswith("Cell")
)


def squares(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((output - y) ** 2).mean()


class Read(nn.Module):
    """A layer, and a head that reads all of its steps."""

    def __init__(self, layer: nn.Module, width: int = N) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0])


class Spiking(nn.Module):
    """A layer of neurons stepped in a loop, whose last state and spikes are read."""

    def __init__(self, neurons: nn.Module, start: str) -> None:
        super().__init__()
        self.layer, self.begin = neurons, start
        self.enter, self.head = nn.Linear(N, N), nn.Linear(N, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = getattr(self.layer, self.begin)()
        state = state if isinstance(state, tuple) else (state,)
        outputs = []
        for now in x.unbind(1):
            spikes, *state = self.layer(3 * self.enter(now), *state)
            outputs.append(self.head(state[-1] + spikes.to(x.dtype)))
        return torch.stack(outputs, 1)


@contextmanager
def every_result(module: nn.Module) -> Any:
    """Keep what each call of a module returns, also of one that is called past its hooks."""
    calls: list[list[torch.Tensor]] = []
    forward = module.forward

    def keeping(*arguments: Any, **keywords: Any) -> Any:
        result = forward(*arguments, **keywords)
        flat, waiting = [], [result]
        while waiting:
            one = waiting.pop(0)
            if isinstance(one, torch.Tensor):
                flat.append(one)
                if one.requires_grad:  # some carry the last input as well
                    one.retain_grad()
            else:
                waiting += list(one)
        calls.append(flat)
        return result

    module.forward = keeping
    try:
        yield calls
    finally:
        del module.forward


def assert_exact(build: Callable[[], nn.Module], dtype: torch.dtype, *, bar: float | None = None) -> Any:
    """One leaf of all steps, certified, whose states and gradients are those of plain autograd."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)  # some of the libraries make their states in it
    try:
        model, x, y = build(), torch.randn(B, T, N), torch.randn(B, T, 1)
        (leaf,) = tt.capture(model, x, y, loss=squares).leaves
        with every_result(model.get_submodule(leaf.path.strip("/").replace("/", "."))) as calls:
            (squares(model(x), y) * B).backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert leaf.sizes["time"] == T == len(calls)
    assert float(leaf["certificate_time"]) <= BARS[dtype]
    values = [torch.stack(each, 1) for each in zip(*calls, strict=True)]
    gradients = [
        torch.stack([torch.zeros_like(one) if one.grad is None else one.grad for one in each], 1)
        for each in zip(*calls, strict=True)
    ]
    states = leaf.attrs["states"].split(", ")
    for name in states:
        errors = [
            max(
                difference(leaf[name], value.detach()),
                difference(leaf[f"{name}_gradient"], gradient) if value.requires_grad else 0.0,
            )
            for value, gradient in zip(values, gradients, strict=True)
            if tuple(value.shape) == leaf[name].shape
        ]
        assert min(errors) <= (bar or BARS[dtype]), name
    assert np.abs(leaf["hidden_gradient"][:, 0]).max() > 0
    return leaf


def test_all_layers_of_torchrecurrent_are_listed() -> None:
    assert len(RECURRENT) >= 38


@DTYPES
@pytest.mark.parametrize("name", RECURRENT)
def test_every_layer_of_torchrecurrent(name: str, dtype: torch.dtype) -> None:
    assert_exact(lambda: Read(getattr(torchrecurrent, name)(N, N, batch_first=True)), dtype)


NEURONS = {
    "leaky": lambda: Spiking(snntorch.Leaky(beta=0.9), "init_leaky"),
    "synaptic": lambda: Spiking(snntorch.Synaptic(alpha=0.8, beta=0.9), "init_synaptic"),
    "alpha": lambda: Spiking(snntorch.Alpha(alpha=0.9, beta=0.8), "init_alpha"),
}


@DTYPES
@pytest.mark.parametrize("name", NEURONS)
def test_neurons_of_snntorch(name: str, dtype: torch.dtype) -> None:
    # Their spikes, and so what comes back through these, are float32 whatever they compute in.
    leaf = assert_exact(NEURONS[name], dtype, bar=1e-5)
    assert len(leaf.attrs["states"].split(", ")) == ["leaky", "synaptic", "alpha"].index(name) + 1


LIQUID = {
    "cfc": lambda: Read(ncps.CfC(N, N)),
    "cfc_pure": lambda: Read(ncps.CfC(N, N, mode="pure")),
    "ltc": lambda: Read(ncps.LTC(N, N)),
}


@DTYPES
@pytest.mark.parametrize("name", LIQUID)
def test_cells_of_ncps_which_are_called_past_their_hooks(name: str, dtype: torch.dtype) -> None:
    assert assert_exact(LIQUID[name], dtype).attrs["states"] == "hidden"


class TestRolloutsOfRecurrentPPO:
    """`evaluate_actions` of sb3-contrib on 128 steps of 8 environments."""

    ENVIRONMENTS, STEPS, OBSERVED = 8, 128, 4
    STARTS = np.zeros((ENVIRONMENTS, STEPS), bool)
    STARTS[(1, 1, 2, 5, 6), (17, 64, 17, 127, 1)] = True

    class Evaluated(nn.Module):
        def __init__(self, policy: nn.Module) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, *rollout: Any) -> Any:
            return self.policy.evaluate_actions(*rollout)

    @staticmethod
    def loss(output: Any, advantages: torch.Tensor) -> torch.Tensor:
        return -(advantages * output[1].view_as(advantages)).mean(1)

    def batch(self, starts: np.ndarray, steps: int = STEPS, environments: int = ENVIRONMENTS) -> Any:
        torch.manual_seed(1)
        rows, state = steps * environments, (torch.zeros(1, environments, N),) * 2
        given = torch.from_numpy(starts.astype("float32")).reshape(-1)
        rollout = torch.randn(rows, self.OBSERVED), torch.randint(3, (rows,)), RNNStates(state, state), given
        return rollout, torch.randn(environments, steps)

    def policy(self) -> Any:
        torch.manual_seed(0)
        sees, does = spaces.Box(-1, 1, (self.OBSERVED,)), spaces.Discrete(3)
        settings = {"lstm_hidden_size": N, "enable_critic_lstm": False}
        return policies.RecurrentActorCriticPolicy(sees, does, lambda _: 1e-3, **settings)

    def leaf(self, policy: Any, starts: np.ndarray) -> Any:
        x, y = self.batch(starts)
        (leaf,) = tt.capture(self.Evaluated(policy), x, y, loss=self.loss).leaves
        assert leaf.path == "/policy/lstm_actor"
        assert (leaf.sizes["sample"], leaf.sizes["time"]) == self.STARTS.shape
        return leaf.to_dataset()

    def leaks(self, leaf: Any) -> list[tuple[int, int, str]]:
        found = tt.diagnostics.boundary_leak(leaf, self.STARTS)
        return [(one.sample, one.time, one.state) for one in found]

    def planted(self, *states: str) -> list[tuple[int, int, str]]:
        return [(*map(int, place), state) for place in np.argwhere(self.STARTS) for state in states]

    def test_nothing_crosses_a_reset(self) -> None:
        leaf = self.leaf(self.policy(), self.STARTS)
        assert float(leaf["certificate_time"]) <= 1e-5
        np.testing.assert_array_equal(leaf["reset"], self.STARTS)
        carried, before = leaf["carried_gradient"].values[:, :-1], self.STARTS[:, 1:]
        assert (carried[before] == 0).all()
        assert (carried[~before] > 0).all()
        assert self.leaks(leaf) == []

    def test_a_missing_reset_is_named(self) -> None:
        first = np.zeros_like(self.STARTS)
        first[:, 0] = True  # without any start the policy calls its LSTM once
        leaf = self.leaf(self.policy(), first)
        assert self.leaks(leaf) == self.planted("hidden", "cell")

    def test_a_reset_one_step_late_is_named(self) -> None:
        late = np.roll(self.STARTS, 1, axis=1)
        late[:, 0] = False
        leaf = self.leaf(self.policy(), late)
        assert self.leaks(leaf) == self.planted("hidden", "cell")

    def test_a_reset_of_h_alone_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def forgets_c(features: Any, states: Any, starts: Any, lstm: Any) -> Any:
            many, outputs = states[0].shape[1], []
            steps, flags = (
                one.reshape(many, self.STEPS, *one.shape[1:]).swapaxes(0, 1) for one in (features, starts)
            )
            for now, start in zip(steps, flags, strict=True):
                kept = (1.0 - start).view(1, many, 1) * states[0]
                output, states = lstm(now[None], (kept, states[1]))
                outputs.append(output)
            return torch.cat(outputs).transpose(0, 1).flatten(end_dim=1), states

        policy = self.policy()
        monkeypatch.setattr(policy, "_process_sequence", forgets_c)
        assert self.leaks(self.leaf(policy, self.STARTS)) == self.planted("cell")

    def test_a_monitor_follows_learn(self, tmp_path: Path) -> None:
        class Turns(Env[Any, Any]):
            observation_space = spaces.Box(-1, 1, (4,), dtype=np.float32)
            action_space = spaces.Discrete(3)
            turn = 0

            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                super().reset(seed=seed)
                return np.zeros(4, "float32"), {}

            def step(self, action: Any) -> Any:
                self.turn += 1
                seen = np.sin(np.arange(4, dtype="float32") + self.turn)
                return seen, float(action == self.turn % 3), self.turn % 9 == 0, False, {}

        settings = {"lstm_hidden_size": N, "enable_critic_lstm": False}
        model = RecurrentPPO("MlpLstmPolicy", Turns(), n_steps=16, n_epochs=1, policy_kwargs=settings, seed=0)
        batch = self.batch(np.zeros((2, 8), bool), 8, 2)
        monitor = tt.Monitor(tmp_path / "run.zarr", batch=batch, loss=self.loss, every=1, vanishing_lag=None)
        model.learn(48, callback=monitor.sb3())
        leaf = tt.open_run(tmp_path / "run.zarr")["lstm_actor"]
        assert leaf["step"].values.tolist() == [0, 1, 2, 3]
        assert len({float(one) for one in leaf["loss"]}) == 4
