"""`tt.mark` in Keras' layers: against closed forms of the cells, from dL/dh of the same capture."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from examples.cells.indrnn import IndRNNCell
from examples.cells.minimal_gated_unit import MinimalGatedUnitCell
from keras import ops
from tests.keras.comparison import difference
from tests.keras.own_layers import (
    FEATURES,
    SAMPLES,
    STEPS,
    UNITS,
    ReservoirCell,
    batch,
    mask_of,
    model_of,
    randomise,
)

import throughtime as tt

layers = keras.layers
BACKEND = keras.backend.backend()
BARS = {"float32": 1e-5, "float64": 1e-12}
# Elsewhere Keras' generic loop multiplies in float32.
DTYPES = ["float32", "float64"] if BACKEND == "tensorflow" else ["float32"]


def states_before(leaf: Any, backward: bool) -> np.ndarray:
    """The hidden state that entered each step, carried over masked ones."""
    h = leaf["hidden"].values.astype(float)
    zeros = np.zeros_like(h[:, :1])
    return np.concatenate([h[:, 1:], zeros] if backward else [zeros, h[:, :-1]], axis=1)


def gated_unit(leaf: Any, backward: bool = False) -> dict[str, np.ndarray]:
    """dL/dgate of a minimal gated unit: h' = (1 − f) h + f ĥ, ĥ = tanh(… + (f h) U_h)."""
    dh = leaf["hidden_gradient"].values.astype(float) * leaf["valid"].values[..., None]
    f, c = (leaf["gate_activation"].sel(gate=gate).values.astype(float) for gate in ("forget", "candidate"))
    before = states_before(leaf, backward)
    recurrent_h = leaf["recurrent_kernel"].values[:, UNITS:].astype(float)
    through = (dh * f * (1 - c**2)) @ recurrent_h.T
    return {"candidate": dh * f, "forget": dh * (c - before) + through * before}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("go_backwards", "sequences", "masked"),
    # Every pair of values of any two of the three occurs.
    [(False, True, "none"), (False, False, "gaps"), (True, True, "gaps"), (True, False, "none")],
)
def test_gates_have_the_gradients_of_their_closed_form(go_backwards, sequences, masked, dtype):
    x, y = batch(mask_of(masked), sequences=sequences, dtype=dtype)
    settings = {"return_sequences": sequences, "go_backwards": go_backwards, "dtype": dtype, "name": "own"}
    layer = layers.RNN(MinimalGatedUnitCell(UNITS, dtype=dtype), **settings)
    leaf = tt.capture(model_of(layer, masked=masked != "none", dtype=dtype), x, y)["own"].to_dataset()
    assert leaf.attrs["kind"] == "rnn"
    assert list(leaf["gate"].values) == ["forget", "candidate"]
    assert leaf["gate_gradient"].dims == ("sample", "time", "gate", "unit")
    for part in ("certificate_weights", "certificate_time"):
        assert float(leaf[part]) <= BARS[dtype]
    for gate, right in gated_unit(leaf, go_backwards).items():
        assert np.abs(right).max() > 1e-4
        assert difference(leaf["gate_gradient"].sel(gate=gate), right) <= BARS[dtype] * 10


def test_of_two_directions_each_is_its_own():
    x, y = batch(mask_of("gaps"), sequences=True)
    half = layers.RNN(MinimalGatedUnitCell(UNITS), return_sequences=True)
    leaf = tt.capture(model_of(layers.Bidirectional(half, name="own"), masked=True), x, y)["own"].to_dataset()
    assert leaf["gate_activation"].dims == ("sample", "time", "direction", "gate", "unit")
    for direction in leaf["direction"].values:
        one = leaf.sel(direction=direction)
        for gate, right in gated_unit(one, direction == "backward").items():
            assert difference(one["gate_gradient"].sel(gate=gate), right) <= 1e-4


