"""Which files run on which backend."""

from __future__ import annotations

import keras

# Errors are planted in closed forms, which torch runs, and in the steps of a loop, which TensorFlow runs.
# JAX would compile anew for each of them.
collect_ignore = ["test_planted_errors.py"] if keras.backend.backend() == "jax" else []
