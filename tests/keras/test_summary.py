"""What is told of a model without running it, held against Keras' own word and against a capture."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import throughtime as tt


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    built = keras.Sequential(
        [
            keras.Input((6, 8)),
            layers.Bidirectional(
                layers.LSTM(5, return_sequences=True, kernel_regularizer="l2", bias_regularizer="l1"),
                name="reader",
            ),
            layers.GRU(4, return_sequences=True, recurrent_regularizer="l2"),
            layers.GRU(4, return_sequences=True, reset_after=False, trainable=False, name="frozen"),
            layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], name="stack"),
            layers.Dense(1, kernel_regularizer="l2"),
        ]
    )
    built.set_weights([w + 0.1 for w in built.get_weights()])
    return built


def test_tells_what_keras_counts(model: Any) -> None:
    told = tt.summary(model, layers="all")
    assert told.parameters == model.count_params()
    penalties = [layer.penalty for layer in told.layers if layer.penalty is not None]
    assert sum(penalties) == pytest.approx(float(keras.ops.convert_to_numpy(sum(model.losses))), rel=1e-5)
    paths = ["reader", "gru", "frozen", "stack/0", "stack/1", "dense"]
    assert [layer.path for layer in told.layers] == paths
    assert [layer.kind for layer in told.layers] == ["LSTM", "GRU", "GRU", "LSTM", "GRU", "Dense"]
    frame = told.to_dataframe()
    assert frame["parameters"].sum() == model.count_params()


def test_prints_gates_biases_and_flags(model: Any) -> None:
    text = " ".join(str(tt.summary(model)).split())
    assert "reader: LSTM, 5 units, both directions · gates input, forget, candidate, output" in text
    assert "update, reset, candidate" in text
    assert "two biases" in text
    assert "resets before the product" in text
    assert "frozen" in text
    page = tt.summary(model)._repr_html_()
    assert page.count("<tr>") == 5 + len(tt.summary(model).to_dataframe())


def test_weights_are_those_of_a_capture(model: Any) -> None:
    tree = tt.capture(model, np.ones((2, 6, 8), "float32"), layers=["reader", "gru", "frozen", "stack"])
    for path in ("reader", "gru", "frozen"):
        captured, described = tree[path].to_dataset(), tt.weights(model, path)
        for name in [name for name in described.data_vars if "penalty" not in str(name)]:
            assert described[name].identical(captured[name])
        assert described.attrs.items() <= captured.attrs.items()
    of_tree = tt.summary(tree)
    assert {layer.path: layer.parameters for layer in of_tree.layers} == {
        layer.path: layer.parameters for layer in tt.summary(model).layers
    }


def test_says_which_layers_there_are(model: Any) -> None:
    with pytest.raises(tt.AmbiguousLayerError, match="reader, gru"):
        tt.weights(model)
    with pytest.raises(tt.LayerNotFoundError, match="reader"):
        tt.weights(model, "none such")
    with pytest.raises(tt.SchemaError, match="Nothing is left"):
        tt.weights(model, "gru", omit=("kernel", "bias"))
    assert list(tt.weights(model, "gru", omit="bias").data_vars) == [
        "kernel",
        "recurrent_kernel",
        "recurrent_kernel_penalty",
    ]


def test_norms_are_those_of_columns(model: Any) -> None:
    norms = tt.diagnostics.weight_norms(tt.weights(model, "reader"))
    kernel, recurrent = model.get_layer("reader").backward_layer.get_weights()[:2]
    backward = norms.sel(direction="backward")
    columns = np.linalg.norm(kernel, axis=0).reshape(4, 5)
    np.testing.assert_allclose(backward["column_norm"].sel(weight="kernel"), columns, rtol=1e-6)
    np.testing.assert_allclose(backward["max"].sel(weight="kernel"), columns.max(1), rtol=1e-6)
    per_gate = np.linalg.norm(recurrent.reshape(5, 4, 5), axis=(0, 2))
    np.testing.assert_allclose(backward["l2"].sel(weight="recurrent_kernel"), per_gate, rtol=1e-6)
    with pytest.raises(tt.DiagnosticError, match="no kernel_gradient"):
        tt.diagnostics.weight_norms(tt.weights(model, "reader"), gradients=True)


def test_an_unbuilt_model_is_told_so() -> None:
    with pytest.raises(tt.UnbuiltModelError, match="not built"):
        tt.summary(keras.Sequential([layers.LSTM(3)]))
