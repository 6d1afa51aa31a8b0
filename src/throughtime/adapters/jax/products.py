"""Products of a step with weights: kept as a loop has found them, and compared along a few directions R.

A comparison takes thin products alone: R·dW is the sum of (R·x_t) dz_t over all steps.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from throughtime.cells import directions

from .program import Op, Value, bind
from .scan import Scan

Pairs = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Product:
    """One `dot_general`: the places of the weight among its inputs and the scan's."""

    op: Op
    weight: int
    const: int

    def axes(self, place: int) -> tuple[int, ...]:
        """Axes of a factor that are summed over."""
        return tuple(self.op.params["dimension_numbers"][0][place])

    def along(self, factor: Array, place: int) -> Array:
        """Sum a factor, or its gradient, along the directions."""
        axes = self.axes(place)
        drawn = jnp.asarray(directions(*(factor.shape[axis] for axis in axes)), factor.dtype)
        return jnp.tensordot(factor, drawn, (axes, tuple(range(len(axes)))))

    def known(self, values: list[Array], found: Array | None) -> Array:
        """Continue with the product that was found before, if any; the weight gets no gradient."""
        kept = [jax.lax.stop_gradient(one) if k == self.weight else one for k, one in enumerate(values)]
        made = bind(self.op, kept)[0]
        return made if found is None else replaced(made, found)

    def of_weight(self, thin: Array, back: Array) -> Array:
        """Return the weight's gradient along directions, on axis 0; `thin` is the other factor along them."""
        summed = tuple(range(thin.ndim - 1))  # steps, and what the other factor has beside
        first = 1 if self.weight else back.ndim - len(summed) + 1
        places = (0, *range(first, first + len(summed) - 1))
        return jnp.tensordot(thin, back, (summed, places))


def products(scan: Scan) -> list[Product]:
    """List the products of a step with the scan's constants."""
    consts = scan.parts(list[Value](scan.body.inputs))[0]
    found: list[Product] = []
    axes: dict[int, tuple[int, ...]] = {}
    for op in scan.body.ops:
        places = [place for place, key in enumerate(op.inputs) if key in consts and scan.is_floating(key)]
        if op.name == "dot_general" and len(places) == 1 and not any(op.params["dimension_numbers"][1]):
            one = Product(op, places[0], consts.index(op.inputs[places[0]]))
            # A factor of several products is summed over the same axes in all of them.
            own = one.axes(one.weight)
            found += [one] if axes.setdefault(one.const, own) == own else []
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
    """Continue with what was found before; the gradient is that of what was made."""
    del made
    return found


replaced.defvjp(
    lambda made, found: (replaced(made, found), None),
    lambda _, gradient: (gradient, jnp.zeros_like(gradient)),
)


def norm_of(values: Array, *kept: int | None) -> Array:
    """Norm over all axes but those; scaled, because squares of small numbers would underflow."""
    summed = tuple(axis for axis in range(values.ndim) if axis not in kept)
    sizes = jnp.abs(values)
    wide = sizes.astype(jnp.promote_types(sizes.dtype, jnp.float32))
    least = np.finfo(wide.dtype).tiny
    scale = jnp.clip(jnp.max(wide, summed, initial=0, keepdims=True), least, 1 / least)
    norms = jnp.sqrt(jnp.sum(jnp.square(wide / scale), summed)) * jnp.squeeze(scale, summed)
    return norms.astype(sizes.dtype)


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
