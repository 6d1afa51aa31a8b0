"""The same weights in Keras and in native torch give the same tree."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from torch import nn

import throughtime as tt

B, T, M, N = 4, 7, 3, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, M)).astype("float32")
Y = RNG.normal(size=(B, T, 1)).astype("float32")
ONLY_IN_TORCH = {"recurrent_bias", "recurrent_bias_gradient"}  # of an LSTM and a SimpleRNN
CERTIFICATES = {"certificate_weights", "certificate_time"}
KINDS = {
    "lstm": (keras.layers.LSTM, nn.LSTM),
    "gru": (keras.layers.GRU, nn.GRU),
    "rnn": (keras.layers.SimpleRNN, nn.RNN),
}


class Reader(nn.Module):
    def __init__(self, kind: Any, width: int, **options: Any) -> None:
        super().__init__()
        self.rnn, self.head = kind(M, N, batch_first=True, **options), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


def gates(kind: str, array: np.ndarray) -> np.ndarray:
    """Keras' (…, gate · unit) as torch's (gate · unit, …)."""
    if kind == "gru":  # update, reset, candidate there; reset, update, candidate here
        update, reset, candidate = np.split(array, 3, -1)
        array = np.concatenate([reset, update, candidate], -1)
    return array.T


def hand_over(kind: str, layer: Any, rnn: Any, suffix: str) -> None:
    """Give a torch direction the weights of a Keras layer."""
    kernel, recurrent, bias = (np.asarray(w) for w in layer.get_weights())
    biases = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    arrays = (kernel, recurrent, *biases)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    with torch.no_grad():
        for name, array in zip(names, arrays, strict=True):
            getattr(rnn, f"{name}_l0{suffix}").copy_(torch.from_numpy(gates(kind, array).copy()))


def twins(kind: str, *, bidirectional: bool) -> tuple[Any, nn.Module]:
    keras_kind, torch_kind = KINDS[kind]
    layer = keras_kind(N, return_sequences=True)
    layer = keras.layers.Bidirectional(layer, name="rnn") if bidirectional else layer
    inputs = keras.Input((T, M))
    head = keras.layers.Dense(1)
    there = keras.Model(inputs, head(layer(inputs)))
    rng = np.random.default_rng(3)
    there.set_weights([rng.normal(0, 0.5, w.shape) for w in there.weights])
    here = Reader(torch_kind, N * (1 + bidirectional), bidirectional=bidirectional)
    halves = (layer.forward_layer, layer.backward_layer) if bidirectional else (layer,)
    for half, suffix in zip(halves, ("", "_reverse"), strict=False):
        hand_over(kind, half, here.rnn, suffix)
    with torch.no_grad():
        here.head.weight.copy_(torch.from_numpy(np.asarray(head.get_weights()[0]).T))
        here.head.bias.copy_(torch.from_numpy(np.asarray(head.get_weights()[1])))
    return there, here


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weights_give_the_same_tree(kind: str, bidirectional: bool) -> None:
    there, here = twins(kind, bidirectional=bidirectional)
    keras_leaf = next(iter(tt.capture(there, X, Y, loss="mse").leaves)).to_dataset()
    torch_leaf = tt.capture(here, X, Y, loss=nn.MSELoss())["rnn"].to_dataset()
    only = ONLY_IN_TORCH if kind != "gru" else set()
    assert set(torch_leaf.data_vars) - only == set(keras_leaf.data_vars)
    for name in set(keras_leaf.data_vars) - CERTIFICATES:
        assert torch_leaf[name].dims == keras_leaf[name].dims
        assert difference(torch_leaf[name], keras_leaf[name]) <= 1e-5, name
    for name in keras_leaf.coords:
        assert keras_leaf[name].equals(torch_leaf[name])
    shared = ("kind", "activation", "dtype", "units", "merge_mode", "reset_after")
    for name in {"recurrent_activation", *shared} & keras_leaf.attrs.keys() & torch_leaf.attrs.keys():
        assert keras_leaf.attrs[name] == torch_leaf.attrs[name]
    if only:
        assert difference(torch_leaf["recurrent_bias_gradient"], keras_leaf["bias_gradient"]) <= 1e-5


def test_a_keras_model_on_torch_goes_to_the_keras_adapter() -> None:
    there, _ = twins("gru", bidirectional=False)
    if keras.backend.backend() == "torch":
        assert isinstance(there, nn.Module)
    assert tt.capture(there, X).attrs["framework"] == "keras"
