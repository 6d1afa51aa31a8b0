"""Structures of tensors, as models take and return them, and where the samples stand in a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar, cast

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree

from throughtime._inputs.structures import to_numpy
from throughtime.adapters.attributes import inside
from throughtime.adapters.loss_reduction import TRAINING
from throughtime.adapters.records import Array

T = TypeVar("T")
_LEAVES = {torch.Tensor, np.ndarray, type(None)}
Key = tuple[str, ...]  # the name of an argument, and places within it
_OF_MODULES = frozenset({"_parameters", "_buffers", "_modules"})  # in a dataclass that is a module
Data = tuple[Any, ...]  # of a batch: x, y, sample weights; or what a loss is called with


def mapped(function: Callable[[Any], object], structure: T) -> T:
    """Apply a function to every leaf; a packed sequence is one."""
    if type(structure) in _LEAVES:  # the usual ones at once
        return cast("T", function(structure))
    if type(structure) is tuple:
        return cast("T", tuple(mapped(function, one) for one in cast("tuple[Any, ...]", structure)))
    found: T = _pytree.tree_map(function, structure, is_leaf=is_packed)
    return found


def leaves(structure: object) -> list[Any]:
    """List all leaves; a packed sequence is one."""
    if type(structure) in _LEAVES:
        return [structure]
    return list(_pytree.tree_leaves(structure, is_leaf=is_packed))


def tensors(structure: object) -> list[torch.Tensor]:
    """List all tensors, the data of packed sequences among them."""
    found = (leaf.data if is_packed(leaf) else leaf for leaf in leaves(structure))
    return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]


def is_packed(value: object) -> TypeGuard[PackedSequence]:
    """Whether a value is a packed sequence."""
    return isinstance(value, PackedSequence)


def copied(structure: object, device: torch.device, dtype: torch.dtype) -> Any:
    """Copy a caller's arrays and tensors: what a model writes in place, it writes on the copy.

    Tensors keep their dtype. Floating-point arrays of NumPy, whose default is float64, get that of the
    model; integers become int64, torch's own default.
    """
    return mapped(lambda leaf: _copied(leaf, device, dtype), structure)


def _copied(leaf: object, device: torch.device, dtype: torch.dtype) -> Any:
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
    tensor = torch.from_numpy(np.array(array, order="C"))  # torch takes no negative strides
    if kind == "f":
        return tensor.to(device, dtype)
    return tensor.to(device, torch.int64 if kind == "i" else tensor.dtype)


def ordinary(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that autograd can save: a copy of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def replaced(structure: T, tensor: torch.Tensor, other: torch.Tensor) -> T:
    """Put another tensor in the place of one."""

    def each(leaf: object) -> object:
        if is_packed(leaf) and leaf.data is tensor:
            return PackedSequence(other, *leaf[1:])
        return other if leaf is tensor else leaf

    return mapped(each, structure)


def packed_samples(packed: PackedSequence, samples: tuple[int, ...]) -> PackedSequence:
    """Take some sequences of a packed one, in the caller's order."""
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    chosen = list(samples)
    return pack_padded_sequence(padded[chosen].detach(), lengths[chosen], True, enforce_sorted=False)


def numpy(tensor: torch.Tensor, *, copy: bool = False) -> Array:
    """Bring a tensor to NumPy; bfloat16, which NumPy has not, as float32."""
    array = to_numpy(tensor)
    return array.copy() if copy else array


