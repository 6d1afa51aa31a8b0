"""T3: scikit-learn's digits read pixel by pixel, 64 steps of one brightness: an LSTM of 64 units, 40 epochs.

Run: python benchmarks/science/digits.py
"""

from __future__ import annotations

import torch
from networks import lstm, train
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import throughtime as tt

UNITS, BATCH, EPOCHS = 64, 64, 40


def main() -> None:
    torch.set_num_threads(1)
    digits = load_digits()
    images = (digits.data / 16).astype("float32")[..., None]
    parts = train_test_split(images, digits.target, test_size=360, random_state=0)
    x, x_test, y, y_test = (torch.as_tensor(part) for part in parts)
    model, loss = lstm(1, UNITS, 10), nn.CrossEntropyLoss()
    generator = torch.Generator().manual_seed(0)

    def batch():
        chosen = torch.randperm(len(x), generator=generator)[:BATCH]
        return x[chosen], y[chosen]

    before = tt.diagnose(model, x_test, y_test, loss=loss, dependency_length=32)
    train(model, loss, batch, updates=EPOCHS * len(x) // BATCH, rate=5e-3)
    after = tt.diagnose(model, x_test, y_test, loss=loss, dependency_length=32)
    with torch.no_grad():
        accuracy = float((model(x_test).argmax(-1) == y_test).float().mean())
    print(f"test accuracy {accuracy:.3f}\n")
    print(after, "\n")
    print(tt.compare(before, after))


if __name__ == "__main__":
    main()
