"""What is asked of a whole model before it runs: whether it can, how it is compiled, how it is set."""

from __future__ import annotations

from typing import Any

import keras

from throughtime._errors import UnbuiltModelError, UnsupportedModelError

from .internals import unbuilt_in_cells


def check_model(model: Any) -> None:
    """Refuse what cannot be captured: no Keras model, or one without weights yet."""
    if not isinstance(model, keras.layers.Layer):
        raise UnsupportedModelError(f"Expected a Keras model, got {type(model).__name__}.")
    if not model.built:
        raise UnbuiltModelError(
            f"The model {model.name!r} is not built: it has no weights yet. Start it with "
            "keras.Input(shape), or call it once on a batch, model(x), and capture then."
        )
    unbuilt = unbuilt_in_cells(model)
    if unbuilt:
        raise UnbuiltModelError(
            f"Keras builds {', '.join(unbuilt)}, inside a recurrent cell of {model.name!r}, when the cell "
            "first runs: call the model once on a batch, model(x), and capture then."
        )