def name_of(dtype: torch.dtype) -> str:
    """Name a dtype as NumPy does, `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def shapes(structure: object) -> str:
    """Tell the shapes in a structure, for error messages."""
    if structure is None:
        return "none"
    shapes = [tuple(leaf.shape) for leaf in tensors(structure)]
    return str(shapes[0] if len(shapes) == 1 else shapes)


_PACKED = "a packed sequence is not taken apart; padded arrays are"
_SINGLE = "the recurrent layers see one sample at a time"
_EQUAL = "samples and steps are equally many, so that their axes cannot be distinguished"
_SIZES = "an array of shape {shape} has no axis of the {samples} samples"


@dataclass(frozen=True)
class Samples:
    """Where the samples stand; `time_major` has steps and samples of a model that has its steps first.

    If two axes are as long as there are samples, the first one is theirs.
    """

    count: int
    time_major: tuple[int, ...] = ()
    are_last: bool = False

    def axis(self, leaf: torch.Tensor) -> int | None:
        """Find the axis of samples; None where there is none."""
        shape = tuple(leaf.shape)
        if self.time_major and shape[:2] == self.time_major:
            return 1
        # States that the model is given have their layers first.
        axes = [place for place, length in enumerate(shape[:2]) if length == self.count]
        return axes[-int(self.are_last)] if axes else None

    def part(self, data: T, rows: slice) -> T:
        """Take some samples of every array."""

        def taken(leaf: torch.Tensor) -> torch.Tensor:
            if not hasattr(leaf, "shape"):
                return leaf
            return leaf[rows] if self.axis(leaf) == 0 else leaf[:, rows]

        return mapped(taken, data)

    def why_whole(self, data: object, *, training: bool) -> str:
        """Return why parts would not add up; empty where no reason is known yet."""
        every = leaves(data)
        if training:
            return TRAINING
        if any(map(is_packed, every)):
            return _PACKED
        if len(self.time_major) == 2 and self.time_major[0] == self.time_major[1]:
            return _EQUAL
        lacking = [leaf for leaf in every if hasattr(leaf, "shape") and self.axis(leaf) is None]
        if not lacking:
            return ""
        if self.count == 1:
            return _SINGLE
        return _SIZES.format(shape=tuple(lacking[0].shape), samples=self.count)


def axes_of(data: object, axis: Callable[[torch.Tensor], int | None]) -> list[int | None]:
    """Find the axis of samples of every leaf, of tensors by `axis`."""
    return [axis(leaf) if isinstance(leaf, torch.Tensor) else None for leaf in leaves(data)]


def rows_of(data: T, rows: tuple[int, ...], axes: Sequence[int | None]) -> T:
    """Take samples of every leaf along its own axis, in single precision at least; all without one."""
    each = iter(axes)

    def taken(leaf: object) -> object:
        axis = next(each)
        if is_packed(leaf):
            return packed_samples(leaf, rows)
        if not isinstance(leaf, torch.Tensor):
            return leaf
        leaf = leaf.detach()
        leaf = leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf
        return leaf if axis is None else leaf.index_select(axis, torch.tensor(rows, device=leaf.device))

    return mapped(taken, data)


def join(first: T, second: T, axes: Sequence[int | None]) -> T:
    """Put the samples of two structures together."""
    pairs = iter(zip(leaves(second), axes, strict=True))

    def both(leaf: torch.Tensor) -> torch.Tensor:
        other, axis = next(pairs)
        return leaf if axis is None else torch.cat([leaf, other], axis)

    return mapped(both, first)


class Swaps:
    """Puts other tensors in the place of those in a structure; what is mutable stays the object it is."""

    def __init__(self) -> None:
        self.copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._swapped: list[tuple[Any, object, object, object]] = []
        self._seen: set[int] = set()

    def swapped(self, value: object, key: Key, swap: Callable[[Key, torch.Tensor], torch.Tensor]) -> Any:
        """Swap every tensor, each with its key."""
        if isinstance(value, torch.Tensor):
            return swap(key, value)
        if isinstance(value, tuple) and not is_packed(value):
            each = [self.swapped(one, (*key, str(place)), swap) for place, one in enumerate(value)]
            return type(value)(*each) if hasattr(value, "_fields") else tuple(each)
        if isinstance(value, (list, dict)):
            for place, old in list(value.items() if isinstance(value, dict) else enumerate(value)):
                if place in _OF_MODULES:
                    continue
                new = self.swapped(old, (*key, str(place)), swap)
                if new is not old:
                    value[place] = new
                    self._swapped.append((value, place, old, new))
        elif (held := inside(value)) is not value and id(value) not in self._seen:
            self._seen.add(id(value))  # one may hold another that holds it
            self.swapped(held, key, swap)
        return value

    def undo(self) -> None:
        """Restore what the module has not replaced; write on a caller's tensor what it wrote on its copy."""
        for container, place, old, new in reversed(self._swapped):
            items = container if isinstance(container, dict) else dict(enumerate(container))
            if items.get(place) is new:
                container[place] = old
        for given, copy in self.copies:
            if copy._version:
                given.copy_(copy)
