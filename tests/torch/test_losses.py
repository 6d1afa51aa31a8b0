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
