"""A surrogate gradient that overflows: the first number that is not finite has a layer, a step and a unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt

B, T, M, N, STEEP = 3, 30, 4, 5, 2
LEAK, THRESHOLD = 0.9, 1.0


class Spike(torch.autograd.Function):
    """A step forwards; backwards as steep as given for each unit."""

    @staticmethod
    def forward(context: Any, excess: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(slopes)
        return (excess > 0).to(excess.dtype)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (slopes,) = context.saved_tensors
        return gradients[0] * slopes, None


class Neurons(nn.Module):
    """Neurons that leak, fire and are reset; one of them has a surrogate that is far too steep."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(M, N)
        slopes = torch.full((N,), 0.3)
        slopes[STEEP] = 1e4
        self.register_buffer("slopes", slopes)

    def forward(self, x: torch.Tensor, membrane: torch.Tensor) -> torch.Tensor:
        charged = tt.mark(LEAK * membrane + self.inward(x), "charged")
        return charged - THRESHOLD * Spike.apply(charged - THRESHOLD, self.slopes)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neurons, self.head = Neurons(), nn.Linear(N, 1)

    def membranes(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = [x.new_zeros(len(x), N)]
        for now in x.unbind(1):
            found.append(self.neurons(now, found[-1]))
        return found[1:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.membranes(x)[-1])


def test_the_first_overflow_has_its_layer_step_and_unit() -> None:
    torch.manual_seed(0)
    network, x, y = Network(), torch.randn(B, T, M), torch.randn(B, 1)
    membranes = network.membranes(x)
    loss = nn.functional.mse_loss(network.head(membranes[-1]), y)
    gradients = torch.stack(torch.autograd.grad(loss, membranes), 1).numpy()
    with np.errstate(over="ignore"):
        places = np.argwhere(~np.isfinite(gradients * B))
    step = places[:, 1].max() + 1  # whose membrane before its reset is the first
    assert 0 < step < T - 1
    assert set(places[:, 2]) == {STEEP}
    with pytest.warns(tt.ThroughTimeWarning, match="certificate of neurons is inf"):
        tree = tt.capture(network, x, y, loss=nn.MSELoss())
    found = tt.diagnostics.first_nonfinite(tree)
    assert found is not None
    assert (found.layer.strip("/"), found.variable) == ("neurons", "charged_gradient")
    assert (found.where["time"], found.where["unit"]) == (step, STEEP)
    assert f"time {step}, unit {STEEP}" in str(found)
    assert np.isfinite(tree["neurons"]["charged_gradient"].values[:, step + 1 :]).all()
    states = tt.capture(network, x, y, loss=nn.MSELoss(), quantities="hidden_gradient")
    found = tt.diagnostics.first_nonfinite(states)
    assert found is not None
    assert (found.variable, found.where["time"], found.where["unit"]) == ("hidden_gradient", step - 1, STEEP)
