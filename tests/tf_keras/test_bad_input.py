"""What cannot be captured is told, with the remedy; which Keras a model is of is decided for each object."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import B, M, N, T, compiled, normal, seeded

import throughtime as tt

L = keras.layers
X, Y = normal(B, T, M), normal(B, 1)


def model_of(*layers: Any, loss: Any = "mse") -> Any:
    return compiled(seeded(keras.Sequential([L.Input((T, M)), *layers, L.Dense(1)])), loss)


def test_an_unbuilt_model() -> None:
    with pytest.raises(tt.UnbuiltModelError, match=r"call it once on a batch"):
        tt.capture(keras.Sequential([L.LSTM(N), L.Dense(1)]), X, Y, loss="mse")


def test_no_loss_at_all() -> None:
    model = keras.Sequential([L.Input((T, M)), L.LSTM(N), L.Dense(1)])
    with pytest.raises(tt.LossError, match=r"model.compile"):
        tt.capture(model, X, Y)
    tree = tt.capture(model, X)
    assert "output_gradient" not in tree["lstm"]
    assert "hidden" in tree["lstm"]
    assert float(tt.capture(model, X, Y, loss="mse")["lstm"]["certificate_weights"]) < 1e-5


def test_labels_that_do_not_fit() -> None:
    model = model_of(L.LSTM(N))
    with pytest.raises(tt.LossError, match=r"do not fit predictions of shape"):
        tt.capture(model, X, normal(B, 7))
    with pytest.raises(tt.LossError, match="the first axes must agree"):
        tt.capture(model, X, normal(B + 1, 1))
    with pytest.raises(tt.LossError, match="loss=3"):
        tt.capture(model, X, Y, loss=3)


def test_time_major() -> None:
    with pytest.raises(tt.UnsupportedModelError, match=r"tf.transpose\(x, \[1, 0, 2\]\)"):
        tt.capture(model_of(L.LSTM(N, time_major=True)), X, Y)


def test_distributed() -> None:
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = model_of(L.LSTM(N))
    with pytest.raises(tt.UnsupportedModelError, match=r"outside of strategy.scope\(\)"):
        tt.capture(model, X, Y)


def test_jit_compiled() -> None:
    model = model_of(L.LSTM(N))
    model.compile("sgd", "mse", jit_compile=True)
    assert "without XLA" in tt.capture(model, X, Y).attrs["jit_compile"]


def test_ragged_and_sparse() -> None:
    model = model_of(L.LSTM(N))
    with pytest.raises(tt.BatchError, match=r"x.to_tensor\(\)"):
        tt.capture(
            model, tf.ragged.constant([[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]], inner_shape=(2,)), Y[:2]
        )
    with pytest.raises(tt.BatchError, match=r"tf.sparse.to_dense"):
        tt.capture(model, tf.sparse.from_dense(X), Y)


def test_layers_that_are_not_there_or_not_one() -> None:
    model = model_of(L.LSTM(N, return_sequences=True, name="one"), L.LSTM(2, name="two"))
    with pytest.raises(tt.LayerNotFoundError, match=r"one  \(LSTM\)  recurrent"):
        tt.capture(model, X, Y, layers="three")
    with pytest.raises(tt.AmbiguousLayerError, match="choose one with layer_name="):
        tt.get_rnn_gradients(model, X, Y)


def test_reasons_for_what_is_missing() -> None:
    class Own(L.LSTM):
        def call(self, inputs: Any, mask: Any = None, training: Any = None, initial_state: Any = None) -> Any:
            return super().call(inputs, mask, training, initial_state)

    class Sum(L.Layer):
        state_size = N

        def call(self, x: Any, states: Any, constants: Any = None) -> Any:
            h = tf.tanh(x[:, :1] + states[0] + constants[0])
            return h, [h]

    tree = tt.capture(model_of(Own(N, name="own")), X, Y)
    assert "overrides call" in tree["own"].attrs["missing_inside"]
    inputs, constant = L.Input((T, M)), L.Input((N,))
    output = L.RNN(Sum(), name="given")(inputs, constants=[constant])
    model = compiled(keras.Model([inputs, constant], L.Dense(1)(output)))
    assert "constants" in tt.capture(model, [X, normal(B, N)], Y)["given"].attrs["missing_inside"]


def test_a_layer_within_a_users_loop_is_told() -> None:
    class Looping(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = L.GRU(M, return_sequences=True), L.Dense(1)

        def call(self, x: Any) -> Any:
            _, x = tf.while_loop(lambda k, _: k < 2, lambda k, x: (k + 1, self.rnn(x)), (0, x))
            return self.head(x[:, -1])

    model = Looping()
    model(X)
    with pytest.raises(tt.LayerNotFoundError, match="within a loop or branch"):
        tt.capture(compiled(model), X, Y)


def test_a_layer_the_loss_does_not_depend_on() -> None:
    inputs = L.Input((T, M))
    used, unused = L.LSTM(N, name="used")(inputs), L.LSTM(N, name="unused")(inputs)
    model = compiled(keras.Model(inputs, L.Dense(1)(used + tf.stop_gradient(unused))))
    with pytest.raises(tt.NoGradientError, match="does not depend on the output of unused"):
        tt.capture(model, X, Y, layers="unused")


def test_batches_from_datasets_dicts_and_tensors() -> None:
    model = model_of(L.LSTM(N))
    wanted = tt.capture(model, X, Y)["lstm"]["hidden_gradient"].values
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(B)
    for x, y in ((dataset, None), (tf.constant(X), tf.constant(Y)), (X.tolist(), Y.tolist())):
        found = tt.capture(model, x, y)["lstm"]["hidden_gradient"].values
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_one_trace_serves_batches_of_any_size() -> None:
    model = model_of(L.LSTM(N))
    probe = tt.Probe(model)
    for size in (B, 1, 5):
        assert probe(normal(size, T, M), normal(size, 1))["lstm"].sizes["sample"] == size


def test_recompiled_models_and_changed_settings_are_noticed() -> None:
    model = model_of(L.LSTM(N, name="lstm"), L.Dropout(0.0, name="dropout"))
    probe = tt.Probe(model)
    first = float(probe(X, Y)["lstm"]["loss"])
    alone = probe.losses(X, Y).values
    model.compile("sgd", "mse", loss_weights=[3.0])
    assert float(probe(X, Y)["lstm"]["loss"]) == pytest.approx(3 * first)
    np.testing.assert_allclose(probe.losses(X, Y), 3 * alone, rtol=1e-5)
    model.layers[0].go_backwards = True
    assert float(probe(X, Y)["lstm"]["loss"]) != pytest.approx(3 * first)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize("kind", ["h5", "keras", "saved_model"])
def test_models_that_were_saved_and_loaded(kind: str, tmp_path: Any) -> None:
    model = model_of(L.LSTM(N, return_sequences=True, name="lower"), L.Bidirectional(L.GRU(2), name="both"))
    wanted = tt.capture(model, X, Y)
    path = tmp_path / ("model" if kind == "saved_model" else f"model.{kind}")
    model.save(path, **({"save_format": "tf"} if kind == "saved_model" else {}))
    tree = tt.capture(keras.models.load_model(path), X, Y)
    for name in ("lower", "both"):
        for quantity in ("hidden_gradient", "kernel_gradient", "output_gradient"):
            np.testing.assert_allclose(tree[name][quantity], wanted[name][quantity], rtol=1e-4, atol=1e-6)


if find_spec("tf_keras"):  # where Keras 2 is keras itself, Keras 3 cannot be there

    def test_keras_3_in_the_same_process_keeps_its_adapter() -> None:
        import keras as keras_3

        from throughtime.adapters import choose

        three = keras_3.Sequential([keras_3.Input((T, M)), keras_3.layers.LSTM(N), keras_3.layers.Dense(1)])
        three.compile("sgd", "mse")
        assert choose(three).__name__.endswith("adapters.keras.keras3")
        assert choose(model_of(L.LSTM(N))).__name__.endswith("adapters.keras.keras2")
        assert tt.capture(three, X, Y).attrs["framework"] == "keras"
        assert tt.capture(model_of(L.LSTM(N)), X, Y).attrs["framework"] == keras.__name__


def test_choosing_the_adapter_reads_no_environment_variable_and_loads_no_other_adapter() -> None:
    program = (
        "import os, sys\n"
        "os.environ['TF_USE_LEGACY_KERAS'] = '0'\n"
        f"import {keras.__name__} as keras, throughtime.adapters as adapters\n"
        "model = keras.Sequential([keras.layers.Input((2, 1)), keras.layers.LSTM(1)])\n"
        "print(adapters.choose(model).__name__)\n"
        "print([n for n in ('keras', 'torch') if f'throughtime.adapters.{n}' in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["throughtime.adapters.keras.keras2", "[]"]
