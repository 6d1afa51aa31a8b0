"""Traces a model on a batch: its program, and where the samples stand in every value.

The axis of samples is found by tracing a second time, with one sample more: it is the axis that grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from .models import Model
from .program import Program, flat


@dataclass(frozen=True)
class Samples:
    """Where the samples stand."""

    count: int
    first: int = 0  # axis of samples of the batch where both would do
    is_single: bool = False  # the whole batch is one sample, a series alone
    grown: dict[int, Any] | None = None  # shapes of all values with one sample more; None if it cannot run so

    def of_data(self, leaf: Any) -> int | None:
        """Find the axis of samples of an array of the batch."""
        order = (self.first, 1 - self.first)
        fitting = [axis for axis in order if len(leaf.shape) > axis and leaf.shape[axis] == self.count]
        return None if self.is_single else next(iter(fitting), None)

    def rows(self, data: Any, *rows: Any) -> Any:
        """Take some samples of every array that has them."""

        def taken(leaf: Any) -> Any:
            axis = self.of_data(leaf) if getattr(leaf, "shape", ()) else None
            return leaf if axis is None else jnp.take(leaf, jnp.stack(rows), axis)

        return jax.tree.map(taken, data)

    def joined(self, first: Any, second: Any) -> Any:
        """Put two single samples together."""

        def both(one: Any, other: Any) -> Any:
            axis = next((axis for axis in (self.first, 1 - self.first) if axis < one.ndim), 0)
            return jnp.concatenate([one, other], axis) if one.ndim else one

        return jax.tree.map(both, first, second)


@dataclass(frozen=True)
class Traced:
    """A model's program on batches of one shape; `output` is the structure of what it returns."""

    program: Program
    output: Any
    samples: Samples
    text: str

    def axis(self, key: int) -> int | None:
        """Find the axis of samples of a value of the program."""
        return self._axes.get(key)

    @cached_property
    def _axes(self) -> dict[int, int]:
        return _axes(self.program, self.samples)


def traced(model: Model, x: Any) -> Traced:
    """Trace a model on a structure of arrays."""
    closed, output = _jaxpr(model, x)
    program = flat(closed)
    text = "" if model.structure is not None else str(closed.jaxpr)
    return Traced(program, output, _samples(model, x, program), text)


def _jaxpr(model: Model, x: Any) -> tuple[Any, Any]:
    return jax.make_jaxpr(model.call, return_shape=True)(model.parameters, model.others, x)  # type: ignore[no-any-return]


def _samples(model: Model, x: Any, program: Program) -> Samples:
    leaves = [leaf for leaf in jax.tree.leaves(x) if getattr(leaf, "shape", ())]
    if not leaves:
        return Samples(1, is_single=True)
    is_time_first = False
    for axis in (0, 1):
        if len(leaves[0].shape) <= axis:
            break
        samples = Samples(leaves[0].shape[axis], axis)
        other = _grown(model, x, samples)
        if other is None or [op.name for op in other.walk()] != [op.name for op in program.walk()]:
            continue
        if _lengths(other) == _lengths(program):
            return Samples(samples.count, axis, grown=_shapes(other))
        is_time_first = True
    return Samples(1, is_single=True) if is_time_first else Samples(leaves[0].shape[0])


def _grown(model: Model, x: Any, samples: Samples) -> Program | None:
    """Trace with one sample more; None where the model cannot run so."""

    def more(leaf: Any) -> Any:
        axis = samples.of_data(leaf) if hasattr(leaf, "shape") else None
        if axis is None:
            return leaf
        shape = tuple(length + (place == axis) for place, length in enumerate(leaf.shape))
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    try:
        return flat(_jaxpr(model, jax.tree.map(more, x))[0])
    except Exception:  # whatever a model raises on a batch of another size
        return None


def _lengths(program: Program) -> list[int]:
    return [op.eqn.params["length"] for op in program.walk() if op.name == "scan"]


def _shapes(program: Program) -> dict[int, Any]:
    found = dict(program.shapes)
    for op in program.walk():
        found.update({} if op.body is None else op.body.shapes)
    return found


def _axes(program: Program, samples: Samples) -> dict[int, int]:
    """Find the axis of samples of every value that has one."""
    found = {}
    for key, value in _shapes(program).items():
        shape: Sequence[int] = getattr(value, "shape", ())
        grown = shape if samples.grown is None else getattr(samples.grown[key], "shape", shape)
        axes = [axis for axis, (now, then) in enumerate(zip(shape, grown, strict=False)) if now != then]
        if samples.grown is None:
            # Of one series an axis of length 1 that comes first, if any; the units are not meant.
            last = len(shape) - samples.is_single
            axes = [axis for axis, length in enumerate(shape[:last]) if length == samples.count]
        if axes:
            found[key] = axes[0]
    return found


def shapes_of(structure: Any) -> Any:
    """Describe a structure of arrays, as a key."""
    leaves, tree = jax.tree.flatten(structure)
    return tree, tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves)
