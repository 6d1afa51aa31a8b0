"""`tt.diagnose` on Keras models: what the adapters have to bring. The verdict is tested in tests/torch."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import throughtime as tt
from throughtime.diagnosis.actions import actions

STEPS, LAG, SAMPLES = 20, 15, 32
RNG = np.random.default_rng(0)


def latch(layer, model):
    """Let an LSTM of one unit keep what it reads where its second input is 1, and hand it on."""
    kernel, recurrent, bias = (np.zeros(weight.shape) for weight in layer.weights)
    kernel[1, 0], kernel[0, 2] = 10, 0.5  # gates are input, forget, candidate, output
    bias[:] = [-5, 5, 0, 5]
    layer.set_weights([kernel, recurrent, bias])
    model.layers[-1].set_weights([np.ones((1, 1)), np.zeros(1)])
    model.compile("adam", "mse")
    return model


def marked(first=True):
    x = RNG.normal(size=(SAMPLES, STEPS, 2)).astype("float32")
    x[..., 1] = 0
    x[:, 0 if first else -1, 1] = 1
    return x


def labels(model, x):
    noise = RNG.normal(size=(SAMPLES, 1))
    return (model.predict(x, verbose=0, batch_size=SAMPLES) + 0.05 * noise).astype("float32")


def answers(found):
    (layer,) = found.layers.values()
    return found.verdict, layer.use.answer, layer.reach.answer


def test_a_fixed_batch_and_a_dict_of_inputs():
    sequence = keras.Input(batch_shape=(SAMPLES, STEPS, 2), name="sequence")
    static = keras.Input(batch_shape=(SAMPLES, 1), name="static")
    layer = keras.layers.LSTM(1, name="lstm")
    joined = keras.layers.Add()([layer(sequence), static])
    model = latch(layer, keras.Model([sequence, static], keras.layers.Dense(1)(joined)))
    x = {"sequence": marked(), "static": np.zeros((SAMPLES, 1), "float32")}
    found = tt.diagnose(model, x, labels(model, x), dependency_length=LAG)
    assert answers(found) == ("uses", "yes", "yes")
    assert found.layers["lstm"].use.n == SAMPLES


def test_a_layer_that_goes_backwards_has_the_other_end():
    layer = keras.layers.LSTM(1, go_backwards=True, name="lstm")
    model = latch(layer, keras.Sequential([keras.Input((STEPS, 2)), layer, keras.layers.Dense(1)]))
    last, first = marked(first=False), marked()
    found = tt.diagnose(model, last, labels(model, last), dependency_length=LAG)
    assert answers(found) == ("uses", "yes", "yes"), "the last step is processed first"
    found = tt.diagnose(model, first, labels(model, first), dependency_length=LAG)
    assert found.layers["lstm"].use.answer == "no"


def test_masked_integers():
    words = keras.Input((STEPS,), dtype="int32")
    embedded = keras.layers.Embedding(6, 2, mask_zero=True, name="words")
    layer = keras.layers.LSTM(1, name="lstm")
    model = latch(layer, keras.Model(words, keras.layers.Dense(1)(layer(embedded(words)))))
    # Words 1 to 3 are noise, 4 and 5 are to be kept.
    model.get_layer("words").set_weights([np.array([[0, 0], [1, 0], [-1, 0], [0.5, 0], [1, 1], [-1, 1]])])
    x = RNG.integers(1, 4, (SAMPLES, STEPS))
    x[:, 0] = RNG.integers(4, 6, SAMPLES)
    x[SAMPLES // 2 :, LAG:] = 0
    y = labels(model, x)
    found = tt.diagnose(model, x, y, dependency_length=10)
    assert answers(found) == ("uses", "yes", "yes")
    assert found.layers["lstm"].use.n == SAMPLES
    assert tt.diagnose(model, x, y, dependency_length=LAG).layers["lstm"].use.n == SAMPLES // 2


def test_a_loss_at_every_step():
    inputs = keras.Input((STEPS, 1))
    layer = keras.layers.SimpleRNN(1, activation="linear", return_sequences=True, name="rnn")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.ones((1, 1)), np.full((1, 1), 0.5), np.zeros(1)])
    model.compile("adam", "mse")
    x = RNG.normal(size=(SAMPLES, STEPS, 1)).astype("float32")
    y = model.predict(x, verbose=0) + 0.1 * RNG.normal(size=(SAMPLES, STEPS, 1)).astype("float32")
    found = tt.diagnose(model, x, y, dependency_length=8)
    assert answers(found) == ("no_evidence", "no", "no")
    assert found.layers["rnn"].reach.value == pytest.approx(0.5**8, rel=1e-3)
    assert "lag matrix" in " ".join(str(found).split())


def test_images_through_time():
    layers = [
        keras.Input((6, 5, 1)),
        keras.layers.ConvLSTM1D(2, 3, name="images"),
        keras.layers.Flatten(),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    x = RNG.normal(size=(SAMPLES, 6, 5, 1)).astype("float32")
    found = tt.diagnose(model, x, labels(model, x), dependency_length=2)
    layer = found.layers["images"]
    assert layer.use.n == layer.reach.n == SAMPLES
    assert "convolution" in layer.share.reason


def test_all_layers_of_a_loss_at_every_step():
    inputs = keras.Input((STEPS, 1))
    states = keras.layers.GRU(2, return_sequences=True, name="gru")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(states))
    model.compile("adam", "mse")
    x = RNG.normal(size=(SAMPLES, STEPS, 1)).astype("float32")
    found = tt.diagnose(model, x, x, dependency_length=4, layers="all")
    assert list(found.layers) == ["gru"]
    assert found.layers["gru"].reach.n == SAMPLES


def test_a_frozen_layer_is_named_and_without_labels_they_are_the_next_action():
    lower = keras.layers.LSTM(4, return_sequences=True, trainable=False, name="lower")
    layers = [keras.Input((STEPS, 2)), lower, keras.layers.LSTM(4, name="upper"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    for layer in (lower, model.get_layer("upper")):  # forget gates nearly closed: no gradient reaches LAG
        kernel, recurrent, bias = layer.get_weights()
        bias[4:8] = -20
        layer.set_weights([kernel, np.zeros_like(recurrent), bias])
    model.compile("adam", "mse")
    x = marked()
    y = x[:, 0, :1] + RNG.normal(size=(SAMPLES, 1))
    found = tt.diagnose(model, x, y, dependency_length=LAG, solved=1e-6)
    (code,) = [each.code for each in actions(found) if "let training change" in each.text.lower()]
    space = {"model": model}
    exec(code, space)
    assert space["layer"] is lower
    assert lower.trainable
    (action,) = actions(tt.diagnose(model, x))
    assert action.text == "Pass the labels: diagnose(model, x, y)"


@pytest.mark.parametrize("tasks", [1, 2])
def test_as_many_targets_as_steps_are_no_labels_of_steps(tasks):
    """Each target is the mean of all inputs, by pooling without any memory."""
    steps = 4
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, steps, 1)).astype("float32")
    inputs = keras.Input((steps, 1))
    sequence = keras.layers.SimpleRNN(1, activation="linear", return_sequences=True, name="rnn")(inputs)
    mean = keras.layers.GlobalAveragePooling1D()(sequence)
    outputs = [keras.layers.Dense(steps)(mean), keras.layers.Dense(1)(mean)]
    model = keras.Model(inputs, outputs if tasks > 1 else outputs[0])
    model.set_weights([np.full_like(weight, weight.ndim - 1) for weight in model.get_weights()])
    model.get_layer("rnn").set_weights([np.ones((1, 1)), np.zeros((1, 1)), np.zeros(1)])
    model.compile(loss=["mse"] * tasks if tasks > 1 else "mse")
    predicted = model.predict(x, verbose=0)
    y = [each + 0.1 * rng.normal(size=each.shape) for each in (predicted if tasks > 1 else [predicted])]
    found = tt.diagnose(model, x, y if tasks > 1 else y[0], dependency_length=2)
    share = np.var(x[:, :2].sum(1)) / np.var(x.sum(1))  # of a rise by twice the variance of what is exchanged
    assert found.layers["rnn"].use.answer == "yes"
    assert found.layers["rnn"].use.value == pytest.approx(share, abs=0.08)
    assert any("without memory" in note for note in found.notes)


class Summing(keras.Model):
    """A model that is not told the shape of its input."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = keras.layers.GRU(2), keras.layers.Dense(1)

    def call(self, x):
        return self.head(self.rnn(x))


def test_a_batch_that_the_model_refuses_is_named_by_the_loss_of_samples_as_well():
    model = Summing()
    model.compile(loss="mse")
    x, y = np.ones((3, 5, 2), "float32"), np.ones((3, 1), "float32")
    model(x)
    for run in (tt.capture, tt.diagnose, lambda model, x, y: tt.Probe(model).losses(x, y)):
        with pytest.raises(tt.BatchError, match=r"(?s)cannot be run on this batch: .*\(3, 5, 1\)"):
            run(model, x[..., :1], y)
