"""Weights and their layouts, read without running; cells that are registered."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from tests.tf_keras import own_layers
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import B, M, N, T, compiled, normal, padded_batch, seeded

import throughtime as tt
from throughtime.adapters.keras.keras2 import cudnn, weights

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
    assert cudnn.kind(plain) == ""


def test_summary_and_weights_read_without_running() -> None:
    both = L.Bidirectional(L.GRU(N, kernel_regularizer=keras.regularizers.L2(0.1)))
    model = compiled(seeded(keras.Sequential([L.Input((T, M)), both, L.Dense(1)])))
    found = tt.weights(model)
    kernels = np.stack([half.cell.kernel.numpy() for half in (both.forward_layer, both.backward_layer)])
    np.testing.assert_array_equal(found["kernel"].values.reshape(2, M, -1), kernels)
    np.testing.assert_allclose(found["kernel_penalty"], 0.1 * (kernels**2).sum((1, 2)), rtol=1e-6)
    assert found["kernel"].dims == ("direction", "feature", "gate", "unit")
    assert "bidirectional" in str(tt.summary(model))


def gates(of: Any, inputs: np.ndarray, states: Any) -> tuple[np.ndarray, np.ndarray]:
    keep = 1 / (1 + np.exp(-of["rate"])) * np.ones_like(states["hidden"])
    return keep, np.tanh(inputs @ of["kernel"] + states["hidden"] @ of["recurrent_kernel"])


def replay(of: Any, inputs: np.ndarray, states: Any) -> Any:
    keep, new = gates(of, inputs, states)
    return {"hidden": keep * states["hidden"] + (1 - keep) * new}, {"keep": keep, "candidate": new}


def adjoint(of: Any, inputs: np.ndarray, states: Any, gradients: Any) -> tt.StepAdjoint:
    h, dh = states["hidden"], gradients["hidden"]
    keep, new = gates(of, inputs, states)
    dz, dk = dh * (1 - keep) * (1 - new**2), dh * (h - new) * keep * (1 - keep)
    return tt.StepAdjoint(
        inputs=dz @ of["kernel"].T,
        states={"hidden": dh * keep + dz @ of["recurrent_kernel"].T},
        gates={"keep": dk, "candidate": dz},
        weights={"kernel": (inputs, dz), "recurrent_kernel": (h, dz), "rate": dk},
    )


minimal_gate = tt.Cell(
    name="minimal_gate",
    replay=replay,
    adjoint=adjoint,
    gates=("keep", "candidate"),
    recurrent_weight="recurrent_kernel",
)


@tt.register_cell(minimal_gate)
class Registered(own_layers.MinimalGate):
    """The same cell as a class of its own: a registration stays for the process."""


@pytest.mark.parametrize("masked", [False, True])
def test_a_registered_cell_tells_its_gates_and_agrees_with_the_one_that_is_unrolled(masked: bool) -> None:
    trees = []
    for cell in (Registered, own_layers.MinimalGate):
        layers = [L.Masking()] * masked + [L.RNN(cell(N), return_sequences=True), L.Dense(1)]
        model = compiled(seeded(keras.Sequential([L.Input((T, M)), *layers])))
        trees.append(tt.capture(model, padded_batch() if masked else normal(B, T, M), normal(B, T, 1)))
    own, unrolled = (tree["rnn"].to_dataset() for tree in trees)
    assert own.attrs["kind"] == "minimal_gate"
    assert list(own["gate"].values) == ["keep", "candidate"]
    assert float(own["certificate_weights"]) < 1e-5
    for name in ("hidden", "hidden_gradient", "input_gradient", "initial_hidden_gradient"):
        np.testing.assert_allclose(own[name], unrolled[name], rtol=2e-4, atol=1e-6)
