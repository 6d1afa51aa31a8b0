"""The Keras 2 that is installed: `tf_keras`, else the `keras` that came with TensorFlow up to 2.15."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

if find_spec("tf_keras") is not None:
    import tf_keras as keras
else:
    import keras

__all__ = ["K", "computing_in", "keras", "session"]
K = keras.backend


@contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Let layers made in the block hold and compute in `dtype`."""
    before = K.floatx()
    K.set_floatx(dtype)
    try:
        yield
    finally:
        K.set_floatx(before)


def session() -> Any:
    """Keras' own session in graph mode, with every variable initialised."""
    return import_module(f"{keras.__name__}.src.backend").get_session()
