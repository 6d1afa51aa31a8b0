"""Six networks on one task, their verdicts and their plots: see docs/explanation/six_networks.md.

The task: one of 8 symbols at the first of 40 steps is to be named at the last, past 39 that do not count.
Run: python examples/reading.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import throughtime as tt

SYMBOLS, STEPS, UNITS, SAMPLES = 8, 40, 32, 128
LAG = STEPS - 2  # that far back lies the first step that a recurrent kernel can learn from


class Last(nn.Module):
    """A recurrent layer whose last step names the symbol."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(UNITS, SYMBOLS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Score each symbol."""
        return self.head(self.rnn(x)[0][:, -1])


def batch(samples: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw sequences, and their first symbols."""
    x = torch.zeros(samples, STEPS, 2 * SYMBOLS)
    others = torch.randint(0, SYMBOLS, (samples, STEPS), generator=generator)
    x[..., SYMBOLS:] = 0.5 * nn.functional.one_hot(others, SYMBOLS)
    y = torch.randint(0, SYMBOLS, (samples,), generator=generator)
    x[:, 0] = nn.functional.one_hot(y, 2 * SYMBOLS)
    return x, y


def lstm(forget: torch.Tensor | float) -> Last:
    """Make an LSTM whose forget gate starts at this bias, its input gate at the opposite."""
    layer = nn.LSTM(2 * SYMBOLS, UNITS, batch_first=True)
    with torch.no_grad():
        layer.bias_ih_l0.zero_()
        layer.bias_hh_l0.zero_()
        layer.bias_ih_l0[UNITS : 2 * UNITS] = forget
        layer.bias_ih_l0[:UNITS] = -layer.bias_ih_l0[UNITS : 2 * UNITS]
    return Last(layer)


def rnn(gain: float, **settings: str) -> Last:
    """Make a RNN whose recurrent kernel multiplies every vector's length by the gain."""
    layer = nn.RNN(2 * SYMBOLS, UNITS, batch_first=True, **settings)
    with torch.no_grad():
        nn.init.orthogonal_(layer.weight_hh_l0, gain)
        layer.weight_ih_l0.mul_(0.1)
    return Last(layer)


def solved() -> Last:
    """Chrono initialisation, trained."""
    model = lstm(torch.empty(UNITS).uniform_(1, STEPS - 1).log_())
    generator, loss = torch.Generator().manual_seed(0), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        x, y = batch(32, generator)
        optimizer.zero_grad()
        loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def saturated() -> Last:
    """Weights so large that gates are open or shut and nothing between."""
    model = lstm(0.0)
    with torch.no_grad():
        model.rnn.weight_ih_l0.mul_(100)
    return model


def identity() -> Last:
    """Le, Jaitly & Hinton's start, not trained."""
    layer = nn.RNN(2 * SYMBOLS, UNITS, batch_first=True, nonlinearity="relu")
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.eye(UNITS))
        layer.weight_ih_l0.mul_(0.01)
        layer.bias_ih_l0.zero_()
        layer.bias_hh_l0.zero_()
    return Last(layer)


def main(folder: Path) -> None:
    """Diagnose and draw."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    console = Console(width=110, highlight=False)
    loss = nn.CrossEntropyLoss()
    x, y = batch(SAMPLES, torch.Generator().manual_seed(1))
    shuffled = y[torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(2))]
    cases = {
        "works": (solved(), y),
        "vanishing": (rnn(0.5), y),
        "exploding": (rnn(2.0, nonlinearity="relu"), y),
        "saturated": (saturated(), y),
        "unused": (identity(), y),
        "noise": (lstm(1.0), shuffled),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (model, labels) in cases.items():
        found = tt.diagnose(model, x, labels, loss=loss, dependency_length=LAG, solved=0.1)
        console.print(f"=== {name}", found, "", sep="\n")
        layer = tt.capture(model, x, labels, loss=loss)["rnn"]
        is_saturated = name == "saturated"
        picture = (
            tt.plots.gates(layer) if is_saturated else tt.plots.lag_profile(layer, width=6.0, height=3.2)
        )
        tt.save(picture, folder / f"reading_{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "reading"))