def test_another_mark_is_a_variable_whose_gradient_gives_that_of_the_weights():
    x, y = batch(mask_of("none"), sequences=True)
    layer = layers.RNN(IndRNNCell(UNITS), return_sequences=True, name="own")
    leaf = tt.capture(model_of(layer), x, y)["own"].to_dataset()
    drive = x @ leaf["kernel"].values + leaf["bias"].values
    assert difference(leaf["drive"], drive) <= 1e-6
    assert leaf["drive"].dims == leaf["drive_gradient"].dims == ("sample", "time", "unit")
    # The batch mean is undone in gradients of samples, and stays in those of weights.
    kernel = np.einsum("stf,stu->fu", x, leaf["drive_gradient"]) / SAMPLES
    assert difference(kernel, leaf["kernel_gradient"]) <= 1e-5
    assert "missing_gate_gradient" not in leaf.attrs


def test_gates_as_wide_as_the_hidden_state_beside_a_memory_of_another_width():
    x, y = batch(mask_of("none"), sequences=True)
    model = model_of(layers.RNN(ReservoirCell(UNITS, start=0.7), return_sequences=True, name="own"))
    leaf = tt.capture(model, x, y)["own"].to_dataset()
    assert leaf["memory"].dims == ("sample", "time", "memory_unit")
    gate = leaf["gate_activation"].sel(gate="output")
    expected = 1 / (1 + np.exp(-(x @ leaf["kernel"].values + leaf["bias"].values)))
    assert difference(gate, expected) <= 1e-6
    # h = gate · tanh(…), so that dL/dgate = dL/dh · h / gate.
    right = leaf["hidden_gradient"] * leaf["hidden"] / gate
    assert difference(leaf["gate_gradient"].sel(gate="output"), right) <= 1e-5


def test_stacked_cells_have_their_own_gates():
    x, y = batch(mask_of("none"), sequences=False)
    model = model_of(layers.RNN([MinimalGatedUnitCell(UNITS), MinimalGatedUnitCell(UNITS)], name="own"))
    tree = tt.capture(model, x, y)
    for path in ("own/0", "own/1"):
        leaf = tree[path].to_dataset()
        for gate, right in gated_unit(leaf).items():
            assert difference(leaf["gate_gradient"].sel(gate=gate), right) <= 1e-4


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_what_an_activation_of_a_standard_cell_marks_is_a_variable(kind):
    x, y = batch(mask_of("none"), sequences=True)

    def marked(z):
        return tt.mark(ops.tanh(z), "squashed")

    model = model_of(kind(UNITS, activation=marked, return_sequences=True, name="own"))
    leaf = tt.capture(model, x, y)["own"].to_dataset()
    assert difference(leaf["squashed"], leaf["gate_activation"].sel(gate="candidate")) <= 1e-6
    before = leaf["squashed_gradient"] * (1 - leaf["squashed"] ** 2)
    assert difference(before, leaf["gate_gradient"].sel(gate="candidate")) <= 1e-5


class Odd(MinimalGatedUnitCell):
    """Marks what has no samples, whole numbers, one number a sample, and a name twice."""

    def call(self, inputs, states):
        tt.mark(ops.sum(self.bias), "constant")
        tt.mark(ops.argmax(inputs, -1), "winner")
        tt.mark(ops.sum(states[0], -1), "total")
        tt.mark(2 * inputs, "doubled")
        return super().call(tt.mark(inputs, "doubled"), states)


def test_odd_marks_are_captured_as_far_as_they_go():
    x, y = batch(mask_of("none"), sequences=True)
    model = model_of(layers.RNN(Odd(UNITS), return_sequences=True, name="own"))
    leaf = tt.capture(model, x, y)["own"].to_dataset()
    assert {"constant", "winner_gradient"}.isdisjoint(leaf.data_vars)
    np.testing.assert_array_equal(leaf["winner"], x.argmax(-1))
    before = states_before(leaf, backward=False)
    assert difference(leaf["total"].values.reshape(SAMPLES, STEPS), before.sum(-1)) <= 1e-6
    assert leaf["doubled_2"].dims == ("sample", "time", "doubled_2_unit")
    assert not leaf["doubled_gradient"].any()
    assert difference(leaf["doubled_2_gradient"], leaf["input_gradient"]) <= 1e-5


class Scan(layers.Layer):
    """All states at once, as an associative scan gives them."""

    def call(self, x):
        return tt.mark(ops.cumsum(x, axis=1), "states")


