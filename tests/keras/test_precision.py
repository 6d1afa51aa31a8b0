"""Half precision: gradients unscaled and finite, and what float16 loses in training told apart from 0."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from tests.keras.comparison import difference

import throughtime as tt

layers = keras.layers
SAMPLES, STEPS, FEATURES = 4, 5, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
Y = RNG.normal(size=(SAMPLES, 1)).astype("float32")


def stack(policy: str, *, optimizer: Any = "adam", factor: float = 1.0) -> Any:
    """Two LSTMs; the upper one returns its sequence, of which the head reads the last step."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((STEPS, FEATURES))
    value = inputs
    for name in ("lower", "upper"):
        value = layers.LSTM(3, return_sequences=True, name=name, dtype=policy)(value)
    last = layers.Lambda(lambda sequence: sequence[:, -1], name="last")(value)
    model = keras.Model(inputs, layers.Dense(1, name="head")(last))
    model.compile(optimizer, loss=lambda a, b: factor * keras.ops.mean(keras.ops.square(a - b)))
    return model


def test_what_float16_loses_in_training_is_counted_and_exact_zeros_are_not() -> None:
    """Steps that the head does not read have a gradient of exactly 0; the others only get too small."""
    tiny = tt.capture(stack("mixed_float16", factor=1e-8), X, Y)["upper"]
    assert not tiny["output_gradient"].values[:, :-1].any()
    assert (tiny["output_gradient"].values[:, -1] != 0).all()
    assert float(tiny["underflow"]) == pytest.approx(1 / STEPS)
    assert float(tt.capture(stack("mixed_float16"), X, Y)["upper"]["underflow"]) == 0


def test_loss_scaling_saves_gradients_from_underflow() -> None:
    plain = tt.capture(stack("mixed_float16", factor=1e-6), X, Y)["lower"]
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    scaled = tt.capture(stack("mixed_float16", optimizer=scaling, factor=1e-6), X, Y)["lower"]
    assert float(plain["underflow"]) > 0.3
    assert float(scaled["underflow"]) < 0.1
    assert difference(plain["output_gradient"].values, scaled["output_gradient"].values) == 0


def test_a_loss_scale_of_the_users_own_counts() -> None:
    scaling = keras.optimizers.Adam(loss_scale_factor=2.0**20)
    leaf = tt.capture(stack("mixed_float16", optimizer=scaling, factor=1e-6), X, Y)["lower"]
    assert float(leaf["underflow"]) == 0


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_precisions_with_the_range_of_float32_lose_nothing(policy: str) -> None:
    assert "underflow" not in tt.capture(stack(policy, factor=1e-6), X, Y)["lower"]


def test_scaling_changes_neither_loss_nor_optimizer() -> None:
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    model = stack("mixed_float16", optimizer=scaling)
    model.train_on_batch(X, Y)
    before = [keras.ops.convert_to_numpy(v).copy() for v in scaling.variables]
    tree = tt.capture(model, X, Y)
    assert all(np.array_equal(a, b) for a, b in zip(before, scaling.variables, strict=True))
    expected = model.evaluate(X, Y, verbose=0)
    assert float(tree["lower"]["loss"]) == pytest.approx(expected, rel=1e-2)


def test_gradients_come_back_as_float32_and_values_as_float16() -> None:
    model = stack("mixed_float16")
    leaf = tt.capture(model, X, Y)["lower"]
    assert leaf["output"].dtype == "float16"
    assert leaf["output_gradient"].dtype == leaf["hidden_gradient"].dtype == "float32"
    gradients = tt.get_rnn_gradients(model, X, Y, layer_name="lower")
    np.testing.assert_allclose(leaf["output_gradient"] * leaf["reduction_factor"], gradients, rtol=1e-6)


def test_a_model_without_finite_gradients_at_any_scale_shows_them_as_they_are() -> None:
    model = stack("mixed_float16", factor=float("inf"))
    with pytest.warns(tt.ThroughTimeWarning, match="certificate"):
        leaf = tt.capture(model, X, Y)["lower"]
    assert not np.isfinite(leaf["output_gradient"].values).any()
    assert np.isinf(float(leaf["loss"]))
