"""A capture leaves module, optimizer, gradients, hooks, random states and data bit-identical."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt

B, T, M, N = 4, 6, 2, 3
MSE = nn.MSELoss()


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, M, generator=generator), torch.randn(B, 1, generator=generator)


class Everything(nn.Module):
    """Dropout, batch statistics, a state kept from call to call, a frozen part, a list, counters, hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(M)
        self.lower = nn.LSTM(M, N, num_layers=2, dropout=0.3, batch_first=True)
        self.dropout = nn.Dropout(0.4)
        self.upper = nn.GRU(N, N, batch_first=True)
        self.cell = nn.RNNCell(N, N)
        self.head = nn.Linear(N, 1)
        self.upper.requires_grad_(False)
        self.kept: Any = None
        self.written = torch.zeros(3)
        self.seen: list[Any] = []
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        x, self.kept = self.lower(x, self.kept)
        self.written.add_(1.0)
        self.seen.append(x.shape)
        self.calls += 1
        sequence, _ = self.upper(self.dropout(x))
        h = None
        for step in sequence.unbind(1):
            h = self.cell(step, h)
        return self.head(h)


def everything() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = Everything()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01)
    MSE(model(data()[0]), data()[1]).backward()
    optimizer.step()
    model.kept = tuple(state.detach() for state in model.kept)
    model.dropout.eval()  # held in evaluation while the rest trains
    return model, optimizer


def snapshot(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """Everything that training goes on from, as bytes and identities."""
    found: dict[str, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers(), ("written", model.written)]:
        found[name] = tensor.detach().numpy().tobytes(), id(tensor), tensor.data_ptr(), tensor.requires_grad
        found[f"{name} grad"] = (
            None if tensor.grad is None else (id(tensor.grad), tensor.grad.numpy().tobytes())
        )
    for name, module in model.named_modules():
        attributes = {k: id(v) for k, v in vars(module).items()}
        found[f"{name} attributes"] = attributes, list(attributes), module.training
        for attribute, value in vars(module).items():
            if isinstance(value, dict):
                found[f"{name} {attribute}"] = [(key, id(item)) for key, item in value.items()]
    found["kept"] = [state.numpy().tobytes() for state in model.kept]
    found["seen"], found["calls"] = list(model.seen), model.calls
    found["flat"] = [id(weight) for weight in model.lower._flat_weights]
    found["optimizer"] = repr(optimizer.state_dict())
    found["random"] = (
        repr(random.getstate()),
        repr(np.random.get_state()),
        torch.get_rng_state().numpy().tobytes(),
    )
    found["modes"] = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_cache_enabled(),
    )
    return found


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    assert not [name for name in before if before[name] != after[name]]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layers", ["recurrent", "all"])
def test_model_optimizer_gradients_and_random_states_stay_bit_identical(training: bool, layers: str) -> None:
    model, optimizer = everything()
    x, y = data(1)
    before = snapshot(model, optimizer)
    first = tt.capture(model, x, y, loss=MSE, training=training, layers=layers)
    second = tt.capture(model, x, y, loss=MSE, training=training, layers=layers)
    assert_same(before, snapshot(model, optimizer))
    for leaf in first.leaves:
        assert leaf.to_dataset().identical(second[leaf.path].to_dataset()), leaf.path


def test_training_goes_on_as_if_nothing_had_been() -> None:
    weights = []
    for captures in (0, 2):
        model, optimizer = everything()
        for _ in range(2):
            for _ in range(captures):
                tt.capture(model, *data(1), loss=MSE, training=True)
            optimizer.zero_grad()
            model.kept = tuple(state.detach() for state in model.kept)
            MSE(model(data(2)[0]), data(2)[1]).backward()
            optimizer.step()
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_callers_tensors_and_arrays_stay_as_they_are() -> None:
    class Writing(nn.Module):
        """Writes on what it is given."""

        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(M, 1, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x.mul_(2.0))[0][:, -1]

    def writing_loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (output - y.add_(1.0)).square().mean()

    x, y = data(1)
    x.requires_grad_()
    copies = x.detach().clone(), y.clone()
    tree = tt.capture(Writing(), x, y, loss=writing_loss)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])
    assert x.grad is None
    assert (x._version, y._version) == (0, 0)
    np.testing.assert_array_equal(tree["rnn"]["input"], 2 * copies[0])
    arrays = [part.numpy() for part in copies]
    for array in arrays:
        array.flags.writeable = False
    tt.capture(Writing(), *arrays, loss=writing_loss)


