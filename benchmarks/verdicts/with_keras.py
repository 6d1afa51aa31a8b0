"""The networks in Keras, on its PyTorch backend: linear ones, stacks of both directions, masks."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

from . import tasks
from .cases import Case


def _compiled(layers, features=2, rate=0.01, adam=False):
    model = keras.Sequential([keras.Input((None, features)), *layers, keras.layers.Dense(1, name="head")])
    model.compile(keras.optimizers.Adam(rate) if adam else keras.optimizers.SGD(rate), "mse")
    return model


def linear(scale, *, both=False, sequences=False, rate=0.01):
    """A linear RNN whose kernel is a rotation times a scale."""

    def make():
        recurrent = keras.initializers.Orthogonal(gain=scale)
        layer = keras.layers.SimpleRNN(
            12, activation="linear", recurrent_initializer=recurrent, return_sequences=sequences, name="rnn"
        )
        return _compiled([keras.layers.Bidirectional(layer, name="bi") if both else layer], rate=rate)

    return make


def built(delay):
    """A linear register: reads the input some steps back, and none older."""

    def make():
        model = linear(1.0)()
        rnn, head = model.get_layer("rnn"), model.get_layer("head")
        kernel, out = np.zeros((2, 12)), np.zeros((12, 1))
        kernel[0, 0], out[delay, 0] = 1.0, 0.9
        rnn.set_weights([kernel, np.eye(12, k=1), np.zeros(12)])
        head.set_weights([out, np.zeros(1)])
        return model

    return make


def stacked():
    lower = keras.layers.Bidirectional(keras.layers.GRU(16, return_sequences=True), name="bi")
    return _compiled([lower, keras.layers.LSTM(24, name="upper")], rate=1e-3, adam=True)


def masked():
    layers = [keras.layers.Masking(0.0), keras.layers.GRU(12, name="gru")]
    return _compiled(layers, features=3, rate=1e-3, adam=True)


def _case(name, task, lag, make, **more):
    return Case(f"keras-{name}", task, lag, make=make, framework="keras", **more)


NETWORKS = [
    _case("linear-contracting", tasks.first(30), 15, linear(0.7)),
    _case("linear-critical", tasks.first(30), 15, linear(1.0, rate=1e-3)),
    _case("linear-expanding", tasks.first(40), 20, linear(1.3)),
    _case("linear-expanding-both", tasks.first(40), 15, linear(1.3, both=True)),
    _case("linear-expanding-every", tasks.delayed(30, 3), 10, linear(1.3, sequences=True)),
    _case("linear-register-used", tasks.lagged(30, 8), 8, built(8), use="uses"),
    _case("linear-register-unused", tasks.lagged(30, 8), 9, built(8), use="unused"),
    _case("stacked", tasks.first(60), 25, stacked, both=True),
    _case("masked", tasks.padded(24, "first"), 10, masked),
]
