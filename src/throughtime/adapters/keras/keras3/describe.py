"""Describes layers without running the model."""

from __future__ import annotations

from typing import Any

from throughtime.adapters.keras import describe as of_every_keras
from throughtime.adapters.records import ModelRecord

from . import dialect, find
from .arrays import numpy
from .models import check_model


def describe(model: Any, layers: Any) -> ModelRecord:
    """Read chosen layers as they are now.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Built.
    layers : see `find.select`
    """
    check_model(model)
    found = find.select(model, layers)
    return of_every_keras.describe(dialect, model, found, lambda each: numpy(each.value, copy=True))
