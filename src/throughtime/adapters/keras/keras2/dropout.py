"""The dropout masks of recurrent cells: noted while a layer draws them, and given to the cells again.

A layer whose kernel takes the whole sequence drops from it at once. A cell in Keras 2's loop draws new masks
at each step, within the loop's own graph, which nothing leaves but its results: there they ride beside the
cell's output.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import tensorflow as tf

from throughtime.adapters.attributes import replaced

from .arrays import shape_of
from .internals import as_a_call

INPUT, RECURRENT = "input", "recurrent"
_GETTERS = {INPUT: "get_dropout_mask_for_cell", RECURRENT: "get_recurrent_dropout_mask_for_cell"}
_CACHES = ("_dropout_mask_cache", "_recurrent_dropout_mask_cache")

# What is dropped from -> one mask, or one a gate; of one step (sample, …) or of all (sample, time, …).
Masks = dict[str, list[Any]]


def is_active(parts: Sequence[Any], training: bool) -> bool:
    """Whether a layer made of these cells drops anything."""
    rates = [getattr(part, name, 0) for part in parts for name in ("dropout", "recurrent_dropout")]
    return training and any(rates)


class Riding:
    """Masks that leave a layer's loop beside its output, and are parted from it afterwards."""

    def __init__(self, layer: Any, parts: Sequence[Any]) -> None:
        self._layer = layer
        self._parts = parts
        self._of_step: list[Masks] = [{} for _ in parts]
        self._of_sequence: Masks = {}
        self._shapes: list[tuple[int, ...]] = []
        self._names: list[list[str]] = []

    @contextmanager
    def aboard(self) -> Iterator[None]:
        """Let masks ride while the layer runs with its sequence switched on."""
        cell = self._layer.cell
        with ExitStack() as stack:
            for part, noted in zip(self._parts, self._of_step, strict=True):
                stack.enter_context(_masks_noted(part, noted))
            stack.enter_context(_masks_noted(self._layer, self._of_sequence))
            stack.enter_context(replaced(cell, "call", self._carrying(cell)))
            yield

    def _carrying(self, cell: Any) -> Any:
        original = cell.call

        def call(*args: Any, **kwargs: Any) -> Any:
            for noted in self._of_step:
                noted.clear()
            output, states = original(*args, **kwargs)
            self._names = [[what for what, each in n.items() for _ in each] for n in self._of_step]
            masks = [mask for noted in self._of_step for each in noted.values() for mask in each]
            self._shapes = [shape_of(tensor)[1:] for tensor in (output, *masks)]
            flat = [
                tf.reshape(tf.cast(each, output.dtype), (-1, prod(shape_of(each)[1:])))
                for each in (output, *masks)
            ]
            return tf.concat(flat, 1), states

        return as_a_call(call, inspect.signature(original))

    def parted(self, sequence: Any) -> tuple[Any, list[Masks]]:
        """Part the layer's sequence (sample, time, …) from the masks that rode with it.

        Returns
        -------
        tensor, list of Masks
            For each cell; (sample, time, …), in processing order.
        """
        if not self._shapes:  # the kernel took the whole sequence: one mask for all gates
            in_order = [
                tf.reverse(mask, [1]) if self._layer.go_backwards else mask
                for mask in self._of_sequence.get(INPUT, [])[:1]
            ]
            return sequence, [{INPUT: in_order} if in_order else {}]
        parts = tf.split(sequence, [prod(shape) for shape in self._shapes], axis=2)
        outer = tf.shape(sequence)[:2]
        shaped = [
            tf.reshape(part, tf.concat([outer, shape], 0))
            for part, shape in zip(parts, self._shapes, strict=True)
        ]
        coming = iter(shaped[1:])
        masks: list[Masks] = []
        for names in self._names:
            masks.append({})
            for what in names:
                masks[-1].setdefault(what, []).append(next(coming))
        return shaped[0], masks


@contextmanager
def _masks_noted(holder: Any, noted: Masks) -> Iterator[None]:
    """Note the masks that a cell or a layer draws; what it keeps of them is not its own."""
    with ExitStack() as stack:
        for name in _CACHES:
            if hasattr(holder, name):
                cache = getattr(holder, name)
                stack.enter_context(replaced(holder, name, type(cache)(cache.default_factory)))
        for what, name in _GETTERS.items():
            if hasattr(holder, name):
                stack.enter_context(replaced(holder, name, _noting(getattr(holder, name), what, noted)))
        yield


def _noting(original: Any, what: str, noted: Masks) -> Any:
    def get(*args: Any, **kwargs: Any) -> Any:
        mask = original(*args, **kwargs)
        if mask is not None:
            noted[what] = list(mask) if isinstance(mask, (list, tuple)) else [mask]
        return mask

    return get


@contextmanager
def masks_given(cell: Any, masks: Mapping[str, list[Any]]) -> Iterator[None]:
    """Let a cell use these masks, of one step each, in place of new ones."""
    with ExitStack() as stack:
        for what, name in _GETTERS.items():
            if what in masks and hasattr(cell, name):
                stack.enter_context(replaced(cell, name, _giving(masks[what])))
        yield


def _giving(masks: list[Any]) -> Any:
    def get(*args: Any, count: int = 1, **kwargs: Any) -> Any:
        if count == 1:
            return masks[0]
        return masks if len(masks) == count else masks[:1] * count

    return get
