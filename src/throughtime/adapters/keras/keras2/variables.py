"""The variables of a model, what stands in their place for a while, and that all is left as it was.

A layer reads its weights from its attributes. For the time of one call they hold something else: a copy that
the loss can be differentiated with respect to, or the same variable in another graph.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from throughtime._inputs.restoring import Restored, Restorer, random_state_restorers
from throughtime.adapters.attributes import attributes_restorer, replaced
from throughtime.adapters.keras.contracts import Layer, Model, Variable
from throughtime.adapters.keras.library import every_layer, internal

# Lists of the weights that a layer has; it does not compute with them.
LISTS = ("_trainable_weights", "_non_trainable_weights")
# Lists and dicts in attributes, which TensorFlow replaces by its own.
_TRACKED = ("ListWrapper", "_DictWrapper")
_DEPTH = 4  # of what holds a variable: attribute, list, partial, its arguments


def all_variables(model: Model) -> list[Variable]:
    """Return everything a pass may read or write: weights, seeds, statistics, states of stateful layers."""
    layers = every_layer(model)
    held = [*model.weights, *(v for layer in layers for v in _states(layer))]
    held += [v for metric in getattr(model, "metrics", ()) for v in metric.variables]
    for generator in random_generators(model):
        own = getattr(generator, "_generator", None)
        held += [] if own is None else [own.state]
    return list({id(variable): variable for variable in held}.values())


def _states(layer: Layer) -> list[Variable]:
    states = tf.nest.flatten(getattr(layer, "states", None) if hasattr(layer, "_states") else None)
    return [state for state in states if isinstance(state, tf.Variable)]


@contextmanager
def values_restored(variables: list[Variable]) -> Iterator[None]:
    """Put the values of variables back, also when the block raises or is interrupted."""
    kept = [(raw, raw.read_value()) for raw in map(raw_variable, variables)]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


@contextmanager
def standing_in(
    holders: Sequence[object], stand_in_for: Mapping[int, object], *, lists: bool = False
) -> Iterator[None]:
    """Let attributes of `holders` hold something else in place of variables, which are named by identity.

    Containers in attributes too; with `lists` also those in which layers list their weights.
    """
    with ExitStack() as stack:
        for holder in holders:
            for name, value in list(vars(holder).items()):
                if lists or name not in LISTS:
                    other = _with_stand_ins(value, stand_in_for.get, _DEPTH)
                    if other is not value:
                        stack.enter_context(replaced(holder, name, other))
        yield


def _with_stand_ins(value: object, stand_in: Callable[[int], object | None], depth: int) -> object:
    """Return a value with variables in it replaced; itself where there are none."""
    other = stand_in(id(value))
    if other is not None or depth == 0:
        return value if other is None else other
    if isinstance(value, functools.partial):
        return _packed(value, value.args, stand_in, depth)
    if isinstance(value, dict):
        return _packed(value, value.values(), stand_in, depth)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return _packed(value, value, stand_in, depth)
    return value


def _packed(
    value: Any, parts: Iterable[object], stand_in: Callable[[int], object | None], depth: int
) -> object:
    """Make a container like `value` of its parts with stand-ins; itself where there are none."""
    parts = list(parts)
    others = [_with_stand_ins(part, stand_in, depth - 1) for part in parts]
    if all(other is part for other, part in zip(others, parts, strict=True)):
        return value
    if isinstance(value, functools.partial):
        return functools.partial(value.func, *others, **value.keywords)
    if isinstance(value, dict):
        return dict(zip(value, others, strict=True))
    return tuple(others) if isinstance(value, tuple) else others


def random_generators(model: Model) -> list[object]:
    """Return the generators that Keras' layers draw from."""
    held = (getattr(layer, "_random_generator", None) for layer in every_layer(model))
    return [generator for generator in held if generator is not None]


def untouched(model: Model) -> Restored:
    """Take back every attribute written inside the block, also when it raises or is interrupted."""
    # Keras and eager TensorFlow draw seeds from generators of the process.
    of_keras = getattr(internal(model, "backend")._SEED_GENERATOR, "generator", None)
    of_process = filter(None, (of_keras, getattr(context.context(), "_rng", None)))
    values = [value for layer in every_layer(model) for value in vars(layer).values()]
    return Restored(
        [
            *random_state_restorers(),
            *(functools.partial(each.setstate, each.getstate()) for each in of_process),
            *map(attributes_restorer, _holders(model)),
            # Listed last and so restored first: what the layers' attributes then hold is as it was.
            *(_container_restorer(value) for value in values if type(value).__name__ in _TRACKED),
        ]
    )


def _container_restorer(container: Any) -> Restorer:
    """Remember what a tracked list or dict holds, and what it remembers of that for checkpoints."""
    if isinstance(container, list):
        return attributes_restorer(container)
    remembered, wrapped = container._self_last_wrapped_dict_snapshot, container.__wrapped__
    content = dict(wrapped)

    def restore() -> None:
        wrapped.clear()
        wrapped.update(content)
        container._self_last_wrapped_dict_snapshot = remembered

    return restore


def _holders(model: Model) -> list[object]:
    """Objects on which a forward pass and its loss may write."""
    layers: list[Any] = [*every_layer(model)]
    held = [*layers, *(layer._thread_local for layer in layers), *random_generators(model)]
    held += [getattr(model, "compiled_loss", None), *getattr(model, "metrics", ())]
    return [holder for holder in held if hasattr(holder, "__dict__")]


def raw_variable(variable: Any) -> Any:
    """Take the wrapper off that mixed precision puts around a variable, to read it as it is stored."""
    return variable._variable if is_cast(variable) else variable


def is_cast(variable: Any) -> bool:
    """Whether a layer of mixed precision reads a variable in the precision it computes in."""
    return type(variable).__name__ == "AutoCastVariable"
