"""
Why does the same LSTM forget sooner in PyTorch than in Keras?
==============================================================

Both have 32 units and read the same batch. Keras starts the bias of the forget gate at 1, PyTorch both
of its biases near 0: a gate of about 0.73 against 0.5.
"""

import keras
import torch
from _recall import LOSS, STEPS, Reader, task

import throughtime as tt

keras.utils.set_random_seed(0)
x, y = task(features=4)
in_keras = keras.Sequential([keras.Input((STEPS, 4)), keras.layers.LSTM(32), keras.layers.Dense(1)])
in_keras.compile("adam", "mse")
in_keras = tt.capture(in_keras, x.numpy(), y.numpy())["lstm"]
in_torch = tt.capture(Reader(torch.nn.LSTM(4, 32, batch_first=True)), x, y, loss=LOSS)["rnn"]
picture = tt.plots.compare(
    in_keras,
    in_torch,
    "cell_gradient",
    names=("Keras", "PyTorch"),
    title="The same LSTM twice",
)

forget = [float(each["gate_activation"].sel(gate="forget").mean()) for each in (in_keras, in_torch)]
rates = [float(tt.diagnostics.decay_rate(each)["rate"].median()) for each in (in_keras, in_torch)]
assert forget[0] > forget[1] + 0.1
assert rates[0] > rates[1]
print("Its forget gate is at {1:.2f} instead of {0:.2f}.".format(*forget))
