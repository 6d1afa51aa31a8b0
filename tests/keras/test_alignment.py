"""Time in the tree is the time of the layer's input, in either direction of processing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from tests.keras.comparison import difference
from tests.matrix import chain, recurrent

import throughtime as tt

STEPS, UNITS = 6, 3


def linear_rnn(units: int, **config: Any) -> Any:
    return keras.layers.SimpleRNN(units, activation="linear", use_bias=False, **config)


def model_of(layer: Any, features: int = 1, loss: Any = "mse") -> Any:
    """The layer alone is the model, so that labels choose the step that the loss reads."""
    inputs = keras.Input((STEPS, features))
    model = keras.Model(inputs, layer(inputs))
    model.compile(loss=loss)
    return model


def loss_at(step: int) -> Any:
    """Σ over samples and units of the output at one step."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.sum(y_pred[:, step])

    return loss


def captured(model: Any, x: np.ndarray, loss: Any, name: str = "recurrent") -> Any:
    y = np.zeros((len(x), STEPS, 1), "float32")
    return tt.capture(model, x, y, loss=loss)[name].to_dataset()


@pytest.mark.parametrize("impulse", [0, 2, 5])
def test_an_impulse_shows_at_its_step_in_both_directions(impulse: int) -> None:
    """Forward nothing changes before the impulse, backward nothing after it, and it starts at its step."""
    layer = keras.layers.Bidirectional(recurrent("lstm", return_sequences=True), name="recurrent")
    model = chain([(layer, "lstm")])
    x = np.zeros((1, STEPS, 2), "float32")
    struck = x.copy()
    struck[0, impulse] = 1
    outputs = [tt.capture(model, v)["recurrent"]["output"].values[0] for v in (x, struck)]
    change = np.abs(outputs[1] - outputs[0])
    forward = change[:, :UNITS].max(axis=1) > 0
    backward = change[:, UNITS:].max(axis=1) > 0
    assert list(forward) == [t >= impulse for t in range(STEPS)]
    assert list(backward) == [t <= impulse for t in range(STEPS)]


@pytest.mark.parametrize("step", [0, 2, 5])
def test_gradients_of_a_loss_at_one_step_meet_at_that_step(step: int) -> None:
    """Both halves' output gradient sits at the step; the input gradient spreads as each half reads time."""
    layer = keras.layers.Bidirectional(recurrent("gru", return_sequences=True), name="recurrent")
    model = model_of(layer, features=2)
    x = np.random.default_rng(0).normal(size=(1, STEPS, 2)).astype("float32")

    def loss_of(half: slice) -> Any:
        return lambda y_true, y_pred: keras.ops.sum(y_pred[:, step, half])

    for half, reads in ((slice(0, UNITS), range(step + 1)), (slice(UNITS, None), range(step, STEPS))):
        layer_data = captured(model, x, loss_of(half))
        expected = np.zeros((1, STEPS, 2 * UNITS))
        expected[0, step, half] = 1
        scaled = layer_data["output_gradient"] * layer_data["reduction_factor"]
        assert np.array_equal(scaled.values, expected)
        reached = np.abs(layer_data["input_gradient"].values[0]).max(axis=1) > 0
        assert [t for t in range(STEPS) if reached[t]] == list(reads)


def test_a_layer_that_runs_backwards_is_flipped_to_input_time() -> None:
    """An impulse at step 4 of 6 changes the outputs at steps 0 to 4, whatever order Keras returns them in."""
    layer = recurrent("lstm", return_sequences=True, go_backwards=True, name="recurrent")
    model = model_of(layer, features=2)
    x = np.zeros((1, STEPS, 2), "float32")
    struck = x.copy()
    struck[0, 4] = 1
    outputs = [tt.capture(model, v)["recurrent"]["output"].values[0] for v in (x, struck)]
    changed = np.abs(outputs[1] - outputs[0]).max(axis=1) > 0
    assert list(changed) == [True] * 5 + [False]
    raw = keras.ops.convert_to_numpy(model(struck))[0]
    assert difference(outputs[1], raw[::-1]) <= 1e-6


def test_the_gradient_of_a_backward_layer_is_flipped_and_the_classic_one_is_not() -> None:
    """The loss reads Keras' step 1, which is the output at input step 4."""
    layer = recurrent("gru", return_sequences=True, go_backwards=True, name="recurrent")
    model = model_of(layer, features=2)
    x = np.random.default_rng(0).normal(size=(1, STEPS, 2)).astype("float32")
    y = np.zeros((1, STEPS, 1), "float32")
    leaf = captured(model, x, loss_at(1))
    assert np.flatnonzero(np.abs(leaf["output_gradient"].values[0]).max(axis=1)).tolist() == [4]
    assert np.flatnonzero(np.abs(leaf["input_gradient"].values[0]).max(axis=1)).tolist() == [4, 5]
    classic = tt.get_rnn_gradients(model, x, y, loss=loss_at(1))
    assert np.flatnonzero(np.abs(classic[0]).max(axis=1)).tolist() == [1]


@pytest.mark.parametrize("go_backwards", [False, True])
def test_linear_rnn_has_its_closed_form_input_gradient(go_backwards: bool) -> None:
    """h_T = Σ w·u^lag·x_t, so dL/dx_t = w·u^lag with the lag counted in processing order."""
    layer = linear_rnn(1, go_backwards=go_backwards, name="recurrent")
    model = model_of(layer)
    w, u = 0.7, -0.8
    layer.set_weights([np.array([[w]]), np.array([[u]])])
    x = np.random.default_rng(0).normal(size=(2, STEPS, 1)).astype("float32")
    tree = tt.capture(model, x, np.zeros((2, 1), "float32"), loss=lambda y, p: keras.ops.sum(p))
    leaf = tree["recurrent"].to_dataset()
    lag = np.arange(STEPS) if go_backwards else np.arange(STEPS)[::-1]
    found = (leaf["input_gradient"] * leaf["reduction_factor"]).values
    assert difference(found, np.broadcast_to(w * u**lag, (2, STEPS))[:, :, None]) <= 1e-6
    assert difference(leaf["kernel_gradient"].values[0, 0], (u**lag @ x[:, :, 0].T).sum()) <= 1e-5


def test_masked_steps_of_a_layer_have_no_input_gradient() -> None:
    layer = recurrent("lstm", return_sequences=True, name="recurrent")
    model = chain([(layer, "lstm")], before=(keras.layers.Masking(),))
    x = np.random.default_rng(0).normal(size=(2, STEPS, 2)).astype("float32")
    x[0, 4:] = 0
    x[1, 1:3] = 0
    leaf = tt.capture(model, x, np.zeros((2, STEPS, 2), "float32"))["recurrent"].to_dataset()
    valid = x.any(axis=-1)
    assert np.array_equal(leaf["valid"].values, valid)
    reached = np.abs(leaf["input_gradient"].values).max(axis=-1) > 0
    assert np.array_equal(reached, valid)
