"""The networks in PyTorch, and what is set by hand in them."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CELLS = {"tanh": nn.RNN, "relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Reader(nn.Module):
    """Recurrent layers and a linear head.

    Parameters
    ----------
    head : "last", "end", "mean", "attention" or "every"
        "last" reads what each direction has after its whole sequence, "end" `out[:, -1]` of both directions.
    """

    def __init__(  # noqa: PLR0913 - what a case may choose
        self, cell, features, units, outputs, *, head="last", both=False, layers=1, masked=False
    ):
        super().__init__()
        more = {"nonlinearity": cell} if cell in ("tanh", "relu") else {}
        self.rnn = CELLS[cell](features, units, layers, batch_first=True, bidirectional=both, **more)
        width = units * (2 if both else 1)
        self.head = nn.Linear(width, outputs)
        self.score = nn.Linear(width, 1) if head == "attention" else None
        self.how, self.both, self.masked = head, both, masked

    def forward(self, x):
        valid = x[..., -1] if self.masked else torch.ones_like(x[..., 0])
        if self.masked:
            lengths = valid.sum(1).long().cpu()
            packed, final = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
            out, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        else:
            out, final = self.rnn(x)
        return self.head(self._read(out, final, valid))

    def _read(self, out, final, valid):
        match self.how:
            case "every":
                return out
            case "mean":
                return (out * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True)
            case "attention":
                score = self.score(out)[:, :, 0].masked_fill(valid == 0, -math.inf)
                return (score.softmax(1)[:, :, None] * out).sum(1)
            case "end":
                return out[:, -1]
        if self.both or self.masked:
            hidden = final[0] if isinstance(final, tuple) else final
            return torch.cat([hidden[-2], hidden[-1]], 1) if self.both else hidden[-1]
        return out[:, -1]


class Stacked(nn.Module):
    """A bidirectional GRU below an LSTM that is read at its last step."""

    def __init__(self, features, units, outputs):
        super().__init__()
        self.lower = nn.GRU(features, units, batch_first=True, bidirectional=True)
        self.upper = nn.LSTM(2 * units, units, batch_first=True)
        self.head = nn.Linear(units, outputs)

    def forward(self, x):
        return self.head(self.upper(self.lower(x)[0])[0][:, -1])


def starting(change, value):
    """Make a start from a change of the weights and its strength."""
    return lambda model: change(model, value)


def kernels(model):
    return [each for name, each in model.named_parameters() if "weight_hh" in name]


@torch.no_grad()
def orthogonal(model, gain):
    for kernel in kernels(model):
        for block in kernel.split(kernel.shape[1]):
            nn.init.orthogonal_(block, gain=gain)


@torch.no_grad()
def gaussian(model, gain):
    for kernel in kernels(model):
        kernel.normal_(std=gain / kernel.shape[1] ** 0.5)


@torch.no_grad()
def identity(model, scale):
    for kernel in kernels(model):
        kernel.copy_(scale * torch.eye(len(kernel)))
    for name, each in model.named_parameters():
        if "bias" in name:
            each.zero_()


@torch.no_grad()
def forget_bias(model, value):
    for name, each in model.named_parameters():
        if "bias_ih" in name:
            each[len(each) // 4 : len(each) // 2] = value


@torch.no_grad()
def chrono(model, longest):
    """Tallec & Ollivier 2018, eq. 16."""
    for name, each in model.named_parameters():
        if "bias" in name and "rnn" in name:
            each.zero_()
        if "bias_ih" in name:
            units = len(each) // 4
            forget = torch.empty(units).uniform_(1, longest - 1).log()
            each[units : 2 * units], each[:units] = forget, -forget


@torch.no_grad()
def _blank(model):
    for each in model.parameters():
        each.zero_()


@torch.no_grad()
def register(model, delay):
    """A line of units that hand on a positive input; 0.9 of it is read some steps later, nothing older."""
    _blank(model)
    rnn = model.rnn
    rnn.weight_ih_l0[0, 0] = 1.0
    for unit in range(1, delay + 1):
        rnn.weight_hh_l0[unit, unit - 1] = 1.0
    model.head.weight[0, delay] = 0.9


@torch.no_grad()
def latch(model, right=1.0):
    """One LSTM unit that takes the input where it is marked and keeps it."""
    _blank(model)
    rnn, units = model.rnn, model.rnn.hidden_size
    rnn.weight_ih_l0[0, 1], rnn.bias_ih_l0[0] = 40.0, -20.0
    rnn.bias_ih_l0[units] = 20.0
    rnn.weight_ih_l0[2 * units, 0] = 1.0
    rnn.bias_ih_l0[3 * units] = 20.0
    model.head.weight[0, 0] = right


@torch.no_grad()
def forgetful(model):
    """Shut whatever carries a state on: the output depends on the last input alone."""
    for kernel in kernels(model):
        kernel.zero_()
    if isinstance(model.rnn, nn.LSTM):
        forget_bias(model, -200.0)
    if isinstance(model.rnn, nn.GRU):
        units = model.rnn.hidden_size
        model.rnn.bias_ih_l0[units : 2 * units] = -200.0


@torch.no_grad()
def counter(model, keep, error=0.0):
    """One unit that adds up positive inputs, each step `keep` times what was; the head is off by an error."""
    _blank(model)
    model.rnn.weight_ih_l0[0, 0] = 1.0
    model.rnn.weight_hh_l0[0, 0] = keep
    model.head.weight[0, 0] = 1.0 + error
