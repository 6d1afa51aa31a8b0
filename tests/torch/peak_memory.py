"""Writes what a capture was said to need and the memory that it took: a process of its own for each capture.

All in bytes; with a budget what its parts need.

python -m tests.torch.peak_memory KIND LAYERS UNITS SAMPLES STEPS QUANTITIES [BUDGET]
"""

from __future__ import annotations

import torch
from tests.measured_memory import arguments, write_figures
from torch import nn

import throughtime as tt

FEATURES = 8


class Recurrent(nn.Module):
    """Layers of one kind, or a cell in a loop, and one number for each step."""

    def __init__(self, kind: str, count: int, units: int) -> None:
        super().__init__()
        is_cell = kind.endswith("cell")
        classes = {
            "lstm": nn.LSTM,
            "gru": nn.GRU,
            "rnn": nn.RNN,
            "lstmcell": nn.LSTMCell,
            "grucell": nn.GRUCell,
        }
        self.rnn = (
            classes[kind](FEATURES, units)
            if is_cell
            else classes[kind](FEATURES, units, count, batch_first=True)
        )
        self.head = nn.Linear(units, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.rnn, nn.RNNCellBase):
            return self.head(self.rnn(x)[0])
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.rnn(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return self.head(torch.stack(outputs, 1))


def main(
    kind: str, count: int, units: int, samples: int, steps: int, quantities: str, budget: float | None
) -> None:
    torch.manual_seed(0)
    model = Recurrent(kind, count, units)
    x, y = torch.ones(samples, steps, FEATURES), torch.ones(samples, steps, 1)
    probe = tt.Probe(model, loss=nn.MSELoss(), quantities=quantities, budget=budget)
    probe(x[:2, :4], y[:2, :4])  # what is loaded when first used
    write_figures(probe, x, y)


if __name__ == "__main__":
    main(*arguments())
