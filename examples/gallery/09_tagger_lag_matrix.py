"""
How far back does the loss of a tag reach?
==========================================

If every step has a loss, the gradient of a state is a sum over all later losses. The lag matrix takes
the sum apart: the loss of step s against the state at step t.
"""

import torch
from _recall import LOSS, task

import throughtime as tt


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = torch.nn.GRU(1, 24, batch_first=True), torch.nn.Linear(24, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


torch.manual_seed(0)
x, _ = task(samples=256, steps=24)
y = torch.stack([x[:, :, 0].roll(lag, 1) for lag in range(5)]).mean(0)[..., None]  # mean of 5 steps
model = Tagger()
optimizer = torch.optim.Adam(model.parameters(), 0.01)
for _ in range(100):
    optimizer.zero_grad()
    LOSS(model(x), y).backward()
    optimizer.step()
lags = tt.lag_matrix(model, x[:8], y[:8], loss=LOSS)
picture = tt.plots.lag_matrix(lags)

horizon = int(tt.diagnostics.memory_horizon_median(lags)["median"])
assert 4 <= horizon < 23
print(f"It reaches {horizon} steps back; the tag, a mean of 5 values, needs 4.")
