"""Spiking neurons that leak, fire and are reset, trained by a surrogate of the spike's derivative.

Ask it how far back the surrogate lets error travel, and when it overflows: `tt.diagnostics.first_nonfinite`.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

import throughtime as tt

RECURRENT = ("neurons",)
STEPS, FEATURES, UNITS, LEAK, THRESHOLD, SLOPE = 40, 6, 20, 0.9, 1.0, 5.0


class Spike(torch.autograd.Function):
    """A step forwards; backwards the derivative of a fast sigmoid, 1 / (1 + slope |v|)²."""

    @staticmethod
    def forward(context: Any, excess: torch.Tensor) -> torch.Tensor:
        """Return 1 where the membrane is above its threshold."""
        context.save_for_backward(excess)
        return (excess > 0).to(excess.dtype)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Return the surrogate gradient."""
        (excess,) = context.saved_tensors
        return gradient / (1 + SLOPE * excess.abs()).square()


class Neurons(nn.Module):
    """One step of leaky integrate-and-fire neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(FEATURES, UNITS)

    def forward(self, x: torch.Tensor, membrane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return spikes and the membrane after them."""
        charged = LEAK * membrane + self.inward(x)
        spikes = Spike.apply(charged - THRESHOLD)
        return spikes, charged - THRESHOLD * spikes


class Network(nn.Module):
    """Neurons over time, and a class from how often each has fired."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = Neurons()
        self.classes = nn.Linear(UNITS, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        membrane, fired = x.new_zeros(len(x), UNITS), x.new_zeros(len(x), UNITS)
        for now in x.unbind(1):
            spikes, membrane = self.neurons(now, membrane)
            fired = fired + tt.mark(spikes, "spikes")
        return self.classes(fired / STEPS)


def build() -> Network:
    """Make the network."""
    torch.manual_seed(0)
    return Network()


def loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each sample."""
    return nn.functional.cross_entropy(logits, y, reduction="none")


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw rates of two classes, and spikes from them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 16)
    rates = np.where(np.arange(FEATURES) % 2 == y[:, None], 0.6, 0.1)
    return (rng.random((16, STEPS, FEATURES)) < rates[:, None]).astype("float32"), y


if __name__ == "__main__":
    tree = tt.capture(build(), *batch(), loss=loss)
    tt.save(tt.plots.heatmap(tree["neurons"]), "spiking_net.png")
