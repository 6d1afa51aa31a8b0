"""Gradients on the JAX backend: a zero added to each watched tensor, differentiated, compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from throughtime._errors import UnbuiltModelError
from throughtime.adapters.keras.seen import Result

from .backend import Scoped, TracedValues


def trace(
    program: Scoped, variables: Sequence[Any], inputs: Any, *, compiled: bool, eager: bool
) -> TracedValues:
    """Trace `program` for these shapes.

    Returns
    -------
    callable
        (variable values, inputs) -> Result, holding no reference to the model.
    """
    del compiled  # a JAX program is always compiled, unless the model runs eagerly
    values = list(variables)
    shapes = _watched_shapes(program, values, inputs)
    chosen = list(program.differentiated)

    def loss_of(zeros: dict[str, Any], weights: list[Any], values: list[Any], inputs: Any) -> Any:
        for index, weight in zip(chosen, weights, strict=True):
            values[index] = weight
        loss, tensors = program(values, inputs, lambda key, tensor: tensor + zeros[key])
        return (jnp.zeros(()) if loss is None else loss), tensors

    def run(values: list[Any], inputs: Any) -> Any:
        zeros = {key: jnp.zeros(shape.shape, shape.dtype) for key, shape in shapes.items()}
        weights = [values[index] for index in chosen]
        if not program.has_loss:
            return loss_of(zeros, weights, list(values), inputs)[1], {}
        gradient = jax.grad(loss_of, argnums=(0, 1), has_aux=True)
        (of_marks, of_weights), tensors = gradient(zeros, weights, list(values), inputs)
        named = {f"variable.{index}": g for index, g in zip(chosen, of_weights, strict=True)}
        return tensors, {**of_marks, **named}

    traced = jax.jit(run).trace(values, inputs)
    connected = _connected(traced) if program.has_loss else set()
    executable = run if eager else traced.lower().compile()

    def call(values: Sequence[Any], inputs: Any) -> Result:
        tensors, gradients = executable(list(values), inputs)
        return Result(tensors, {key: g for key, g in gradients.items() if key in connected})

    return call


def _watched_shapes(program: Scoped, values: list[Any], inputs: Any) -> dict[str, Any]:
    shapes: dict[str, Any] = {}

    def mark(key: str, tensor: Any) -> Any:
        shapes[key] = jax.ShapeDtypeStruct(tensor.shape, tensor.dtype)
        return tensor

    jax.eval_shape(lambda values, inputs: program(list(values), inputs, mark), values, inputs)
    return shapes


def _connected(traced: Any) -> set[str]:
    """Names of the gradients that are computed: JAX fills in zeros for tensors the loss never sees.

    Such zeros depend on no input of the program; so does the gradient of a plain sum, which is kept by
    looking at the constant.
    """
    tensors, gradients = traced.out_info
    skipped, count = len(jax.tree.leaves(tensors)), len(traced.jaxpr.out_avals)
    connected = set()
    for position, key in enumerate(sorted(gradients), start=skipped):
        only = [index == position for index in range(count)]
        reduced, used = partial_eval.dce_jaxpr(traced.jaxpr.jaxpr, only)
        if any(used) or _is_nonzero(reduced, traced.jaxpr.consts):
            connected.add(key)
    return connected


def _is_nonzero(jaxpr: Any, constants: Any) -> bool:
    arguments = [jnp.zeros(variable.aval.shape, variable.aval.dtype) for variable in jaxpr.invars]
    return any(bool(jnp.any(value)) for value in jax.core.eval_jaxpr(jaxpr, constants, *arguments))


def value_of(variable: Any) -> Any:
    """Return the variable's own value as an array.

    Raises
    ------
    UnbuiltModelError
        The array was given away: donated to a compiled function, or taken along by a training loop.
    """
    value = variable._value
    if value is None or value.is_deleted():
        raise UnbuiltModelError(
            f"The variable {variable.path!r} has no value of its own: a compiled function that donates its "
            "arguments took the array, or a training loop holds it. Put the values back first: "
            "for variable, value in zip(model.trainable_variables, values): variable.assign(value)."
        )
    return value


def scan(step: Any, carry: Any, sequences: Any) -> tuple[Any, Any]:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis."""
    final, outputs = jax.lax.scan(step, carry, sequences)
    return final, outputs
