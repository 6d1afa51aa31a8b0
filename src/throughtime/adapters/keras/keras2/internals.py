"""The one place that reads what Keras 2 does not publish; each reader says what it relies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.eager import context

from throughtime.adapters.keras.layers import every_layer
from throughtime.adapters.keras.library import internal, is_a


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


def beside(tensor: Any, name: str) -> Any:
    """Return what Keras keeps on a tensor, its mask or logits; None for nothing."""
    return getattr(tensor, name, None)


def set_beside(tensor: Any, name: str, value: Any) -> None:
    """Keep something on a tensor, None for nothing."""
    if value is not None:
        setattr(tensor, name, value)
    elif hasattr(tensor, name):
        delattr(tensor, name)


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


def loop_detector() -> Callable[[], bool]:
    """Make what says later whether the pass is in a loop or branch of the user's."""
    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def is_in_a_loop() -> bool:
        if tf.executing_eagerly():
            return False
        here: Any = tf.compat.v1.get_default_graph()
        return here is not graph or here._get_control_flow_context() is not None

    return is_in_a_loop


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
