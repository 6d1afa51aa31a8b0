"""What the experiments share: a network read at its last step, training it, its start for long memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor]


class Last(nn.Module):
    """A recurrent layer and a linear head on its last step."""

    def __init__(self, rnn: nn.Module, outputs: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(rnn.hidden_size, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def lstm(features: int, units: int, outputs: int, *, longest: int | None = None, seed: int = 0) -> Last:
    """An LSTM with a forget bias of 1, or with chrono initialisation up to a longest dependency."""
    torch.manual_seed(seed)
    layer = nn.LSTM(features, units, batch_first=True)
    with torch.no_grad():
        nn.init.xavier_uniform_(layer.weight_ih_l0)
        for gate in range(4):
            nn.init.orthogonal_(layer.weight_hh_l0[gate * units : (gate + 1) * units])
        layer.bias_ih_l0.zero_()
        layer.bias_hh_l0.zero_()
        forget = layer.bias_ih_l0[units : 2 * units]
        if longest is None:
            forget.fill_(1.0)
        else:  # Tallec & Ollivier 2018, eq. 16
            forget.uniform_(1, longest - 1).log_()
            layer.bias_ih_l0[:units] = -forget
    return Last(layer, outputs)


def half_orthogonal_rnn(features: int, units: int, outputs: int, *, seed: int = 0) -> Last:
    """A tanh RNN whose recurrent kernel halves every vector."""
    torch.manual_seed(seed)
    layer = nn.RNN(features, units, batch_first=True)
    with torch.no_grad():
        nn.init.orthogonal_(layer.weight_hh_l0, gain=0.5)
    return Last(layer, outputs)


def train(
    model: Last,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    batch: Callable[[], Batch],
    *,
    updates: int,
    rate: float,
    until: Callable[[int], bool] = lambda _: False,
) -> int:
    """Train by Adam with the gradient clipped at norm 1; return the updates made."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for update in range(1, updates + 1):
        x, y = batch()
        optimizer.zero_grad()
        loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if update % 50 == 0 and until(update):
            return update
    return updates


def chance(classes: int) -> float:
    """Cross-entropy of guessing."""
    return math.log(classes)
