"""T1: one of 8 symbols at the first of 100 steps is to be named at the last, past 99 of 8 others.

A forget bias of 1 leaves an LSTM at chance after 600 updates; chrono initialisation solves it within 450.
Run: python benchmarks/science/delayed_recall.py
"""

from __future__ import annotations

import torch
from networks import Batch, chance, lstm, train
from torch import nn

import throughtime as tt

SYMBOLS, STEPS, UNITS, BATCH = 8, 100, 32, 32
LAG = STEPS - 1


def batches(samples: int, seed: int, steps: int = STEPS):
    """Draw the symbol that counts, then others that do not, half as strong."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Batch:
        x = torch.zeros(samples, steps, 2 * SYMBOLS)
        others = torch.randint(0, SYMBOLS, (samples, steps), generator=generator)
        x[..., SYMBOLS:] = 0.5 * nn.functional.one_hot(others, SYMBOLS)
        y = torch.randint(0, SYMBOLS, (samples,), generator=generator)
        x[:, 0] = nn.functional.one_hot(y, 2 * SYMBOLS)
        return x, y

    return draw


def accuracy(model: nn.Module) -> float:
    x, y = batches(256, seed=1)()
    with torch.no_grad():
        return float((model(x).argmax(-1) == y).float().mean())


def main() -> None:
    torch.set_num_threads(1)
    x, y = batches(256, seed=2)()
    loss = nn.CrossEntropyLoss()
    print(f"chance: accuracy {1 / SYMBOLS:.3f}, loss {chance(SYMBOLS):.3f}\n")
    for name, longest, updates in (("forget bias 1", None, 600), ("chrono", STEPS, 450)):
        model = lstm(2 * SYMBOLS, UNITS, SYMBOLS, longest=longest)
        made = train(
            model,
            loss,
            batches(BATCH, seed=0),
            updates=updates,
            rate=1e-2,
            until=lambda _, model=model: accuracy(model) == 1.0,
        )
        print(f"=== {name}: accuracy {accuracy(model):.3f} after {made} updates")
        print(tt.diagnose(model, x, y, loss=loss, dependency_length=LAG, solved=0.1), "\n")


if __name__ == "__main__":
    main()
