"""What is asked of a whole model before it runs: whether it can, how it is compiled, how it is set."""

from __future__ import annotations

from typing import Any

import keras

from throughtime._errors import UnbuiltModelError, UnsupportedModelError

from .internals import every_layer, unbuilt_in_cells

_BOOKKEEPING = ("training", "stop_training", "_called")


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


def execution(model: Any) -> dict[str, bool]:
    """How the model was compiled to run."""
    return {
        "eager": bool(getattr(model, "run_eagerly", False)),
        "compiled": bool(getattr(model, "compiled", False) and model.jit_compile),
    }


def plain_settings(model: Any) -> tuple[Any, ...]:
    """Every plain setting of every layer: a change in one of them changes what the model computes.

    What Keras and torch merely note down is left out; the mode of a pass is an argument of its call.
    """
    plain = (bool, int, float, str)
    return tuple(
        frozenset(
            (name, value)
            for name, value in vars(layer).items()
            if isinstance(value, plain) and name not in _BOOKKEEPING
        )
        for layer in every_layer(model)
    )
