"""Products of a step with weights: kept as a loop has found them, and compared along a few directions R.

A comparison takes thin products alone: R·dW is the sum of (R·x_t) dz_t over all steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from throughtime.cells import directions

from .program import Op, Value, bind
from .scan import Scan

Pairs = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Product:
    """One `dot_general`: the places of the weight and of the other factor among its inputs and the scan's."""

    op: Op
    weight: int
    const: int
    input: int | None

    def axes(self, place: int) -> tuple[int, ...]:
        """Axes of a factor that are summed over."""
        return tuple(self.op.params["dimension_numbers"][0][place])

    def along(self, factor: Array, place: int, before: int = 0) -> Array:
        """Sum a factor, or its gradient, along the directions; `before` counts the axes in front."""
        axes = tuple(axis + before for axis in self.axes(place))
        drawn = jnp.asarray(directions(*(factor.shape[axis] for axis in axes)), factor.dtype)
        return jnp.tensordot(factor, drawn, (axes, tuple(range(len(axes)))))

    def outer(self, of_weight: Array, of_other: Array) -> Array:
        """Join what is left of both factors as the product does, and sum over the directions."""
        both = (of_weight, of_other) if self.weight == 0 else (of_other, of_weight)
        return jnp.tensordot(*both, axes=(-1, -1))

    def known(
        self, values: list[Array], found: Array | None, of_weight: Array, of_input: Array | None
    ) -> Array:
        """Go on with the product as found before, if it was; zeros along directions are added to factors."""
        weight, other = values[self.weight], values[1 - self.weight]
        still = jax.lax.stop_gradient(other)
        parts = [still if self.input is not None else other, jax.lax.stop_gradient(weight)]
        made = bind(self.op, parts if self.weight else parts[::-1])[0]
        made = made if found is None else replaced(made, found)
        product = made + self.outer(of_weight, self.along(still, 1 - self.weight))
        return (
            product if of_input is None else product + self.outer(self.along(parts[1], self.weight), of_input)
        )


def products(scan: Scan) -> list[Product]:
    """List the products of a step with the scan's constants."""
    consts, _, inputs = scan.parts(list[Value](scan.body.inputs))
    found: list[Product] = []
    axes: dict[tuple[int, int], tuple[int, ...]] = {}
    for op in scan.body.ops:
        places = [place for place, key in enumerate(op.inputs) if key in consts]
        if op.name == "dot_general" and len(places) == 1 and not any(op.params["dimension_numbers"][1]):
            weight, other = (op.inputs[place] for place in (places[0], 1 - places[0]))
            of_input = inputs.index(other) if other in inputs else None
            one = Product(op, places[0], consts.index(weight), of_input)
            # A factor of several products is summed over the same axes in all of them.
            same = axes.setdefault((0, one.const), one.axes(one.weight)) == one.axes(one.weight)
            if of_input is not None:
                same &= axes.setdefault((1, of_input), one.axes(1 - one.weight)) == one.axes(1 - one.weight)
            found += [one] if same else []
    return found


def sums(scan: Scan, known: Sequence[Product]) -> dict[int, list[Op]]:
    """Find sums of several products that nothing else reads: a loop keeps each sum instead of them."""
    found: dict[int, list[Op]] = {}
    made = {one.op.outputs[0]: one.op for one in known}
    read = Counter(key for op in scan.body.ops for key in op.inputs if isinstance(key, int))
    read.update(key for key in scan.body.outputs if isinstance(key, int))
    for op in scan.body.ops:
        if op.name in ("add", "add_any"):
            summed = [
                one
                for key in op.inputs
                if isinstance(key, int) and read[key] == 1
                for one in (*found.pop(key, []), *([made[key]] if key in made else []))
            ]
            if summed:
                found[op.outputs[0]] = summed
    return {key: each for key, each in found.items() if len(each) > 1}


@jax.custom_vjp
def replaced(made: Array, found: Array) -> Array:
    """Go on with what was found before; the gradient is that of what was made."""
    del made
    return found


replaced.defvjp(
    lambda made, found: (replaced(made, found), None),
    lambda _, gradient: (gradient, jnp.zeros_like(gradient)),
)


def deviation(pairs: Pairs, steps: int) -> Array | None:
    """Norms at each step of the loop's gradients, and of ours minus those, (time, 2); None without any."""
    if not pairs:
        return None
    largest = jnp.stack([jnp.max(jnp.abs(theirs)) for _, theirs in pairs]).max()
    scale = jnp.where(largest > 0, largest, 1)

    def norms(values: Sequence[Array]) -> Array:
        each = (jnp.square(jnp.abs(one / scale).reshape(steps, -1)).sum(1) for one in values)
        return jnp.sqrt(sum(each)) * scale

    return jnp.stack([norms([theirs for _, theirs in pairs]), norms([a - b for a, b in pairs])], 1)
