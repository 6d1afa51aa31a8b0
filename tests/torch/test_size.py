"""Captures of torch modules too large for the memory: told before they run, or made in parts that add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import throughtime as tt
from throughtime._common.memory import free as memory
from throughtime._common.memory.budget import Budget, Need

SAMPLES, STEPS, FEATURES, UNITS = 12, 7, 2, 3
RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32"))
EVERY = torch.from_numpy(RNG.normal(size=(SAMPLES, STEPS, 1)).astype("float32"))
WEIGHTS = np.abs(RNG.normal(size=SAMPLES)).astype("float32")
MSE = nn.MSELoss()


class Sequences(nn.Module):
    """Recurrent layers and one number for each step."""

    def __init__(self, kind: Any = nn.LSTM, **config: Any) -> None:
        super().__init__()
        self.rnn = kind(FEATURES, UNITS, **{"batch_first": True, **config})
        self.head = nn.Linear(UNITS * (2 if config.get("bidirectional") else 1), 1)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0])


class Looped(nn.Module):
    """A cell in a loop of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(FEATURES, UNITS), nn.Linear(UNITS, 1)

    def forward(self, x: Any) -> Any:
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0])
        return self.head(torch.stack(outputs, 1))


class WithState(Sequences):
    """Is given the first hidden state, layers first."""

    def forward(self, x: Any, hidden: Any) -> Any:
        return self.head(self.rnn(x, hidden)[0])


