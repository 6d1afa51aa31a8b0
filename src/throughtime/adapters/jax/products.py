"""Products of a step with weights: kept by the loop, so that they need not be computed once more.

The gradients of weights and inputs are compared along one random direction (Freivalds 1977), which needs no
product of matrices either: aᵀ·dW is Σ_t (aᵀ·x_t)·dz_t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .program import Op
from .scan import Scan


@dataclass(frozen=True)
class Product:
    """One `dot_general` of a weight and something else.

    Attributes
    ----------
    weight, other : int
        Places among the operation's inputs.
    const : int
        Place of the weight among the scan's constants.
    input : int or None
        Place of the other factor among what has a step each.
    """

    op: Op
    weight: int
    const: int
    input: int | None

    @property
    def other(self) -> int:
        """Place of the other factor."""
        return 1 - self.weight

    @property
    def key(self) -> int:
        """The product."""
        return self.op.outputs[0]

    def summed(self, place: int) -> tuple[int, ...]:
        """Axes of a factor that are summed over."""
        return tuple(self.op.eqn.params["dimension_numbers"][0][place])

    def ends(self, place: int) -> tuple[int, ...]:
        """Axes of the product that come from a factor."""
        free = [len(self.op.eqn.invars[k].aval.shape) - len(self.summed(k)) for k in (0, 1)]
        return tuple(range(free[0])) if place == 0 else tuple(range(free[0], free[0] + free[1]))

    def direction(self) -> Any:
        """Make a direction in what is summed over, always the same one."""
        shape = self.op.eqn.invars[self.weight].aval
        lengths = [shape.shape[axis] for axis in self.summed(self.weight)]
        return jnp.asarray(np.random.default_rng(0).normal(size=lengths), shape.dtype)

    def along(self, factor: Any, place: int, before: int = 0) -> Any:
        """Sum a factor, or its gradient, along the direction; `before` counts axes in front of its own."""
        axes = tuple(axis + before for axis in self.summed(place))
        return jnp.tensordot(factor, self.direction(), (axes, tuple(range(len(axes)))))

    def of_weight(self, factor: Any, gradient: Any) -> Any:
        """aᵀ·dW from aᵀ·x_t and dz_t at all steps."""
        axes = (0, *(axis + 1 for axis in self.ends(self.other)))
        return jnp.tensordot(gradient, factor, (axes, tuple(range(factor.ndim))))

    def of_input(self, weight: Any, gradient: Any) -> Any:
        """dx_t·a from W·a and dz_t at all steps."""
        along = self.along(weight, self.weight)
        axes = tuple(axis + 1 for axis in self.ends(self.weight))
        return jnp.tensordot(gradient, along, (axes, tuple(range(along.ndim))))


def products(scan: Scan) -> list[Product]:
    """List the products of a step with the scan's constants."""
    consts, _, inputs = scan.parts(scan.body.inputs)
    found: list[Product] = []
    for op in scan.body.ops:
        if op.name != "dot_general" or any(op.eqn.params["dimension_numbers"][1]):
            continue
        weights = [place for place, key in enumerate(op.inputs) if key in consts]
        if len(weights) == 1 and len(op.inputs[0:2]) == 2:
            other = op.inputs[1 - weights[0]]
            const = list(consts).index(op.inputs[weights[0]])
            found.append(
                Product(op, weights[0], const, list(inputs).index(other) if other in inputs else None)
            )
    return [one for one in found if all(_agree(one, other) for other in found)]


def _agree(one: Product, other: Product) -> bool:
    """Whether what both use is summed over the same axes in both."""
    is_same = one.const != other.const or one.summed(one.weight) == other.summed(other.weight)
    apart = one.input is None or one.input != other.input
    return is_same and (apart or one.summed(one.other) == other.summed(other.other))


@jax.custom_vjp
def known(made: Any, found: Any) -> Any:
    """Go on with what was found before; the gradient is that of what was made."""
    del made
    return found


known.defvjp(
    lambda made, found: (known(made, found), None), lambda _, gradient: (gradient, jnp.zeros_like(gradient))
)


def deviation(pairs: Sequence[tuple[Any, Any]], steps: int) -> Any:
    """Norms at each step of the loop's gradients, and of ours minus those, (time, 2); None without any."""
    if not pairs:
        return None
    largest = jnp.stack([jnp.max(jnp.abs(theirs)) for _, theirs in pairs]).max()
    scale = jnp.where(largest > 0, largest, 1)

    def norms(values: Sequence[Any]) -> Any:
        each = (jnp.square((one / scale).reshape(steps, -1)).sum(1) for one in values)
        return jnp.sqrt(sum(each)) * scale

    return jnp.stack([norms([theirs for _, theirs in pairs]), norms([a - b for a, b in pairs])], 1)
