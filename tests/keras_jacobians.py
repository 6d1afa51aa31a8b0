"""Step Jacobians of custom cells of any Keras, against closed forms and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import throughtime as tt
from throughtime import diagnostics

SAMPLES, STEPS, FEATURES, UNITS = 3, 6, 2, 4
JACOBIAN = "state_jacobian"


def written_lstm(keras: Any, ops: Any) -> Any:
    """Make a cell with the equations of Keras' LSTM, and weights in its order."""

    class WrittenLSTM(keras.layers.Layer):  # type: ignore[misc]
        state_size, output_size, state_names = [UNITS, UNITS], UNITS, ("hidden", "cell")

        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(shape[-1], 4 * UNITS), name="w")
            self.u = self.add_weight(shape=(UNITS, 4 * UNITS), name="u")
            self.b = self.add_weight(shape=(4 * UNITS,), name="b")
            self.built = True

        def call(self, x: Any, states: Any) -> Any:
            hidden, cell = states
            product = ops.matmul(x, self.w) + ops.matmul(hidden, self.u) + self.b
            i, f, g, o = ops.split(product, 4, -1)
            cell = ops.sigmoid(f) * cell + ops.sigmoid(i) * ops.tanh(g)
            hidden = ops.sigmoid(o) * ops.tanh(cell)
            return hidden, [hidden, cell]

    return WrittenLSTM()


def unlike_states(keras: Any, ops: Any) -> Any:
    """Make a cell with a narrow and a wide state, whose step `unlike_step` computes in NumPy."""

    class UnlikeStates(keras.layers.Layer):  # type: ignore[misc]
        state_size, output_size, state_names = [3, 4], 3, ("narrow", "wide")

        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(shape[-1], 3), name="w")
            self.v = self.add_weight(shape=(4, 3), name="v")
            self.built = True

        def call(self, x: Any, states: Any) -> Any:
            narrow, wide = states
            after = ops.tanh(ops.matmul(x, self.w) + narrow * narrow + ops.matmul(wide, self.v))
            return after, [after, 0.5 * wide + wide * ops.tanh(narrow[:, :1])]

        def get_initial_state(self, *args: Any, **kwargs: Any) -> Any:
            size = kwargs.get("batch_size", args[1] if len(args) > 1 else args[0] if args else None)
            return [ops.ones((size, 3)), ops.ones((size, 4))]

    return UnlikeStates()


def unlike_step(w: Any, v: Any, x: Any, state: Any) -> Any:
    narrow, wide = state[:3], state[3:]
    after = np.tanh(x @ w + narrow * narrow + wide @ v)
    return np.concatenate([after, 0.5 * wide + wide * np.tanh(narrow[0])])


def batch() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
    x[1, 4:] = x[2, :2] = 0
    return x, random.normal(size=(SAMPLES, 1)).astype("float32")


def model_of(keras: Any, layer: Any) -> Any:
    layers = [keras.Input((STEPS, FEATURES)), keras.layers.Masking(), layer, keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    random = np.random.default_rng(1)
    model.set_weights([random.normal(0, 0.7, each.shape) for each in model.get_weights()])
    return model


def check_closed_form(keras: Any, ops: Any, *, backwards: bool) -> None:
    """An LSTM that somebody wrote has the Jacobians, and what follows from them, of Keras' LSTM."""
    x, y = batch()
    cell = keras.layers.RNN(written_lstm(keras, ops), go_backwards=backwards, name="cell")
    found = tt.capture(model_of(keras, cell), x, y, quantities=["all", JACOBIAN])["cell"]
    lstm = keras.layers.LSTM(UNITS, go_backwards=backwards, name="lstm")
    known = tt.capture(model_of(keras, lstm), x, y)["lstm"]
    expected = diagnostics.state_jacobian(known)
    np.testing.assert_allclose(found[JACOBIAN], expected.transpose(*found[JACOBIAN].dims), atol=1e-6)
    np.testing.assert_array_equal(found[JACOBIAN][1, 5], np.eye(2 * UNITS))  # masked
    exponents = [diagnostics.lyapunov_spectrum(each) for each in (found, known)]
    np.testing.assert_allclose(*exponents, atol=1e-3)
    radii = np.abs(np.linalg.eigvals(expected)).max(-1)
    np.testing.assert_allclose(diagnostics.recurrent_spectrum(found)["spectral_radius"], radii, rtol=1e-4)
    own = np.abs(np.diagonal(expected.values, axis1=2, axis2=3))[known["valid"].values]
    np.testing.assert_allclose(diagnostics.timescale(found), -1 / np.log(own).mean(0), rtol=1e-3)


def check_differences(keras: Any, ops: Any) -> None:
    """States of unlike sizes, not 0 at first, have finite differences of a NumPy step, without labels."""
    layer = keras.layers.RNN(unlike_states(keras, ops), name="cell")
    model, (x, _) = model_of(keras, layer), batch()
    captured = tt.capture(model, x, quantities=["hidden", "cell", JACOBIAN, "valid"])["cell"]
    w, v = (each.astype(float) for each in model.get_weights()[:2])
    states = np.concatenate([captured["narrow"], captured["wide"]], axis=-1, dtype=float)
    before = np.concatenate([np.ones((SAMPLES, 1, 7)), states[:, :-1]], axis=1)
    for sample, step in np.argwhere(captured["valid"].values):

        def stepped(state: Any, x: Any = x[sample, step]) -> Any:
            return unlike_step(w, v, x, state)

        expected = differences(stepped, before[sample, step])
        np.testing.assert_allclose(captured[JACOBIAN][sample, step], expected, atol=1e-5)


def differences(function: Callable[[Any], Any], at: Any) -> Any:
    columns = [(function(at + side) - function(at - side)) / 2e-5 for side in 1e-5 * np.eye(len(at))]
    return np.stack(columns, axis=-1)


def check_stacked(keras: Any, ops: Any) -> None:
    """Of stacked cells those without a closed form get their own Jacobians, in both directions."""
    x, y = batch()
    cells = [keras.layers.LSTMCell(3), written_lstm(keras, ops)]
    alone = keras.layers.RNN(written_lstm(keras, ops), name="alone")
    below = keras.layers.RNN(keras.layers.LSTMCell(3), return_sequences=True)
    stack = keras.layers.RNN(cells, name="stack")
    one = model_of(keras, stack)
    two = keras.Sequential(
        [keras.Input((STEPS, FEATURES)), keras.layers.Masking(), below, alone, keras.layers.Dense(1)]
    )
    two.set_weights(one.get_weights())
    two.compile("sgd", "mse")
    found = tt.capture(one, x, y, quantities=["all", JACOBIAN])["stack"]
    expected = tt.capture(two, x, y, quantities=["all", JACOBIAN])["alone"]
    assert JACOBIAN not in found["0"]
    np.testing.assert_allclose(found["1"][JACOBIAN], expected[JACOBIAN], atol=1e-6)
