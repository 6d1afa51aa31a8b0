"""T2: the sum of two marked numbers among 50, one in each half.

An LSTM solves it (mean squared error below 1.5e-3) within 1,200 updates; a RNN whose kernel halves every
vector stays near 1/6, the error of always saying 1. Run: python benchmarks/science/adding_problem.py
"""

from __future__ import annotations

import torch
from networks import Batch, half_orthogonal_rnn, lstm, train
from torch import nn

import throughtime as tt

STEPS, UNITS, BATCH, SOLVED = 50, 32, 50, 1.5e-3


def batches(samples: int, seed: int, steps: int = STEPS):
    """Numbers in [0, 1), and a mark at one step of each half."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Batch:
        x = torch.zeros(samples, steps, 2)
        x[..., 0] = torch.rand(samples, steps, generator=generator)
        for half in (0, 1):
            place = torch.randint(0, steps // 2, (samples,), generator=generator) + half * (steps // 2)
            x[torch.arange(samples), place, 1] = 1
        return x, (x[..., 0] * x[..., 1]).sum(1, keepdim=True)

    return draw


def error(model: nn.Module) -> float:
    x, y = batches(1000, seed=1)()
    with torch.no_grad():
        return float(((model(x) - y) ** 2).mean())


def main() -> None:
    torch.set_num_threads(1)
    x, y = batches(256, seed=2)()
    loss = nn.MSELoss()
    for name, model in (
        ("LSTM", lstm(2, UNITS, 1)),
        ("0.5-orthogonal RNN", half_orthogonal_rnn(2, UNITS, 1)),
    ):
        made = train(
            model,
            loss,
            batches(BATCH, seed=0),
            updates=1200,
            rate=5e-3,
            until=lambda _, model=model: error(model) < SOLVED,
        )
        print(f"=== {name}: error {error(model):.2e} after {made} updates")
        found = tt.diagnose(model, x, y, loss=loss, dependency_length=STEPS // 2, solved=SOLVED)
        print(found, "\n")


if __name__ == "__main__":
    main()