class Boom(Exception):
    """What a user's own loss may raise."""


@pytest.mark.parametrize("raised", [Boom, KeyboardInterrupt])
def test_a_raising_loss_leaves_everything(raised: type[BaseException]) -> None:
    def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise raised("no loss today")

    model, optimizer = everything()
    before = snapshot(model, optimizer)
    expected = tt.LossError if raised is Boom else KeyboardInterrupt
    with pytest.raises(expected, match="no loss today"):
        tt.capture(model, *data(1), loss=loss, training=True)
    assert_same(before, snapshot(model, optimizer))


def test_a_raising_forward_leaves_everything_and_keeps_its_error() -> None:
    model, optimizer = everything()
    before = snapshot(model, optimizer)
    with pytest.raises(RuntimeError):
        tt.capture(model, torch.zeros(B, T, M + 1), data()[1], loss=MSE)
    assert_same(before, snapshot(model, optimizer))


def test_a_backward_that_raises_leaves_everything() -> None:
    class Raising(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            raise Boom("no gradient today")

    model, optimizer = everything()
    before = snapshot(model, optimizer)
    with pytest.raises(Boom):
        tt.capture(model, *data(1), loss=lambda output, y: MSE(Raising.apply(output), y))
    assert_same(before, snapshot(model, optimizer))


def test_hooks_on_gradients_are_not_called_and_stay() -> None:
    """Hooks that clip or log gradients belong to training; those on forward belong to the model."""
    model = nn.Sequential(nn.Linear(M, M), nn.LSTM(M, N, batch_first=True))
    called = []
    model[0].register_forward_hook(lambda *_: called.append("forward"))
    model[0].register_full_backward_hook(lambda *_: called.append("backward"))
    model[0].register_full_backward_pre_hook(lambda *_: called.append("backward before"))
    for weight in model.parameters():
        weight.register_hook(lambda gradient: called.append("tensor"))
        weight.register_post_accumulate_grad_hook(lambda weight: called.append("accumulated"))
    y = torch.zeros(B, T, N)

    def loss(output: Any, y: torch.Tensor) -> torch.Tensor:
        return MSE(output[0], y)

    tt.capture(model, data()[0], y, loss=loss, layers="all")
    assert called == ["forward"]
    loss(model(data()[0].requires_grad_()), y).backward()
    assert {"backward", "backward before", "tensor", "accumulated"} <= set(called)


def test_accumulated_gradients_and_a_graph_that_waits_for_its_backward_stay() -> None:
    """A capture between forward and backward of a training step changes neither."""
    model, _ = everything()
    model.zero_grad()
    model.eval()
    MSE(model(data()[0]), data()[1]).backward()
    alone = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model.kept = tuple(state.detach() for state in model.kept)
    again, _ = everything()
    again.zero_grad()
    again.eval()
    waiting = MSE(again(data()[0]), data()[1])
    tt.capture(again, *data(1), loss=MSE, training=True)
    waiting.backward()
    together = [p.grad for p in again.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_captured_arrays_do_not_follow_later_training() -> None:
    model, _ = everything()
    x, y = data(1)
    tree = tt.capture(model, x, y, loss=MSE, layers="all")
    before = {leaf.path: leaf.to_dataset().copy(deep=True) for leaf in tree.leaves}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers(), x, y, *model.kept):
            tensor.add_(1)
    for path, leaf in before.items():
        assert leaf.identical(tree[path].to_dataset())


def test_scripted_parts_stay_as_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(M, M), nn.Flatten(0, 1), nn.BatchNorm1d(M), nn.LSTM(M, N)).train()
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        model[2] = torch.jit.script(model[2])
    statistics = model[2].running_mean.clone()
    y = torch.zeros(B * T, N)
    tt.capture(model, data()[0], y, loss=lambda output, y: MSE(output[0], y), training=True)
    assert model[2].training
    assert torch.equal(model[2].running_mean, statistics)
