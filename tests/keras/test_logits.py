"""Softmax and sigmoid outputs: the logits' gradient is p − y on every backend, whatever the loss reads."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from tests.keras.comparison import difference
from tests.matrix import SPECIALS, B, Row

import throughtime as tt

layers = keras.layers
BY_CLOSED_FORM = [row for row in SPECIALS if row.oracle == "logits"]
READS_LOGITS = keras.backend.backend() == "tensorflow"
STEPS, FEATURES = 5, 2
X = np.random.default_rng(0).normal(size=(B, STEPS, FEATURES)).astype("float32")


def name_of(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("row", BY_CLOSED_FORM, ids=name_of)
def test_logits_gradient_is_the_error_of_the_probabilities(row: Row) -> None:
    model, x, y, options = row.build("float32")
    (expected,) = options.leaves
    tree = tt.capture(model, x, y, layers="all")
    leaf = tree[expected.path]
    # Crossentropy takes the mean over steps (and, of a sigmoid, over units, of which there is one).
    steps = np.prod(options.target.shape[1:-1])
    right = (leaf["output"].values.astype("float64") - options.target) / steps
    assert leaf["logits_gradient"].dims == leaf["output"].dims
    assert difference(leaf["logits_gradient"].values, right) <= options.tolerance


@pytest.mark.parametrize("row", BY_CLOSED_FORM, ids=name_of)
def test_the_output_has_a_gradient_or_the_reason_names_the_logits(row: Row) -> None:
    model, x, y, options = row.build("float32")
    tree = tt.capture(model, x, y, layers="all", quantities=["output", "output_gradient", "logits_gradient"])
    leaf = tree[options.leaves[0].path]
    if "output_gradient" not in leaf:
        assert READS_LOGITS
        assert "logits_gradient" in leaf.attrs["missing_output_gradient"]
        return
    through = through_softmax if row.name.startswith("softmax") else through_sigmoid
    right = through(leaf["output"].values.astype("float64"), leaf["output_gradient"].values)
    assert difference(leaf["logits_gradient"].values, right) <= max(options.tolerance, 1e-4)


def through_softmax(output: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """dL/dlogits where dL/doutput is known."""
    return output * (gradient - (output * gradient).sum(-1, keepdims=True))


def through_sigmoid(output: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    return output * (1 - output) * gradient


def classifier(*, head: Any, loss: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.LSTM(3, name="lstm"), head])
    model.compile(loss=loss)
    return model


LABELS = np.eye(4, dtype="float32")[[1, 0, 3]]


def test_another_loss_than_crossentropy_reads_the_output_and_both_gradients_are_there() -> None:
    model = classifier(head=layers.Dense(4, activation="softmax", name="p"), loss="mse")
    leaf = tt.capture(model, X, LABELS, layers="p")["p"]
    p, gradient = leaf["output"].values, leaf["output_gradient"].values
    assert difference(gradient, (p - LABELS) / 2) <= 1e-5
    assert difference(leaf["logits_gradient"].values, through_softmax(p, gradient)) <= 1e-5


def test_the_gradient_below_does_not_depend_on_whether_the_head_is_captured() -> None:
    model = classifier(head=layers.Dense(4, activation="softmax"), loss="categorical_crossentropy")
    alone = tt.capture(model, X, LABELS)["lstm"]["output_gradient"]
    together = tt.capture(model, X, LABELS, layers="all")["lstm"]["output_gradient"]
    assert difference(alone.values, together.values) <= 1e-6


def test_a_layer_without_softmax_has_no_logits_and_says_so_when_asked() -> None:
    model = classifier(head=layers.Dense(4, activation="relu", name="p"), loss="mse")
    assert "logits_gradient" not in tt.capture(model, X, LABELS, layers="all")["p"]
    with pytest.raises(tt.NoGradientError, match="softmax"):
        tt.capture(model, X, LABELS, layers="all", quantities="logits_gradient")


def test_get_rnn_gradients_of_a_softmax_layer_is_a_gradient_or_an_error_that_names_the_logits() -> None:
    head = layers.Dense(4, activation="softmax", name="p")
    model = classifier(head=head, loss="categorical_crossentropy")
    if READS_LOGITS:
        with pytest.raises(tt.NoGradientError, match="logits_gradient"):
            tt.get_rnn_gradients(model, X, LABELS, layer_name="p")
    else:
        assert tt.get_rnn_gradients(model, X, LABELS, layer_name="p").shape == (3, 4)


@pytest.mark.parametrize("unroll", [False, True])
def test_the_loss_reads_the_output_of_a_recurrent_layer_with_a_sigmoid(unroll: bool) -> None:
    """The next step reads it too, so that logits would tell but half of the last step's gradient."""
    keras.utils.set_random_seed(0)
    rnn = layers.SimpleRNN(1, activation="sigmoid", unroll=unroll, name="rnn")
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), rnn])
    model.compile(loss="binary_crossentropy")
    labels = np.array([[1.0], [0.0], [1.0]], "float32")
    leaf = tt.capture(model, X, labels)["rnn"]
    p = leaf["output"].values
    assert difference(leaf["output_gradient"].values, (p - labels) / (p * (1 - p))) <= 1e-4
    assert float(leaf["certificate_time"]) <= 1e-5


class Scoring(layers.Layer):
    """A user's layer that calls Keras' softmax itself."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x: Any) -> Any:
        return keras.activations.softmax(keras.ops.matmul(x, self.kernel))


def test_a_users_own_softmax_has_a_gradient_in_one_of_the_two_places() -> None:
    model = classifier(head=Scoring(name="p"), loss="categorical_crossentropy")
    leaf = tt.capture(model, X, LABELS, layers="all")["p"]
    if READS_LOGITS:
        assert difference(leaf["logits_gradient"].values, leaf["output"].values - LABELS) <= 1e-5
    else:
        assert "output_gradient" in leaf
