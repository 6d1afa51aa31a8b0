"""Loops over padded samples, in which a sample that is done keeps its state: those steps are not valid.

The oracle is the loop on one sample's valid steps alone; for one of torch's layers a packed sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from tests.torch.rows import normal, seeded
from tests.torch.test_recurrences import K, LeakyRNN, M, N
from torch import nn

import throughtime as tt

T = 7
LENGTHS = torch.tensor([7, 4, 6, 2])
B = len(LENGTHS)
X, Y = normal(B, T, M), normal(B, K, seed=7)
MSE = nn.MSELoss()
STEPPED: dict[str, Callable[[], nn.Module]] = {
    "leaky": LeakyRNN,
    "rnn_cell": lambda: nn.RNNCell(M, N),
    "gru_cell": lambda: nn.GRUCell(M, N),
    "lstm_cell": lambda: nn.LSTMCell(M, N),
    "lstm": lambda: nn.LSTM(M, N, batch_first=True),
}
HOW: dict[str, Callable[..., torch.Tensor]] = {
    "where": torch.where,
    "product": lambda valid, new, old: valid.double() * new + (1 - valid.double()) * old,
    "clone": lambda valid, new, old: torch.where(valid, new, old).clone(),
}


class Held(nn.Module):
    """Steps through time; what is not valid leaves the states as they are."""

    def __init__(self, name: str, how: str = "where") -> None:
        super().__init__()
        self.cell, self.head, self.how = STEPPED[name](), nn.Linear(N, K), HOW[how]

    def step(self, x: torch.Tensor, states: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if isinstance(self.cell, nn.LSTM):
            _, new = self.cell(x[:, None], tuple(one[None] for one in states))
            return new[0][0], new[1][0]
        if isinstance(self.cell, nn.LSTMCell):
            return self.cell(x, states)
        return (self.cell(x, states[0]),)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        count = 2 if isinstance(self.cell, (nn.LSTM, nn.LSTMCell)) else 1
        states = tuple(x.new_zeros(len(x), N) for _ in range(count))
        for now, keep in zip(x.unbind(1), valid.unbind(1), strict=True):
            pairs = zip(self.step(now, states), states, strict=True)
            states = tuple(self.how(keep[:, None], new, old) for new, old in pairs)
        return self.head(states[0])


def capture(model: nn.Module, x: torch.Tensor, valid: torch.Tensor, y: torch.Tensor) -> Any:
    (leaf,) = tt.capture(model, (x, valid), y, loss=MSE).leaves
    return leaf


PADDED = torch.arange(T) < LENGTHS[:, None]
GAPS = PADDED & (torch.arange(T) != torch.tensor([[3], [1], [2], [9]])) & (torch.arange(T) != 4)
LEFT = torch.arange(T) >= torch.tensor([[0], [2], [3], [1]])


@pytest.mark.parametrize("valid", [PADDED, GAPS, LEFT], ids=["padded", "with gaps", "padded on the left"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", STEPPED)
def test_each_sample_is_as_on_its_valid_steps_alone(name: str, how: str, valid: torch.Tensor) -> None:
    model = seeded(Held(name, how))
    leaf = capture(model, X, valid, Y)
    np.testing.assert_array_equal(leaf["valid"], valid)
    assert not leaf["reset"].any()
    assert float(leaf["certificate_time"].max()) <= 1e-12
    states = ("hidden", "cell") if "lstm" in name else ("hidden",)
    names = [*states, *(f"{one}_gradient" for one in states), "input_gradient", "carried_gradient"]
    for sample in range(B):
        own = valid[sample]
        x = X[sample : sample + 1, own]
        alone = capture(model, x, torch.ones(1, x.shape[1], dtype=torch.bool), Y[sample : sample + 1])
        for variable in names:
            found = leaf[variable].values[sample][own.numpy()]
            assert difference(found, alone[variable].values[0]) <= 1e-12, (sample, variable)
        for variable in (f"initial_{one}_gradient" for one in states):
            found = leaf[variable].values[sample]
            assert difference(found, alone[variable].values[0]) <= 1e-12, (sample, variable)


@pytest.mark.parametrize("name", ["gru_cell", "leaky"])
def test_lags_are_counted_from_each_samples_last_valid_step(name: str) -> None:
    model = seeded(Held(name))
    leaf = capture(model, X, PADDED, Y).to_dataset()
    norms = np.linalg.norm(leaf["hidden_gradient"].values, axis=-1)
    by_lag = [norms[b, :length][::-1] / norms[b, length - 1] for b, length in enumerate(LENGTHS)]
    profile = tt.diagnostics.lag_profile(leaf)
    for lag in range(T):
        known = [one[lag] for one in by_lag if lag < len(one)]
        assert int(profile["samples"].sel(lag=lag)) == len(known)
        assert difference(profile["ratio"].sel(lag=lag), np.exp(np.median(np.log(known)))) <= 1e-10


def test_a_packed_sequence_has_the_same_lags_and_the_same_answer() -> None:
    class Packed(nn.Module):
        def __init__(self, model: Held) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(M, N, batch_first=True).double(), model.head
            for name, weight in model.cell.named_parameters():
                setattr(self.rnn, f"{name}_l0", weight)

        def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            lengths = valid.sum(1)
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.rnn(packed)[1][0])

    loop = seeded(Held("gru_cell"))
    x, y, valid = normal(32, T, M), normal(32, K, seed=7), PADDED.repeat(8, 1)
    answers = [
        tt.diagnose(model, (x, valid), y, loss=MSE, dependency_length=3) for model in (loop, Packed(loop))
    ]
    (one, other) = (str(found.brief).replace("in cell", "in rnn") for found in answers)
    assert one == other
    assert "reset" not in one


def test_episodes_of_one_step_are_resets_and_not_held() -> None:
    class Episodes(Held):
        def forward(self, x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
            state, outputs = x.new_zeros(len(x), N), []
            for now, start in zip(x.unbind(1), starts.unbind(1), strict=True):
                (state,) = self.step(now, (state * ~start[:, None],))
                outputs.append(self.head(state))
            return torch.stack(outputs, 1).mean(1)

    starts = torch.zeros(B, T, dtype=torch.bool)
    starts[0, [2, 3, 4]] = True
    leaf = capture(seeded(Episodes("gru_cell")), X, starts, Y)
    np.testing.assert_array_equal(leaf["reset"], starts)
    assert leaf["valid"].all()


def test_without_labels_all_but_the_last_call_have_their_valid_samples() -> None:
    (leaf,) = tt.capture(seeded(Held("gru_cell")), (X, PADDED), None, loss=MSE).leaves
    np.testing.assert_array_equal(leaf["valid"].values[:, :-1], PADDED[:, :-1])


@pytest.mark.parametrize("name", ["leaky", "gru_cell"])
def test_a_learned_initial_state_has_its_gradient_past_steps_that_hold_it(name: str) -> None:
    class Learned(Held):
        def __init__(self) -> None:
            super().__init__(name)
            self.initial = nn.Parameter(torch.zeros(N))

        def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            state = self.initial.expand(len(x), N)
            for now, keep in zip(x.unbind(1), valid.unbind(1), strict=True):
                state = torch.where(keep[:, None], self.step(now, (state,))[0], state)
            return self.head(state)

    model = seeded(Learned())
    leaf = capture(model, X, LEFT, Y)
    MSE(model(X, LEFT), Y).backward()
    assert difference(leaf["initial_hidden_gradient"].mean("sample"), model.initial.grad) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("quantities", [None, "output_gradient"])
def test_half_precision_keeps_what_the_loss_asks_of_changed_states(
    dtype: torch.dtype, quantities: str | None
) -> None:
    class EachStep(Held):
        def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            state, outputs = x.new_zeros(len(x), N), []
            for now, keep in zip(x.unbind(1), valid.unbind(1), strict=True):
                state = torch.where(keep[:, None], self.step(now, (state,))[0], state)
                outputs.append(self.head(state))
            return torch.stack(outputs, 1).mean(1)

    settings: dict[str, Any] = {"loss": MSE} | ({"quantities": quantities} if quantities else {})
    found = []
    for precision in (torch.float64, dtype):
        model = seeded(EachStep("leaky")).to(precision)
        (leaf,) = tt.capture(model, (X.to(precision), PADDED), Y.to(precision), **settings).leaves
        found.append(leaf["output_gradient"].values)
    assert difference(found[1], found[0]) <= 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ["valid", "reset"])
def test_a_capture_of_one_quantity_has_the_same_steps(name: str) -> None:
    model = seeded(Held("gru_cell"))
    for steps in (PADDED, LEFT):
        (leaf,) = tt.capture(model, (X, steps), Y, loss=MSE, quantities=name).leaves
        np.testing.assert_array_equal(leaf[name], capture(model, X, steps, Y)[name])


def test_steps_that_would_not_change_a_state_are_held_too() -> None:
    class Integrator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(M, N, bias=False)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return h + self.enter(x)

    model = Held("leaky")
    model.cell = Integrator()
    leaf = capture(seeded(model), X * PADDED[..., None], PADDED, Y)
    np.testing.assert_array_equal(leaf["valid"], PADDED)
    last = leaf["hidden_gradient"].values[np.arange(B), LENGTHS - 1]
    wanted = np.where(PADDED[..., None], last[:, None], 0)  # nothing is forgotten
    assert difference(leaf["hidden_gradient"].where(leaf["valid"], 0), wanted) <= 1e-12
    assert last.any()
