"""How fast the gradient fades in an LSTM that torch has just made, and what its one bias does to that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.diagnostics import decay_rate

UNITS, INPUTS, STEPS, SAMPLES = 64, 8, 100, 16


def read_out(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """⟨v, h_T⟩ of each sample."""
    return (output[0][:, -1] * y).sum(-1)


def median_rate(forget_bias: float) -> float:
    """Nats a step, over three layers of different seeds."""
    generator = torch.Generator().manual_seed(0)
    rates = []
    for seed in range(3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            lstm = nn.LSTM(INPUTS, UNITS, batch_first=True)
        with torch.no_grad():
            lstm.bias_ih_l0[UNITS : 2 * UNITS] += forget_bias
        x = torch.randn(SAMPLES, STEPS, INPUTS, generator=generator)
        v = torch.randn(SAMPLES, UNITS, generator=generator)
        (leaf,) = tt.capture(lstm, x, v, loss=read_out).leaves
        rates.append(float(decay_rate(leaf)["rate"]))
    return float(np.median(rates))


def test_a_new_lstm_of_torch_forgets_fast_for_want_of_a_forget_bias() -> None:
    assert median_rate(forget_bias=0.0) == pytest.approx(-0.451, abs=0.03)
    assert median_rate(forget_bias=1.0) == pytest.approx(-0.180, abs=0.05)  # Keras' own rate
