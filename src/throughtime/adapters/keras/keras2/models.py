"""What is asked of a whole model before it runs: whether it can, how it is set, what its weights are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from throughtime._errors import UnbuiltModelError, UnsupportedModelError
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.layers import every_layer
from throughtime.adapters.keras.library import belongs_to_a_graph, is_a, is_layer
from throughtime.adapters.records import Array

from . import graph
from .internals import raw_variable


def check_model(model: Any) -> None:
    """Refuse what cannot be captured: no model, one without weights yet, one spread over devices."""
    if not is_layer(model):
        raise UnsupportedModelError(f"Expected a Keras model, got {type(model).__name__}.")
    unbuilt = [part for layer in every_layer(model) for part in _unbuilt(layer)]
    if not model.built or unbuilt:
        what = f"{model.name!r}" if not unbuilt else f"{model.name!r} (its {', '.join(unbuilt)})"
        raise UnbuiltModelError(
            f"The model {what} is not built: it has no weights yet. Start it with an Input, or call it once "
            "on a batch, model(x), and capture then."
        )
    if any("distribute" in type(raw_variable(variable)).__module__ for variable in model.weights):
        raise UnsupportedModelError(
            f"The weights of {model.name!r} are spread over devices by a tf.distribute strategy. Build the "
            "model once more outside of strategy.scope(), give it the weights with "
            "set_weights(model.get_weights()), and capture that one."
        )
    for layer in every_layer(model):
        if getattr(layer, "time_major", False):
            raise UnsupportedModelError(
                f"The layer {layer.name!r} has time_major=True: its first axis is time. Build it with "
                "time_major=False and give it tf.transpose(x, [1, 0, 2]); its weights are the same."
            )


def _unbuilt(layer: Any) -> Iterator[str]:
    if is_a(layer, "RNN") and hasattr(layer, "cell"):
        for cell in inner_cells(layer.cell):
            if is_layer(cell) and not cell.built:  # what is no layer has its weights from the start
                yield str(cell.name)


def weight_values(model: Any, variables: Sequence[Any]) -> dict[int, Array]:
    """Read variables as they are now, by their identity."""
    variables = list({id(variable): variable for variable in variables}.values())
    if belongs_to_a_graph(model):
        values = graph.values_of(model, variables)
    else:
        values = [np.array(raw_variable(variable).read_value()) for variable in variables]
    return {id(variable): value for variable, value in zip(variables, values, strict=True)}
