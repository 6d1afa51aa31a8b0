"""Converts arrays of any library to NumPy, and maps nested structures of arrays: dicts, lists and tuples.

This module imports no framework: an object with `detach` is a torch tensor.
"""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """Convert an array or tensor to NumPy in native byte order; formats that NumPy lacks become float32.

    >>> to_numpy(np.ones(2, ">f4")).dtype.isnative
    True
    """
    if hasattr(value, "detach"):  # a torch tensor on any device
        value = value.detach().cpu()
        value = value.to_dense() if value.is_sparse else value
        is_known = not any(word in str(value.dtype) for word in ("bfloat16", "float8"))
        value = (value if is_known else value.float()).resolve_conj().resolve_neg().numpy()
    array = np.asarray(value)
    # JAX and TensorFlow convert bfloat16 and float8 to these NumPy dtypes.
    if array.dtype.kind == "V" and array.dtype.names is None and "float" in array.dtype.name:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def owned(array: npt.NDArray[Any], places: set[int]) -> npt.NDArray[Any]:
    """Make memory writable that nothing else holds; memory at `places`, seen before, stays as it is."""
    memory = array.__array_interface__
    place = memory["data"][0]
    if array.flags.writeable or place in places:
        return array
    places.add(place)
    unlocked = {**memory, "data": (place, False)}
    return np.asarray(SimpleNamespace(__array_interface__=unlocked, keeps=array))


def mapped(change: Callable[[Any], Any], structure: Any) -> Any:
    """Apply a function to every leaf; torch's packed sequence, a named tuple, is a leaf.

    >>> mapped(lambda leaf: leaf + 1, {"a": 1, "b": [2, (3,)]})
    {'a': 2, 'b': [3, (4,)]}
    """
    if isinstance(structure, Mapping):
        return {name: mapped(change, part) for name, part in structure.items()}
    if not isinstance(structure, (list, tuple)) or is_packed(structure):
        return change(structure)
    parts = [mapped(change, part) for part in structure]
    return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)


def is_packed(value: Any) -> bool:
    return hasattr(value, "batch_sizes")


def leaves(structure: Any) -> list[Any]:
    """List all leaves except None.

    >>> leaves({"a": 1, "b": [2, (None, 3)]})
    [1, 2, 3]
    """
    found: list[Any] = []
    mapped(found.append, structure)
    return [leaf for leaf in found if leaf is not None]
