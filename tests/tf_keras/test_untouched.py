"""A capture leaves model, optimizer, metrics, random states and data bit-identical, whatever happens."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import B, M, N, T, normal

import throughtime as tt

L = keras.layers


class Everything(keras.Model):
    """Dropout, batch statistics, a stateful layer, a counter, a list that grows, added losses."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = L.BatchNormalization()
        self.lower = L.LSTM(N, return_sequences=True, stateful=True, dropout=0.2, kernel_regularizer="l2")
        self.dropout = L.Dropout(0.4, seed=3)
        self.upper = L.Bidirectional(L.GRU(2, recurrent_dropout=0.3))
        self.head = L.Dense(1)
        self.upper.trainable = False
        self.counter = self.add_weight("counter", (), initializer="zeros", trainable=False)
        self.seen: list[Any] = []
        self.noted: dict[str, Any] = {"first": 0}

    def call(self, x: Any, training: Any = None) -> Any:
        self.counter.assign_add(1.0)
        self.seen.append(x.shape)
        self.noted[str(len(self.seen))] = x
        x = self.lower(self.norm(x, training=training), training=training)
        self.add_loss(0.01 * tf.reduce_mean(x))
        return self.head(self.upper(self.dropout(x, training=training), training=training))


def everything(**options: Any) -> Any:
    keras.utils.set_random_seed(1)
    model = Everything()
    model.compile("adam", "mse", metrics=["mae"], **options)
    model.fit(normal(B, T, M), normal(B, 1), batch_size=B, verbose=0)
    return model


def numbers(model: Any) -> list[Any]:
    """All that a training step could tell apart."""
    variables = [*model.variables, *model.optimizer.variables, *model.lower.states]
    if callable(model.optimizer.variables):
        variables = [*model.variables, *model.optimizer.variables(), *model.lower.states]
    variables += [variable for metric in model.metrics for variable in metric.variables]
    return [np.array(variable) for variable in variables]


def plain(model: Any) -> list[Any]:
    settings = [
        {name: value for name, value in vars(layer).items() if isinstance(value, (bool, int, str, float))}
        for layer in model._flatten_layers()
    ]
    kept = [len(model.seen), sorted(model.noted), sorted(model.noted.__wrapped__)]
    return [*settings, *kept, *[sorted(vars(layer)) for layer in model._flatten_layers()]]


def draws() -> list[Any]:
    """What each of the process's generators would give next; they are put back."""
    states = random.getstate(), np.random.get_state()
    values = [random.random(), np.random.rand()]
    random.setstate(states[0])
    np.random.set_state(states[1])
    return values


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("eagerly", [False, True])
def test_model_stays_as_it_was(training: bool, eagerly: bool) -> None:
    model = everything(run_eagerly=eagerly)
    before = numbers(model), plain(model), draws()
    tree = tt.capture(model, normal(B, T, M), normal(B, 1), training=training, layers="all")
    after = numbers(model), plain(model), draws()
    assert float(tree["lower"]["certificate_weights"]) < 1e-5
    for one, other in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(before[1], after[1], strict=True):
        assert one == other
    assert before[2] == after[2]


@pytest.mark.parametrize("is_seeded_globally", [False, True])
def test_training_goes_on_as_if_nothing_had_been_looked_at(is_seeded_globally: bool) -> None:
    results = []
    for looks in (False, True):
        model = everything()
        if is_seeded_globally:
            tf.random.set_seed(5)
        if looks:
            tt.capture(model, normal(B, T, M), normal(B, 1), training=True)
        # Eager draws come from the process's generator, those of fit from its own graph.
        drawn = tf.random.uniform((3,)).numpy()
        model.fit(normal(B, T, M), normal(B, 1), batch_size=B, verbose=0, epochs=2)
        results.append((drawn, *model.get_weights()))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("training", [False, True])
def test_model_stays_as_it_was_when_the_loss_raises(training: bool) -> None:
    model = everything()
    before = numbers(model), plain(model)

    def broken(y: Any, prediction: Any) -> Any:
        raise RuntimeError("no")

    with pytest.raises(tt.LossError, match="RuntimeError: no"):
        tt.capture(model, normal(B, T, M), normal(B, 1), loss=broken, training=training)
    for one, other in zip(before[0], numbers(model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert before[1] == plain(model)


def test_data_stays_as_it_was() -> None:
    x, y = normal(B, T, M), normal(B, 1)
    copies = x.copy(), y.copy()
    tt.capture(everything(), x, y)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])


def test_a_model_that_has_not_been_trained_gets_no_metrics() -> None:
    model = keras.Sequential([L.Input((T, M)), L.LSTM(N), L.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    tt.capture(model, normal(B, T, M), normal(B, 1))
    assert not model.compiled_loss.built
    assert model.metrics_names == []
