"""Which files run on which backend, and in which runs."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

BACKEND = keras.backend.backend()
# The errors are planted in NumPy code that all backends share: torch, which compiles nothing, runs them.
collect_ignore = [] if BACKEND == "torch" else ["test_planted_errors.py"]
# JAX compiles and TensorFlow traces each model anew: they run these files with --full, torch in every run.
SLOW = {
    "jax": ("test_own_cells.py", "test_size.py", "test_zoo.py"),
    "tensorflow": ("test_unrolled_agrees.py",),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow here."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name in SLOW.get(BACKEND, ()):
            item.add_marker(pytest.mark.slow)
