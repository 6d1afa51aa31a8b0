"""
How soon does a new LSTM forget?
================================

An LSTM of 32 units, straight from its constructor, reads 100 steps. R(k) is the gradient that arrives k
steps back, as a share of the gradient at the last step.
"""

import keras
import numpy as np

import throughtime as tt

keras.utils.set_random_seed(0)
x = np.random.normal(size=(32, 100, 4)).astype("float32")
model = keras.Sequential([keras.Input((100, 4)), keras.layers.LSTM(32, name="lstm"), keras.layers.Dense(1)])
model.compile("adam", "mse")
tree = tt.capture(model, x, x[:, 0, :1])
picture = tt.plots.lag_profile(tree)

horizon = tt.diagnostics.memory_horizon_median(tree["lstm"])
steps = int(horizon["median"])
assert steps < 50
print(f"It forgets: after {steps} steps less than 1 % of the gradient is left.")
