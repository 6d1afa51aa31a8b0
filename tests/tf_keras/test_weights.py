"""Weights and their layouts, read without running."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import M, N, T, compiled, normal, seeded

import throughtime as tt
from throughtime.adapters.keras import weights

L = keras.layers
INTERNAL = f"{keras.__name__}.src"


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_layouts_of_cudnn_layers_are_those_that_keras_converts_to(kind: str) -> None:
    """The layers run on a GPU only; their weights are arrays, which Keras' own loading of files converts."""
    name = f"CuDNN{kind}"
    layer = getattr(import_module(f"{INTERNAL}.layers.rnn.cudnn_{kind.lower()}"), name)(N)
    layer.build((None, T, M))
    layer.set_weights([normal(*weight.shape, seed=20 + k) for k, weight in enumerate(layer.weights)])
    plain = getattr(L, kind)(N)
    plain.build((None, T, M))
    convert = import_module(f"{INTERNAL}.saving.legacy.hdf5_format")._convert_rnn_weights
    plain.set_weights(convert(plain, layer.get_weights()))
    found, wanted = (weights.named(each, lambda variable: variable.numpy()) for each in (layer, plain))
    assert found.keys() == wanted.keys()
    for name_of, array in wanted.items():
        np.testing.assert_array_equal(found[name_of], array)
    assert weights.kind(layer) == kind.lower()
    assert weights.cudnn_kind(plain) == ""


def test_summary_and_weights_read_without_running() -> None:
    both = L.Bidirectional(L.GRU(N, kernel_regularizer=keras.regularizers.L2(0.1)))
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), both, L.Dense(1)])))
    found = tt.weights(model)
    kernels = np.stack([half.cell.kernel.numpy() for half in (both.forward_layer, both.backward_layer)])
    np.testing.assert_array_equal(found["kernel"].values.reshape(2, M, -1), kernels)
    np.testing.assert_allclose(found["kernel_penalty"], 0.1 * (kernels**2).sum((1, 2)), rtol=1e-6)
    assert found["kernel"].dims == ("direction", "feature", "gate", "unit")
    assert "bidirectional" in str(tt.summary(model))
