"""Structures of arrays: their samples, their shapes, and functions of their leaves."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from throughtime.adapters.records import Array as NumPy

T = TypeVar("T")


def tree_map(function: Callable[..., object], tree: T, *others: T) -> T:
    """Apply a function to the leaves of structures of one kind."""
    return cast("T", jax.tree.map(function, tree, *others))


@dataclass(frozen=True)
class Samples:
    """Where the samples stand."""

    count: int
    first: int = 0  # axis of samples of the batch where both would do
    is_single: bool = False  # the whole batch is one sample, a series alone

    def of_data(self, leaf: Array) -> int | None:
        """Find the axis of samples of an array of the batch."""
        order = (self.first, 1 - self.first)
        fitting = [axis for axis in order if len(leaf.shape) > axis and leaf.shape[axis] == self.count]
        return None if self.is_single else next(iter(fitting), None)

    def rows(self, data: T, *rows: ArrayLike) -> T:
        """Take some samples of every array that has them."""

        def taken(leaf: Array) -> Array:
            axis = self.of_data(leaf) if getattr(leaf, "shape", ()) else None
            return leaf if axis is None else jnp.take(leaf, jnp.stack(rows), axis)

        return tree_map(taken, data)

    def joined(self, first: T, second: T) -> T:
        """Put two single samples together."""

        def both(one: Array, other: Array) -> Array:
            axis = next((axis for axis in (self.first, 1 - self.first) if axis < one.ndim), 0)
            return jnp.concatenate([one, other], axis) if one.ndim else one

        return tree_map(both, first, second)


def have_steps(data: tuple[object, object], shape: tuple[int, ...]) -> bool:
    """Whether output and labels have axes of samples and steps."""
    return all(any(leaf.shape[:2] == shape for leaf in jax.tree.leaves(part)) for part in data)


def steps_as_samples(data: T, shape: tuple[int, ...]) -> T:
    """Make each step of each sample a sample of a single step."""
    return tree_map(
        lambda leaf: leaf.reshape(-1, 1, *leaf.shape[2:]) if leaf.shape[:2] == shape else leaf, data
    )


def losses_of_steps(mean: Callable[..., Array], data: tuple[object, object], shape: tuple[int, ...]) -> Array:
    """Evaluate a loss of output and labels on each step alone, (sample, time).

    A step without a label, where the mean over labels is not finite, has a loss and a gradient of 0.
    """
    samples, alone = Samples(math.prod(shape)), steps_as_samples(data, shape)
    evaluate: Callable[[Array], Array] = jax.vmap(lambda row: mean(*samples.rows(alone, row)))
    rows = jnp.arange(samples.count)
    known = jnp.isfinite(evaluate(rows))
    # A step with a label stands in for one without, whose derivative would not be finite.
    values = evaluate(jnp.where(known, rows, jnp.argmax(known)))
    return jnp.where(known, values, 0).reshape(shape)


def real_parts(array: NumPy) -> NumPy:
    """Give a complex array its real and imaginary part as last axis."""
    return np.stack([array.real, array.imag], -1) if np.iscomplexobj(array) else array


def shapes_of(structure: object) -> Hashable:
    """Describe a structure of arrays, as a key."""
    leaves, tree = jax.tree.flatten(structure)
    return tree, tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves)
