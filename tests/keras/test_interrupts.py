"""Ctrl-C at any line, and threads at once: a Keras model stays as it was, and its leaves keep their names.

`benchmarks/faults/interrupts.py` interrupts more often.
"""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state
from tests.interrupts import chosen, lines_of

import throughtime as tt

B, T, M, N = 3, 5, 2, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, M)).astype("float32")
Y = RNG.normal(size=(B, 1)).astype("float32")


def stacked() -> Any:
    keras.utils.set_random_seed(0)
    lower = keras.layers.Bidirectional(keras.layers.LSTM(N, return_sequences=True), name="lower")
    upper = keras.layers.GRU(N, dropout=0.2, name="upper")
    model = keras.Sequential([keras.Input((T, M)), lower, upper, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def state(model: Any) -> dict[str, Any]:
    tracker = vars(global_state.GLOBAL_STATE_TRACKER)
    found: dict[str, Any] = {name: id(value) for name, value in tracker.items()}
    found["names"] = dict(global_state.get_global_attribute("object_name_uids") or {})
    for layer in model._flatten_layers():
        found[layer.path] = {name: id(value) for name, value in vars(layer).items()}
    for place, variable in enumerate(model.variables):
        found[f"{place} {variable.path}"] = np.array(keras.ops.convert_to_numpy(variable.value)).tobytes()
    return found


def begun() -> Any:
    model = stacked()
    model.train_on_batch(X, Y)
    return model


def trained(model: Any) -> list[float]:
    model.reset_metrics()
    keras.utils.set_random_seed(1)
    return [float(model.train_on_batch(X, Y)) for _ in range(5)]


def test_an_interrupt_at_any_line_leaves_no_trace() -> None:
    model, twin = begun(), begun()
    tree, before = tt.capture(model, X, Y), state(model)
    count = lines_of(lambda: tt.capture(model, X, Y))
    for at in chosen(count, seed=0):
        lines_of(lambda: tt.capture(model, X, Y), at)
        assert state(model) == before, at
        assert tt.capture(model, X, Y).identical(tree), at
    assert trained(model) == trained(twin)  # one that was never captured


def test_an_interrupt_while_a_model_is_traced_leaves_no_trace() -> None:
    model = stacked()
    tree, before = tt.capture(model, X, Y), state(model)
    count = lines_of(lambda: tt.capture(model, X[:2], Y[:2]))
    for number, at in enumerate(list(chosen(count, seed=1))[::6]):
        x, y = X.repeat(2 + number, 0), Y.repeat(2 + number, 0)  # another shape, so another trace
        lines_of(lambda x=x, y=y: tt.capture(model, x, y), at)  # type: ignore[misc]
        assert state(model) == before, at
        assert tt.capture(model, X, Y).identical(tree), at


def test_threads_that_capture_one_model_wait_for_each_other() -> None:
    for _ in range(3):
        model, errors = stacked(), []

        def capture_often(model: Any = model, errors: list[Any] = errors) -> None:
            try:
                for _ in range(4):
                    tt.capture(model, X, Y)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=capture_often) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert not model.get_layer("upper").return_sequences
        assert model.predict(X, verbose=0).shape == (B, 1)


def test_a_leafs_name_does_not_depend_on_the_thread() -> None:
    keras.layers.LSTM(N)  # takes the first name
    model = keras.Sequential([keras.Input((T, M)), keras.layers.LSTM(N), keras.layers.Dense(1)])
    model.compile(loss="mse")
    found: list[list[str]] = []

    def names() -> None:
        found.append([leaf.path for leaf in tt.capture(model, X, Y).leaves])

    names()
    thread = threading.Thread(target=names)
    thread.start()
    thread.join()
    assert found == [["/lstm"], ["/lstm"]]


ODD = {
    "no batch axis": (lambda x, y: (x[0], y[0]), r"\(5, 2\).*expects.*\(None, 5, 2\).*x\[None\]"),
    "other width": (lambda x, y: (x[..., :1], y), r"\(3, 5, 1\).*expects.*\(None, 5, 2\)"),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_batch_that_does_not_fit_is_an_error_that_says_what_the_model_expects(odd: str) -> None:
    change, words = ODD[odd]
    with pytest.raises(tt.BatchError, match=words):
        tt.capture(stacked(), *change(X, Y))
