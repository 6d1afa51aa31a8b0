"""`Probe.losses` of torch modules: what each sample loses alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt


class Reader(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=batch_first)
        self.head = nn.Linear(4, 2)
        self.batch_first = batch_first

    def forward(self, x):
        states = self.gru(x)[0]
        return self.head(states[:, -1] if self.batch_first else states[-1])


class Every(Reader):
    def forward(self, x):
        return self.head(self.gru(x)[0])


def batch(samples=5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 7, 3, generator=generator)
    return x, torch.randn(samples, 2, generator=generator)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_each_sample_has_its_own_loss(reduction):
    model, (x, y) = Reader(), batch()
    losses = tt.Probe(model, loss=nn.MSELoss(reduction=reduction)).losses(x, y)
    expected = ((model(x) - y) ** 2).mean(1).detach().numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_samples_on_the_second_axis_are_found():
    model, (x, y) = Reader(batch_first=False), batch()
    losses = tt.Probe(model, loss=nn.MSELoss()).losses(x.transpose(0, 1).contiguous(), y)
    assert losses.sizes == {"sample": 5}


def test_the_module_is_left_as_it_was():
    model, (x, y) = Reader(), batch()
    before = {name: (id(weight), weight.detach().clone()) for name, weight in model.named_parameters()}
    tt.Probe(model, loss=nn.MSELoss()).losses(x, y)
    assert model.training
    for name, weight in model.named_parameters():
        assert id(weight) == before[name][0]
        assert torch.equal(weight, before[name][1])
        assert weight.grad is None
    assert "forward" not in vars(model.gru)


def test_one_step_of_a_loss_with_a_value_a_step():
    model, x = nn.GRU(3, 4, batch_first=True), batch()[0]
    y = torch.zeros(5, 7)

    def loss(output, y):
        return (output[0].sum(-1) - y) ** 2

    losses = tt.Probe(model, loss=loss).losses(x, y, step=2)
    expected = (model(x)[0].sum(-1)[:, 2] ** 2 / 7).detach().numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.BCEWithLogitsLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_reduced_loss_of_torch_gives_its_values_where_steps_are_weighed(kind, reduction):
    model, (x, _) = Every(), batch()
    y, loss = torch.rand(5, 7, 2), kind(reduction=reduction)
    before = dict(vars(loss))
    found, values = tt.Probe(model, loss=loss), kind(reduction="none")(model(x), y).detach()
    expected = values[:, 3].mean(1) / 7 if reduction == "mean" else values[:, 3].sum(1)
    np.testing.assert_allclose(found.losses(x, y, step=3), expected, rtol=1e-5)
    weight = torch.rand(5)
    whole = (
        (values * weight[:, None, None]).mean()
        if reduction == "mean"
        else (values.sum((1, 2)) * weight).sum()
    )
    assert float(found(x, y, sample_weight=weight)["gru"]["loss"]) == pytest.approx(float(whole))
    assert vars(loss) == before


def test_classes_at_every_step_may_be_averaged():
    model, (x, _) = Every(), batch()
    y = torch.randint(0, 2, (5, 7))

    def per_step(output, y):
        return nn.functional.cross_entropy(output.transpose(1, 2), y, reduction="none")

    class Turned(nn.CrossEntropyLoss):
        def forward(self, output, y):
            return super().forward(output.transpose(1, 2), y)

    theirs, ours = (tt.lag_matrix(model, x, y, loss=loss)["gru"] for loss in (per_step, Turned()))
    np.testing.assert_allclose(ours["lag_matrix"], theirs["lag_matrix"], rtol=1e-5, atol=1e-9)


def test_use_is_measured_where_the_loss_of_every_step_is_averaged():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 12, 3, generator=generator)
    found = tt.diagnose(Every(), x, x[:, :, :2], dependency_length=3, loss=nn.MSELoss())
    assert found.layers["gru"].reach.answer != "not measured"
    assert found.layers["gru"].use.answer != "not measured"
