"""A task of memory, a network for it and its training, which the scripts of the gallery share."""

import torch
from torch import nn

STEPS = 40
LOSS = nn.MSELoss()


def task(samples=64, steps=STEPS, features=1, seed=0):
    """Draw noise; the first value of each sequence is to be named at the end."""
    x = torch.randn(samples, steps, features, generator=torch.Generator().manual_seed(seed))
    return x, x[:, 0, :1]


class Reader(nn.Module):
    """A recurrent layer and a head that reads its last step."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn, self.head = rnn, nn.LazyLinear(1)
        self(torch.zeros(1, 1, rnn.input_size))  # gives the head its size

    def forward(self, x):
        """Predict one number for each sequence."""
        return self.head(self.rnn(x)[0][:, -1])


def start_chrono(lstm, longest):
    """Start forget and input gate with timescales up to `longest` steps (Tallec & Ollivier 2018)."""
    units = lstm.hidden_size
    with torch.no_grad():
        timescales = torch.empty(units).uniform_(1, longest).log()
        lstm.bias_hh_l0.zero_()
        lstm.bias_ih_l0[units : 2 * units] = timescales
        lstm.bias_ih_l0[:units] = -timescales
    return lstm


def train(model, data, steps=150, rate=0.01, each=lambda: None):
    """Train with Adam on batches of 64, and call `each` after every step."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    x, y = data
    for step in range(steps):
        chosen = slice(64 * step % len(x), 64 * step % len(x) + 64)
        optimizer.zero_grad()
        LOSS(model(x[chosen]), y[chosen]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        each()
    return model
