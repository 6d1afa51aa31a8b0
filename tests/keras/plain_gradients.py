"""Gradients as a user would write them by hand in each framework, without the library.

One scalar function of tensors, differentiated by `tf.GradientTape`, `jax.grad` or `torch.autograd.grad`.
The tensor is the output of a layer (the model cut in two there) or, where a model cannot be cut, a zero
added to what the layer gets or returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
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
Call = tuple[Any, int]  # a layer, and which of its calls


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


@contextmanager
def same_draws(values: Any = ()) -> Iterator[None]:
    """Random masks are drawn as if the block had not run before, and no state of a model moves."""
    # Keras on torch draws dropout from torch's own generator.
    kept = torch.random.fork_rng() if BACKEND == "torch" else nullcontext()
    with keras.StatelessScope(list(values), collect_losses=True), kept:
        yield


def call(model: Any, x: Any, *, weights: Any = None, training: bool = False) -> tuple[Any, list[Any]]:
    """Prediction and regularisation losses; `weights` stand for the trainable variables."""
    pairs = [] if weights is None else zip(model.trainable_variables, weights, strict=True)
    with same_draws(pairs):
        return model(x, training=training), model.losses


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


def output_of(layer: Any, result: Any) -> Any:
    """What others see of what a call returns, as one tensor."""
    if not isinstance(result, list | tuple):
        return result
    is_unmerged = getattr(layer, "merge_mode", "concat") is None
    return keras.ops.stack(result[:2], -2) if is_unmerged else result[0]


def with_output(layer: Any, result: Any, output: Any) -> Any:
    """What a call returns, with another output."""
    if not isinstance(result, list | tuple):
        return output
    is_unmerged = getattr(layer, "merge_mode", "concat") is None
    outputs = [output[..., half, :] for half in range(2)] if is_unmerged else [output]
    return (*outputs, *result[len(outputs) :])


def values(model: Any, layer: Any, number: int, x: Any) -> dict[str, np.ndarray]:
    """What one call of a layer gets and returns."""
    (seen,) = _run(model, [(layer, number)], x)[2]
    return {place: keras.ops.convert_to_numpy(tensor) for place, tensor in seen.items()}


def _run(
    model: Any, calls: Sequence[Call], x: Any, taps: Any = None, **keywords: Any
) -> tuple[Any, list[Any], list[dict[str, Any]]]:
    """Prediction, regularisation losses, and input and output of each call with its tap."""
    seen: list[dict[str, Any]] = [{} for _ in calls]

    def tapped(index: int, layer: Any) -> Callable[..., Any]:
        tap = {"input": 0.0, "output": 0.0} if taps is None else taps[index]

        def change(original: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
            seen[index]["input"] = first = first + tap["input"]
            result = original(first, *args, **kwargs)
            seen[index]["output"] = output_of(layer, result) + tap["output"]
            return with_output(layer, result, seen[index]["output"])

        return change

    with ExitStack() as stack:
        for index, (layer, number) in enumerate(calls):
            stack.enter_context(patched(layer, number, tapped(index, layer)))
        prediction, losses = call(model, x, **keywords)
    return prediction, losses, seen


@dataclass(frozen=True)
class ByHand:
    """Values and gradients of each call's input and output, and of the weights by variable."""

    calls: list[dict[str, np.ndarray]]
    weights: dict[int, np.ndarray]


def everything(
    model: Any,
    calls: Sequence[Call],
    x: Any,
    y: Any,
    objective: Objective = default_objective,
    sample_weight: Any = None,
    *,
    training: bool = False,
) -> ByHand:
    """All of a model's gradients at once: zeros are added to inputs and outputs, weights are leaves."""
    variables = model.trainable_variables
    look = jax.eval_shape if BACKEND == "jax" else lambda function: function()
    shapes = look(lambda: _run(model, calls, x, training=training)[2])
    leaves = {
        "taps": keras.tree.map_structure(_zeros, shapes),
        "weights": [keras.ops.convert_to_numpy(variable) for variable in variables],
    }

    def loss_and_values(leaves: Any) -> tuple[Any, Any]:
        prediction, losses, seen = _run(
            model, calls, x, leaves["taps"], weights=leaves["weights"], training=training
        )
        return sum(losses, objective(y, prediction, sample_weight)), seen

    found, values = gradients(loss_and_values, leaves)
    places = [
        {**seen, **{f"{place}_gradient": array for place, array in own.items()}}
        for seen, own in zip(values, found["taps"], strict=True)
    ]
    return ByHand(places, {id(v): g for v, g in zip(variables, found["weights"], strict=True)})


def _zeros(tensor: Any) -> np.ndarray:
    return np.zeros(tensor.shape, keras.backend.standardize_dtype(tensor.dtype))
