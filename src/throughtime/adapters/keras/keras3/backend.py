"""Chooses the module that differentiates on the backend Keras computes with, when it is first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import keras


def module() -> Any:
    """Return `gradient_<backend>`, which has `trace`, `value_of` and `scan`."""
    return import_module(f"throughtime.adapters.keras.keras3.gradient_{keras.backend.backend()}")
