"""`Probe.losses`: what each sample loses alone, however it is evaluated."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import throughtime as tt
from throughtime.adapters.keras.keras3 import dialect

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 9, 3)).astype("float32")
X[1, 5:] = 0
CLASSES = RNG.integers(0, 5, (6, 9))
VALUES = RNG.normal(size=(6, 9, 5)).astype("float32")


def tagger(loss, **options):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((9, 3)),
            layers.Masking(),
            layers.LSTM(4, return_sequences=True),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile("adam", loss, **options)
    return model


CASES = {
    "a loss by name": (lambda: tagger("sparse_categorical_crossentropy"), CLASSES, {}),
    "a weight a step": (
        lambda: tagger("sparse_categorical_crossentropy"),
        CLASSES,
        {"sample_weight": RNG.random((6, 9))},
    ),
    "one step": (lambda: tagger("sparse_categorical_crossentropy"), CLASSES, {"step": 3}),
    "a sum": (
        lambda: tagger(keras.losses.SparseCategoricalCrossentropy(reduction="sum")),
        CLASSES,
        {},
    ),
    "a loss weight": (lambda: tagger("mse", loss_weights=[3.0]), VALUES, {}),
    "a loss passed": (
        lambda: tagger("mse"),
        VALUES,
        {"loss": lambda true, predicted: keras.ops.mean((true - predicted) ** 2)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sample_in_a_batch_loses_what_it_loses_in_a_batch_of_its_own(case):
    make, y, options = CASES[case]
    probe = tt.Probe(make(), loss=options.get("loss"))
    rest = {name: value for name, value in options.items() if name != "loss"}

    def losses(rows):
        taken = {name: value[rows] if name == "sample_weight" else value for name, value in rest.items()}
        return probe.losses(X[rows], y[rows], **taken).values

    alone = np.concatenate([losses(slice(row, row + 1)) for row in range(len(X))])
    np.testing.assert_allclose(losses(slice(None)), alone, rtol=1e-5)
    assert alone.std() > 0


def test_losses_of_samples_average_to_the_loss_of_the_batch():
    model = tagger("mse")
    whole = X.copy()
    whole[1] = X[0]
    losses = tt.Probe(model).losses(whole, VALUES)
    assert float(losses.mean()) == pytest.approx(model.evaluate(whole, VALUES, verbose=0), rel=1e-5)


def test_a_sample_without_valid_steps_has_no_loss():
    x = X.copy()
    x[2] = 0
    losses = tt.Probe(tagger("mse")).losses(x, VALUES)
    assert np.isnan(losses.values).tolist() == [False, False, True, False, False, False]


def test_the_model_is_left_as_it_was():
    model = tagger("mse")
    before = [np.array(weight) for weight in model.get_weights()]
    attributes = {name: id(value) for name, value in vars(model).items()}
    tt.Probe(model).losses(X, VALUES)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert {name: id(value) for name, value in vars(model).items()} == attributes


def test_no_labels_no_loss_and_no_own_loss_are_told():
    with pytest.raises(tt.LossError, match="pass y"):
        tt.Probe(tagger("mse")).losses(X)
    inputs = keras.Input((9, 3))
    with pytest.raises(tt.LossError, match="no loss"):
        tt.Probe(keras.Model(inputs, keras.layers.GRU(2)(inputs))).losses(X, VALUES)
    with pytest.raises(tt.LossError, match="step=9"):
        tt.Probe(tagger("mse")).losses(X, VALUES, step=9)


def test_a_second_batch_of_the_shape_is_not_traced_again(monkeypatch):
    probe = tt.Probe(tagger("mse"))
    probe.losses(X, VALUES)
    monkeypatch.setattr(dialect, "traced", None)
    probe.losses(X[::-1].copy(), VALUES)
