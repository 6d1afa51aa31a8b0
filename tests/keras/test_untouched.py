"""A capture leaves model, optimizer, metrics, random states and data bit-identical, whatever happens."""

import gc
import random
import weakref

import keras
import numpy as np
import pytest
import xarray as xr

import throughtime as tt

SAMPLES, STEPS, FEATURES = 4, 6, 2


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
    return x, rng.normal(size=(SAMPLES, 1)).astype("float32")


# Keras 3.15 on torch cannot train a stateful LSTM: it overwrites the state that autograd still needs.
TRAINS_STATEFUL = keras.backend.backend() != "torch"


def everything_stateful(*, stateful=True):
    """A stateful RNN, dropout of three kinds, batch statistics, metrics and a slotted optimizer."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(SAMPLES, STEPS, FEATURES)),
            keras.layers.LSTM(3, stateful=stateful, return_sequences=True, name="lower"),
            keras.layers.Dropout(0.4),
            keras.layers.BatchNormalization(),
            keras.layers.GRU(3, dropout=0.2, recurrent_dropout=0.2, name="upper"),
            keras.layers.Dense(1, activity_regularizer="l2", kernel_regularizer="l2"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    if TRAINS_STATEFUL or not stateful:
        model.train_on_batch(*data())
    else:
        model.optimizer.build(model.trainable_variables)
        model.test_on_batch(*data())
    return model


def read(variable):
    return np.array(keras.ops.convert_to_numpy(variable.value))


def state_of(model):
    """Everything that training goes on from."""
    states = [state for layer in model.layers for state in getattr(layer, "states", None) or ()]
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables, *states]
    return {f"{index} {v.path}": read(v) for index, v in enumerate(variables)}


def attributes_of(model):
    return [(layer, dict(vars(layer))) for layer in model._flatten_layers()]


def random_states():
    states = [random.getstate(), np.random.get_state()]
    if keras.backend.backend() == "torch":
        import torch

        states.append(torch.random.get_rng_state().numpy().tobytes())
    return states


def assert_same_state(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.tobytes() == after[name].tobytes(), name


def assert_same_attributes(before):
    for layer, attributes in before:
        now = vars(layer)
        assert now.keys() == attributes.keys(), layer.name
        changed = [name for name, value in attributes.items() if now[name] is not value]
        assert not changed, (layer.name, changed)


@pytest.mark.parametrize("training", [False, True])
def test_model_optimizer_metrics_seeds_and_states_stay_bit_identical(training):
    model, (x, y) = everything_stateful(), data(1)
    variables, attributes, rngs = state_of(model), attributes_of(model), random_states()
    tt.capture(model, x, y, training=training, layers="all")
    tt.capture(model, x, y, training=training, layers="all")
    assert_same_state(variables, state_of(model))
    assert_same_attributes(attributes)
    assert repr(rngs) == repr(random_states())


def test_the_callers_arrays_stay_as_they_are():
    model, (x, y) = everything_stateful(), data(1)
    weights = np.ones(SAMPLES, "float32")
    copies = [array.copy() for array in (x, y, weights)]
    for array in (x, y, weights):
        array.flags.writeable = False
    tree = tt.capture(model, x, y, sample_weight=weights)
    for array, copy in zip((x, y, weights), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert not np.shares_memory(tree["lower"]["input"].values, x)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_change_in_one_array_changes_no_other_and_no_later_capture(labelled):
    model, (x, y) = everything_stateful(stateful=False), data(1)
    x = keras.ops.convert_to_tensor(x)  # a framework may return what it was given
    given, batch = keras.ops.convert_to_numpy(x).copy(), (x, y) if labelled else (x,)
    quantities = "all" if labelled else ["output", "hidden", "input", "gate_activation"]
    first, second = (tt.capture(model, *batch, layers="all", quantities=quantities) for _ in range(2))
    arrays = {
        f"{node.path}/{name}": values.values
        for node in first.leaves
        for name, values in node.data_vars.items()
        if values.dtype.kind == "f" and values.size > 1
    }
    for position, (name, array) in enumerate(arrays.items()):
        before = {other: each.copy() for other, each in arrays.items() if other != name}
        array[...] = position + 7
        for other, each in before.items():
            if (
                keras.backend.backend() != "torch"
            ):  # whose arrays share memory where a layer returns its states
                np.testing.assert_array_equal(arrays[other], each, err_msg=f"{name} changes {other}")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(x), given)
    again = tt.capture(model, *batch, layers="all", quantities=quantities)
    xr.testing.assert_identical(again, second)


def test_captured_weights_do_not_follow_later_training():
    model, (x, y) = everything_stateful(stateful=False), data(1)
    tree = tt.capture(model, x, y)
    kernel = tree["upper"]["kernel"].values.copy()
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(tree["upper"]["kernel"].values, kernel)


class Boom(Exception):
    """What a user's own loss may raise."""


