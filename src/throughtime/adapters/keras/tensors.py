"""Reads tensors and variables of every Keras, and the arrays of a batch."""

from __future__ import annotations

from typing import Any

from throughtime._data.structures import to_numpy
from throughtime.adapters.records import Array


def is_tensor(value: Any) -> bool:
    """Whether a value is one tensor."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def dtype_of(tensor: Any) -> str:
    """Name the dtype of a tensor or variable, of the latter as it is stored."""
    name = getattr(tensor.dtype, "name", str(tensor.dtype))
    return str(name).removeprefix("torch.").removesuffix("_ref")


def is_float(dtype: str) -> bool:
    """Whether tensors of a dtype can have a gradient."""
    return dtype.startswith(("float", "bfloat"))


def shape_of(tensor: Any) -> tuple[Any, ...]:
    """Return the shape of a tensor or variable, None where it is open."""
    shape = tensor.shape
    # Without TensorFlow 2's behaviour a shape is made of numbers of TensorFlow's own.
    return tuple(shape.as_list() if hasattr(shape, "as_list") else shape)


def numpy(tensor: Any, *, copy: bool = False) -> Array:
    """Bring a tensor to NumPy; in memory of its own if asked to, for most arrays share the tensor's."""
    array = to_numpy(tensor)
    return array.copy() if copy and not array.flags.owndata else array


def path_of(variable: Any) -> str:
    """Name a variable with its scopes, parted by slashes."""
    return str(getattr(variable, "path", None) or variable.name.partition(":")[0])
