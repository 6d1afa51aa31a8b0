"""What a capture does where it used to be wrong in silence: penalties, odd arrays, odd batches, no labels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt

B, T, M, N = 6, 9, 3, 4
MSE = nn.MSELoss()
GATES = ["input", "forget", "candidate", "output"]


class Reader(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(M, N, batch_first=True, **settings)
        width = (settings.get("proj_size") or N) * (2 if settings.get("bidirectional") else 1)
        self.head = nn.Linear(width, 1)
        self.every_step = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence = self.lstm(x)[0]
        return self.head(sequence if self.every_step else sequence[:, -1])


def data(*, every_step: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, M, generator=generator)
    return x, torch.randn(B, *((T,) if every_step else ()), 1, generator=generator)


def test_a_penalty_on_parameters_that_the_loss_holds_is_part_of_the_weight_gradients() -> None:
    model, (x, y) = Reader(), data()
    held = list(model.parameters())

    def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return MSE(output, y) + 0.1 * sum(parameter.square().sum() for parameter in held)

    tree = tt.capture(model, x, y, loss=loss, layers="all")
    loss(model(x), y).backward()
    leaf = tree["lstm"].to_dataset()
    for name, parameter in (
        ("kernel", model.lstm.weight_ih_l0),
        ("recurrent_kernel", model.lstm.weight_hh_l0),
    ):
        ours = leaf[f"{name}_gradient"].sel(gate=GATES).transpose("gate", "unit", ...).values
        assert parameter.grad is not None
        np.testing.assert_allclose(
            ours.reshape(parameter.shape), parameter.grad.numpy(), rtol=1e-4, atol=1e-6
        )
    assert model.head.weight.grad is not None
    np.testing.assert_allclose(tree["head"]["weight_gradient"].values, model.head.weight.grad, rtol=1e-4)
    assert float(leaf["certificate_weights"]) < 1e-5  # of the layer's own share


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("steps", [1, T])
def test_a_projected_lstm_in_both_directions_has_an_inside_at_any_length(steps: int) -> None:
    model, (x, y) = Reader(proj_size=2, bidirectional=True), data()
    x = x[:, :steps].clone().requires_grad_()
    leaf = tt.capture(model, x.detach(), y, loss=MSE)["lstm"].to_dataset()
    MSE(model(x), y).backward()
    assert x.grad is not None
    np.testing.assert_allclose(leaf["input_gradient"] / B, x.grad, rtol=1e-4, atol=1e-8)
    assert (leaf["certificate_time"] < 1e-5).all()


@pytest.mark.parametrize(
    "odd",
    [
        lambda a: a[:, ::-1][:, ::-1][::-1][::-1],
        lambda a: a.astype(">f4"),
        lambda a: np.flip(np.flip(a, 1).copy(), 1),
    ],
    ids=["views", "big-endian", "negative strides"],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("settings", [{}, {"proj_size": 2}], ids=["plain", "projected"])
def test_strides_and_byte_order_change_nothing(odd: Any, settings: dict[str, Any]) -> None:
    model, (x, y) = Reader(**settings), data(every_step=True)
    model.every_step = True
    for function in (tt.capture, tt.lag_matrix):
        plain = function(model, x.numpy(), y.numpy(), loss=nn.MSELoss(reduction="none"))["lstm"].to_dataset()
        other = function(model, odd(x.numpy()), odd(y.numpy()), loss=nn.MSELoss(reduction="none"))["lstm"]
        assert plain.equals(other.to_dataset())


def test_a_lag_matrix_of_bfloat16_tensors() -> None:
    model, (x, y) = Reader(), data(every_step=True)
    model.every_step = True
    loss = nn.MSELoss(reduction="none")
    found = tt.lag_matrix(model.bfloat16(), x.bfloat16(), y.bfloat16(), loss=loss)["lstm"]["lag_matrix"]
    truth = tt.lag_matrix(model.float(), x.bfloat16().float(), y.bfloat16().float(), loss=loss)["lstm"][
        "lag_matrix"
    ]
    np.testing.assert_allclose(found, truth, atol=0.05 * float(truth.max()))


def test_capture_hands_weights_mode_and_budget_on_to_the_lag_matrix() -> None:
    model, (x, y) = Reader(), data(every_step=True)
    model.every_step = True
    loss, weights = nn.MSELoss(reduction="none"), np.arange(1.0, B + 1)
    asked = {"loss": loss, "quantities": ["hidden_gradient", "lag_matrix"]}
    plain = tt.capture(model, x, y, **asked)["lstm"]["lag_matrix"]
    weighted = tt.capture(model, x, y, sample_weight=weights, **asked)["lstm"]
    np.testing.assert_allclose(weighted["lag_matrix"], plain * weights[:, None, None], rtol=1e-4, atol=1e-9)
    by_step = np.zeros((B, T))
    by_step[:, 2] = 3.0
    only = tt.capture(model, x, y, sample_weight=by_step, **asked)["lstm"]
    np.testing.assert_allclose(
        only["lag_matrix"].sel(loss_time=2), 3 * plain.sel(loss_time=2), rtol=1e-4, atol=1e-9
    )
    assert not only["lag_matrix"].drop_sel(loss_time=2).any()
    with pytest.raises(tt.TooLargeError):
        tt.capture(model, x, y, budget="1 kB", **asked)


class Dropping(Reader):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


def test_a_lag_matrix_in_training_has_dropout() -> None:
    model, (x, y) = Dropping(), data(every_step=True)
    model.every_step = True
    asked = {"loss": nn.MSELoss(reduction="none"), "quantities": ["lag_matrix"]}
    calm, shaken = (tt.capture(model, x, y, training=each, **asked)["lstm"] for each in (False, True))
    assert not np.allclose(calm["lag_matrix"], shaken["lag_matrix"])


def test_forgotten_labels_are_one_warning_that_says_what_is_left_out() -> None:
    model, (x, y) = Reader(), data()
    with pytest.warns(tt.ThroughTimeWarning, match=r"no labels.*hidden_gradient.*Pass y") as told:
        tt.capture(model, x)
    assert [warning.filename for warning in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tt.capture(model, x, quantities=["hidden"])
        tt.capture(model, x, y, loss=MSE)


ODD = {
    "no batch axis": (lambda x: x[0], r"\(9, 3\).*lstm.*\(sample, time, 3\).*x\[None\]"),
    "other width": (lambda x: x[..., :2], r"\(6, 9, 2\).*lstm.*3 features.*got 2"),
    "integers": (lambda x: x.long(), r"lstm takes torch\.float32, and got torch\.int64"),
    "complex": (lambda x: x.to(torch.complex64), r"lstm takes torch\.float32, and got torch\.complex64"),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_batch_that_does_not_fit_is_an_error_that_says_what_the_model_expects(odd: str) -> None:
    model, (x, y) = Reader(), data()
    change, words = ODD[odd]
    with pytest.raises(tt.BatchError, match=words):
        tt.capture(model, change(x), y, loss=MSE)


def test_a_product_of_the_models_own_that_does_not_fit_is_an_error_with_the_batch() -> None:
    class Multiplying(Reader):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) @ torch.ones(99, 1)

    x, y = data()
    says = r"(?s)RuntimeError: mat1 and mat2 shapes cannot be multiplied.*x: Tensor torch.float32 \(6, 9, 3\)"
    for run in (tt.capture, tt.diagnose, lambda model, x, y, loss: tt.Probe(model, loss=loss).losses(x, y)):
        with pytest.raises(tt.BatchError, match=says) as caught:
            run(Multiplying(), x, y, loss=MSE)
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_what_a_models_own_code_raises_stays_as_it_is() -> None:
    class Raising(Reader):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise ZeroDivisionError("mine")

    x, y = data()
    with pytest.raises(ZeroDivisionError, match="mine"):
        tt.capture(Raising(), x, y, loss=MSE)