def test_a_mark_outside_of_every_loop_is_a_leaf_with_output_gradient():
    inputs = keras.Input((STEPS, FEATURES))
    lower = layers.RNN(IndRNNCell(UNITS), return_sequences=True, name="own")(inputs)
    head = layers.Dense(2)
    model = randomise(keras.Model(inputs, head(Scan()(lower))))
    x, y = batch(mask_of("none"), sequences=True)
    tree = tt.capture(model, x, y)
    leaf = tree["states"].to_dataset()
    assert leaf["output"].dims == ("sample", "time", "output_unit")
    assert difference(leaf["output"], np.cumsum(tree["own"]["output"], axis=1)) <= 1e-6
    error = model.predict(x, verbose=0) - y
    right = 2 / (2 * STEPS) * error @ ops.convert_to_numpy(head.kernel).T
    assert difference(leaf["output_gradient"], right) <= 1e-5
    # The sum's adjoint runs backwards.
    below = np.cumsum(leaf["output_gradient"].values[:, ::-1], axis=1)[:, ::-1]
    assert difference(tree["own"]["output_gradient"], below) <= 1e-5
    assert {*tt.capture(model, x, y, quantities="hidden_gradient").children} == {"own"}


def test_only_what_is_asked_for_is_there():
    x, y = batch(mask_of("none"), sequences=False)
    model = model_of(layers.RNN(IndRNNCell(UNITS), name="own"))
    assert "drive" not in tt.capture(model, x, y, quantities=["hidden", "certificate"])["own"]
    leaf = tt.capture(model, x, quantities=["gate_activation", "hidden"])["own"]
    assert {"drive", "hidden"} == {*leaf.data_vars}


class InAPlaceOfItsOwn(IndRNNCell):
    """Marks within a function that the framework traces apart."""

    def call(self, inputs, states):
        twice = apart(lambda value: tt.mark(2 * value, "doubled"))
        return super().call(twice(inputs) / 2, states)


def apart(function: Any) -> Any:
    if BACKEND == "jax":
        import jax

        return jax.checkpoint(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def compiled(function: Any) -> Any:
    if BACKEND == "torch":
        import torch

        return torch.compile(function, fullgraph=True, backend="eager")
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return apart(function)


def test_a_mark_in_a_trace_of_its_own_is_left_alone():
    x, y = batch(mask_of("none"), sequences=True)
    made = [
        model_of(layers.RNN(cell(UNITS), return_sequences=True, name="own"))
        for cell in (IndRNNCell, InAPlaceOfItsOwn)
    ]
    plain, odd = (tt.capture(model, x, y)["own"].to_dataset() for model in made)
    assert difference(odd["hidden_gradient"], plain["hidden_gradient"]) <= 1e-6
    assert ("doubled" in odd) == (BACKEND == "torch")  # which traces nothing


def test_the_identity_in_training_and_in_compiled_functions():
    value = ops.ones((2, 3))
    assert tt.mark(value, "forget") is value
    double = compiled(lambda tensor: tt.mark(2 * tensor, "forget"))
    np.testing.assert_array_equal(ops.convert_to_numpy(double(value)), 2.0)
    x, y = batch(mask_of("none"), sequences=False)
    model = model_of(layers.RNN(MinimalGatedUnitCell(UNITS), name="own"))
    model.compile("sgd", "mse")
    before = model.predict(x, verbose=0)
    tt.capture(model, x, y)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    model.fit(x, y, verbose=0)
    assert difference(model.predict(x, verbose=0), before) > 1e-6


def test_a_subclass_that_computes_something_else_is_captured_as_what_it_computes():
    class Doubled(IndRNNCell):
        def call(self, inputs, states):
            return super().call(2 * inputs, states)

    x, y = batch(mask_of("none"), sequences=False)
    leaf = tt.capture(model_of(layers.RNN(Doubled(UNITS), name="own")), x, y)["own"].to_dataset()
    assert float(leaf["certificate_time"]) <= 1e-5
    right = 2 * leaf["drive_gradient"].values @ leaf["kernel"].values.T
    assert difference(leaf["input_gradient"], right) <= 1e-5