def raising_loss(y_true, y_pred):
    raise Boom("no loss today")


def test_a_raising_loss_leaves_everything_and_names_the_cause():
    model, (x, y) = everything_stateful(), data(1)
    variables, attributes = state_of(model), attributes_of(model)
    with pytest.raises(tt.LossError, match="no loss today") as caught:
        tt.capture(model, x, y, loss=raising_loss)
    assert isinstance(caught.value.__cause__, Boom)
    assert_same_state(variables, state_of(model))
    assert_same_attributes(attributes)
    assert tt.capture(model, x, y)["upper"]["output_gradient"].shape == (SAMPLES, 3)


class Armed(keras.Model):
    """Works until it is armed, and raises in the middle of its call from then on."""

    def __init__(self):
        super().__init__()
        self.lstm, self.drop, self.head = (
            keras.layers.LSTM(3),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1),
        )
        self.armed = False

    def call(self, x, training=False):
        hidden = self.drop(self.lstm(x), training=training)
        if self.armed:
            raise Boom("not today")
        return self.head(hidden)


def test_a_model_that_raises_in_its_call_raises_as_ever_and_is_left_as_it_was():
    keras.utils.set_random_seed(1)
    model, (x, y) = Armed(), data(1)
    model.compile("adam", "mse")
    model.train_on_batch(x, y)
    model.armed = True
    variables, attributes, rngs = state_of(model), attributes_of(model), random_states()
    with pytest.raises(Boom, match="not today"):
        tt.capture(model, x, y, training=True)
    assert_same_state(variables, state_of(model))
    assert_same_attributes(attributes)
    assert repr(rngs) == repr(random_states())
    model.armed = False
    assert tt.capture(model, x, y)["lstm"]["output_gradient"].shape == (SAMPLES, 3)


class Interrupting(keras.layers.Layer):
    """Lets a pass through until it is armed, then behaves like a user at the keyboard."""

    armed = False

    def call(self, x):
        if Interrupting.armed:
            raise KeyboardInterrupt
        return x


def test_an_interrupt_while_tracing_leaves_everything():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((STEPS, FEATURES))
    hidden = keras.layers.LSTM(3, dropout=0.3, return_sequences=True, name="lstm")(inputs)
    last = keras.layers.GRU(3, name="gru")(Interrupting()(hidden))
    model = keras.Model(inputs, keras.layers.Dense(1)(last))
    model.compile("adam", "mse")
    x, y = data()
    model.train_on_batch(x, y)
    variables, attributes, rngs = state_of(model), attributes_of(model), random_states()
    try:
        Interrupting.armed = True
        with pytest.raises(KeyboardInterrupt):
            tt.capture(model, x, y, training=True)
    finally:
        Interrupting.armed = False
    assert_same_state(variables, state_of(model))
    assert_same_attributes(attributes)
    assert repr(rngs) == repr(random_states())
    assert not keras.src.backend.common.stateless_scope.in_stateless_scope()
    assert tt.capture(model, x, y)["lstm"]["output_gradient"].shape == (SAMPLES, STEPS, 3)


