"""The dropout masks of recurrent cells, which Keras 3 draws once for all steps of a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from throughtime.adapters.attributes import replaced


def dropout_masks(cell: Any) -> list[Any]:
    """Return what the cell multiplies its input and its state with while it trains, as flat lists."""
    masks = [getattr(cell, name, None) for name in _MASKS]
    # Keras tracks its lists in a type of its own, which no framework can trace.
    return [list(mask) if isinstance(mask, list) else mask for mask in masks]


def recurrent_masks(masks: Sequence[Any]) -> list[Any]:
    """Take those that the state is multiplied with, one or one a gate, out of a cell's masks."""
    return [mask for mask in keras.tree.flatten(masks[1]) if mask is not None]


_MASKS = ("_dropout_mask", "_recurrent_dropout_mask")


NO_DROPOUT = (None, None)


@contextmanager
def with_dropout_masks(cell: Any, masks: Sequence[Any], steps: int) -> Iterator[None]:
    """Let a cell that takes all steps at once use these masks, of any one step, in place of new ones."""

    def tiled(mask: Any) -> Any:
        return mask if mask is None else keras.ops.tile(mask, (steps, *(1,) * (len(mask.shape) - 1)))

    with ExitStack() as stack:
        for name, mask in zip(_MASKS, masks, strict=True):
            if mask is not None:
                stack.enter_context(replaced(cell, name, keras.tree.map_structure(tiled, mask)))
        yield
