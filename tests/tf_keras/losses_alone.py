"""What samples lose alone: the checks, which hold in either mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import B, M, N, T, compiled, normal, padded_batch, seeded

import throughtime as tt

L = keras.layers


def check_sum_of_parts(loss: Any) -> None:
    """Samples alone lose what their mean says, of Keras' own losses and of a function passed."""
    model = seeded(keras.Sequential([L.Input((T, M)), L.LSTM(N), L.Dropout(0.5), L.Dense(2)]))
    x, y = normal(B, T, M), normal(B, 2, seed=7)
    probe = tt.Probe(model, loss=loss) if callable(loss) else tt.Probe(compiled(model, loss))
    alone = probe.losses(x, y).values
    np.testing.assert_allclose(alone.mean(), float(probe(x, y)["lstm"]["loss"]), rtol=1e-5)
    assert alone.std() > 0


def check_masked_samples() -> None:
    """The mean over a sample's own valid steps; NaN where none is valid."""
    layers = [L.Masking(), L.GRU(N, return_sequences=True), L.Dense(1)]
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), *layers])))
    x, y = padded_batch(), normal(B, T, 1, seed=7)
    x[2] = 0.0
    probe = tt.Probe(model)
    alone = probe.losses(x, y).values
    output = np.stack(
        [
            probe(
                x[k : k + 1],
                y[k : k + 1],
            )["gru"]["output"].values[0]
            for k in range(2)
        ]
    )
    kernel, bias = model.layers[-1].get_weights()
    valid = np.any(x[:2] != 0, -1)
    each = np.square(output @ kernel + bias - y[:2])[..., 0]
    np.testing.assert_allclose(alone[:2], (each * valid).sum(1) / valid.sum(1), rtol=1e-5)
    assert np.isnan(alone[2])


def check_one_step() -> None:
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), L.GRU(N, return_sequences=True), L.Dense(1)])))
    x, y = normal(B, T, M), normal(B, T, 1, seed=7)
    alone = tt.Probe(model).losses(x, y, step=2).values
    output = tt.capture(model, x)["gru"]["output"].values
    kernel, bias = model.layers[-1].get_weights()
    np.testing.assert_allclose(alone * T, np.square(output @ kernel + bias - y)[:, 2, 0], rtol=1e-5)