class Remembering(keras.layers.Layer):
    """Writes on itself in `call`, as users' layers do."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.seen = []

    def call(self, x):
        self.count = self.count + 1
        self.seen.append(x.shape)
        return x


def test_what_a_users_layer_writes_on_itself_is_taken_back():
    inputs = keras.Input((STEPS, FEATURES))
    remembering = Remembering()
    outputs = keras.layers.Dense(1)(keras.layers.GRU(3)(remembering(inputs)))
    model = keras.Model(inputs, outputs)
    count, seen = remembering.count, list(remembering.seen)
    tt.capture(model, *data(), loss="mse")
    assert remembering.count == count
    assert list(remembering.seen) == seen


def test_a_compiled_loss_that_was_never_built_stays_so():
    inputs = keras.Input((STEPS, FEATURES))
    hidden = keras.layers.GRU(3)(inputs)
    outputs = {"a": keras.layers.Dense(1, name="a")(hidden), "b": keras.layers.Dense(2, name="b")(hidden)}
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"a": "mse", "b": "mae"})
    x, y = data()
    labels = {"a": y, "b": np.repeat(y, 2, axis=1)}
    tree = tt.capture(model, x, labels)
    assert not model._compile_loss.built
    # A model that fits afterwards proves that no half-made metric was left behind.
    loss = model.test_on_batch(x, labels, return_dict=True)["loss"]
    np.testing.assert_allclose(float(tree["gru"]["loss"]), loss, rtol=1e-5)


def trained(*, with_captures):
    keras.backend.clear_session()
    model = everything_stateful(stateful=TRAINS_STATEFUL)
    x, y = data(2)
    for _ in range(3):
        model.fit(x, y, batch_size=SAMPLES, epochs=1, verbose=0, shuffle=False)
        if with_captures:
            tt.capture(model, x, y, layers="all", training=True)
            tt.get_rnn_gradients(model, x, y, layer_name="lower")
    return state_of(model)


def test_training_with_captures_between_epochs_ends_bit_identical():
    plain, watched = trained(with_captures=False), trained(with_captures=True)
    assert [value.tobytes() for value in plain.values()] == [value.tobytes() for value in watched.values()]


def test_automatic_names_go_on_counting_as_without_a_capture():
    keras.backend.clear_session()
    model = everything_stateful()
    tt.capture(model, *data())
    tt.capture(model, *data(), loss="mse")
    assert keras.layers.Dense(1).name == "dense_1"
    assert keras.losses.MeanSquaredError().name == "mean_squared_error"


@pytest.mark.parametrize("loss", [None, "own function"])
def test_a_model_is_freed_after_del(loss):
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.LSTM(3)(inputs)))
    model.compile("adam", "mse")
    function = None if loss is None else lambda y_true, y_pred: keras.ops.mean((y_true - y_pred) ** 2)
    tt.capture(model, *data(), loss=function)
    alive = weakref.ref(model)
    layer = weakref.ref(model.layers[1])
    del model, inputs
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None
    assert layer() is None


def model_with(loss, *, units=3):
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GRU(units, name="gru")(inputs)))
    model.compile("adam", loss)
    return model


def test_a_recompiled_model_is_captured_with_its_new_loss():
    model, (x, y) = model_with("mse"), data()
    squared = tt.get_rnn_gradients(model, x, y)
    model.compile("adam", "mae")
    absolute = tt.get_rnn_gradients(model, x, y)
    fresh = keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())
    fresh.compile("adam", "mae")
    np.testing.assert_allclose(absolute, tt.get_rnn_gradients(fresh, x, y), rtol=1e-6)
    assert np.abs(absolute - squared).max() > 1e-3


def test_trained_weights_are_used_without_tracing_anew(monkeypatch):
    from throughtime.adapters.keras.keras3 import dialect

    model, (x, y) = model_with("mse"), data()
    traces = []
    original = dialect.traced
    monkeypatch.setattr(dialect, "traced", lambda *a, **k: traces.append(1) or original(*a, **k))
    first = tt.get_rnn_gradients(model, x, y)
    model.train_on_batch(x, y)
    second = tt.get_rnn_gradients(model, x, y)
    tt.get_rnn_gradients(model, x[:2], y[:2])
    assert len(traces) == 2  # one for each batch shape
    assert np.abs(first - second).max() > 0


def test_a_changed_layer_setting_is_seen():
    inputs = keras.Input((STEPS, FEATURES))
    dropout = keras.layers.Dropout(0.01)
    hidden = dropout(keras.layers.GRU(8, return_sequences=True, name="gru")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile("adam", "mse")
    x, y = data()
    labels = np.repeat(y[:, None], STEPS, axis=1)
    before = tt.get_rnn_gradients(model, x, labels, training=True)
    dropout.rate = 0.9
    after = tt.get_rnn_gradients(model, x, labels, training=True)
    assert (before == 0).mean() < 0.1
    assert (after == 0).mean() > 0.5


def test_a_replaced_activation_is_seen():
    model, (x, y) = model_with("mse"), data()
    before = tt.get_rnn_gradients(model, x, y)
    model.layers[-1].activation = keras.activations.tanh
    assert np.abs(tt.get_rnn_gradients(model, x, y) - before).max() > 0
