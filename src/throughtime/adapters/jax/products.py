"""Products of a step with weights: the loop keeps them, so that they need not be computed once more.

The gradients of weights and inputs are compared along one random direction a (Freivalds 1977), which takes no
product of matrices: a·dW is the sum of (a·x_t) dz_t over all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .program import Op, bind
from .scan import Scan

Pairs = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Product:
    """One `dot_general`: the places of the weight and of the other factor among its inputs and the scan's."""

    op: Op
    weight: int
    const: int
    input: int | None

    def axes(self, place: int) -> tuple[int, ...]:
        """Axes of a factor that are summed over."""
        return tuple(self.op.eqn.params["dimension_numbers"][0][place])

    def along(self, factor: Any, place: int, before: int = 0) -> Any:
        """Sum a factor, or its gradient, along the direction; `before` counts axes in front of its own."""
        axes = tuple(axis + before for axis in self.axes(place))
        direction = np.random.default_rng(0).normal(size=[factor.shape[axis] for axis in axes])
        return jnp.tensordot(factor, jnp.asarray(direction, factor.dtype), (axes, tuple(range(len(axes)))))

    def outer(self, of_weight: Any, of_other: Any) -> Any:
        """Join what is left of both factors as the product does."""
        both = (of_weight, of_other) if self.weight == 0 else (of_other, of_weight)
        return jnp.tensordot(*both, axes=0)

    def known(self, values: list[Any], found: Any, of_weight: Any, of_input: Any) -> Any:
        """Go on with the product as found before; zeros along the direction are added to weight and input."""
        weight, other = values[self.weight], values[1 - self.weight]
        still = jax.lax.stop_gradient(other)
        parts = [still if self.input is not None else other, jax.lax.stop_gradient(weight)]
        made = bind(self.op, parts if self.weight else parts[::-1])[0]
        product = _replaced(made, found) + self.outer(of_weight, self.along(still, 1 - self.weight))
        return (
            product if of_input is None else product + self.outer(self.along(parts[1], self.weight), of_input)
        )


def products(scan: Scan) -> list[Product]:
    """List the products of a step with the scan's constants."""
    consts, _, inputs = map(list, scan.parts(scan.body.inputs))
    found: list[Product] = []
    axes: dict[tuple[int, int], tuple[int, ...]] = {}
    for op in scan.body.ops:
        places = [place for place, key in enumerate(op.inputs) if key in consts]
        if op.name == "dot_general" and len(places) == 1 and not any(op.eqn.params["dimension_numbers"][1]):
            weight, other = (op.inputs[place] for place in (places[0], 1 - places[0]))
            of_input = inputs.index(other) if other in inputs else None
            one = Product(op, places[0], consts.index(weight), of_input)
            # What several products use is summed over the same axes in all of them.
            same = axes.setdefault((0, one.const), one.axes(one.weight)) == one.axes(one.weight)
            if of_input is not None:
                same &= axes.setdefault((1, of_input), one.axes(1 - one.weight)) == one.axes(1 - one.weight)
            found += [one] if same else []
    return found


@jax.custom_vjp  # type: ignore[untyped-decorator]
def _replaced(made: Any, found: Any) -> Any:
    """Go on with what was found before; the gradient is that of what was made."""
    del made
    return found


_replaced.defvjp(
    lambda made, found: (_replaced(made, found), None),
    lambda _, gradient: (gradient, jnp.zeros_like(gradient)),
)


def deviation(pairs: Pairs, steps: int) -> Any:
    """Norms at each step of the loop's gradients, and of ours minus those, (time, 2); None without any."""
    if not pairs:
        return None
    largest = jnp.stack([jnp.max(jnp.abs(theirs)) for _, theirs in pairs]).max()
    scale = jnp.where(largest > 0, largest, 1)

    def norms(values: Sequence[Any]) -> Any:
        each = (jnp.square((one / scale).reshape(steps, -1)).sum(1) for one in values)
        return jnp.sqrt(sum(each)) * scale

    return jnp.stack([norms([theirs for _, theirs in pairs]), norms([a - b for a, b in pairs])], 1)
