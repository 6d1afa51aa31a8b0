"""The textbook's gradients: a `GradientTape` over the model cut in two, and over its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests.tf_keras.comparison import difference
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import B, M, N, T, compiled, normal, seeded

import throughtime as tt

L = keras.layers
WEIGHTS = {
    "none": None,
    "a sample": np.array([1.0, 0.5, 2.0], "float32"),
    "a step": np.linspace(0, 1, B * T, dtype="float32").reshape(B, T),
}


def cut_in_two(**options: Any) -> tuple[Any, Any, Any]:
    """A model, its part up to the recurrent layer, and the rest."""
    inputs, middle = L.Input((T, M)), L.Input((T, N))
    lower, upper, head = L.LSTM(N, return_sequences=True), L.GRU(2, return_sequences=True), L.Dense(1)
    model = keras.Model(inputs, head(upper(lower(inputs))))
    compiled(seeded(model), **options)
    return model, keras.Model(inputs, lower.output), keras.Model(middle, head(upper(middle)))


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize(
    "loss", ["mse", "mae", keras.losses.Huber(reduction="sum")], ids=["mse", "mae", "sum"]
)
@pytest.mark.parametrize("eagerly", [False, True])
def test_gradients_of_a_layers_output_and_of_its_weights(weight: Any, loss: Any, eagerly: bool) -> None:
    model, below, above = cut_in_two(loss=loss, run_eagerly=eagerly)
    x, y = normal(B, T, M), normal(B, T, 1, seed=7)
    with tf.GradientTape() as tape:
        output = below(x)
        tape.watch(output)
        value = model.compiled_loss(
            tf.constant(y), above(output), None if weight is None else tf.constant(weight)
        )
    expected, kernel = tape.gradient(value, [output, above.layers[1].cell.recurrent_kernel])
    found = tt.get_rnn_gradients(model, x, y, layer_name="lstm", sample_weights=weight)
    assert difference(found, expected) < 1e-6
    tree = tt.capture(model, x, y, sample_weight=weight)
    assert float(tree["lstm"]["loss"]) == pytest.approx(float(value), rel=1e-6)
    assert difference(tree["gru"]["recurrent_kernel_gradient"].values.reshape(2, -1), kernel) < 1e-6
    leaf = tree["lstm"].to_dataset()
    assert difference(leaf["output_gradient"] * leaf["reduction_factor"], expected) < 1e-6


def test_the_classic_functions_take_what_comes_out() -> None:
    model, *_ = cut_in_two(loss="mse")
    gradients = tt.get_rnn_gradients(model, normal(B, T, M), normal(B, T, 1), layer_idx=1)
    assert gradients.shape == (B, T, N)
    figure, _ = tt.show_features_1D(gradients)
    assert figure.axes
    with pytest.raises(tt.LayerNotFoundError, match="gru"):
        tt.get_rnn_gradients(model, normal(B, T, M), normal(B, T, 1), layer_name="lstm_9")
