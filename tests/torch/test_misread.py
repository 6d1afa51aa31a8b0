"""A model that reads both directions at the last step: `diagnose` finds it, and its remedy mends it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import throughtime as tt
from throughtime.diagnosis import Diagnosis
from throughtime.diagnosis.brief import headline

UNITS = 8
Read = Callable[[nn.Module, Tensor], Tensor]


def at_the_last_step(lstm: nn.Module, x: Tensor) -> Tensor:
    return lstm(x)[0][:, -1]


def as_a_sequence(lstm: nn.Module, x: Tensor) -> Tensor:
    return lstm(x)[0].mean(1)


def final_states(lstm: nn.Module, x: Tensor) -> Tensor:
    _, (h_n, _) = lstm(x)
    return torch.cat([h_n[-2], h_n[-1]], 1)


class Reader(nn.Module):
    def __init__(self, read: Read, *, bidirectional: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, UNITS, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(UNITS * (1 + bidirectional), 1)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(self.lstm, x))


def diagnosed(read: Read, **settings: bool) -> Diagnosis:
    torch.manual_seed(0)
    x = torch.randn(32, 15, 2)
    return tt.diagnose(Reader(read, **settings), x, x[:, 0, :1], loss=nn.MSELoss(), dependency_length=5)


def test_the_last_step_of_both_directions_is_a_finding():
    found = diagnosed(at_the_last_step)
    assert found.to_dict()["findings"]["misread"] == "yes"
    assert "the model reads lstm[backward] after a single step" in headline(found)
    first, *others = [each.text for each in found.brief.actions]
    assert first.startswith("Read each direction where it ends")
    assert "Nothing has to change" not in others


@pytest.mark.parametrize(
    ("read", "bidirectional"), [(final_states, True), (as_a_sequence, True), (at_the_last_step, False)]
)
def test_a_layer_that_is_read_well_is_none(read, bidirectional):
    assert diagnosed(read, bidirectional=bidirectional).to_dict()["findings"]["misread"] == "no"


def test_the_code_of_the_remedy_returns_the_final_states():
    code = diagnosed(at_the_last_step).brief.actions[0].code
    lstm, x = Reader(final_states).lstm, torch.randn(4, 15, 2)
    names = {"lstm": lstm, "x": x, "units": UNITS, "torch": torch}
    exec(code, names)  # our own text
    torch.testing.assert_close(names["ends"], final_states(lstm, x))


class FirstInput(nn.Module):
    """Reads the last step of a layer that is given samples first."""

    def __init__(self, layer, head):
        super().__init__()
        self.layer, self.head = layer, head

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_samples_taken_for_steps_are_named(kind):
    x, y = torch.randn(40, 20, 1), torch.randn(40, 1)
    forgotten = FirstInput(kind(1, 4), nn.Linear(4, 1))
    found = tt.diagnose(forgotten, x, y, loss=nn.MSELoss(), dependency_length=6)
    assert found.verdict == "cannot_say"
    assert "treats the 40 samples as steps" in found.text
    assert found.to_dict()["findings"]["misread"] == "yes"
    assert "batch_first=True" in str(found.brief)
    meant = FirstInput(kind(1, 4, batch_first=True), nn.Linear(4, 1))
    assert not tt.diagnose(meant, x, y, loss=nn.MSELoss(), dependency_length=6).misread
