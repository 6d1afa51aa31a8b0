"""Joins the calls that a TimeDistributed makes of one layer, one for each outer step, into one call.

Its samples are those of the outer batch, each with all its outer steps one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from throughtime.adapters.records import Array

from .dialect import Result
from .recorder import SeenCall
from .tensors import numpy

_SUMMED = ("weight_", "within_weight_")
_BY_TIME = ("loop_", "tap_", "within_tap_", "within_0.")  # (time, sample, …); the others are (sample, …)


def joined(calls: Sequence[SeenCall], result: Result) -> tuple[list[SeenCall], Result]:
    """Give each group of calls one call, and its tensors and gradients under that call's keys."""
    groups: dict[tuple[int, int], list[SeenCall]] = {}
    for call in calls:
        groups.setdefault((call.index, call.group), []).append(call)
    several = [group for group in groups.values() if len(group) > 1]
    tensors, gradients = dict(result.tensors), dict(result.gradients)
    for found in (tensors, gradients):
        for group in several:
            first, *_ = starts = [call.key("", 0).removesuffix(".0") for call in group]
            names = {key.removeprefix(start) for start in starts for key in found if key.startswith(start)}
            for name in names:
                each = [found.get(start + name) for start in starts]
                found[first + name] = _joined(name, [None if one is None else numpy(one) for one in each])
    return [_call(group) for group in groups.values()], Result(tensors, gradients)


def _call(group: Sequence[SeenCall]) -> SeenCall:
    first, count = group[0], len(group)
    if count == 1:
        return first
    shape = (first.input_shape[0] * count, *first.input_shape[1:]) if first.input_shape else ()
    return replace(first, outer_steps=first.outer_steps or count, input_shape=shape)


def _joined(name: str, arrays: Sequence[Array | None]) -> Array:
    """(sample, …) of each outer step to (sample · outer step, …); weights' gradients are added."""
    like = next(array for array in arrays if array is not None)
    filled = [np.zeros_like(like) if array is None else array for array in arrays]
    if like.ndim == 0:
        return np.asarray(max(filled))
    if name.startswith(_SUMMED):
        return np.asarray(np.sum(filled, axis=0))
    axis = 2 if name.startswith(_BY_TIME) else 1
    stacked = np.stack(filled, axis=axis)
    return stacked.reshape(*stacked.shape[: axis - 1], -1, *stacked.shape[axis + 1 :])
