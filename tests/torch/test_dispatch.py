"""Which adapter a model goes to is told by its own class, whatever else lives in the process."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt

X = np.zeros((2, 5, 3), "float32")


def test_each_model_goes_to_its_own_framework() -> None:
    there = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4)])
    here = nn.GRU(3, 4, batch_first=True)
    assert keras.backend.backend() == "torch"
    assert isinstance(there, nn.Module)  # Keras on torch is both, and Keras is asked first
    assert tt.capture(there, X).attrs["framework"] == "keras"
    assert tt.capture(here, torch.as_tensor(X)).attrs["framework"] == "torch"


def test_what_no_adapter_takes_is_told_what_is_taken() -> None:
    with pytest.raises(
        tt.UnsupportedModelError, match=r"Keras 3 models .* native PyTorch modules, and JAX programs"
    ):
        tt.capture(object(), X)
    with pytest.raises(tt.UnsupportedModelError, match="Got the class GRU, not an instance of it"):
        tt.capture(nn.GRU, X)


def test_a_private_adapter_takes_any_model() -> None:
    from throughtime.adapters import torch as adapter

    class Held:
        module = nn.GRU(3, 4, batch_first=True)

    class Adapter:
        """Unwraps what holds a module."""

        @staticmethod
        def Probe(model, **options):
            return adapter.Probe(model.module, **options)

    tree = tt.capture(Held(), torch.as_tensor(X), adapter=Adapter)
    assert tree["gru"]["hidden"].shape == (2, 5, 4)
