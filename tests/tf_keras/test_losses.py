"""`Probe.losses` in eager mode."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import tensorflow as tf
from tests.tf_keras import losses_alone
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import B, M, N, T, compiled, normal, squares

import throughtime as tt

L = keras.layers


@pytest.mark.parametrize("loss", ["mse", keras.losses.Huber(), squares], ids=["name", "object", "function"])
def test_samples_alone_lose_what_their_mean_says(loss: Any) -> None:
    losses_alone.check_sum_of_parts(loss)


def test_masked_steps_and_samples_without_any() -> None:
    losses_alone.check_masked_samples()


def test_one_step_of_a_loss_per_step() -> None:
    losses_alone.check_one_step()


def test_a_loss_that_layers_add_is_none_of_a_sample() -> None:
    model = keras.Sequential([L.Input((T, M)), L.LSTM(N), L.Dense(1, activity_regularizer="l2")])
    model.compile("sgd")
    with pytest.raises(tt.LossError, match="Layers add the whole loss"):
        tt.Probe(model).losses(normal(B, T, M), normal(B, 1))


def test_a_model_is_freed_with_what_was_traced_of_it() -> None:
    model = compiled(keras.Sequential([L.Input((T, M)), L.LSTM(N), L.Dense(1)]))
    tt.Probe(model).losses(normal(B, T, M), normal(B, 1))
    seen = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert seen() is None
    assert tf.executing_eagerly()
