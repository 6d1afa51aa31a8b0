"""Programs as users write them, each with an outcome that follows from how it is made."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import throughtime as tt
from throughtime.diagnosis import Verdict

MSE = nn.MSELoss()


class Last(nn.Module):
    """A head on the last step of a recurrent layer."""

    def __init__(self, rnn: nn.Module, bias: float = 0.0) -> None:
        super().__init__()
        self.rnn, self.head, self.bias = rnn, nn.Linear(rnn.hidden_size, 1), bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])[:, 0] + self.bias


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def actions(found: tt.diagnosis.Diagnosis) -> list[str]:
    return [each.text for each in found.brief.actions]


def test_predictions_that_are_all_too_high_may_use_their_inputs():
    """The loss rises if inputs are exchanged, though a constant prediction would be better than these."""
    rnn = nn.RNN(1, 1, batch_first=True)
    with torch.no_grad():
        for parameter, value in zip(rnn.parameters(), (1.0, 0.9, 0.0, 0.0), strict=True):
            parameter.fill_(value)
    model, x = Last(rnn), torch.randn(256, 8, 1)
    with torch.no_grad():
        y = model(x)
    model.bias = 6 * float(y.std())
    found = tt.diagnose(model, x, y, loss=MSE, dependency_length=1)
    assert found.layers["rnn"].use.answer != "no"
    assert "gains nothing" not in found.text


def test_too_few_samples_for_a_gain_are_named_without_a_number_that_is_no_use():
    torch.manual_seed(1)
    model, x = Last(nn.LSTM(1, 4, batch_first=True)), torch.randn(32, 8, 1)
    with torch.no_grad():
        y = model(x) + 0.3 * torch.randn(32)
    found = tt.diagnose(model, x, y, loss=MSE, dependency_length=1)
    use = found.layers["rnn"].use
    assert use.answer == "unclear"
    assert math.isnan(use.value)
    assert "32 samples are too few to decide whether all inputs together" in found.text
    assert any(text.startswith("Pass more samples") for text in actions(found))


def test_a_label_that_is_not_finite_is_a_fault_of_the_data():
    model, x, y = Last(nn.GRU(1, 4, batch_first=True)), torch.randn(20, 8, 1), torch.randn(20)
    y[3] = math.nan
    found = tt.diagnose(model, x, y, loss=MSE, dependency_length=2)
    assert (found.verdict, found.stopped) == (Verdict.CANNOT_SAY, "nonfinite")
    assert "nan in y[3]" in found.text
    assert actions(found) == []
    with torch.no_grad():
        model.head.bias.fill_(math.inf)
    found = tt.diagnose(model, x, torch.zeros(20), loss=MSE, dependency_length=2)
    assert (found.verdict, found.stopped) == (Verdict.UNSTABLE, "nonfinite")


def supervised_contrast(output: Tensor, y: Tensor) -> Tensor:
    """Is 0 for one sample, and for two of different classes (Khosla et al. 2020, eq. 2)."""
    similar = (y[:, None] == y) & ~torch.eye(len(y), dtype=torch.bool)
    scores = (output[:, None] * output / 0.2).masked_fill(torch.eye(len(y), dtype=torch.bool), -1e9)
    each = (scores.log_softmax(1) * similar).sum(1) / similar.sum(1).clamp(min=1)
    return -each.mean()


def hinges(output: Tensor, y: Tensor) -> Tensor:
    return torch.relu(y - output).sum()


def test_a_loss_that_is_0_for_a_few_samples_is_compared_on_all():
    model, x = Last(nn.GRU(1, 4, batch_first=True)), torch.randn(20, 8, 1)
    classes = torch.arange(20) % 4
    reduction = tt.capture(model, x, classes, loss=supervised_contrast).attrs["loss_reduction"]
    assert reduction.startswith("couples samples")
    above = torch.where(torch.arange(20) < 8, -9.0, 9.0)
    assert tt.capture(model, x, above, loss=hinges).attrs["loss_reduction"] == "sum over samples"
    mean = tt.capture(model, x, above, loss=lambda *data: hinges(*data) / len(data[1]))
    assert mean.attrs["loss_reduction"] == "mean over samples"


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_inputs_far_from_0_are_to_be_scaled(kind):
    model, x = Last(kind(1, 8, batch_first=True)), torch.randn(64, 10, 1)
    far = 40 * x + 4000
    with torch.no_grad():
        states = model.rnn(far)[0]
    assert ((states.amax(0) - states.amin(0)).amax(0) < 1e-3).float().mean() >= 0.5
    found = tt.diagnose(model, far, x[:, 4, 0], loss=MSE, dependency_length=5)
    assert any(
        text.startswith("If the loss is too high, scale the layer's inputs") for text in actions(found)
    )
    assert not any(text.startswith("Continue training") for text in actions(found))
    found = tt.diagnose(model, x, x[:, 4, 0], loss=MSE, dependency_length=5)
    assert not any("scale the layer's inputs" in text for text in actions(found))


def test_one_gate_gets_one_initialisation():
    model, x = Last(nn.LSTM(1, 8, batch_first=True)), torch.randn(64, 30, 1)
    found = tt.diagnose(model, x, x[:, 0, 0], loss=MSE, dependency_length=28, solved=0.0)
    names = [each.name for each in found.remedies]
    assert "chrono" in names
    assert "forget_bias" not in names


class Windows(nn.Module):
    """Reads windows of 5 steps; `detaches` the states between them."""

    def __init__(self, *, detaches: bool) -> None:
        super().__init__()
        self.rnn, self.head, self.detaches = nn.GRU(1, 8, batch_first=True), nn.Linear(8, 1), detaches

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for window in x.split(5, dim=1):
            output, state = self.rnn(window, state)
            outputs.append(output)
            state = state.detach() if self.detaches else state
        return self.head(torch.cat(outputs, 1))[..., 0]


class Stepped(Windows):
    """Steps a cell through the same windows."""

    def __init__(self, *, detaches: bool, kind: type[nn.Module] = nn.GRUCell) -> None:
        super().__init__(detaches=detaches)
        self.rnn = kind(1, 8)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for step, now in enumerate(x.unbind(1)):
            if step and step % 5 == 0 and self.detaches:
                state = state.detach()
            state = self.rnn(now, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return self.head(torch.stack(outputs, 1))[..., 0]


@pytest.mark.parametrize("model", [Windows, Stepped])
@pytest.mark.parametrize("detaches", [True, False])
def test_states_that_are_detached_are_the_reason_with_a_loss_at_every_step(model, detaches):
    torch.manual_seed(0)
    x = torch.randn(20, 20, 1)
    y = torch.cat([torch.zeros(20, 7), x[:, :-7, 0]], 1)
    found = tt.diagnose(model(detaches=detaches), x, y, loss=MSE, dependency_length=7, solved=0.0)
    names = {each.name for each in found.remedies}
    assert ("window" in names) is detaches
    assert not detaches or "chrono" not in names


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("is_in_a_list", [True, False])
def test_the_code_for_a_cell_in_a_loop_runs_and_makes_it_forget_slowly(kind, is_in_a_list):
    class Listed(Stepped):
        def __init__(self):
            super().__init__(detaches=False, kind=kind)
            self.rnns = nn.ModuleList([self.rnn])
            if is_in_a_list:
                del self.rnn

        def __getattr__(self, name):
            return self.rnns[0] if name == "rnn" and "rnn" not in self._modules else super().__getattr__(name)

    torch.manual_seed(0)
    x = torch.randn(64, 60, 1)
    y = torch.cat([torch.zeros(64, 50), x[:, :-50, 0]], 1)
    model = Listed()
    found = tt.diagnose(model, x, y, loss=MSE, dependency_length=50, solved=0.0)
    code = next(each.code for each in found.brief.actions if "log_times" in each.code)
    exec(code, {"model": model, "torch": torch})  # our own text
    again = tt.diagnose(model, x, y, loss=MSE, dependency_length=50, solved=0.0)
    (before,), (after,) = found.layers.values(), again.layers.values()
    assert after.reach.value > 10 * before.reach.value


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = (nn.GRU(1, 8, batch_first=True) for _ in range(2))

    def forward(self, source: Tensor, before: Tensor) -> Tensor:
        return self.decoder(before, self.encoder(source)[1])[0]


def test_the_share_in_the_verdict_is_that_of_the_table():
    model, data = Translator(), (torch.randn(64, 9, 1), torch.randn(64, 6, 1))
    with torch.no_grad():
        y = model(*data) + 0.01 * torch.randn(64, 6, 8)
    found = tt.diagnose(model, data, y, loss=MSE, dependency_length=2)
    assert len({each.use.value for each in found.layers.values()}) == 2
    largest = max(each.use.value for each in found.layers.values())
    assert f"{100 * largest:.0f} % of the inputs' contribution" in found.text
    assert f"{100 * largest:.0f} %" in str(found.brief)


def test_a_loss_of_0_and_a_head_of_0_are_told_apart():
    model, x = Last(nn.GRU(1, 4, batch_first=True)), torch.randn(20, 8, 1)
    with torch.no_grad():
        model.head.weight.zero_()
        found = [tt.diagnose(model, x, model(x) + gap, loss=MSE, dependency_length=2) for gap in (0.0, 1.0)]
    assert "the loss is 0" in found[0].text
    assert "their weights are 0" in found[1].text


@pytest.mark.parametrize("seed", range(3))
def test_a_gain_from_new_inputs_is_not_denied_with_that_from_old_ones(seed):
    """The newest input explains a fifth of the labels' variance, which 24 samples do not show surely."""
    torch.manual_seed(seed)
    model, x = Last(nn.RNN(1, 4, batch_first=True)), torch.randn(24, 8, 1)
    with torch.no_grad():
        model.rnn.weight_hh_l0.zero_()
        y = model(x)
        y = y + 2 * y.std() * torch.randn(24)
    found = tt.diagnose(model, x, y, loss=MSE, dependency_length=2)
    assert found.layers["rnn"].use.answer == "no"
    assert "inputs of any age" not in found.text
