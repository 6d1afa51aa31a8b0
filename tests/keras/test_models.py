"""Rows of the support table whose oracle is another model, and what a capture says of unusual models."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from tests.keras.comparison import difference
from tests.matrix import SPECIALS, Built, Row

import throughtime as tt
from throughtime import _vocabulary
from throughtime.cells import bar

BY_TWIN = [row for row in SPECIALS if row.oracle == "twin"]


def name_of(row: Row) -> str:
    return row.name


def capture(built: Built) -> Any:
    model, x, y, options = built
    return tt.capture(model, x, y, **options.capture)


def differences(leaf: Any, twin: Any, scale: float) -> dict[str, float]:
    """Relative difference of every variable that measures something."""
    told = ("certificate", "loss", "reduction_factor", "underflow", "valid")
    names = [name for name in twin.data_vars if not str(name).startswith(told)]
    scales = dict.fromkeys(_vocabulary.PER_SAMPLE, scale)
    return {name: difference(leaf[name].values, twin[name].values * scales.get(name, 1.0)) for name in names}


@pytest.mark.parametrize("row", BY_TWIN, ids=name_of)
def test_tree_equals_that_of_its_twin(row: Row) -> None:
    built = row.build("float32")
    options = built[3]
    tree, twin = capture(built), capture(options.twin)
    for expected in options.leaves:
        leaf = tree[expected.path].to_dataset()
        found = differences(leaf, twin[expected.path].to_dataset(), options.twin_scale)
        assert {"hidden_gradient", "output_gradient", "kernel_gradient"} <= found.keys()
        assert {name: value for name, value in found.items() if value > options.tolerance} == {}
        allowed = bar(leaf.attrs["dtype"])
        for part in ("certificate_weights", "certificate_time"):
            assert float(leaf[part].max()) <= allowed, part


X = np.random.default_rng(0).normal(size=(4, 5, 2)).astype("float32")
Y = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
BACKEND = keras.backend.backend()
layers = keras.layers


def model_with(*between: Any, **compiled: Any) -> Any:
    keras.utils.set_random_seed(0)
    lstm, head = layers.LSTM(3, name="lstm"), layers.Dense(3, name="head")
    model = keras.Sequential([keras.Input((5, 2)), lstm, *between, head])
    model.compile(**{"optimizer": "adam", "loss": "mse", **compiled})
    return model


def is_certified(leaf: Any) -> bool:
    return float(leaf["certificate_weights"]) <= 1e-5 and float(leaf["certificate_time"]) <= 1e-5


# Losses that a model has by itself


def test_a_compiled_model_without_any_loss_says_so() -> None:
    with pytest.raises(tt.LossError, match="no layer adds one"):
        tt.capture(model_with(loss=None), X, Y)
    assert "without labels" in tt.capture(model_with(loss=None), X).attrs["gradients"]


class Stepping(keras.Model):
    """Computes its loss where no one but `fit` sees it."""

    def train_step(self, *arguments: Any) -> Any:
        raise NotImplementedError


def test_a_loss_inside_train_step_is_told_where_it_belongs() -> None:
    inputs = keras.Input((5, 2))
    model = Stepping(inputs, layers.Dense(3)(layers.LSTM(3, name="lstm")(inputs)))
    model.compile("adam")
    with pytest.raises(tt.LossError, match="compute_loss"):
        tt.capture(model, X, Y)
    assert "own train_step" in tt.capture(model, X, Y, loss="mse").attrs["train_step"]


class Adding(layers.Layer):
    """Adds one value a sample to the loss."""

    def call(self, x: Any) -> Any:
        self.add_loss(keras.ops.mean(x * x, axis=-1))
        return x


def test_added_losses_are_told_and_are_part_of_the_loss_as_fit_takes_them() -> None:
    model = model_with(Adding())
    tree = tt.capture(model, X, Y)
    assert "added_losses" in tree.attrs
    assert "added_losses" not in tt.capture(model_with(), X, Y).attrs
    assert float(tree["lstm"]["loss"]) == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)
    passed = tt.capture(model, X, Y, loss="mse")
    assert (
        difference(passed["lstm"]["output_gradient"].values, tree["lstm"]["output_gradient"].values) <= 1e-6
    )


def test_gradients_by_name_need_labels_or_a_loss_that_needs_none() -> None:
    model = model_with(Adding(), loss=None)
    named = tt.capture(model, X, quantities="output_gradient")["lstm"]["output_gradient"]
    assert difference(named.values, tt.get_rnn_gradients(model, X, None)) == 0
    with pytest.raises(tt.LossError, match="pass y"):
        tt.capture(model_with(), X, quantities="output_gradient")


# Layers that are no ordinary ones


class Split(layers.Layer):
    """Returns its result by name."""

    def call(self, x: Any) -> Any:
        return {"plain": x, "doubled": 2 * x}


def test_a_layer_that_returns_a_dict_says_so_and_the_others_are_captured() -> None:
    inputs = keras.Input((5, 2))
    parts = Split(name="split")(layers.LSTM(3, name="lstm")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(parts["plain"] + parts["doubled"]))
    tree = tt.capture(model, X, Y, loss="mse", layers="all")
    assert "neither a tensor" in tree["split"].attrs["missing_output"]
    assert "neither a tensor" in tree["split"].attrs["missing_output_gradient"]
    assert is_certified(tree["lstm"])


def test_a_quantised_kernel_says_why_it_has_no_gradient() -> None:
    model = model_with()
    before = tt.capture(model, X, Y, layers="all")["head"]
    model.get_layer("head").quantize("int8")
    after = tt.capture(model, X, Y, layers="all")["head"]
    assert "kernel_gradient" in before
    assert "integers" in after.attrs["missing_kernel_gradient"]
    assert difference(after["output"].values, before["output"].values) < 0.05


def test_a_kernel_that_gets_a_lora_is_seen_with_it() -> None:
    model = model_with()
    tt.capture(model, X, Y, layers="all")
    model.get_layer("head").enable_lora(1)
    head = tt.capture(model, X, Y, layers="all")["head"]
    assert {"lora_kernel_a_gradient", "lora_kernel_b_gradient"} <= set(head.data_vars)


def test_a_recurrent_layer_alone_is_a_model_too() -> None:
    layer = layers.LSTM(3, return_sequences=True, name="alone")
    layer.build((None, 5, 2))
    leaf = tt.capture(layer, X, np.zeros((4, 5, 3), "float32"), loss="mse")["alone"]
    assert is_certified(leaf)


if BACKEND == "tensorflow":  # Keras has neither layers for exported graphs nor strategies elsewhere

    def test_an_exported_graph_names_the_file_that_has_layers(tmp_path: Any) -> None:
        model_with().export(str(tmp_path), verbose=False)
        inputs = keras.Input((5, 2))
        graph = layers.TFSMLayer(str(tmp_path), call_endpoint="serve", name="graph")
        model = keras.Model(inputs, graph(inputs))
        for selected in ("recurrent", "lstm"):
            with pytest.raises(tt.LayerNotFoundError, match=r"load_model.*\.keras file"):
                tt.capture(model, X, Y, loss="mse", layers=selected)

    def test_a_model_under_a_distribution_strategy_is_captured() -> None:
        import tensorflow as tf

        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            model = model_with()
        assert is_certified(tt.capture(model, X, Y)["lstm"])


# During training, and between the steps of a loop of one's own


def trained(*, captured: bool) -> tuple[list[Any], list[float]]:
    kernels: list[float] = []

    def look(batch: int, logs: Any = None) -> None:
        leaf = tt.capture(model, X, Y)["lstm"]
        assert is_certified(leaf)
        kernels.append(float(leaf["kernel"].values.sum()))

    model = model_with(layers.Dropout(0.3, seed=1))
    watching = [keras.callbacks.LambdaCallback(on_train_batch_begin=look, on_train_batch_end=look)]
    model.fit(X, Y, batch_size=2, epochs=2, verbose=0, shuffle=False, callbacks=watching if captured else [])
    return model.get_weights(), kernels


def test_a_callback_of_fit_sees_the_weights_of_its_step_and_changes_nothing() -> None:
    weights, kernels = trained(captured=True)
    assert all(np.array_equal(a, b) for a, b in zip(weights, trained(captured=False)[0], strict=True))
    before, after = kernels[::2], kernels[1::2]
    assert before[1:] == after[:-1]
    assert len(set(after)) == 4


def test_values_that_a_stateless_loop_holds_are_captured_once_assigned() -> None:
    model = model_with()
    values = [1.1 * variable.value for variable in model.trainable_variables]
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(value)
    leaf = tt.capture(model, X, Y)["lstm"]
    assert is_certified(leaf)
    expected = keras.ops.convert_to_numpy(values[0])
    assert np.array_equal(leaf["kernel"].values.reshape(expected.shape), expected)


if BACKEND == "jax":

    def test_values_given_away_to_a_compiled_step_are_asked_back() -> None:
        import jax

        model = model_with()
        step = jax.jit(lambda values: [0.9 * value for value in values], donate_argnums=0)
        values = step([variable.value for variable in model.trainable_variables])
        with pytest.raises(tt.UnbuiltModelError, match="assign"):
            tt.capture(model, X, Y)
        for variable, value in zip(model.trainable_variables, values, strict=True):
            variable.assign(value)
        assert is_certified(tt.capture(model, X, Y)["lstm"])

    def test_a_stateless_gradient_is_the_one_captured() -> None:
        import jax

        model = model_with()
        trainable = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]

        def loss(trainable: Any) -> Any:
            prediction, _ = model.stateless_call(trainable, others, X)
            return keras.ops.mean(keras.ops.square(prediction - Y))

        kernel = np.asarray(jax.grad(loss)(trainable)[0])
        leaf = tt.capture(model, X, Y)["lstm"]
        assert difference(leaf["kernel_gradient"].values.reshape(kernel.shape), kernel) <= 1e-6
