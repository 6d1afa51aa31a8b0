"""How two arrays are compared, and what a comparison must leave in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from tests.matrix import Built, Options


def difference(a: Any, b: Any) -> float:
    """‖a − b‖ / ‖b‖ over the whole array; where b is zero, ‖a‖."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    norm = np.linalg.norm(b)
    return float(np.linalg.norm(a - b) / (norm if norm else 1.0))


@contextmanager
def kept_states(options: Options) -> Iterator[None]:
    """Put the states of stateful layers back after the model was called by hand."""
    layers = [leaf.layer for leaf in options.leaves if getattr(leaf.layer, "stateful", False)]
    states = [state for layer in layers for state in layer.states]
    before = [keras.ops.convert_to_numpy(state).copy() for state in states]
    yield
    for state, value in zip(states, before, strict=True):
        state.assign(value)


def plain_keywords(built: Built) -> dict[str, Any]:
    """Loss arguments of `plain_gradients` for one row."""
    options = built[3]
    keywords: dict[str, Any] = {"sample_weight": options.capture.get("sample_weight")}
    if "training" in options.capture:
        keywords["training"] = options.capture["training"]
    if options.objective is not None:
        keywords["objective"] = options.objective
    return keywords


@contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Layers, inputs and losses made in the block are of this dtype."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
