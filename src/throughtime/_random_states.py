"""Puts the process's random generators back, so that looking at a model or a batch changes no training."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def random_states_restored() -> Iterator[None]:
    """Put the states of Python's, NumPy's and, if it is loaded, torch's generators back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the legacy state is meant
    torch = sys.modules.get("torch")
    torch_state = torch.random.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if torch is not None and torch_state is not None:
            torch.random.set_rng_state(torch_state)
