"""Recurrent cells and layers that are not quite as Keras describes them: understood, or refused in words."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from tests.custom_cells import DecayCell, NamedStatesCell
from tests.matrix import N, own_model, sequence_input

import throughtime as tt
from throughtime.adapters.keras import cell

layers = keras.layers
BACKEND = keras.backend.backend()


def model_of(layer: Any) -> tuple[Any, Any, Any]:
    inputs = sequence_input()
    return own_model(inputs, layer(inputs))[:3]


def captured(layer: Any, **options: Any) -> Any:
    return tt.capture(*model_of(layer), **options)[layer.name].to_dataset()


class KeywordCell(DecayCell):
    """States by keyword, and arguments that nobody passes."""

    def call(self, x: Any, states: Any = None, *, training: bool = False, scale: float = 1.0) -> Any:
        return super().call(x, states)


class BareStateCell(DecayCell):
    """Returns its state as it is and not in a list."""

    def call(self, x: Any, states: Any) -> Any:
        h, _ = super().call(x, states)
        return h, h


class LearnedStartCell(DecayCell):
    """Starts from a weight."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.start = self.add_weight(shape=(1, self.units), name="start")

    def get_initial_state(self, batch_size: int) -> Any:
        return [ops.tile(self.start, (batch_size, 1))]


class RandomStartCell(DecayCell):
    """Starts from what it draws."""

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(units, **config)
        self.generator = keras.random.SeedGenerator(1)

    def get_initial_state(self, batch_size: int) -> Any:
        return [keras.random.normal((batch_size, self.units), seed=self.generator)]


class CountingCell(DecayCell):
    """Counts its steps in a state of integers."""

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(units, **config)
        self.state_size = [units, 1]

    def get_initial_state(self, batch_size: int) -> Any:
        return [ops.zeros((batch_size, self.units)), ops.zeros((batch_size, 1), "int32")]

    def call(self, x: Any, states: Any) -> Any:
        h, _ = super().call(x, states[:1])
        return h, [h, states[1] + 1]


class PlainObjectCell:
    """No layer at all, which Keras allows."""

    state_size, compute_dtype = N, "float32"

    def call(self, x: Any, states: Any) -> Any:
        h = ops.tanh(ops.sum(x, -1, keepdims=True) + 0.5 * states[0])
        return h, [h]

    __call__ = call


class ChangedLSTMCell(layers.LSTMCell):
    """An LSTM's weights and states in a step of its own."""

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        return super().call(2 * x, states, training=training)


UNDERSTOOD = (
    lambda: layers.RNN(KeywordCell(N), name="r"),
    lambda: layers.RNN(BareStateCell(N), name="r"),
    lambda: layers.RNN(LearnedStartCell(N), name="r"),
    lambda: layers.RNN(RandomStartCell(N), name="r"),
    lambda: layers.RNN(CountingCell(N), name="r"),
    lambda: layers.RNN(PlainObjectCell(), name="r"),
    lambda: layers.RNN(ChangedLSTMCell(N), name="r"),
)


@pytest.mark.parametrize("make", UNDERSTOOD)
def test_a_cell_that_keras_can_run_is_looked_into(make: Any) -> None:
    dataset = captured(make())
    first = "hidden" if "hidden" in dataset else "state_0"
    assert np.abs(dataset[f"{first}_gradient"]).max() > 0
    assert np.nanmax([dataset["certificate_weights"], dataset["certificate_time"]]) <= 1e-5


class DroppingCell(DecayCell):
    """Drops features by a layer of its own."""

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(units, **config)
        self.dropping = layers.Dropout(0.5, seed=3)

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        return super().call(self.dropping(x, training=training), states)


