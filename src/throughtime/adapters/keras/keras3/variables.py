"""The variables of a model: which there are, and their numbers."""

from __future__ import annotations

from typing import Any

import keras

from throughtime.adapters.keras.layers import every_layer


def all_variables(model: Any) -> list[Any]:
    """Return everything a pass may read or write: weights, seeds, statistics, states of stateful layers."""
    states = [
        state
        for layer in every_layer(model)
        if isinstance(layer, keras.layers.RNN)
        for state in keras.tree.flatten(layer.states)
        if isinstance(state, keras.Variable)
    ]
    return list({id(variable): variable for variable in [*model.variables, *states]}.values())


def numbers_of(model: Any) -> dict[int, int]:
    """Give each variable its place among all, by its identity."""
    return {id(variable): index for index, variable in enumerate(all_variables(model))}
