"""The names of see-rnn on tf_keras and Keras 2, against TensorFlow's own gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests import see_rnn_cases as cases
from tests.tf_keras.legacy import keras

import throughtime.compat.see_rnn as see_rnn

LAYERS = [
    ("LSTM", {}),
    ("GRU", {"backwards": True}),
    ("LSTM", {"both_ways": True}),
    ("GRU", {"both_ways": True}),
]


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_gradients_and_outputs_are_those_of_autodiff(kind: str, options: dict[str, bool]) -> None:
    model, (x, y) = cases.model_of(keras, kind, **options), cases.batch()
    first, second, dense = model.layers[1:]
    with tf.GradientTape(persistent=True) as tape:
        output = first(tf.constant(x))
        tape.watch(output)
        loss = tf.reduce_mean(tf.square(dense(second(output)) - y))
        penalised = loss + tf.add_n(model.losses)
    np.testing.assert_allclose(see_rnn.get_outputs(model, 1, x), output, rtol=1e-5, atol=1e-6)
    expected = tape.gradient(loss, output)
    np.testing.assert_allclose(see_rnn.get_gradients(model, 1, x, y), expected, rtol=1e-4, atol=1e-7)
    found = see_rnn.get_gradients(model, "*", x, y, mode="weights", as_dict=True)
    for weight, gradient in zip(model.trainable_weights, found.values(), strict=True):
        expected = tape.gradient(penalised, weight)
        np.testing.assert_allclose(gradient, expected, rtol=2e-4, atol=1e-6)
    assert [*found] == [weight.name for weight in model.trainable_weights]


def test_a_script_from_the_readme_runs(tmp_path: Any, capsys: Any) -> None:
    cases.check_readme_script(keras, tmp_path, capsys)


def test_weights_are_those_of_the_model() -> None:
    cases.check_weights(keras)


def test_layers_are_found_by_all_their_names() -> None:
    cases.check_layers(keras)


def test_what_has_no_meaning_is_refused_with_the_successor() -> None:
    cases.check_refusals(keras)
