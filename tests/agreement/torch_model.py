"""The torch twin of the Keras models: padded sequences are packed."""

from __future__ import annotations

import torch
from tests.agreement.cases import FEATURES, LENGTHS, SAMPLES, STEPS, UNITS, Case
from torch import nn
from torch.nn.utils import rnn

CLASSES = {"lstm": nn.LSTM, "gru": nn.GRU, "simple_rnn": nn.RNN}


class Reader(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        kind = CLASSES[case.kind]
        self.rnn = kind(FEATURES, UNITS, batch_first=True, bidirectional=case.bidirectional)
        self.head = nn.Linear(case.steps_read * case.width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lengths = torch.as_tensor(LENGTHS) if self.case.masked else torch.full((SAMPLES,), STEPS)
        if self.case.masked:
            packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            states, _ = rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        else:
            states = self.rnn(x)[0]
        if self.case.return_sequences:
            return self.head(states.flatten(1))
        # What each direction comes to last: the last valid step, and the first.
        last = states[torch.arange(SAMPLES), lengths - 1, :UNITS]
        return self.head(torch.cat([last, states[:, 0, UNITS:]], -1))
