"""Graph mode: whose session, what stays as it was, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests.tf_keras.comparison import difference
from tests.tf_keras.legacy import K, keras, session
from tests.tf_keras.rows import B, M, N, T, compiled, normal, seeded

import throughtime as tt

L = keras.layers


def model_of(*layers: Any, loss: Any = "mse") -> Any:
    return compiled(keras.Sequential([L.Input((T, M)), *layers, L.Dense(1, name="head")]), loss)


def test_textbook_gradient_by_tf_gradients_of_the_models_own_loss() -> None:
    """The classic recipe of graph mode: tf.gradients(model.total_loss, layer.output), fed by hand."""
    lower, upper = L.LSTM(N, return_sequences=True), L.GRU(2)
    model = model_of(lower, upper)
    # All of it before the session has seen the graph: TensorFlow's loops cannot get gradients later.
    wanted = tf.gradients(model.total_loss, [lower.output, upper.output, upper.cell.kernel])
    seeded(model)
    x, y = normal(B, T, M), normal(B, 1, seed=7)
    feed = {model.inputs[0]: x, model._targets[0]: y}
    (one, other, kernel), loss = session().run([wanted, model.total_loss], feed)
    tree = tt.capture(model, x, y)
    assert float(tree["lstm"]["loss"]) == pytest.approx(float(loss), rel=1e-6)
    for path, expected in (("lstm", one), ("gru", other)):
        leaf = tree[path].to_dataset()
        assert difference(leaf["output_gradient"] * leaf["reduction_factor"], expected) < 1e-6
        assert difference(tt.get_rnn_gradients(model, x, y, layer_name=path), expected) < 1e-6
    assert difference(tree["gru"]["kernel_gradient"].values.reshape(N, -1), kernel) < 1e-6


@pytest.mark.parametrize("is_final", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_graph_and_session_stay_as_they_were(is_final: bool, training: bool) -> None:
    layers = L.BatchNormalization(), L.LSTM(N, return_sequences=True), L.Dropout(0.5), L.GRU(2)
    model = model_of(*layers)
    x, y = normal(B, T, M), normal(B, 1, seed=7)
    model.fit(x, y, verbose=0)
    graph = session().graph
    if is_final:
        graph.finalize()
    variables = [*model.variables, *model.optimizer.weights, *(v for m in model.metrics for v in m.variables)]

    def state() -> list[Any]:
        return [len(graph.get_operations()), *session().run(variables)]

    before = state()
    tree = tt.capture(model, x, y, training=training)
    for one, other in zip(before, state(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert float(tree["lstm"]["certificate_weights"]) < 1e-5
    assert tf.compat.v1.get_default_graph() is graph
    if not is_final:
        model.fit(x, y, verbose=0)


def test_weights_of_the_session_that_was_entered() -> None:
    """A model whose values were restored into a session of the user's own."""
    graph = tf.Graph()
    with graph.as_default():
        model = model_of(L.LSTM(N))
        mine = tf.compat.v1.Session(graph=graph)
        mine.run(tf.compat.v1.global_variables_initializer())
        kernel = model.layers[0].cell.kernel
        restored = 0.25 * np.ones(kernel.shape, K.floatx())
        mine.run(kernel.initializer, {kernel.initializer.inputs[1]: restored})
    x, y = normal(B, T, M), normal(B, 1)
    with pytest.raises(tt.UnbuiltModelError, match="has no session"):
        tt.capture(model, x, y)
    with mine.as_default():
        tree = tt.capture(model, x, y)
    np.testing.assert_array_equal(tree["lstm"]["kernel"].values.reshape(M, -1), restored)
    assert float(tree["lstm"]["certificate_weights"]) < 1e-5


def test_each_run_takes_the_values_that_the_session_has_then() -> None:
    model = seeded(model_of(L.GRU(N)))
    probe = tt.Probe(model)
    x, y = normal(B, T, M), normal(B, 1)
    first = probe(x, y)
    model.set_weights([0.5 * weight for weight in model.get_weights()])
    second = probe(x, y)
    np.testing.assert_allclose(second["gru"]["kernel"], 0.5 * first["gru"]["kernel"])
    assert float(second["gru"]["certificate_weights"]) < 1e-5


def test_a_graph_without_a_session_is_told() -> None:
    model = model_of(L.LSTM(N))
    with pytest.raises(tt.UnbuiltModelError, match=r"set_session\(session\)"):
        tt.capture(model, normal(B, T, M), normal(B, 1))


def test_variables_without_values_are_told() -> None:
    model = model_of(L.LSTM(N))
    empty = tf.compat.v1.Session(graph=tf.compat.v1.get_default_graph())
    with empty.as_default(), pytest.raises(tt.UnbuiltModelError, match="without a value"):
        tt.capture(model, normal(B, T, M), normal(B, 1))


@pytest.mark.filterwarnings("ignore:.*set_learning_phase. is deprecated:UserWarning")
@pytest.mark.parametrize("phase", [0, 1])
def test_learning_phase_that_was_set_does_not_decide(phase: int) -> None:
    model = seeded(model_of(L.Dropout(0.5), L.LSTM(N)))
    K.set_learning_phase(phase)
    x, y = normal(B, T, M), normal(B, 1)
    tree = tt.capture(model, x, y)
    np.testing.assert_array_equal(tree["lstm"]["input"], x)
    dropped = tt.capture(model, x, y, training=True)
    assert (dropped["lstm"]["input"].values == 0).any()


def test_constants_of_the_graph_go_along_and_other_tensors_are_told() -> None:
    class Scaled(L.Layer):
        def __init__(self, scale: Any) -> None:
            super().__init__()
            self.scale = scale

        def call(self, x: Any) -> Any:
            return x * self.scale

    x, y = normal(B, T, M), normal(B, 1)
    model = seeded(model_of(Scaled(tf.constant(2.0, K.floatx())), L.LSTM(N)))
    np.testing.assert_allclose(tt.capture(model, x, y)["lstm"]["input"], 2 * x)
    fed = seeded(model_of(Scaled(tf.compat.v1.placeholder_with_default(np.float32(2.0), ())), L.LSTM(N)))
    with pytest.raises(tt.UnsupportedModelError, match="add_weight"):
        tt.capture(fed, x, y)


def test_a_tensor_of_the_graph_is_no_batch() -> None:
    model = seeded(model_of(L.LSTM(N)))
    with pytest.raises(tt.BatchError, match=r"session.run\(tensor\)"):
        tt.capture(model, tf.constant(normal(B, T, M)), normal(B, 1))


def test_dropout_in_training_is_that_of_the_pass() -> None:
    layer = L.LSTM(N, dropout=0.3, recurrent_dropout=0.4, return_sequences=True)
    model = seeded(model_of(layer, L.GRU(2, dropout=0.5)))
    tree = tt.capture(model, normal(B, T, M), normal(B, 1), training=True)
    for path in ("lstm", "gru"):
        assert float(tree[path]["certificate_weights"]) < 1e-5
        assert float(tree[path]["certificate_time"]) < 1e-5


def test_summary_and_weights_read_without_running() -> None:
    model = seeded(model_of(L.LSTM(N, kernel_regularizer=keras.regularizers.L2(0.1))))
    found = tt.weights(model)
    kernel = session().run(model.layers[0].cell.kernel)
    np.testing.assert_array_equal(found["kernel"].values.reshape(M, -1), kernel)
    assert float(found["kernel_penalty"]) == pytest.approx(0.1 * float((kernel**2).sum()), rel=1e-6)
