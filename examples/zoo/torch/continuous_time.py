"""A closed-form continuous-time cell: a gate that depends on the time between two observations.

Ask it how its gate, which `tt.mark` names, opens with longer gaps, and how far back error travels. The cell
follows Hasani et al., "Closed-form continuous-time neural networks", Nature Machine Intelligence 4 (2022).
"""

import numpy as np
import torch
from torch import nn

import throughtime as tt

RECURRENT = ("cell",)
STEPS, FEATURES, UNITS = 30, 3, 12


class ClosedForm(nn.Module):
    """State after a gap: a blend of two candidates, by how much time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(FEATURES + UNITS, 24)
        self.short, self.long = nn.Linear(24, UNITS), nn.Linear(24, UNITS)
        self.rate, self.offset = nn.Linear(24, UNITS), nn.Linear(24, UNITS)

    def forward(self, x: torch.Tensor, gap: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Return the next state."""
        shared = torch.tanh(self.backbone(torch.cat([x, state], -1)))
        update = tt.mark(torch.sigmoid(self.rate(shared) * gap[:, None] + self.offset(shared)), "update")
        return (1 - update) * torch.tanh(self.short(shared)) + update * torch.tanh(self.long(shared))


class Regressor(nn.Module):
    """The cell over irregular observations, and a number at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = ClosedForm()
        self.readout = nn.Linear(UNITS, 1)

    def forward(self, x: torch.Tensor, gaps: torch.Tensor) -> torch.Tensor:
        """Return one number for each sample."""
        state = x.new_zeros(len(x), UNITS)
        for now, gap in zip(x.unbind(1), gaps.unbind(1), strict=True):
            state = self.cell(now, gap, state)
        return self.readout(state)


def build() -> Regressor:
    """Make the regressor."""
    torch.manual_seed(0)
    return Regressor()


def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared error of each sample."""
    return (output - y).square()


def batch(seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Draw observations at irregular times; what is asked for is the last value, weighted by its age."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1.0, (16, STEPS)).astype("float32")
    x = rng.normal(size=(16, STEPS, FEATURES)).astype("float32")
    return (x, gaps), (x[:, -1, :1] * np.exp(-gaps[:, -1:])).astype("float32")


if __name__ == "__main__":
    tree = tt.capture(build(), *batch(), loss=loss)
    tt.save(tt.plots.gradient_flow(tree), "continuous_time.png")
