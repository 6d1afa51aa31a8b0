"""
Does chrono initialisation lengthen its memory?
===============================================

Two LSTMs before any training. One starts its forget gate at biases ln U(1, 39), so that its units forget
at rates from one step to the length of the task.
"""

import torch
from _recall import LOSS, STEPS, Reader, start_chrono, task

import throughtime as tt

x, y = task()
torch.manual_seed(0)
usual = tt.capture(Reader(torch.nn.LSTM(1, 32, batch_first=True)), x, y, loss=LOSS)
chrono = start_chrono(torch.nn.LSTM(1, 32, batch_first=True), STEPS - 1)
chrono = tt.capture(Reader(chrono), x, y, loss=LOSS)
picture = tt.plots.compare(usual, chrono, "cell_gradient", names=("usual start", "chrono start"))

before, after = (tt.diagnostics.memory_horizon_median(each["rnn"]) for each in (usual, chrono))
assert float(before["at_least"]) < 20 < float(after["at_least"])
texts = (tt.diagnostics.horizon_text(each).item() for each in (before, after))
print("It does: the memory horizon grows from {} to {} steps.".format(*texts))
