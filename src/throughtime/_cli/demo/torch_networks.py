"""The demo's networks in PyTorch."""

from typing import Any

import torch
from torch import nn

from throughtime._cli.demo.networks import BOTH_WAYS, CLASSES, CLIP, LEARNING_RATE, UNITS, Network

KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "SimpleRNN": nn.RNN}


class Reader(nn.Module):
    """Two recurrent layers; the head reads the step that each direction processes last."""

    def __init__(self, name: str) -> None:
        super().__init__()
        both_ways = name.startswith(BOTH_WAYS)
        kind = KINDS[name.removeprefix(BOTH_WAYS)]
        self.width = UNITS // 2 if both_ways else UNITS
        self.lower = kind(1, self.width, batch_first=True, bidirectional=both_ways)
        self.upper = kind(UNITS, self.width, batch_first=True, bidirectional=both_ways)
        self.digit = nn.Linear(UNITS, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = self.upper(self.lower(x)[0])[0]
        last = torch.cat([states[:, -1, : self.width], states[:, 0, self.width :]], -1)
        classes: torch.Tensor = self.digit(last)
        return classes


def build(name: str) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Reader(name)
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    def train(x: Any, y: Any) -> None:
        optimizer.zero_grad()
        loss(model(torch.as_tensor(x)), torch.as_tensor(y)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    def accuracy(x: Any, y: Any) -> float:
        with torch.no_grad():
            found = model(torch.as_tensor(x)).argmax(-1)
        return float((found == torch.as_tensor(y)).float().mean())

    return Network(model, loss, train, accuracy)
