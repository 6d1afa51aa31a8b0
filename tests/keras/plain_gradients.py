"""Gradients as a user would write them by hand in each framework, without the library.

One scalar function of one tensor, differentiated by `tf.GradientTape`, `jax.grad` or
`torch.autograd.grad`. The tensor is the output of a layer (the model cut in two there) or, where a model
cannot be cut, a zero added to what the layer returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import masking

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
else:
    import torch

Objective = Callable[..., Any]


def gradients(function: Callable[[Any], tuple[Any, Any]], leaves: Any) -> tuple[Any, Any]:
    """Gradients of (loss, values) = function(leaves), for a structure of arrays, and the values."""
    if BACKEND == "tensorflow":
        tensors = keras.tree.map_structure(tf.constant, leaves)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss, values = function(tensors)
        found = tape.gradient(loss, tensors, unconnected_gradients="zero")
    elif BACKEND == "jax":
        tensors = keras.tree.map_structure(jax.numpy.asarray, leaves)
        found, values = jax.jit(jax.grad(function, has_aux=True))(tensors)
    else:
        tensors = keras.tree.map_structure(lambda leaf: torch.tensor(leaf, requires_grad=True), leaves)
        loss, values = function(tensors)
        flat = torch.autograd.grad(
            loss, keras.tree.flatten(tensors), materialize_grads=True, allow_unused=True
        )
        found = keras.tree.pack_sequence_as(tensors, list(flat))
    to_numpy = keras.ops.convert_to_numpy
    return keras.tree.map_structure(to_numpy, found), keras.tree.map_structure(to_numpy, values)


def gradient(function: Callable[[Any], Any], value: np.ndarray) -> np.ndarray:
    """Gradient of a scalar function of one tensor at `value`."""
    return np.asarray(gradients(lambda leaf: (function(leaf), ()), value)[0])


def call(model: Any, x: Any) -> tuple[Any, list[Any]]:
    """Prediction and regularisation losses, without moving any state of the model."""
    if BACKEND == "jax":
        prediction, _, losses = model.stateless_call(
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            x,
            training=False,
            return_losses=True,
        )
        return prediction, losses
    return model(x, training=False), model.losses


def default_objective(y: Any, prediction: Any, sample_weight: Any = None) -> Any:
    return keras.losses.MeanSquaredError(dtype=prediction.dtype)(y, prediction, sample_weight)


def split_output_gradient(
    model: Any,
    layer: Any,
    x: Any,
    y: Any,
    objective: Objective = default_objective,
    sample_weight: Any = None,
) -> np.ndarray:
    """dL/d(layer.output) by cutting a functional model in two.

    The upper half takes what the layer returns and, since masks and other branches start there, the
    model's inputs too. A mask that travels beside the layer's output is handed over by hand.
    """
    parts = keras.tree.flatten(layer.output)
    below = keras.Model(model.inputs, parts)
    above = keras.Model([*parts, *model.inputs], model.outputs[0])
    above.supports_masking = True
    data = [keras.ops.convert_to_tensor(part) for part in keras.tree.flatten(x)]
    first, *others = keras.tree.flatten(below(data, training=False))
    mask = masking.get_keras_mask(first)

    def loss(leaf: Any) -> Any:
        masking.set_keras_mask(leaf, mask)
        return objective(y, call(above, [leaf, *others, *data])[0], sample_weight)

    return gradient(loss, keras.ops.convert_to_numpy(first))


@contextmanager
def patched(layer: Any, number: int, change: Callable[..., Any]) -> Iterator[None]:
    """Within the block, call `number` of `layer` goes through `change(original, x, *args, **kwargs)`."""
    original, count = layer.call, 0

    def replacement(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return change(original, *args, **kwargs) if count == number else original(*args, **kwargs)

    layer.call = replacement
    try:
        yield
    finally:
        layer.call = original


def _add(value: Any, leaf: Any) -> Any:
    """Add to a tensor, or to the first of several that a layer returns; the mask stays."""
    if isinstance(value, list | tuple):
        return (value[0] + leaf, *value[1:])
    return value + leaf


def added_zero_gradient(
    model: Any,
    layer: Any,
    number: int,
    place: str,
    x: Any,
    y: Any,
    objective: Objective = default_objective,
    sample_weight: Any = None,
) -> np.ndarray:
    """dL/d(zero added to the input or the output of one call of a layer)."""

    def change_output(original: Any, *args: Any, leaf: Any, **kwargs: Any) -> Any:
        return _add(original(*args, **kwargs), leaf)

    def change_input(original: Any, first: Any, *args: Any, leaf: Any, **kwargs: Any) -> Any:
        return original(first + leaf, *args, **kwargs)

    change = change_output if place == "output" else change_input

    def loss(leaf: Any) -> Any:
        def with_leaf(original: Any, *args: Any, **kwargs: Any) -> Any:
            return change(original, *args, leaf=leaf, **kwargs)

        with patched(layer, number, with_leaf):
            return objective(y, call(model, x)[0], sample_weight)

    return gradient(loss, np.zeros_like(values(model, layer, number, x)[place]))


def values(model: Any, layer: Any, number: int, x: Any) -> dict[str, np.ndarray]:
    """What one call of a layer gets and returns."""
    seen: dict[str, np.ndarray] = {}

    def look(original: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(first, *args, **kwargs)
        output = result[0] if isinstance(result, list | tuple) else result
        seen["input"] = keras.ops.convert_to_numpy(first)
        seen["output"] = keras.ops.convert_to_numpy(output)
        return result

    with patched(layer, number, look):
        call(model, x)
    return seen


def weight_gradients(
    model: Any, x: Any, y: Any, objective: Objective = default_objective, sample_weight: Any = None
) -> dict[str, np.ndarray]:
    """What the optimizer receives, by the path of each trainable variable."""
    variables = model.trainable_variables
    if BACKEND == "tensorflow":
        with tf.GradientTape() as tape:
            prediction, losses = call(model, x)
            loss = sum(losses, objective(y, prediction, sample_weight))
        results = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
        results = [tf.convert_to_tensor(g) for g in results]
    elif BACKEND == "jax":

        def function(trainable: Any) -> Any:
            prediction, _, losses = model.stateless_call(
                trainable,
                [v.value for v in model.non_trainable_variables],
                x,
                training=False,
                return_losses=True,
            )
            return sum(losses, objective(y, prediction, sample_weight))

        results = jax.jit(jax.grad(function))([v.value for v in variables])
    else:
        prediction, losses = call(model, x)
        loss = sum(losses, objective(y, prediction, sample_weight))
        found = torch.autograd.grad(loss, [v.value for v in variables], allow_unused=True)
        pairs = zip(found, variables, strict=True)
        results = [torch.zeros_like(v.value) if g is None else g for g, v in pairs]
    pairs = zip(variables, results, strict=True)
    return {v.path: keras.ops.convert_to_numpy(g) for v, g in pairs}
