"""Gradients of the error at the last step alone, against autograd through the layer unrolled by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.diagnosis.layers import by_direction
from throughtime.diagnostics import from_last_step

STEPS, SAMPLES, UNITS, FEATURES = 12, 4, 5, 3


class Pooled(nn.Module):
    """Reads the mean over all steps."""

    def __init__(self, rnn, width):
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0].mean(1))


def unrolled(rnn, suffix, x):
    """Run one direction step by step; return the states of each step in processing order, as nodes."""
    kernel, recurrent = (getattr(rnn, f"weight_{side}_l0{suffix}") for side in ("ih", "hh"))
    bias, other = (getattr(rnn, f"bias_{side}_l0{suffix}") for side in ("ih", "hh"))
    hidden, cell, states = torch.zeros(SAMPLES, UNITS).double(), torch.zeros(SAMPLES, UNITS).double(), []
    order = reversed(range(STEPS)) if suffix else range(STEPS)
    for t in order:
        if isinstance(rnn, nn.LSTM):
            i, f, g, o = (x[:, t] @ kernel.T + bias + hidden @ recurrent.T + other).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        elif isinstance(rnn, nn.GRU):
            inputs, before = x[:, t] @ kernel.T + bias, hidden @ recurrent.T + other
            (r, z, n), (r_h, z_h, n_h) = inputs.chunk(3, 1), before.chunk(3, 1)
            z = (z + z_h).sigmoid()
            hidden = z * hidden + (1 - z) * (n + (r + r_h).sigmoid() * n_h).tanh()
        else:
            hidden = (x[:, t] @ kernel.T + bias + hidden @ recurrent.T + other).tanh()
        states.append((hidden, cell))
    return states


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", [nn.RNN, nn.LSTM, nn.GRU])
def test_it_is_the_vector_jacobian_product_of_the_unrolled_layer(cell, both):
    torch.manual_seed(0)
    rnn = cell(FEATURES, UNITS, batch_first=True, bidirectional=both).double()
    model = Pooled(rnn, UNITS * (1 + both)).double()
    x, y = torch.randn(SAMPLES, STEPS, FEATURES).double(), torch.randn(SAMPLES, 1).double()
    tree = tt.capture(model, x, y, loss=nn.MSELoss())
    for path, leaf in by_direction({"rnn": tree["rnn"].to_dataset()}).items():
        backward = "backward" in path
        states = unrolled(rnn, "_reverse" if backward else "", x)
        error = torch.as_tensor(leaf["hidden_gradient"].values[:, 0 if backward else -1])
        alone, last = from_last_step(leaf), (states[-1][0] * error).sum()
        for at, (hidden, memory) in enumerate(states):
            t = STEPS - 1 - at if backward else at
            nodes = {"hidden_gradient": hidden} | ({"cell_gradient": memory} if cell is nn.LSTM else {})
            for name, node in nodes.items():
                (wanted,) = torch.autograd.grad(last, node, retain_graph=True)
                np.testing.assert_allclose(alone[name].values[:, t], wanted, rtol=1e-9, atol=1e-14)


def test_a_layer_read_at_its_last_step_is_left_as_it_is():
    torch.manual_seed(0)
    rnn = nn.LSTM(FEATURES, UNITS, batch_first=True).double()
    model = Pooled(rnn, UNITS).double()
    model.forward = lambda x: model.head(rnn(x)[0][:, -1])
    x, y = torch.randn(SAMPLES, STEPS, FEATURES).double(), torch.randn(SAMPLES, 1).double()
    leaf = tt.capture(model, x, y, loss=nn.MSELoss())["rnn"].to_dataset()
    alone = from_last_step(leaf)
    for name in ("hidden_gradient", "cell_gradient", "step_contribution"):
        np.testing.assert_allclose(alone[name], leaf[name], rtol=1e-9, atol=1e-15)
