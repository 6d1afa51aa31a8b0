"""What the rows leave out: dropout, stacked and unlike cells, TimeDistributed, precision, logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests.tf_keras import own_layers
from tests.tf_keras.comparison import difference
from tests.tf_keras.legacy import computing_in, keras
from tests.tf_keras.rows import B, M, N, T, compiled, normal, padded_batch, seeded

import throughtime as tt

L = keras.layers


def model_of(*layers: Any, loss: Any = "mse", shape: Any = (T, M), **options: Any) -> Any:
    return compiled(seeded(keras.Sequential([L.Input(shape), *layers])), loss, **options)


def certificates(tree: Any, path: str) -> float:
    leaf = tree[path].to_dataset()
    return float(leaf[["certificate_weights", "certificate_time"]].to_array().max())


DROPPING = {
    "fused": {"dropout": 0.5},
    "in the loop": {"dropout": 0.5, "recurrent_dropout": 0.3},
    "unrolled": {"dropout": 0.5, "recurrent_dropout": 0.3, "unroll": True},
    "backwards": {"dropout": 0.4, "recurrent_dropout": 0.3, "go_backwards": True},
    "backwards, fused": {"dropout": 0.4, "go_backwards": True},
}


@pytest.mark.parametrize("options", DROPPING.values(), ids=DROPPING)
@pytest.mark.parametrize("make", [L.LSTM, L.GRU, L.SimpleRNN])
@pytest.mark.parametrize("returns", [False, True])
def test_dropout_in_training_is_that_of_the_pass(make: Any, options: Any, returns: bool) -> None:
    model = model_of(L.Masking(), make(N, return_sequences=returns, **options), L.Dense(1))
    y = normal(B, T, 1) if returns else normal(B, 1)
    tree = tt.capture(model, padded_batch(), y, training=True)
    path = next(leaf.path for leaf in tree.leaves)
    assert certificates(tree, path) < 1e-5
    leaf = tree[path].to_dataset()
    output = leaf["output"].values
    last = leaf["hidden"].values[:, 0 if options.get("go_backwards") else -1]
    np.testing.assert_allclose(
        output[:, 0 if options.get("go_backwards") else -1] if returns else output, last
    )


def test_dropout_changes_what_passes_and_draws_anew_each_time() -> None:
    model = model_of(L.LSTM(N, dropout=0.5, recurrent_dropout=0.5), L.Dense(1))
    probe = tt.Probe(model, training=True)
    x, y = normal(B, T, M), normal(B, 1)
    hidden = [probe(x, y)["lstm"]["hidden"].values for _ in range(2)]
    assert np.abs(hidden[0] - hidden[1]).max() > 1e-3


def test_stacked_cells_are_the_layers_they_stand_for() -> None:
    """An RNN over two cells holds what two layers, one above the other, hold."""
    x, y = normal(B, T, M), normal(B, T, 1, seed=7)
    with computing_in("float64"):
        x, y = x.astype("float64"), y.astype("float64")
        stack = model_of(L.RNN([L.LSTMCell(N), L.GRUCell(4)], return_sequences=True), L.Dense(1))
        layers = model_of(L.LSTM(N, return_sequences=True), L.GRU(4, return_sequences=True), L.Dense(1))
        layers.set_weights(stack.get_weights())
        one, other = tt.capture(stack, x, y), tt.capture(layers, x, y)
    for place, path in (("rnn/0", "lstm"), ("rnn/1", "gru")):
        for name in other[path].data_vars:
            if not str(name).startswith("certificate"):
                assert difference(one[place][name], other[path][name]) < 1e-12, (path, name)
    assert float(one["rnn/0"]["certificate_time"]) < 1e-12


def test_bidirectional_over_two_unlike_layers() -> None:
    both = L.Bidirectional(L.LSTM(N), backward_layer=L.GRU(N, go_backwards=True))
    tree = tt.capture(model_of(both, L.Dense(1)), normal(B, T, M), normal(B, 1))
    for side, kind in (("forward", "lstm"), ("backward", "gru")):
        assert certificates(tree, f"bidirectional@{side}") < 1e-5
        assert tree[f"bidirectional@{side}"].attrs["kind"] == kind


def test_time_distributed_runs_over_all_outer_steps() -> None:
    """Each outer step is a sample of the inner layer; alone, each sample gives the same."""
    inner = L.LSTM(N)
    model = model_of(L.TimeDistributed(inner), L.Flatten(), L.Dense(1), shape=(4, T, M))
    x, y = normal(B, 4, T, M), normal(B, 1)
    tree = tt.capture(model, x, y)
    leaf = tree["time_distributed"].to_dataset()
    assert certificates(tree, "time_distributed") < 1e-5
    assert leaf["hidden"].sizes["sample"] == B * 4 or "outer_time" in leaf.dims
    h, _ = inner.cell(tf.constant(x[0, 1, 0:1]), [tf.zeros((1, N))] * 2)
    assert difference(np.asarray(leaf["hidden"]).reshape(B * 4, T, N)[1, 0], h[0]) < 1e-6


def test_own_layer_in_time_distributed_is_watched_as_well() -> None:
    class Twice(L.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    model = model_of(L.TimeDistributed(Twice()), L.GRU(N), L.Dense(1))
    assert certificates(tt.capture(model, normal(B, T, M), normal(B, 1)), "gru") < 1e-5


@pytest.mark.parametrize(("policy", "bar"), [("mixed_float16", 1e-2), ("mixed_bfloat16", 5e-2)])
@pytest.mark.parametrize("make", [L.LSTM, L.GRU, L.SimpleRNN])
def test_mixed_precision(policy: str, bar: float, make: Any) -> None:
    keras.mixed_precision.set_global_policy(policy)
    try:
        layers = make(N, return_sequences=True), L.RNN(own_layers.MinimalGate(N)), L.Dense(1, dtype="float32")
        model = model_of(*layers)
        before = model.get_weights()
        tree = tt.capture(model, normal(B, T, M).astype("float32"), normal(B, 1).astype("float32"))
    finally:
        keras.mixed_precision.set_global_policy(None)  # back to floatx
    first = next(leaf.path for leaf in tree.leaves if leaf.path.strip("/") != "rnn")
    for path in (first, "rnn"):
        leaf = tree[path].to_dataset()
        assert certificates(tree, path) < bar
        assert leaf["kernel"].dtype == "float32"
        assert leaf["output_gradient"].dtype == "float32"
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_softmax_is_differentiated_at_its_logits() -> None:
    model = model_of(L.GRU(N), L.Dense(4, activation="softmax"), loss="sparse_categorical_crossentropy")
    y = np.array([1, 3, 0])
    x = normal(B, T, M)
    tree = tt.capture(model, x, y, layers="all")
    probabilities = np.asarray(model(x))
    wanted = probabilities - np.eye(4)[y]
    assert difference(tree["dense"]["logits_gradient"], wanted) < 1e-5
    assert "logits_gradient" in tree["dense"].attrs["missing_output_gradient"]


def test_shared_layer_has_a_leaf_for_each_call() -> None:
    layer, (left, right) = L.GRU(N, name="shared"), (L.Input((T, M)), L.Input((T, M)))
    output = L.Dense(1)(L.Concatenate()([layer(left), layer(right)]))
    model = compiled(seeded(keras.Model([left, right], output)))
    tree = tt.capture(model, [normal(B, T, M), normal(B, T, M, seed=9)], normal(B, 1))
    for path in ("shared", "shared@2"):
        assert certificates(tree, path) < 1e-5
    assert difference(tree["shared"]["kernel_gradient"], tree["shared@2"]["kernel_gradient"]) == 0


def test_lag_matrix_columns_add_up_to_the_hidden_gradient() -> None:
    model = model_of(L.SimpleRNN(N, return_sequences=True), L.Dense(1))
    x, y = normal(B, T, M), normal(B, T, 1)
    lags = tt.lag_matrix(model, x, y)["simple_rnn"]["lag_matrix"]
    assert lags.sizes["loss_time"] == T
    upper = lags.where(lags["loss_time"] < lags["time"])
    assert float(np.nanmax(np.abs(upper))) == 0.0


def test_a_branch_on_a_tensor_within_a_users_layer() -> None:
    class Branching(L.Layer):
        def call(self, x: Any) -> Any:
            if tf.reduce_sum(x) > 0:
                x = x * 2.0
            return x

    model = model_of(Branching(), L.LSTM(N), L.Dense(1))
    tree = tt.capture(model, np.abs(normal(B, T, M)), normal(B, 1), layers="all")
    assert certificates(tree, "lstm") < 1e-5
    np.testing.assert_allclose(tree["lstm"]["input"], 2 * np.abs(normal(B, T, M)))


def test_initial_values_that_a_cell_learns() -> None:
    class Learned(own_layers.MinimalGate):
        def build(self, shape: Any) -> None:
            super().build(shape)
            self.start = self.add_weight("start", (self.units,))

        def get_initial_state(self, inputs: Any = None, batch_size: Any = None, dtype: Any = None) -> Any:
            return tf.repeat(self.start[None], batch_size, 0)

    model = model_of(L.RNN(Learned(N)), L.Dense(1))
    tree = tt.capture(model, normal(B, T, M), normal(B, 1))
    leaf = tree["rnn"].to_dataset()
    np.testing.assert_allclose(leaf["initial_hidden"][0], model.layers[0].cell.start.numpy())
    assert certificates(tree, "rnn") < 1e-5


class Reshaping(L.SimpleRNNCell):
    """It computes the shape of its state, so that nothing but the loop knows it."""

    def call(self, inputs, states, training=None):
        h, _ = super().call(inputs, states)
        h = tf.reshape(h, tf.shape(states[0]))
        return h, [h]


def test_a_state_whose_shape_the_cell_computes_keeps_it_in_the_loop() -> None:
    model = keras.Sequential([keras.Input((5, 2)), L.RNN(Reshaping(3), name="own"), L.Dense(1)])
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype("float32")
    leaf = tt.capture(model, x, np.zeros((4, 1), "float32"), loss="mse")["own"]
    assert leaf["certificate_time"] <= 1e-5
