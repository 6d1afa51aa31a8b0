"""Collects what `tt.mark` named: variables of a loop's leaf, and outside of every loop a leaf each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from throughtime._data.structures import to_numpy
from throughtime.adapters.marking import Marked, MarkedSteps, leaves, of_steps
from throughtime.adapters.records import Array, LayerRecord

from .computed import Computation
from .loop import Loop


def outside_of_loops(
    computation: Computation, results: Mapping[str, Any], paths: Sequence[str]
) -> tuple[LayerRecord, ...]:
    """Make a leaf of each value; `paths` are those of the loops."""
    gradients = results["mark_gradients"] or [None] * len(computation.marks)
    found = []
    for (name, key), value, gradient in zip(computation.marks, results["marks"], gradients, strict=True):
        axis = computation.traced.axis(key) or 0
        back = None if gradient is None else np.array(np.moveaxis(to_numpy(gradient), axis, 0))
        is_reached = back is not None and back.any()
        array = np.array(np.moveaxis(to_numpy(value), axis, 0))
        found.append(Marked(name, array, back if is_reached else None))
    return leaves(found, computation.wanted, paths)


def in_loop(
    loop: Loop, own: Mapping[str, Any], series: Callable[[Any, int | None], Array], taken: Collection[str]
) -> MarkedSteps:
    """Arrange what a step has marked; `taken` are names of the leaf's other arrays."""
    if not loop.marks:
        return MarkedSteps()
    values, gradients = (
        {name: series(side["values"][key], loop.axis(key)) for name, key in loop.marks.items()}
        if side
        else {}
        for side in (own, own.get("gradients"))
    )
    return of_steps(values, gradients, taken, has_gradients=bool(gradients))