def test_a_cell_that_draws_at_each_step_has_its_states_and_their_gradients_of_that_very_pass() -> None:
    dataset = captured(layers.RNN(DroppingCell(N), return_sequences=True, name="r"), training=True)
    hidden, gradient, entering = (
        dataset[name].values for name in ("hidden", "hidden_gradient", "output_gradient")
    )
    assert np.array_equal(dataset["output"].values, hidden)
    # dL/dh_{t−1} = ∂L/∂out_{t−1} + dL/dh_t · d · (1 − h_t²), whatever was dropped from x_t.
    carried = gradient[:, 1:] * dataset["decay"].values * (1 - hidden[:, 1:] ** 2)
    expected = entering + np.pad(carried, ((0, 0), (0, 1), (0, 0)))
    assert np.abs(gradient - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.isnan(dataset["certificate_time"])
    assert "certificate_output" not in dataset


@pytest.mark.parametrize(
    "names", [("output", "input"), ("a", "a"), ("a/b", "c"), ("kernel", "decay"), ("only",), "fast"]
)
def test_names_that_a_tree_cannot_hold_are_replaced_by_numbers(names: Any) -> None:
    odd = NamedStatesCell(N)
    odd.build((None, 2))
    odd.state_names = names
    assert cell.state_names(odd) == ("state_0", "state_1")


def test_the_only_state_may_be_named_without_a_list() -> None:
    odd = DecayCell(N)
    odd.state_names = "memory"
    assert cell.state_names(odd) == ("memory",)


def test_activations_that_no_gradient_passes_are_named() -> None:
    made = [
        layers.SimpleRNN(N, activation=ops.sign, name="sign"),
        layers.GRU(N, recurrent_activation=ops.round, name="round"),
        layers.LSTM(N, activation=ops.stop_gradient, name="stopped"),
    ]
    inputs = sequence_input()
    model, x, y, _ = own_model(inputs, [layer(inputs) for layer in made])
    with pytest.warns(tt.ThroughTimeWarning) as caught:
        tree = tt.capture(model, x, y)
    ours = [warning.message for warning in caught if warning.category is tt.ThroughTimeWarning]
    said = sorted(str(message).split(":")[0] for message in ours)
    assert said == [
        "No gradient passes custom round, the recurrent_activation of round",
        "No gradient passes custom sign, the activation of sign",
        "No gradient passes custom stop_gradient, the activation of stopped",
    ]
    assert all(np.abs(tree[layer.name]["hidden_gradient"]).max() > 0 for layer in made)
    assert not tree["sign"]["gate_gradient"].any()
    assert not tree["round"]["gate_gradient"].sel(gate=["update", "reset"]).any()
    assert tree["round"]["gate_gradient"].sel(gate="candidate").any()
    assert not tree["stopped"]["gate_gradient"].sel(gate="candidate").any()


@keras.saving.register_keras_serializable("throughtime_tests")
class OverridingLSTM(layers.LSTM):
    """Does something to the whole sequence first."""

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        return super().call(2 * sequences, initial_state, mask, training)


class OverridingRNN(layers.RNN):
    """A loop of its own."""

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        return super().inner_loop(2 * sequences, initial_state, mask, training)


@pytest.mark.parametrize(
    ("layer", "method"),
    [
        (lambda: OverridingLSTM(N, name="r"), "call"),
        (lambda: OverridingRNN(layers.LSTMCell(N), name="r"), "inner_loop"),
        (lambda: layers.Bidirectional(OverridingLSTM(N), name="r"), "call"),
    ],
)
def test_a_layer_with_a_loop_of_its_own_says_so(layer: Any, method: str) -> None:
    model, x, y = model_of(layer())
    dataset = tt.capture(model, x, y)["r"].to_dataset()
    assert f"overrides {method}" in dataset.attrs["missing_inside"]
    assert "output_gradient" in dataset
    with pytest.raises(tt.NoGradientError, match=f"overrides {method}"):
        tt.capture(model, x, y, quantities="hidden_gradient")


class RaisingCell(DecayCell):
    """Works until it is armed."""

    armed = False

    def call(self, x: Any, states: Any) -> Any:
        if self.armed:
            raise ZeroDivisionError("no step today")
        return super().call(x, states)


def state_of(model: Any) -> list[Any]:
    attributes = [(layer, dict(vars(layer))) for layer in model._flatten_layers()]
    return [keras.ops.convert_to_numpy(variable).tobytes() for variable in model.variables] + attributes


def test_what_a_cell_raises_reaches_the_caller_and_the_model_is_as_before() -> None:
    raising = RaisingCell(N)
    model, x, y = model_of(layers.RNN(raising, name="r"))
    raising.armed = True
    before = state_of(model)
    with pytest.raises(ZeroDivisionError, match="no step today"):
        tt.capture(model, x, y)
    assert state_of(model) == before
    raising.armed = False
    assert "hidden_gradient" in tt.capture(model, x, y)["r"]


def test_an_error_while_a_layer_is_unrolled_leaves_the_model_as_before(monkeypatch: Any) -> None:
    model, x, y = model_of(layers.GRU(N, dropout=0.4, name="r"))
    before = state_of(model)

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise ZeroDivisionError("no step today")

    monkeypatch.setattr(cell, "step", fail)
    with pytest.raises(ZeroDivisionError, match="no step today"):
        tt.capture(model, x, y, training=True)
    assert state_of(model) == before


def test_what_keras_builds_when_a_cell_first_runs_has_to_have_run() -> None:
    model, x, y = model_of(layers.LSTM(N, activation=layers.PReLU(name="slopes"), name="r"))
    with pytest.raises(tt.UnbuiltModelError, match=r"slopes.*Call the model once"):
        tt.capture(model, x, y)
    model(x)
    dataset = tt.capture(model, x, y)["r"].to_dataset()
    assert float(dataset["certificate_time"]) <= 1e-5


if BACKEND == "torch":  # elsewhere Keras cannot run these

    class GrowingCell(layers.Layer):
        """Remembers all that it has seen."""

        state_size = output_size = 1

        def call(self, x: Any, states: Any) -> Any:
            seen = ops.concatenate([states[0], x[:, :1]], -1)
            return ops.sum(seen, -1, keepdims=True), [seen]

    def test_a_state_that_changes_its_shape_is_refused_in_words() -> None:
        model, x, y = model_of(layers.RNN(GrowingCell(), name="r"))
        with pytest.raises(
            tt.UnsupportedModelError, match=r"shape \(3, 1\) before a step and \(3, 2\) after"
        ):
            tt.capture(model, x, y)
        assert "output_gradient" in tt.capture(model, x, y, quantities="output_gradient")["r"]


if BACKEND != "jax":  # where Keras cannot run it

    def test_a_stack_of_one_cell_is_a_stack() -> None:
        model, x, y = model_of(layers.RNN([layers.LSTMCell(N)], name="r"))
        tree = tt.capture(model, x, y)
        assert [node.path for node in tree.leaves] == ["/r/0"]
        assert {"cell_gradient", "input_gradient", "output_gradient"} <= set(tree["r/0"].data_vars)


def test_a_network_that_is_not_finite_is_captured_without_a_warning_about_its_activation():
    rnn = keras.layers.SimpleRNN(4, activation="relu", name="rnn")
    model = keras.Sequential([keras.Input((6, 2)), rnn, keras.layers.Dense(1)])
    x = np.ones((3, 6, 2), "float32")
    for value in (np.inf, np.nan):
        rnn.set_weights([np.full_like(each, value) for each in rnn.get_weights()])
        with pytest.warns(tt.ThroughTimeWarning, match="values of the layer are not finite") as warned:
            leaf = tt.capture(model, x, np.zeros((3, 1), "float32"), loss="mse")["rnn"]
        assert len(warned) == 1
        assert not np.isfinite(leaf["hidden"]).all()


if BACKEND != "torch":  # whose kernel does not call the cell

    def test_a_cell_whose_call_was_replaced_runs_as_it_is() -> None:
        """Its step is that of a cell which gets half the input."""
        model, x, y = model_of(layers.LSTM(N, return_sequences=True, name="own"))
        half = keras.models.clone_model(model)
        half.set_weights(model.get_weights())
        cell = model.get_layer("own").cell
        original = cell.call
        cell.call = lambda inputs, states, **options: original(inputs / 2, states, **options)
        expected = tt.capture(half, x / 2, y, loss="mse")["own"]
        with pytest.warns(tt.ThroughTimeWarning, match="certificate"):  # inputs enter by another product
            found = tt.capture(model, x, y, loss="mse")["own"]
        for name in ("hidden", "hidden_gradient", "output_gradient"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-7)