class Packing(Sequences):
    """Packs what it is given, as long as its longest sequence."""

    def forward(self, x: Any, lengths: Any) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class Remembering(Sequences):
    """Adds to its output a state that has the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(SAMPLES, 1, 1))

    def forward(self, x: Any) -> Any:
        return super().forward(x) + self.state


def made(model: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return model()


def need_of(monkeypatch: Any, capture: Callable[[], Any]) -> tuple[Need, Any]:
    """The whole need of a capture, as it is judged, and what it captured."""
    needs: list[Need] = []
    with monkeypatch.context() as patch:
        patch.setattr(Budget, "check", lambda self, need: needs.append(need))
        whole = capture()
    return needs[-1], whole


def with_too_little(monkeypatch: Any, capture: Callable[[], Any]) -> tuple[Any, Callable[[], Any]]:
    """A capture, and the same with a little less memory than it needs."""
    need, whole = need_of(monkeypatch, capture)
    monkeypatch.setattr(memory, "available", lambda: int(Budget(0, SAMPLES, SAMPLES).needed(need)) - 1)
    return whole, capture


def assert_equal(whole: Any, parts: Any) -> None:
    assert parts.attrs.pop("chunks") > 1
    assert parts.attrs == whole.attrs
    assert [node.path for node in parts.leaves] == [node.path for node in whole.leaves]
    for node in whole.leaves:
        ours, theirs = parts[node.path].to_dataset(), node.to_dataset()
        assert ours.attrs == theirs.attrs
        assert list(ours.data_vars) == list(theirs.data_vars)
        for name, variable in theirs.data_vars.items():
            assert ours[name].dtype == variable.dtype, name
            if name.startswith("certificate"):
                assert not np.nanmax(ours[name].values, initial=0) > 1e-5
            else:
                assert difference(ours[name].values, variable.values) < 1e-5, (node.path, name)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": Sequences,
    "two layers, both directions": lambda: Sequences(nn.GRU, num_layers=2, bidirectional=True),
    "projection": lambda: Sequences(proj_size=2),
    "relu": lambda: Sequences(nn.RNN, nonlinearity="relu"),
    "cell in a loop": Looped,
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_parts_add_up(monkeypatch: Any, name: str) -> None:
    model = made(MODELS[name])
    if name == "projection":
        model.head = nn.Linear(2, 1)
    whole, capture = with_too_little(monkeypatch, lambda: tt.capture(model, X, EVERY, loss=MSE, layers="all"))
    assert_equal(whole, capture())


def test_parts_of_a_batch_with_its_steps_first_add_up(monkeypatch: Any) -> None:
    model = made(lambda: Sequences(batch_first=False))
    x, y = X.swapaxes(0, 1), EVERY.swapaxes(0, 1)
    whole, capture = with_too_little(monkeypatch, lambda: tt.capture(model, x, y, loss=MSE))
    assert whole["rnn"].sizes["sample"] == SAMPLES
    assert_equal(whole, capture())


def test_states_given_have_their_samples_on_the_second_axis(monkeypatch: Any) -> None:
    model = made(lambda: WithState(nn.GRU, num_layers=2))
    x = (X, torch.ones(2, SAMPLES, UNITS))
    whole, capture = with_too_little(monkeypatch, lambda: tt.capture(model, x, EVERY, loss=MSE))
    assert_equal(whole, capture())


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "sum": nn.MSELoss(reduction="sum"),
    "one value a sample": lambda output, y: (output - y).square().mean((1, 2)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_that_can_be_taken_apart_adds_up(monkeypatch: Any, name: str) -> None:
    model = made(Sequences)
    weight = WEIGHTS if "value" in name else None
    whole, capture = with_too_little(
        monkeypatch, lambda: tt.capture(model, X, EVERY, loss=LOSSES[name], sample_weight=weight)
    )
    assert_equal(whole, capture())


def test_without_labels_there_is_nothing_to_add_up(monkeypatch: Any) -> None:
    model = made(Sequences)
    whole, capture = with_too_little(monkeypatch, lambda: tt.capture(model, X))
    assert_equal(whole, capture())


def test_the_classic_gradient_is_that_of_the_whole_batch(monkeypatch: Any) -> None:
    model = made(Sequences)
    whole, capture = with_too_little(
        monkeypatch, lambda: tt.get_rnn_gradients(model, X, EVERY, layer_name="rnn", loss=MSE)
    )
    assert difference(capture(), whole) < 1e-5


def test_a_stated_budget_is_kept_to(monkeypatch: Any) -> None:
    model = made(Sequences)
    need, whole = need_of(monkeypatch, lambda: tt.capture(model, X, EVERY, loss=MSE))
    enough = Budget(0, SAMPLES, SAMPLES).needed(need)
    assert "chunks" not in tt.capture(model, X, EVERY, loss=MSE, budget=enough + 1).attrs
    assert_equal(whole, tt.Probe(model, loss=MSE, budget=enough - 1)(X, EVERY))


def of_valid_steps(output: Any, y: Any) -> Any:
    valid = (y != 0).float()
    return (valid * (output - y).square()).sum() / valid.sum()


def couples(output: Any, y: Any) -> Any:
    return (output - y).sum().square()


@pytest.mark.parametrize("longer", [1, 6])
def test_a_mean_over_valid_steps_is_refused(monkeypatch: Any, longer: int) -> None:
    labels = EVERY.clone()
    labels[:-longer, 3:] = 0  # one sample is longer than the others, or all of the second part are
    model = made(Sequences)
    _, capture = with_too_little(
        monkeypatch,
        lambda: tt.capture(model, X, labels, loss=of_valid_steps, quantities="output_gradient"),
    )
    with pytest.raises(tt.TooLargeError, match="some count for more"):
        capture()


LENGTHS = torch.tensor([3] * 6 + [STEPS] * 6)
REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any]]] = {
    r"neither a mean nor a sum over samples \(couples": (Sequences, X, {"loss": couples}),
    "with training=True": (Sequences, X, {"training": True}),
    "a packed sequence is not taken apart": (
        lambda: nn.LSTM(FEATURES, UNITS),
        pack_padded_sequence(X, torch.full((SAMPLES,), STEPS), batch_first=True),
        {"loss": lambda output, y: output[0].data.square().mean()},
    ),
    "samples and steps are equally many": (
        lambda: Sequences(batch_first=False),
        torch.ones(SAMPLES, SAMPLES, FEATURES),
        {"loss": lambda output, y: output.square().mean()},
    ),
    r"an array of shape \(5,\) has no axis of the 12 samples": (
        lambda: WithState(nn.GRU),
        (X, torch.ones(1, SAMPLES, UNITS)),
        {"y": torch.ones(5), "loss": lambda output, y: output.square().mean()},
    ),
    "has other lengths in one part": (
        Packing,
        (X, LENGTHS),
        {"y": None, "loss": None, "quantities": "output"},
    ),
    "the model fails on a part of it": (Remembering, X, {}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_taken_apart_is_refused_with_the_reason(monkeypatch: Any, reason: str) -> None:
    model, x, arguments = REFUSED[reason]
    module = made(model)
    given = {"y": EVERY, "loss": MSE, "quantities": "output_gradient", **arguments}
    _, capture = with_too_little(monkeypatch, lambda: tt.capture(module, x, **given))
    with pytest.raises(tt.TooLargeError, match=reason):
        capture()


def test_not_even_one_sample_may_fit() -> None:
    with pytest.raises(tt.TooLargeError, match=r"Not even one sample fits.*quantities="):
        tt.capture(made(Sequences), X, EVERY, loss=MSE, budget=10)


def test_a_capture_in_parts_leaves_everything_as_it_was(monkeypatch: Any) -> None:
    model = made(Sequences)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes, generator = {**vars(model.rnn)}, torch.get_rng_state()
    _, capture = with_too_little(monkeypatch, lambda: tt.capture(model, X, EVERY, loss=MSE))
    assert capture().attrs["chunks"] > 1
    with pytest.raises(tt.TooLargeError):
        tt.capture(model, X, EVERY, loss=MSE, budget=10)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert vars(model.rnn).keys() == attributes.keys()
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(generator, torch.get_rng_state())
