"""Passes on the JAX backend: a zero added to each marked tensor, differentiated, compiled once."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from throughtime._errors import UnbuiltModelError
from throughtime.adapters.keras.contracts import LoopStep, Scanned, T, Tensor, Variable
from throughtime.adapters.keras.dialect import Run, Step


def compiled(run: Run, values: Sequence[Tensor], inputs: object, *, eager: bool, with_xla: bool) -> Run:
    """Trace `run` for these shapes; a JAX program is always compiled."""

    def apart(values: Sequence[Any], inputs: Any) -> Any:
        return jax.lax.optimization_barrier(run(values, inputs))  # else JAX would return an input as it is

    return jax.jit(apart).lower(list(values), inputs).compile()


def differentiated(step: Step[T]) -> tuple[T, dict[str, Tensor]]:
    """Run a step; return what it keeps, and the gradients that exist."""
    shapes: dict[str, jax.ShapeDtypeStruct] = {}

    def mark(key: str, tensor: Tensor) -> Tensor:
        shapes[key] = jax.ShapeDtypeStruct(tensor.shape, tensor.dtype)
        return tensor

    loss, _ = jax.eval_shape(lambda: step(mark))
    if loss is None:
        return step(lambda _, tensor: tensor)[1], {}
    zeros = {key: jnp.zeros(shapes[key].shape, shapes[key].dtype) for key in sorted(shapes)}
    gradient = jax.grad(lambda zeros: step(lambda key, tensor: tensor + zeros[key]), has_aux=True)
    closed, structure = jax.make_jaxpr(gradient, return_shape=True)(zeros)
    flat = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *zeros.values())
    gradients, kept = jax.tree.unflatten(jax.tree.structure(structure), flat)
    return kept, {key: gradients[key] for place, key in enumerate(zeros) if _is_connected(closed, place)}


def _is_connected(closed: Any, output: int) -> bool:
    """Whether a gradient is computed: JAX fills in zeros for tensors the loss never sees.

    Such zeros depend on nothing that is known when the program runs; so does the gradient of a plain sum,
    which is kept by looking at the constant.
    """
    only = [index == output for index in range(len(closed.jaxpr.outvars))]
    reduced, _ = partial_eval.dce_jaxpr(closed.jaxpr, only)
    read = {id(each) for equation in reduced.eqns for each in equation.invars} | {*map(id, reduced.outvars)}
    known = dict(zip(reduced.constvars, closed.consts, strict=True))
    is_traced = {variable: isinstance(value, jax.core.Tracer) for variable, value in known.items()}
    if any(id(variable) in read for variable in known if is_traced[variable]):
        return True
    with jax.ensure_compile_time_eval():
        given = [_zeros(each) if is_traced[each] else known[each] for each in reduced.constvars]
        found = jax.core.eval_jaxpr(reduced, given, *map(_zeros, reduced.invars))
        return any(bool(jnp.any(each)) for each in found)


def _zeros(variable: Any) -> Tensor:
    return jnp.zeros(variable.aval.shape, variable.aval.dtype)


def value_of(variable: Variable) -> Tensor:
    """Return the variable's own array; UnbuiltModelError where it was donated or a training loop has it."""
    value = variable._value
    if value is None or value.is_deleted():
        raise UnbuiltModelError(
            f"The variable {variable.path!r} has no value: a compiled function that donates its arguments "
            "deleted the array, or a training loop holds it. Assign the values first: "
            "for variable, value in zip(model.trainable_variables, values): variable.assign(value)."
        )
    return value


def scan(step: LoopStep, carry: object, sequences: object) -> Scanned:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis."""
    return jax.lax.scan(step, carry, sequences)
