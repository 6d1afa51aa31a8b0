"""The dropout masks of recurrent cells: noted while a layer draws them, and given to the cells again.

A layer with a kernel for the whole sequence drops from it at once. A cell in Keras 2's loop draws new masks
at each step, in a graph that nothing leaves but what a step hands out: `Drawn` lets the engine's loop hand
out the masks as well. A layer with `unroll=True` draws once for all steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import tensorflow as tf

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.loop import Loop, in_processing_order

INPUT, RECURRENT = "input", "recurrent"
_GETTERS = {INPUT: "get_dropout_mask_for_cell", RECURRENT: "get_recurrent_dropout_mask_for_cell"}
_CACHES = ("_dropout_mask_cache", "_recurrent_dropout_mask_cache")

# What is dropped from -> one mask, or one a gate.
Masks = Mapping[str, list[Any]]
NO_DROPOUT: Masks = {}


def recurrent_masks(masks: Masks) -> list[Any]:
    """Take those that the state is multiplied with, one or one a gate, out of a cell's masks."""
    return masks.get(RECURRENT, [])


class Drawn:
    """The masks that the cells of one layer draw while they run in the engine's loop."""

    def __init__(self, layer: Any, parts: Sequence[Any], training: bool) -> None:
        rates = [getattr(part, name, 0) for part in parts for name in ("dropout", "recurrent_dropout")]
        self.is_active = training and any(rates)
        self._layer, self._parts = layer, parts if self.is_active else ()
        self._whole: Any = None  # what was dropped from the whole sequence drops from no step
        self._by_place: list[dict[str, list[Any]]] = [{} for _ in self._parts]

    def dropped(self, sequence: Any) -> Any:
        """Drop from the whole sequence where the layer has a kernel for it."""
        is_whole = self.is_active and getattr(self._layer, "_could_use_gpu_kernel", False)
        if not is_whole or not self._layer.dropout:
            return sequence
        self._layer.reset_dropout_mask()
        self._whole = self._layer.get_dropout_mask_for_cell(sequence, True, count=1)
        return sequence * self._whole

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what the cells draw inside the block."""
        with ExitStack() as stack:
            for part, noted in zip(self._parts, self._by_place, strict=True):
                for what, name in _GETTERS.items():
                    if hasattr(part, name):
                        get = self._noting(getattr(part, name), what, noted)
                        stack.enter_context(replaced(part, name, get if self._whole is None else _nothing))
                stack.enter_context(_without_cache(part))
            yield

    def _noting(self, original: Any, what: str, noted: dict[str, list[Any]]) -> Any:
        def get(*args: Any, **kwargs: Any) -> Any:
            if self._layer.unroll and what in noted:
                return _giving(noted[what])(*args, **kwargs)
            mask = original(*args, **kwargs)
            if mask is not None:
                noted[what] = list(mask) if isinstance(mask, (list, tuple)) else [mask]
            return mask

        return get

    def of_the_step(self) -> dict[str, Any]:
        """Give each mask that was drawn last a name, for the loop to hand it out."""
        return {
            f"{place}.{what}.{k}": mask
            for place, noted in enumerate(self._by_place)
            for what, masks in noted.items()
            for k, mask in enumerate(masks)
        }

    def of_all_steps(self, loop: Loop) -> list[dict[str, list[Any]]]:
        """Arrange masks (time, sample, …) that a loop has handed out by inner cell, in processing order."""
        if self._whole is not None:
            return [{INPUT: [in_processing_order(loop.keras, self._layer, self._whole)]}]
        return [
            {
                what: [loop.masks[f"{place}.{what}.{k}"] for k in range(len(each))]
                for what, each in noted.items()
            }
            for place, noted in enumerate(self._by_place)
        ]


@contextmanager
def _without_cache(cell: Any) -> Iterator[None]:
    """Let a cell keep what it draws apart from what it has drawn before."""
    with ExitStack() as stack:
        for name in _CACHES:
            if hasattr(cell, name):
                cache = getattr(cell, name)
                stack.enter_context(replaced(cell, name, type(cache)(cache.default_factory)))
        yield


def _nothing(*args: Any, count: int = 1, **kwargs: Any) -> Any:
    """Stand for the masks of a cell that drops nothing."""
    return 1.0 if count == 1 else [1.0] * count


@contextmanager
def with_dropout_masks(cell: Any, masks: Masks, steps: Any) -> Iterator[None]:
    """Let a cell that takes all steps at once use these masks (time, sample, …) in place of new ones."""
    with ExitStack() as stack:
        stack.enter_context(_without_cache(cell))
        for what, name in _GETTERS.items():
            if what in masks and hasattr(cell, name):
                flat = [tf.reshape(mask, (-1, *mask.shape[2:])) for mask in masks[what]]
                stack.enter_context(replaced(cell, name, _giving(flat)))
        yield


def _giving(masks: list[Any]) -> Any:
    def get(*args: Any, count: int = 1, **kwargs: Any) -> Any:
        if count == 1:
            return masks[0]
        return masks if len(masks) == count else masks[:1] * count

    return get
