"""The one place that reads what Keras 2 does not publish; each reader says what it relies on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.eager import context

from throughtime.adapters.keras.layers import every_layer
from throughtime.adapters.keras.library import internal, is_a

# What a loss reads from a tensor besides its values: the mask, and the logits behind a softmax.
_CARRIED = ("_keras_mask", "_keras_logits")
_ARTIFACT = "autograph_info__"  # what autograph puts on functions that it leaves alone


def tracked_containers(model: Any) -> list[Any]:
    """Return the lists and dicts in attributes that TensorFlow has replaced by its own, tracked ones."""
    values = [value for layer in every_layer(model) for value in vars(layer).values()]
    return [value for value in values if type(value).__name__ in ("ListWrapper", "_DictWrapper")]


def automatic_name_count(layer: Any, prefix: str) -> int:
    """How many names Keras has given out for this prefix, in the graph that has given out most."""
    counts = internal(layer, "backend").PER_GRAPH_OBJECT_NAME_UIDS.values()
    return max((int(names.get(("", prefix), 0)) for names in counts), default=0)


def path_of(variable: Any) -> str:
    """Name a variable with its scopes, parted by slashes."""
    return str(variable.name).partition(":")[0]


def raw_variable(variable: Any) -> Any:
    """Take the wrapper off that mixed precision puts around a variable, to read it as it is stored."""
    is_wrapped = type(variable).__name__ == "AutoCastVariable"
    return variable._variable if is_wrapped else variable


def compute_dtype(layer: Any) -> str:
    """Name the precision a layer computes in; one that takes over its input's shows it by its weights."""
    held = [layer, getattr(layer, "forward_layer", None), getattr(layer, "cell", None)]
    told = (getattr(each, "compute_dtype", None) for each in held)
    weights = (tf.as_dtype(raw_variable(weight).dtype).name for weight in getattr(layer, "weights", ()))
    return str(next(filter(None, [*told, *weights]), "float32"))


def is_cast(variable: Any) -> bool:
    """Whether a layer of mixed precision reads a variable in the precision it computes in."""
    return type(variable).__name__ == "AutoCastVariable"


def compiled_loss(model: Any) -> Any:
    """Return the object `compile` made of the losses, None when there is none."""
    return getattr(model, "compiled_loss", None)


def keras_logits(tensor: Any) -> Any:
    """Return the logits that a softmax or sigmoid left for the loss to read, None without."""
    return getattr(tensor, "_keras_logits", None)


def set_keras_logits(tensor: Any, logits: Any) -> None:
    """Replace the logits that the loss will read."""
    tensor._keras_logits = logits


def forget_keras_logits(tensor: Any) -> None:
    """Let the loss read the tensor itself."""
    if hasattr(tensor, "_keras_logits"):
        del tensor._keras_logits


def carry(source: Any, target: Any) -> Any:
    """Give `target` the mask and logits of `source`, as Keras keeps them on a tensor."""
    for name in _CARRIED:
        value = getattr(source, name, None)
        if value is not None:
            setattr(target, name, value)
    return target


def as_keras_calls(layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a layer's call as Keras makes it: in a graph, a user's own goes through autograph."""
    converts = getattr(layer, "_should_use_autograph", None)
    if tf.executing_eagerly() or not (converts() if converts else _is_subclassed(layer)):
        return original
    context = ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED)
    converted: Callable[..., Any] = tf.__internal__.autograph.tf_convert(original, context)
    return converted


def _is_subclassed(layer: Any) -> bool:
    return bool(internal(layer, "engine.base_layer_utils").is_subclassed(layer))


@contextmanager
def autograph_enabled() -> Iterator[None]:
    """Let Keras convert the calls of users' layers, as it does while it trains."""
    with ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED):
        yield


def as_a_call(call: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """Let Keras read the arguments of what stands for a layer's call, and autograph leave it alone."""
    call.__signature__ = signature  # type: ignore[attr-defined]
    setattr(call, _ARTIFACT, None)
    return call


def runs_in_a_loop(graph: Any) -> bool:
    """Whether what is computed now is inside a loop or branch, and leaves it only as its result."""
    if tf.executing_eagerly():
        return False
    here = tf.compat.v1.get_default_graph()
    return here is not graph or here._get_control_flow_context() is not None


def random_generators(model: Any) -> list[Any]:
    """Return the generators that Keras' layers draw from."""
    held = (getattr(layer, "_random_generator", None) for layer in every_layer(model))
    return [generator for generator in held if generator is not None]


def draws_at_each_step(cell: Any) -> bool:
    """Whether a cell holds layers that draw, besides those of Keras' cells, whose masks are known."""
    names = ("BaseRandomLayer", "Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout")
    return any(is_a(each, *names) and not is_a(each, "DropoutRNNCellMixin") for each in every_layer(cell))


def process_generators(model: Any) -> list[Any]:
    """Return the process's generators that Keras and eager TensorFlow draw seeds from."""
    own = getattr(internal(model, "backend")._SEED_GENERATOR, "generator", None)
    return [each for each in (own, getattr(context.context(), "_rng", None)) if each is not None]


def keras_session(model: Any) -> Any:
    """Return the session that Keras holds, without making one."""
    return getattr(internal(model, "backend")._SESSION, "session", None)
