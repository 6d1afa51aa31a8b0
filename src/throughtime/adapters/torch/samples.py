"""Where the samples of a batch stand: taking some of them, and whether captures of parts add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from throughtime.adapters.loss_reduction import TRAINING

from . import structure

_PACKED = "a packed sequence is not taken apart; padded arrays are"
_SINGLE = "the recurrent layers see one sample at a time"
_EQUAL = "samples and steps are equally many, so that their axes cannot be told apart"
_SIZES = "an array of shape {shape} has no axis of the {samples} samples"


@dataclass(frozen=True)
class Samples:
    """Where the samples stand; `time_major` has steps and samples of a model that has its steps first."""

    count: int
    time_major: tuple[int, ...] = ()

    def axis(self, leaf: Any) -> int | None:
        """Find the axis of samples; None where there is none."""
        shape = tuple(leaf.shape)
        if self.time_major and shape[:2] == self.time_major:
            return 1
        # States that the model is given have their layers first.
        axes = [place for place, length in enumerate(shape[:2]) if length == self.count]
        return axes[0] if axes else None

    def part(self, data: Any, rows: slice) -> Any:
        """Take some samples of every array."""

        def taken(leaf: Any) -> Any:
            if not hasattr(leaf, "shape"):
                return leaf
            return leaf[rows] if self.axis(leaf) == 0 else leaf[:, rows]

        return structure.mapped(taken, data)

    def why_whole(self, data: Any, *, training: bool) -> str:
        """Return why parts would not add up; empty where nothing known yet says so."""
        leaves = structure.leaves(data)
        if training:
            return TRAINING
        if any(map(structure.is_packed, leaves)):
            return _PACKED
        if len(self.time_major) == 2 and self.time_major[0] == self.time_major[1]:
            return _EQUAL
        lacking = [leaf for leaf in leaves if hasattr(leaf, "shape") and self.axis(leaf) is None]
        if not lacking:
            return ""
        if self.count == 1:
            return _SINGLE
        return _SIZES.format(shape=tuple(lacking[0].shape), samples=self.count)


def axes_of(data: Any, axis: Callable[[torch.Tensor], int | None]) -> list[int | None]:
    """Find the axis of samples of every leaf, of tensors by `axis`."""
    return [axis(leaf) if isinstance(leaf, torch.Tensor) else None for leaf in structure.leaves(data)]


def rows_of(data: Any, rows: tuple[int, ...], axes: Sequence[int | None]) -> Any:
    """Take samples of every leaf along its own axis, in single precision at least; all without one."""
    each = iter(axes)

    def taken(leaf: Any) -> Any:
        axis = next(each)
        if structure.is_packed(leaf):
            return structure.packed_samples(leaf, rows)
        if not isinstance(leaf, torch.Tensor):
            return leaf
        leaf = leaf.detach()
        leaf = leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf
        return leaf if axis is None else leaf.index_select(axis, torch.tensor(rows, device=leaf.device))

    return structure.mapped(taken, data)


def joined(first: Any, second: Any, axes: Sequence[int | None]) -> Any:
    """Put the samples of two structures together."""
    pairs = iter(zip(structure.leaves(second), axes, strict=True))

    def both(leaf: Any) -> Any:
        other, axis = next(pairs)
        return leaf if axis is None else torch.cat([leaf, other], axis)

    return structure.mapped(both, first)
