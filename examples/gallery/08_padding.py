"""
How much gradient does padding eat?
===================================

Sequences of 20 steps, padded to 40 with zeros. Without a mask the gradient has to cross the padding;
with one it enters at the last real step.
"""

import keras
import numpy as np

import throughtime as tt

keras.utils.set_random_seed(0)
x = np.random.normal(size=(32, 40, 4)).astype("float32")
x[:, 20:] = 0


def captured(*masking):
    layers = [keras.Input((40, 4)), *masking, keras.layers.LSTM(32, name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    return tt.capture(model, x, x[:, 0, :1])["lstm"]


bare, masked = captured(), captured(keras.layers.Masking())
picture = tt.plots.compare(bare, masked, names=("no mask", "mask"), title="Steps 20 to 39 are padding")

norm = [np.sqrt((each["hidden_gradient"] ** 2).sum("unit")).mean("sample") for each in (bare, masked)]
kept = [float(each[19] / each.max()) for each in norm]
assert kept[0] < 0.1
assert kept[1] == 1
print("Without a mask {:.2%} of it reaches the last real step, with a mask {:.0%}.".format(*kept))
