"""Tests that a quick run leaves to the other backends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# JAX compiles each model anew. TensorFlow and torch run these files in every run, JAX with --full.
SLOW_ON_JAX = ("test_own_cells.py", "test_planted_errors.py", "test_size.py", "test_zoo.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them slow on JAX."""
    if os.environ.get("KERAS_BACKEND") == "jax":
        for item in items:
            if item.path.parent == Path(__file__).parent and item.path.name in SLOW_ON_JAX:
                item.add_marker(pytest.mark.slow)
