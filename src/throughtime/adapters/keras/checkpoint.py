"""Weights of a whole model: copied, and read from files of Keras."""

from __future__ import annotations

import os
from typing import Any


def weights_of(model: Any) -> Any:
    """Copy all weights."""
    return model.get_weights()


def load_weights(model: Any, source: Any) -> Any:
    """Put weights into a model: a list of arrays, or a file `.keras`, `.weights.h5` or `.h5`."""
    if isinstance(source, (str, os.PathLike)):
        model.load_weights(os.fspath(source))
    else:
        model.set_weights(list(source))
    return model
