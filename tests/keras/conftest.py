"""Which files run on which backend, and in which runs."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

BACKEND = keras.backend.backend()
# Errors are planted in closed forms, which torch runs, and in the steps of a loop, which TensorFlow runs.
# JAX would compile anew for each of them.
collect_ignore = ["test_planted_errors.py"] if BACKEND == "jax" else []
# JAX compiles and TensorFlow traces each model anew: torch runs these files in every run, they with --full.
# The README runs on TensorFlow, and in a notebook of tests/test_notebooks.py.
SLOW = {
    "jax": ("test_marks.py", "test_readme.py", "test_reference.py", "test_size.py", "test_zoo.py"),
    "tensorflow": ("test_any_cell.py", "test_reference.py", "test_both_ways_agree.py"),
    "torch": ("test_readme.py",),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow here."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name in SLOW.get(BACKEND, ()):
            item.add_marker(pytest.mark.slow)
