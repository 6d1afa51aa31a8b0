"""The memory that a capture needs is told before it runs; what is too large is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import compiled, normal

import throughtime as tt

L = keras.layers


def model_of(*layers: Any, **options: Any) -> Any:
    model = keras.Sequential([L.Input((50, 4)), *layers, L.Dense(1)])
    return compiled(model, **options)


def batch(size: int) -> Any:
    return np.zeros((size, 50, 4), "float32"), np.zeros((size, 1), "float32")


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_batch_that_is_too_large_is_captured_in_parts_that_add_up(eagerly: bool) -> None:
    model = model_of(L.LSTM(16, return_sequences=True), L.GRU(8), run_eagerly=eagerly)
    x, y = normal(64, 50, 4).astype("float32"), normal(64, 1).astype("float32")
    whole, parts = tt.capture(model, x, y), tt.capture(model, x, y, budget=6.5e6)
    assert parts.attrs["chunks"] > 1
    for path in ("lstm", "gru"):
        for name in whole[path].data_vars:
            if not str(name).startswith("certificate"):
                np.testing.assert_allclose(parts[path][name], whole[path][name], rtol=2e-4, atol=1e-6)


def test_what_is_too_large_even_so_is_refused_with_the_way_round() -> None:
    model = model_of(L.LSTM(16, return_sequences=True), L.GRU(8))
    with pytest.raises(tt.TooLargeError, match="Not even one sample fits"):
        tt.capture(model, *batch(64), budget=1e5)
    with pytest.raises(tt.TooLargeError, match="dropout and batch statistics"):
        tt.capture(model, *batch(64), budget=6.5e6, training=True)
    masked = model_of(L.Masking(), L.LSTM(16, return_sequences=True))
    with pytest.raises(tt.TooLargeError, match="masks reach the loss"):
        tt.capture(masked, np.ones((64, 50, 4), "float32"), np.zeros((64, 50, 1), "float32"), budget=4e6)


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
