"""Structures of tensors: dicts, tuples, lists and packed sequences, as models take and return them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree

from throughtime._data.structures import to_numpy
from throughtime.adapters.records import Array


def mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """Apply a function to every leaf; a packed sequence is one."""
    return _pytree.tree_map(function, structure, is_leaf=is_packed)


def leaves(structure: Any) -> list[Any]:
    """List all leaves; a packed sequence is one."""
    return list(_pytree.tree_leaves(structure, is_leaf=is_packed))


def tensors(structure: Any) -> list[torch.Tensor]:
    """List all tensors, the data of packed sequences among them."""
    found = (leaf.data if is_packed(leaf) else leaf for leaf in leaves(structure))
    return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]


def is_packed(value: Any) -> bool:
    """Whether a value is a packed sequence."""
    return isinstance(value, PackedSequence)


def own(structure: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Copy a caller's arrays and tensors: what a model writes in place, it writes on the copy.

    Tensors keep their dtype. Floating-point arrays of NumPy, whose default is float64, get that of the
    model; integers become int64, torch's own default.
    """
    return mapped(lambda leaf: _own(leaf, device, dtype), structure)


def _own(leaf: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if is_packed(leaf):
        data, sizes, *indices = leaf
        moved = [None if index is None else index.to(device) for index in indices]
        return PackedSequence(data.detach().to(device, copy=True), sizes.clone(), *moved)
    if isinstance(leaf, torch.Tensor):
        # A copy of an inference tensor is an ordinary one, here where inference mode is off.
        return leaf.detach().to(device, copy=True)
    if not hasattr(leaf, "__array__"):
        return leaf
    array = to_numpy(leaf)
    kind = array.dtype.kind
    if kind not in "fiub":
        return leaf
    tensor = from_numpy(array)
    if kind == "f":
        return tensor.to(device, dtype)
    return tensor.to(device, torch.int64 if kind == "i" else tensor.dtype)


def ordinary(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that autograd can save: a copy of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def replaced(structure: Any, tensor: torch.Tensor, other: torch.Tensor) -> Any:
    """Put another tensor in the place of one."""

    def each(leaf: Any) -> Any:
        if is_packed(leaf) and leaf.data is tensor:
            return PackedSequence(other, *leaf[1:])
        return other if leaf is tensor else leaf

    return mapped(each, structure)


def packed_samples(packed: Any, samples: tuple[int, ...]) -> Any:
    """Take some sequences of a packed one, in the caller's order."""
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    chosen = list(samples)
    return pack_padded_sequence(padded[chosen].detach(), lengths[chosen], True, enforce_sorted=False)


def from_numpy(array: Any, dtype: Any = None) -> torch.Tensor:
    """Copy an array into a tensor: torch takes neither negative strides nor another byte order."""
    return torch.from_numpy(np.array(to_numpy(array), dtype, order="C"))


def numpy(tensor: torch.Tensor, *, copy: bool = False) -> Array:
    """Bring a tensor to NumPy; bfloat16, which NumPy has not, as float32."""
    array = to_numpy(tensor)
    return array.copy() if copy else array


def name_of(dtype: torch.dtype) -> str:
    """Name a dtype as NumPy does.

    Examples
    --------
    >>> name_of(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def shapes(structure: Any) -> str:
    """Tell the shapes in a structure, for error messages."""
    if structure is None:
        return "none"
    shapes = [tuple(leaf.shape) for leaf in tensors(structure)]
    return str(shapes[0] if len(shapes) == 1 else shapes)
