"""Captures too large for the memory: refused before they run, or made in parts that add up to the whole."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from rich.filesize import decimal
from tests.keras.comparison import difference
from tests.keras.own_layers import ReservoirCell
from tests.keras.test_untouched import (
    assert_same_attributes,
    assert_same_state,
    attributes_of,
    everything_stateful,
    random_states,
    state_of,
)
from tests.keras.test_untouched import data as stateful_data

import throughtime as tt
from throughtime._common.memory import free as memory
from throughtime._common.memory.budget import Budget

layers = keras.layers
SAMPLES, STEPS, FEATURES = 12, 6, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
LAST = RNG.normal(size=(SAMPLES, 1)).astype("float32")
EVERY = RNG.normal(size=(SAMPLES, STEPS, 1)).astype("float32")
WORDS = RNG.integers(1, 9, (SAMPLES, STEPS))
WORDS[::2, 4:] = 0
WORDS[3] = 0


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def needs_of(monkeypatch, capture):
    """The whole need of a capture, as it is judged before it runs, and what it captured."""
    needs = []
    with monkeypatch.context() as patch:
        patch.setattr(Budget, "check", lambda self, need: needs.append(need))
        whole = capture()
    return needs[-1], whole


def free(monkeypatch, amount):
    monkeypatch.setattr(memory, "available", lambda: int(amount))


def in_parts(monkeypatch, capture, samples=SAMPLES):
    """A capture, and the same with just the memory that parts of it need."""
    need, whole = needs_of(monkeypatch, capture)
    most = Budget(0, samples, samples).needed(need)
    fitting = [part for part in range(2, samples) if Budget(0, samples, part).needed(need) < most]
    assert fitting, "parts must need less than the whole"
    free(monkeypatch, Budget(0, samples, fitting[-1]).needed(need) + 1)
    return whole, capture()


def assert_equal(whole, parts):
    assert parts.attrs.pop("chunks") > 1
    assert parts.attrs == whole.attrs
    assert [node.path for node in parts.leaves] == [node.path for node in whole.leaves]
    for node in whole.leaves:
        ours, theirs = parts[node.path].to_dataset(), node.to_dataset()
        assert ours.attrs == theirs.attrs
        assert ours.sizes == theirs.sizes
        assert list(ours.data_vars) == list(theirs.data_vars)
        for name, variable in theirs.data_vars.items():
            assert ours[name].dtype == variable.dtype, name
            if name.startswith("certificate"):
                assert not np.nanmax(ours[name].values, initial=0) > 1e-5
            else:
                assert difference(ours[name], variable) < 1e-5, (node.path, name)


def model_of(inputs, outputs, loss="mse", **compile_arguments):
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss, **compile_arguments)
    return model


def several_layers():
    inputs = keras.Input((STEPS, FEATURES))
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(inputs)
    hidden = layers.GRU(4, return_sequences=True, go_backwards=True, name="gru")(layers.Dense(5)(both))
    return model_of(inputs, layers.Dense(1)(layers.SimpleRNN(3, name="rnn")(hidden)))


def one_layer(loss="mse", **config):
    inputs = keras.Input((STEPS, FEATURES))
    return model_of(inputs, layers.Dense(1)(layers.GRU(3, name="gru", **config)(inputs)), loss)


def test_parts_of_several_layers_add_up(monkeypatch):
    model = several_layers()
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, X, LAST, layers="all")))


def test_parts_of_unequal_length_add_up(monkeypatch):
    model = one_layer()
    capture = lambda: tt.capture(model, X[:11], LAST[:11], quantities=["hidden_gradient", "kernel_gradient"])  # noqa: E731
    assert_equal(*in_parts(monkeypatch, capture, 11))


def test_a_regularised_mean_adds_up(monkeypatch):
    model = one_layer(kernel_regularizer="l2")
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, X, LAST)))


@pytest.mark.parametrize("sequences", [False, True])
def test_masks_add_up_and_so_does_a_mean_over_valid_steps(monkeypatch, sequences):
    inputs = keras.Input((STEPS,), dtype="int32")
    embedded = layers.Embedding(9, 4, mask_zero=True)(inputs)
    hidden = layers.Bidirectional(layers.LSTM(3, return_sequences=sequences), name="both")(embedded)
    model = model_of(inputs, layers.Dense(1)(hidden))
    labels = EVERY if sequences else LAST
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, WORDS, labels, layers="both")))


@pytest.mark.parametrize("sequences", [False, True])
def test_sample_weights_add_up(monkeypatch, sequences):
    weights = np.abs(RNG.normal(size=(SAMPLES, STEPS) if sequences else SAMPLES)).astype("float32")
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.GRU(3, return_sequences=sequences, name="gru")(inputs)
    model, labels = model_of(inputs, layers.Dense(1)(hidden)), EVERY if sequences else LAST
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, X, labels, sample_weight=weights)))


def test_dict_inputs_and_several_outputs_add_up(monkeypatch):
    inputs = {"a": keras.Input((STEPS, FEATURES), name="a"), "b": keras.Input((3,), name="b")}
    hidden = layers.LSTM(3, name="lstm")(inputs["a"])
    joined = layers.Concatenate()([hidden, inputs["b"]])
    outputs = {"p": layers.Dense(1, name="p")(joined), "q": layers.Dense(1, name="q")(hidden)}
    model = model_of(inputs, outputs, {"p": "mse", "q": "mae"}, loss_weights={"p": 1.0, "q": 0.3})
    x = {"a": X, "b": RNG.normal(size=(SAMPLES, 3)).astype("float32")}
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, x, {"p": LAST, "q": 2 * LAST})))


class Leaky(layers.Layer):
    """A cell that no closed form knows, with a state of its own."""

    def __init__(self, units, **config):
        super().__init__(**config)
        self.units, self.state_size, self.state_names = units, [units, units], ["hidden", "slow"]

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1] + self.units, self.units), name="kernel")

    def call(self, x, states):
        hidden, slow = states
        hidden = keras.ops.tanh(keras.ops.concatenate([x, hidden], -1) @ self.kernel + slow)
        return hidden, [hidden, 0.9 * slow + 0.1 * hidden]


OTHER_CELLS = {
    "custom": lambda: layers.RNN(Leaky(3), name="rnn"),
    "stacked": lambda: layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], name="rnn"),
    "own activation": lambda: layers.LSTM(3, activation=lambda z: z / (1 + abs(z)), name="rnn"),
}


@pytest.mark.parametrize("name", OTHER_CELLS)
def test_other_cells_add_up(monkeypatch, name):
    inputs = keras.Input((STEPS, FEATURES))
    model = model_of(inputs, layers.Dense(1)(OTHER_CELLS[name]()(inputs)))
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, X, LAST)))


def test_what_a_cell_marks_adds_up(monkeypatch):
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.RNN(ReservoirCell(3), return_sequences=True, name="rnn")(inputs)
    model = model_of(inputs, layers.Dense(1)(hidden))
    whole, parts = in_parts(monkeypatch, lambda: tt.capture(model, X, EVERY))
    assert {"memory_unit", "memory"} <= {*whole["rnn"]["memory_gradient"].dims, *whole["rnn"].data_vars}
    assert whole["rnn"]["gate_gradient"].sel(gate="output").any()
    assert_equal(whole, parts)


def test_outer_steps_stay_with_their_samples(monkeypatch):
    inputs = keras.Input((3, STEPS, FEATURES))
    hidden = layers.TimeDistributed(layers.GRU(3), name="outer")(inputs)
    model = model_of(inputs, layers.Dense(1)(hidden))
    x = RNG.normal(size=(SAMPLES, 3, STEPS, FEATURES)).astype("float32")
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, x, EVERY[:, :3])))


def squared(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


LOSSES = {
    "sum": keras.losses.MeanSquaredError(reduction="sum"),
    "own function": squared,
    "own sum": lambda y_true, y_pred: keras.ops.sum(squared(y_true, y_pred)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_that_can_be_taken_apart_adds_up(monkeypatch, name):
    model = one_layer()
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, X, LAST, loss=LOSSES[name])))


def of_valid_steps(y_true, y_pred):
    valid = keras.ops.cast(y_true != 0, "float32")
    return keras.ops.sum(valid * keras.ops.square(y_true - y_pred)) / keras.ops.sum(valid)


@pytest.mark.parametrize("longer", [1, 6])
def test_a_mean_over_valid_steps_of_ones_own_is_refused(monkeypatch, longer):
    labels = EVERY.copy()
    labels[:-longer, 3:] = 0  # one sample is longer than the others, or all of the second part are
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.GRU(3, return_sequences=True, name="gru")(inputs)
    model = model_of(inputs, layers.Dense(1)(hidden))
    whole = lambda: tt.capture(model, X, labels, loss=of_valid_steps, quantities="output_gradient")  # noqa: E731
    assert "some count for more" in refused(monkeypatch, whole)


def test_a_stated_budget_is_kept_to(monkeypatch):
    model = one_layer()
    need, whole = needs_of(monkeypatch, lambda: tt.capture(model, X, LAST))
    enough = Budget(0, SAMPLES, SAMPLES).needed(need)
    assert "chunks" not in tt.capture(model, X, LAST, budget=enough + 1).attrs
    assert_equal(whole, tt.Probe(model, budget=enough - 1)(X, LAST))
    with pytest.raises(tt.TooLargeError, match="budget= allows 100 bytes"):
        tt.capture(model, X, LAST, budget=100)


def test_what_a_model_returns_counts(monkeypatch):
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.GRU(3, return_sequences=True, name="gru")(inputs)
    model = model_of(inputs, layers.Dense(500)(hidden))
    labels = np.zeros((SAMPLES, STEPS, 500), "float32")
    need, _ = needs_of(monkeypatch, lambda: tt.capture(model, X, labels, layers="gru"))
    assert need.passing.of(SAMPLES) > 3 * labels.nbytes
    need, tree = needs_of(monkeypatch, lambda: tt.capture(model, X, labels, layers="all"))
    assert need.kept["output"].of(SAMPLES) >= sum(leaf["output"].nbytes for leaf in tree.leaves)


def test_without_labels_there_is_nothing_to_add_up(monkeypatch):
    inputs = keras.Input((STEPS, FEATURES))
    # What TensorFlow takes once for each step is more than all that narrow layers take.
    units = 64 if keras.backend.backend() == "tensorflow" else 3
    model = model_of(inputs, layers.Dense(1)(layers.GRU(units, name="gru")(inputs)))
    assert_equal(*in_parts(monkeypatch, lambda: tt.capture(model, X)))


@pytest.mark.parametrize("loss", ["mse", "own sum"])
def test_the_classic_gradient_is_that_of_the_whole_batch(monkeypatch, loss):
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.LSTM(3, return_sequences=True, name="lower")(inputs)
    model = model_of(inputs, layers.Dense(1)(layers.GRU(3)(hidden)))

    def capture():
        return tt.get_rnn_gradients(model, X, LAST, layer_name="lower", loss=LOSSES.get(loss, loss))

    whole, parts = in_parts(monkeypatch, capture)
    assert difference(parts, whole) < 1e-5


def test_a_traced_capture_is_judged_again_when_memory_has_become_scarce(monkeypatch):
    model = one_layer()
    probe = tt.Probe(model)
    assert "chunks" not in probe(X, LAST).attrs
    assert_equal(*in_parts(monkeypatch, lambda: probe(X, LAST)))


def test_where_free_memory_is_unknown_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)
    assert "chunks" not in tt.capture(one_layer(), X, LAST).attrs


# What is message when it cannot be done


def refused(monkeypatch, capture, samples=SAMPLES):
    """What is message with a little less memory than the whole needs."""
    need, _ = needs_of(monkeypatch, capture)
    free(monkeypatch, Budget(0, samples, samples).needed(need) - 1)
    with pytest.raises(tt.TooLargeError) as caught:
        capture()
    assert isinstance(caught.value, MemoryError)
    return str(caught.value)


def test_the_error_tells_how_much_is_needed_and_what_helps(monkeypatch):
    model = several_layers()
    need, _ = needs_of(monkeypatch, lambda: tt.capture(model, X, LAST))
    amount = 0.9 * need.returned.of(SAMPLES)
    free(monkeypatch, amount)
    with pytest.raises(tt.TooLargeError) as caught:
        tt.capture(model, X, LAST)
    message = str(caught.value)
    most = Budget(0, SAMPLES, SAMPLES).needed(need)
    if keras.backend.backend() != "torch":  # stopped at the first layer that is too much
        assert f"needs about {decimal(round(most))} for {SAMPLES} samples" in message
    assert f"{decimal(round(amount))} are free" in message
    assert "quantities=" in message
    assert "gate_activation" in message
    assert "not split, because the arrays returned would not fit" in message


def test_as_many_samples_fit_as_the_error_says(monkeypatch):
    inputs = keras.Input((STEPS, FEATURES))
    model = model_of(inputs, layers.Dense(1)(layers.LSTM(3, name="lstm")(inputs)))
    need, _ = needs_of(monkeypatch, lambda: tt.capture(model, X, LAST))
    free(monkeypatch, Budget(0, 5, 5).needed(need) + 1)
    with pytest.raises(tt.TooLargeError, match="Pass at most 5 samples at once"):
        tt.capture(model, X, LAST, training=True)  # which is never done in parts
    assert "chunks" not in tt.capture(model, X[:5], LAST[:5]).attrs
    with pytest.raises(tt.TooLargeError, match="for 6 samples"):
        tt.capture(model, X[:6], LAST[:6], training=True)


def test_not_even_one_sample_may_fit(monkeypatch):
    free(monkeypatch, 10)
    with pytest.raises(tt.TooLargeError, match="Not even one sample fits"):
        tt.get_rnn_gradients(one_layer(), X, LAST, layer_name="gru")


def couples(y_true, y_pred):
    return keras.ops.square(keras.ops.sum(y_true - y_pred))


def weighted_mean():
    return keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")


UNDIVIDED = {
    "neither a mean nor a sum over samples (couples": {"loss": couples},
    "neither a mean nor a sum over samples (mean over sample weights": {
        "loss": weighted_mean,
        "sample_weight": np.linspace(0.1, 1, SAMPLES),
    },
    "with training=True": {"training": True},
}


@pytest.mark.parametrize("reason", UNDIVIDED)
def test_what_cannot_be_taken_apart_is_refused_with_the_reason(monkeypatch, reason):
    inputs = keras.Input((STEPS, FEATURES))
    model = model_of(inputs, layers.Dense(1)(layers.LSTM(3, name="lstm")(inputs)))
    arguments = dict(UNDIVIDED[reason])
    if arguments.get("loss") is weighted_mean:
        arguments["loss"] = weighted_mean()

    def capture():
        return tt.capture(model, X, LAST, quantities="output_gradient", **arguments)

    assert reason in refused(monkeypatch, capture)


def stateful():
    inputs = keras.Input(batch_shape=(SAMPLES, STEPS, FEATURES))
    return model_of(inputs, layers.Dense(1)(layers.GRU(3, stateful=True, name="gru")(inputs)))


def fixed_batch():
    inputs = keras.Input(batch_shape=(SAMPLES, STEPS, FEATURES))
    return model_of(inputs, layers.Dense(1)(layers.GRU(3, name="gru")(inputs)))


def regularised_sum():
    return one_layer(LOSSES["sum"], kernel_regularizer="l2")


def adding():
    return one_layer(activity_regularizer="l2")


def masks_of_two_outputs():
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.GRU(3, return_sequences=True, name="gru")(layers.Masking()(inputs))
    return model_of(inputs, [layers.Dense(1)(hidden), layers.Dense(1)(hidden)], ["mse", "mse"])


MODELS = {
    "the layer 'gru' is stateful": stateful,
    f"fixed batch size of {SAMPLES}": fixed_batch,
    "regularisers are added once for each batch": regularised_sum,
    "layers add losses": adding,
    "masks reach the loss": masks_of_two_outputs,
}


@pytest.mark.parametrize("reason", MODELS)
def test_models_that_cannot_see_parts_are_refused_with_the_reason(monkeypatch, reason):
    model = MODELS[reason]()
    labels = [EVERY, EVERY] if len(model.outputs) == 2 else LAST
    capture = lambda: tt.capture(model, X, labels, quantities="output_gradient")  # noqa: E731
    assert reason in refused(monkeypatch, capture)


def test_from_one_sample_nobody_can_tell_a_mean_from_a_sum(monkeypatch):
    model = one_layer()
    capture = lambda: tt.capture(model, X, LAST, loss=squared)  # noqa: E731
    need, _ = needs_of(monkeypatch, capture)
    free(monkeypatch, Budget(0, SAMPLES, 1).needed(need) + 1)
    with pytest.raises(tt.TooLargeError, match=r"a keras\.losses\.Loss declares it"):
        capture()


def test_an_input_without_samples_cannot_be_taken_apart(monkeypatch):
    inputs = [keras.Input((STEPS, FEATURES)), keras.Input(batch_shape=(None, STEPS))]
    hidden = layers.LSTM(3, name="lstm")(inputs[0])
    model = model_of(inputs, layers.Dense(1)(hidden + keras.ops.mean(inputs[1])))
    x = [X, np.ones((2, STEPS), "float32")]
    assert "first axes, 2, 12" in refused(monkeypatch, lambda: tt.capture(model, x, LAST))


def test_a_refused_capture_leaves_everything_as_it_was(monkeypatch):
    model, (x, y) = everything_stateful(), stateful_data(1)
    variables, attributes, rngs = state_of(model), attributes_of(model), random_states()
    free(monkeypatch, 1000)
    with pytest.raises(tt.TooLargeError, match="stateful"):
        tt.capture(model, x, y, layers="all")
    assert_same_state(variables, state_of(model))
    assert_same_attributes(attributes)
    assert repr(rngs) == repr(random_states())
    monkeypatch.undo()
    assert tt.capture(model, x, y)["upper"]["output_gradient"].shape == (len(x), 3)


def test_a_capture_in_parts_leaves_everything_as_it_was(monkeypatch):
    model = one_layer()
    need, _ = needs_of(monkeypatch, lambda: tt.capture(model, X, LAST))
    variables, attributes, rngs = state_of(model), attributes_of(model), random_states()
    free(monkeypatch, Budget(0, SAMPLES, 2).needed(need) + 1)
    assert tt.capture(model, X, LAST).attrs["chunks"] > 1
    assert_same_state(variables, state_of(model))
    assert_same_attributes(attributes)
    assert repr(rngs) == repr(random_states())
