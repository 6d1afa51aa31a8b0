"""The memory that a capture needs is told before it runs; what is too large is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import compiled

import throughtime as tt

L = keras.layers


def model_of(*layers: Any, **options: Any) -> Any:
    model = keras.Sequential([L.Input((50, 4)), *layers, L.Dense(1)])
    return compiled(model, **options)


def batch(size: int) -> Any:
    return np.zeros((size, 50, 4), "float32"), np.zeros((size, 1), "float32")


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_stated_budget_refuses_what_is_too_large_and_names_the_way(eagerly: bool) -> None:
    model = model_of(L.LSTM(16, return_sequences=True), L.GRU(8), run_eagerly=eagerly)
    with pytest.raises(tt.TooLargeError, match=r"budget= allows 1\.0 MB") as caught:
        tt.capture(model, *batch(64), budget=1e6)
    assert "models of Keras 2 are captured whole" in str(caught.value)
    assert "hidden_gradient" in tt.capture(model, *batch(64), budget=1e9)["gru"]


def test_layers_that_only_run_along_count_as_well() -> None:
    model = model_of(L.LSTM(64, return_sequences=True, name="wide"), L.GRU(2, name="narrow"))
    with pytest.raises(tt.TooLargeError):
        tt.capture(model, *batch(64), layers="narrow", budget=1e6)


def test_the_need_grows_with_the_batch_of_one_trace() -> None:
    """The trace that serves a small batch serves a large one, and refuses it where it must."""
    probe = tt.Probe(model_of(L.SimpleRNN(8), L.RepeatVector(3), L.GRU(4)), budget=3e6)
    probe(*batch(2))
    with pytest.raises(tt.TooLargeError):
        probe(*batch(2000))
    probe(*batch(3))
