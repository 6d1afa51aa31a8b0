"""From the framework's tensors to NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from throughtime.adapters.records import Array


def numpy(tensor: Any, *, copy: bool = False) -> Array:
    """Bring a tensor to NumPy; bfloat16, which NumPy has not, as float32.

    A copy where asked for: torch's arrays share their memory with the tensor, JAX's can only be read.
    """
    is_jax = keras.backend.backend() == "jax"  # Keras would copy it
    array = np.asarray(tensor if is_jax else keras.ops.convert_to_numpy(tensor))
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    return array.copy() if copy and not array.flags.owndata else array
