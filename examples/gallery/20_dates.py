"""
Which days does the forecast depend on?
=======================================

The forecast needs the sales of one day. The time axis of a capture takes dates, and every plot shows
them.
"""

import numpy as np
import pandas as pd
import torch
from _recall import LOSS, Reader, train

import throughtime as tt

torch.manual_seed(0)
days = pd.date_range("2026-03-02", periods=28)
rng = np.random.default_rng(0)
sales = torch.tensor(rng.normal(size=(1024, 28, 1)), dtype=torch.float32)
x, y = sales, sales[:, -7]  # the next day sells what the same day of the week before has sold
model = train(Reader(torch.nn.GRU(1, 32, batch_first=True)), (x, y), 250)
layer = tt.capture(model, x[:64], y[:64], loss=LOSS, time=days)["rnn"]
importance = (layer["input_gradient"] ** 2).mean(["sample", "feature"]) ** 0.5
picture = tt.plots.lines(importance.rename("input_gradient"), title="Gradient of the inputs by day")

largest = days[int(importance.argmax("time"))]
assert largest == days[-7]
print(f"On {largest:%A, %d %B}, a week before the day that is forecast.")
