"""`tt.mark` in a cell of legacy Keras: gates with the gradients of their closed form, eager and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests.tf_keras import own_layers
from tests.tf_keras.comparison import difference
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import B, M, N, T, compiled, normal, padded_batch, seeded

import throughtime as tt

L = keras.layers


class Marked(own_layers.MinimalGate):
    """h' = keep · h + (1 − keep) · candidate, with a rate for all samples."""

    def call(self, x: Any, states: Any) -> Any:
        keep = tt.mark(tf.sigmoid(self.rate), "update")  # it has no samples
        new = tt.mark(tf.tanh(x @ self.kernel + states[0] @ self.recurrent_kernel), "candidate")
        kept = tt.mark(keep * states[0], "kept")
        h = kept + (1 - keep) * new
        return h, [h]


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gates_and_other_marks_have_the_gradients_of_their_closed_form(masked: bool, eagerly: bool) -> None:
    layers = [L.Masking()] * masked + [L.RNN(Marked(N), return_sequences=True, name="own"), L.Dense(1)]
    model = seeded(keras.Sequential([L.Input((T, M)), *layers]))
    model.compile("sgd", "mse", run_eagerly=eagerly)
    leaf = tt.capture(model, padded_batch() if masked else normal(B, T, M), normal(B, T, 1))[
        "own"
    ].to_dataset()
    assert list(leaf["gate"].values) == ["candidate"]
    assert float(leaf["certificate_time"]) < 1e-5
    dh = leaf["hidden_gradient"].values * leaf["valid"].values[..., None]
    keep = 1 / (1 + np.exp(-leaf["rate"].values))
    assert np.abs(dh).max() > 1e-4
    assert difference(leaf["kept_gradient"], dh) <= 1e-6
    assert difference(leaf["gate_gradient"].sel(gate="candidate"), dh * (1 - keep)) <= 1e-6
    new = (leaf["hidden"] - leaf["kept"]) / (1 - keep)
    valid = leaf["valid"].values
    found = leaf["gate_activation"].sel(gate="candidate").values[valid]
    assert difference(found, new.values[valid]) <= 1e-5


def test_a_mark_outside_of_every_loop_is_a_leaf() -> None:
    inputs = L.Input((T, M))
    scanned = L.Lambda(lambda x: tt.mark(tf.cumsum(x, axis=1), "states"))(
        L.GRU(N, return_sequences=True)(inputs)
    )
    head = L.Dense(1)
    model = compiled(seeded(keras.Model(inputs, head(scanned))))
    x, y = normal(B, T, M), normal(B, T, 1)
    leaf = tt.capture(model, x, y)["states"].to_dataset()
    right = 2 / T * (model.predict(x, verbose=0) - y) @ head.kernel.numpy().T
    assert difference(leaf["output_gradient"], right) <= 1e-5
