"""Describes layers without running the model."""

from __future__ import annotations

from typing import Any

from throughtime.adapters.keras import describe as of_every_keras
from throughtime.adapters.records import Array, ModelRecord

from . import dialect, find
from .arrays import numpy
from .models import check_model, weight_values


def describe(model: Any, layers: Any) -> ModelRecord:
    """Read chosen layers as they are now.

    Parameters
    ----------
    model : Model or Layer of Keras 2
        Built; in graph mode with a session that has its values.
    layers : see `find.select`
    """
    check_model(model)
    found = find.select(model, layers)
    values = weight_values(model, found)

    def value(variable: Any) -> Array | None:
        return numpy(values[id(variable)]) if id(variable) in values else None

    return of_every_keras.describe(dialect, model, found, value)
