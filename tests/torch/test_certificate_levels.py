"""Between the bar and the limit a capture is noted and diagnosed; beyond the limit it is refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime import cells, diagnostics
from throughtime.cells import adjoint, lstm, simple_rnn


def chaotic(units: int = 64, steps: int = 600) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A tanh network of gain 2 with inputs of 0.5: gradients grow by e^0.1 a step."""
    torch.manual_seed(0)
    model = nn.RNN(1, units, batch_first=True).double()
    with torch.no_grad():
        model.weight_hh_l0.copy_(2 * torch.randn(units, units) / units**0.5)
        model.weight_ih_l0.normal_()
    x = 0.5 * torch.randn(2, steps, 1).double()
    return model, x, torch.randn(2, units).double()


def loss(output: Any, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(output[0][:, -1], y)


def planted(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    right = simple_rnn.factors

    def wrong(layer: Any, block: Any) -> Any:
        factors = right(layer, block)
        factors.columns[...] *= 1 + error
        return factors

    monkeypatch.setattr(simple_rnn, "factors", wrong)
    monkeypatch.setattr(adjoint, "cell_of", lambda _: simple_rnn)


def largest(leaf: Any) -> float:
    return float(max(leaf["certificate_weights"], leaf["certificate_time"]))


def test_the_two_levels() -> None:
    names = ("float64", "float32", "float16", "bfloat16")
    assert [cells.limit(name) for name in names] == [1e-6, 1e-3, 1e-1, 2e-1]
    assert all(cells.bar(name) < cells.limit(name) for name in names)


@pytest.mark.parametrize("pre_activation", [-8, -16, -30])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_nearly_closed_gates_pass(kind: type[nn.RNNBase], pre_activation: float) -> None:
    """Autograd has all digits of products of nearly closed gates, so the closed forms need them too."""
    model = kind(2, 4, batch_first=True)
    with torch.no_grad():
        model.bias_ih_l0[4:8] = pre_activation  # an LSTM's forget gate, a GRU's update gate
        for each in (model.bias_hh_l0, model.weight_hh_l0):
            each.zero_()
    leaf = tt.capture(model, torch.randn(8, 12, 2), torch.randn(8, 4), loss=loss)[kind.__name__.lower()]
    assert largest(leaf) < cells.bar("float32")


def test_a_chaotic_network_above_the_bar_is_captured_with_a_note_and_diagnosed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = chaotic()
    true = diagnostics.lyapunov_spectrum(tt.capture(model, x, y, loss=loss)["rnn"])
    planted(monkeypatch, 1e-11)  # as large as rounding becomes, for sure
    with pytest.warns(tt.ThroughTimeWarning, match=r"certificate of rnn is .*continue with a note") as told:
        tree = tt.capture(model, x, y, loss=loss)
    assert [warning.filename for warning in told] == [__file__]
    leaf = tree["rnn"]
    assert cells.bar("float64") < largest(leaf) < cells.limit("float64")
    assert "above 1e-12" in leaf.attrs["certificate"]
    with pytest.warns(tt.ThroughTimeWarning, match="certificate of rnn is"):
        spectrum = diagnostics.lyapunov_spectrum(leaf)
    np.testing.assert_allclose(spectrum, true)
    assert 0.05 < float(spectrum.mean("sample").max()) < 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnosis = tt.diagnose(tree)
    assert any("certificate of rnn" in note for note in diagnosis.notes)
    assert diagnosis.layers


def test_a_planted_error_of_one_percent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = chaotic()
    planted(monkeypatch, 0.01)
    with pytest.warns(tt.ThroughTimeWarning, match="will refuse"):
        tree = tt.capture(model, x, y, loss=loss)
    assert largest(tree["rnn"]) > 1e3 * cells.limit("float64")
    with pytest.raises(tt.DiagnosticError, match="do not agree"):
        diagnostics.lyapunov_spectrum(tree["rnn"])
    assert tt.diagnose(tree).verdict.value == "cannot_say"


def test_terms_that_cancel_are_no_error_of_the_inputs_gradient() -> None:
    """dL/dx = Σ dz·W with terms of size 1 that leave 1e-6: float32 keeps no digit of the rest."""
    gate_gradient = np.ones((1, 1, 2), np.float32)
    kernel = np.array([[1.0, -1.0 + 1e-6]], np.float32)
    ours, theirs = np.full((1, 1, 1), 1e-6, np.float32), np.full((1, 1, 1), 1.06e-6, np.float32)
    terms = cells.input_terms(cells.step_sizes(gate_gradient), kernel)
    assert terms == pytest.approx(2.0)
    assert cells.certificate_time(ours, theirs) > 0.05
    assert cells.certificate_time(ours, theirs, terms=terms) < cells.bar("float32")
    assert cells.certificate_time(ours * 1e4, theirs * 1.01e4, terms=terms) > cells.bar("float32")


class Latch(nn.Module):
    """One LSTM unit that keeps its first input: its gates stand 2e-9 below 1, where float32 has no number."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(2, 1, batch_first=True)
        with torch.no_grad():
            for weight in self.rnn.parameters():
                weight.zero_()
            self.rnn.weight_ih_l0[0, 1] = 40.0  # input gate: open where the second input is 1
            self.rnn.weight_ih_l0[2, 0] = 1.0
            self.rnn.bias_ih_l0.copy_(torch.tensor([-20.0, 20.0, 0.0, 20.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x)[0][:, -1]


def latched() -> Any:
    x = torch.randn(16, 30, 2, generator=torch.Generator().manual_seed(0))
    x[:, :, 1] = torch.eye(30)[0]
    return tt.capture(Latch(), x, 0.9 * torch.tanh(x[:, 0, :1]), loss=nn.MSELoss())["rnn"]


def test_rounding_of_gates_at_their_end_is_no_error() -> None:
    leaf = latched()
    assert float(abs(leaf["recurrent_kernel_gradient"]).max()) < 1e-6 * float(
        abs(leaf["kernel_gradient"]).max()
    )
    assert largest(leaf) <= cells.bar("float32")


def test_rounding_of_a_cell_at_the_end_of_tanh_is_no_error() -> None:
    """One unit's 1 − tanh²(c) has no digits, and all that reaches the first steps is what it rounds to."""
    torch.manual_seed(0)
    model = nn.LSTM(3, 2, batch_first=True)
    with torch.no_grad():
        for weight in (model.weight_ih_l0, model.weight_hh_l0):
            weight.mul_(0.01)
        model.bias_hh_l0.zero_()  # input, forget, candidate and output gate of both units:
        model.bias_ih_l0.copy_(torch.tensor([0, -1.6, -4, 6.9, 0.5, -5.5, 2, 2]))
    tree = tt.capture(model, 0.01 * torch.randn(8, 60, 3), torch.randn(8, 2), loss=loss)
    assert float(abs(tree["lstm"]["cell"]).max()) > 9
    assert largest(tree["lstm"]) <= cells.bar("float32")


def test_one_percent_in_the_candidate_beside_gates_at_their_end_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = lstm.factors

    def wrong(layer: Any, block: Any) -> Any:
        factors = right(layer, block)
        factors.columns[:, :, 2] *= 1.01
        return factors

    monkeypatch.setattr(lstm, "factors", wrong)
    with pytest.warns(tt.ThroughTimeWarning, match="certificate of rnn"):
        assert largest(latched()) > 50 * cells.bar("float32")


def test_rounding_that_outlives_a_gradient_which_decays_faster_refuses_nothing():
    """The model reads the fast mode of a nearly linear layer, whose slow mode keeps what is rounded.

    In exact arithmetic the gradient decays by 0.4 a step, and that of the slow mode, which is unread, is 0.
    """
    torch.manual_seed(0)
    units, steps = 8, 30
    modes = torch.linalg.qr(torch.randn(units, units).double())[0]
    model = nn.RNN(1, units, batch_first=True)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        rates = torch.tensor([0.4] + [0.98] * (units - 1)).double()
        model.weight_hh_l0.copy_(modes @ torch.diag(rates) @ modes.T)
        model.weight_ih_l0.copy_(1e-4 * modes[:, :1] + 1e-4 * modes[:, 1:2])
    x, read = torch.randn(32, steps, 1), modes[:, 0].float()

    def mean_of_mode(output: Any, y: torch.Tensor) -> torch.Tensor:
        return (output[0][:, -1] @ read - y).square()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tt.ThroughTimeWarning)
        found = tt.diagnose(model, x, torch.ones(32), loss=mean_of_mode, dependency_length=3)
    (rnn,) = found.layers.values()
    assert not found.stopped
    assert rnn.reach.value == pytest.approx(0.4**3, rel=1e-3)
    assert rnn.horizon == "5"  # 0.4⁵ > 1 % > 0.4⁶
