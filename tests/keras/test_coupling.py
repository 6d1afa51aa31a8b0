"""Losses that users write: how they are reduced, and whether they couple the samples of a batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import throughtime as tt

layers, ops = keras.layers, keras.ops
SAMPLES, STEPS, FEATURES, OUTPUTS = 4, 5, 2, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
Y = RNG.normal(size=(SAMPLES, OUTPUTS)).astype("float32")


def model_with(*between: Any, loss: Any = "mse", masked: bool = False) -> Any:
    keras.utils.set_random_seed(0)
    steps = [layers.Masking()] if masked else []
    lower, upper = layers.LSTM(3, return_sequences=True, name="lower"), layers.GRU(3, name="upper")
    head = layers.Dense(OUTPUTS)
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), *steps, lower, *between, upper, head])
    model.compile(loss=loss)
    return model


def told(model: Any, x: Any = X, y: Any = Y, **options: Any) -> tuple[str, float]:
    tree = tt.capture(model, x, y, **options)
    return tree.attrs["loss_reduction"], float(tree["upper"]["reduction_factor"])


def others_negative(y_true: Any, y_pred: Any) -> Any:
    """A contrastive loss: each sample against all others of the batch."""
    alike = ops.matmul(y_pred, ops.transpose(y_pred))
    own = ops.arange(alike.shape[0])
    return keras.losses.sparse_categorical_crossentropy(own, alike, from_logits=True)


class Contrastive(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return others_negative(y_true, y_pred)


@pytest.mark.parametrize("how", ["function passed", "function compiled", "class"])
def test_a_contrastive_loss_couples_samples(how: str) -> None:
    if how == "function passed":
        said, factor = told(model_with(), loss=others_negative)
    else:
        said, factor = told(model_with(loss=others_negative if how == "function compiled" else Contrastive()))
    assert said.startswith("couples samples")
    assert factor == 1.0


def squared(y_true: Any, y_pred: Any) -> Any:
    return ops.square(y_true - y_pred)


class SummedByItself(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.sum(squared(y_true, y_pred))


class PerSample(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(squared(y_true, y_pred), axis=-1)


class ForThisBatchOnly(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.reshape(squared(y_true, y_pred), (SAMPLES, OUTPUTS)), axis=-1)


@pytest.mark.parametrize(
    ("loss", "reduction", "factor"),
    [
        (lambda a, b: ops.mean(squared(a, b)), "mean over samples", 1 / SAMPLES),
        (lambda a, b: ops.sum(squared(a, b)), "sum over samples", 1.0),
        (SummedByItself(), "sum over samples", 1.0),
        (PerSample(), "mean over samples", 1 / SAMPLES),
        (PerSample(reduction="sum"), "sum over samples", 1.0),
        (ForThisBatchOnly(), "mean over samples", 1 / SAMPLES),
    ],
    ids=["mean", "sum", "class that sums", "class per sample", "class summed", "class for one batch size"],
)
def test_a_compiled_loss_of_the_users_own_is_tried(loss: Any, reduction: str, factor: float) -> None:
    assert told(model_with(loss=loss)) == (reduction, pytest.approx(factor))


def test_sample_weights_do_not_hide_how_a_users_loss_is_reduced() -> None:
    weights = np.array([0.0, 1.0, 2.0, 4.0], "float32")
    tree = tt.capture(model_with(loss=PerSample()), X, Y, sample_weight=weights)
    assert tree.attrs["loss_reduction"] == "mean over samples"
    plain = tt.capture(model_with(loss=PerSample()), X, Y)["lower"]["output_gradient"]
    expected = plain.values * weights[:, None, None]
    np.testing.assert_allclose(tree["lower"]["output_gradient"], expected, rtol=1e-5, atol=1e-8)


def test_the_factor_follows_the_weights_of_each_batch() -> None:
    model = model_with(loss=keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
    for weights in (np.ones(SAMPLES), np.array([0.0, 1.0, 2.0, 4.0])):
        tree = tt.capture(model, X, Y, sample_weight=weights.astype("float32"))
        assert float(tree["upper"]["reduction_factor"]) == pytest.approx(1 / weights.sum())


class Centring(layers.Layer):
    """Takes the mean over the batch away."""

    def call(self, x: Any) -> Any:
        return x - ops.mean(x, axis=0, keepdims=True)


@pytest.mark.parametrize(
    ("between", "training", "couples"),
    [
        (layers.BatchNormalization, True, True),
        (layers.BatchNormalization, False, False),
        (layers.LayerNormalization, True, False),
        (Centring, False, True),
        (lambda: layers.Dropout(0.5), True, False),
    ],
    ids=["batch norm in training", "batch norm", "layer norm", "own layer", "dropout"],
)
def test_a_layer_that_couples_samples_is_found(between: Any, training: bool, couples: bool) -> None:
    said, factor = told(model_with(between()), training=training)
    assert said.startswith("couples samples") == couples
    assert "mean over samples" in said
    assert factor == pytest.approx(1 / SAMPLES)


class Whitening(layers.Layer):
    """Cannot be evaluated on samples that are all alike."""

    def call(self, x: Any) -> Any:
        spread = ops.std(x, axis=0, keepdims=True)
        return ops.where(spread > 0, x / spread, float("nan"))


def test_a_layer_that_cannot_stand_equal_samples_couples_them() -> None:
    said, _ = told(model_with(Whitening()))
    assert said.startswith("couples samples")


def test_samples_of_different_lengths_are_not_coupled() -> None:
    """Keras divides the loss by the number of valid steps, which scales all samples alike."""
    x, y = X.copy(), np.repeat(Y[:, None], STEPS, axis=1)
    x[1, 3:] = x[2, 1:] = 0
    keras.utils.set_random_seed(0)
    gru, head = layers.GRU(3, return_sequences=True, name="upper"), layers.Dense(OUTPUTS)
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.Masking(), gru, head])
    model.compile(loss="mse")
    assert told(model, x, y) == ("mean over samples", pytest.approx(1 / SAMPLES))


def test_one_sample_alone_is_coupled_with_none() -> None:
    said, factor = told(model_with(layers.BatchNormalization()), X[:1], Y[:1], training=True)
    assert (said, factor) == ("mean over samples", 1.0)


def test_a_lag_matrix_is_refused_where_the_loss_couples_samples() -> None:
    gru = layers.GRU(OUTPUTS, return_sequences=True, name="gru")
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), gru])

    def coupled(y_true: Any, y_pred: Any) -> Any:
        return ops.mean(squared(y_pred, ops.mean(y_pred, axis=0, keepdims=True)), axis=-1)

    y = np.zeros((SAMPLES, STEPS, OUTPUTS), "float32")
    with pytest.raises(tt.LossError, match="couples"):
        tt.capture(model, X, y, loss=coupled, quantities="lag_matrix")


def test_a_function_with_a_value_a_step_takes_weights_a_step_as_keras_does() -> None:
    y = np.repeat(Y[:, None], STEPS, axis=1)
    weights = RNG.uniform(0.5, 2, (SAMPLES, STEPS)).astype("float32")
    gru = layers.GRU(OUTPUTS, return_sequences=True, name="gru")
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), gru])
    own, of_keras = (
        tt.capture(model, X, y, loss=loss, sample_weight=weights)["gru"]["output_gradient"]
        for loss in (lambda a, b: ops.mean(squared(a, b), axis=-1), "mse")
    )
    np.testing.assert_allclose(own, of_keras, rtol=1e-5)
