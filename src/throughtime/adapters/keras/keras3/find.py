"""Names every layer inside a Keras model by a path, and finds those a caller means.

Used by the probe before anything runs; touches no tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import keras

from throughtime._errors import AmbiguousLayerError, LayerNotFoundError
from throughtime.adapters.keras.names import (
    attribute_names,
    class_name,
    is_automatic,
    names_of,
    without_clashes,
)
from throughtime.adapters.records import escape

from .internals import automatic_name_count, every_layer, sublayers

# Layers that compute with something that has no Keras layers inside.
_CLOSED = {
    "TFSMLayer": "holds a finished graph without layers: keras.saving.load_model brings them back from a "
    ".keras file.",
    "TorchModuleWrapper": "holds a torch module: capture that module itself.",
    "JaxLayer": "holds a JAX function, which has no layers.",
    "FlaxLayer": "holds a Flax module, which is not looked into.",
}


@dataclass(frozen=True)
class Found:
    """A layer and the path that names it within the model.

    `outer` is the TimeDistributed that calls it once for each outer step, None for most.
    """

    path: str
    layer: Any
    is_container: bool
    outer: Any = None

    @property
    def shown(self) -> Any:
        """What a caller sees as the layer: the TimeDistributed that holds nothing but it."""
        return self.outer if self.outer is not None and self.outer.layer is self.layer else self.layer

    @property
    def watched(self) -> Any:
        """What is captured."""
        return self.layer

    @property
    def is_recurrent(self) -> bool:
        """Whether its leaf shows something that flows through time."""
        return is_recurrent(self.layer)


def walk(model: Any) -> list[Found]:
    """List every layer of the model with its path, containers before their content.

    A Bidirectional and a recurrent layer are one entry each: what they hold is theirs. A TimeDistributed
    around a recurrent layer stands for that layer.
    """
    if not _is_container(model):
        return [Found(_own_name(model), model, False)]
    return without_clashes(list(_walk(model, "", {id(model)}, None)))


def _walk(container: Any, prefix: str, seen: set[int], outer: Any) -> Iterator[Found]:
    children = [child for child in sublayers(container) if _is_shown(child)]
    for child, name in zip(children, _names(container, children), strict=True):
        if id(child) in seen:
            continue
        seen.add(id(child))
        is_container = _is_container(child)
        if _hides_recurrence(child):
            outermost = child if outer is None else outer
            if is_recurrent(child.layer):
                yield Found(prefix + name, child.layer, False, outermost)
            else:
                yield Found(prefix + name, child, True, outer)
                yield from _walk(child.layer, f"{prefix}{name}/", seen, outermost)
            continue
        yield Found(prefix + name, child, is_container, outer)
        if is_container:
            yield from _walk(child, f"{prefix}{name}/", seen, outer)


def _hides_recurrence(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.TimeDistributed):
        return False
    return any(is_recurrent(inner) for inner in every_layer(layer.layer))


def is_recurrent(layer: Any) -> bool:
    """Whether something flows through time in a layer."""
    return isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional))


def _is_shown(layer: Any) -> bool:
    # A compiled model tracks its metrics' layers and Keras' input placeholders as layers of its own.
    return not isinstance(layer, keras.layers.InputLayer)


def _is_container(layer: Any) -> bool:
    whole = (keras.layers.RNN, keras.layers.Wrapper, keras.layers.Bidirectional)
    return bool(sublayers(layer)) and not isinstance(layer, whole)


def _names(container: Any, children: list[Any]) -> list[str]:
    attributes = {} if _is_graph(container) else attribute_names(container, _is_layer)
    return names_of(children, attributes, _is_automatic)


def _is_layer(value: Any) -> bool:
    return isinstance(value, keras.layers.Layer)


def _is_graph(layer: Any) -> bool:
    """Sequential and functional models hold their layers in a graph, not in attributes."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and hasattr(layer, "operations")
    )


def _is_automatic(layer: Any) -> bool:
    return is_automatic(layer, automatic_name_count)


def _own_name(layer: Any) -> str:
    return class_name(layer) if _is_automatic(layer) else escape(layer.name)


def select(model: Any, layers: Any) -> list[Found]:
    """Find the layers a caller means.

    Parameters
    ----------
    layers : "recurrent", "all", int, name, path, layer, list of those, or predicate on a layer
        An int is an index into `model.layers`.

    Raises
    ------
    LayerNotFoundError, AmbiguousLayerError
        With the indexed list of what the model has.
    """
    found = walk(model)
    if layers == "recurrent":
        return _matching(model, found, lambda entry: entry.is_recurrent, "The model has no recurrent layer")
    if layers == "all":
        return [entry for entry in found if not entry.is_container]
    if isinstance(layers, (list, tuple, set)):
        return _unique(entry for item in layers for entry in select(model, item))
    if callable(layers) and not isinstance(layers, keras.layers.Layer):
        return _matching(model, found, lambda entry: layers(entry.layer), "The predicate holds for no layer")
    return [find(model, layers)]


def find(model: Any, wanted: Any) -> Found:
    """Find one layer by index, object, path or name: exact first, then a unique part of the name."""
    found = walk(model)
    if isinstance(wanted, keras.layers.Layer):
        matches = [entry for entry in found if wanted in (entry.shown, entry.layer)]
        if not matches:
            _raise_not_found(model, found, _not_looked_into(wanted))
        return matches[0]
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return _by_index(model, found, wanted)
    if isinstance(wanted, str):
        return _by_name(model, found, wanted)
    raise LayerNotFoundError(
        f"A layer is named by an index, a name, a path or the layer itself, got {wanted!r} of type "
        f"{type(wanted).__name__}."
    )


def _by_index(model: Any, found: list[Found], index: int) -> Found:
    children = sublayers(model) or [model]
    if not -len(children) <= index < len(children):
        _raise_not_found(model, found, f"There is no layer {index}")
    layer = children[index]
    if not _is_shown(layer):
        _raise_not_found(model, found, f"Layer {index}, {layer.name!r}, is an input and computes nothing")
    return next(entry for entry in found if entry.shown is layer)


def _by_name(model: Any, found: list[Found], wanted: str) -> Found:  # noqa: RET503 - _raise_not_found never returns
    path = wanted.strip("/").replace(".", "/")
    tests: tuple[Callable[[Found], bool], ...] = (
        lambda entry: wanted == entry.shown.name,
        lambda entry: path == entry.path,
        lambda entry: wanted in entry.shown.name or path in entry.path,
    )
    for test in tests:
        matches = [entry for entry in found if test(entry)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(repr(entry.path) for entry in matches)
            raise AmbiguousLayerError(
                f"{wanted!r} fits {len(matches)} layers: {names}. Give one of these paths.\n"
                f"{listing(model, found)}"
            )
    _raise_not_found(model, found, f"There is no layer {wanted!r}")


def _matching(model: Any, found: list[Found], test: Callable[[Found], bool], otherwise: str) -> list[Found]:
    chosen = [entry for entry in found if test(entry)]
    if not chosen:
        _raise_not_found(model, found, otherwise)
    return chosen


def _unique(entries: Iterable[Found]) -> list[Found]:
    return list({id(entry.layer): entry for entry in entries}.values())


def _not_looked_into(layer: Any) -> str:
    return (
        f"The layer {layer.name!r} is not part of this model, or lives inside a Bidirectional or a recurrent "
        "layer, which are captured as a whole"
    )


def listing(model: Any, found: list[Found] | None = None) -> str:
    """List the model's layers, indexed as `layer_idx` counts them."""
    found = walk(model) if found is None else found
    indices = {id(layer): index for index, layer in enumerate(sublayers(model))}
    lines = [
        f"  {indices.get(id(entry.shown), ''):>3}  {entry.path}  ({type(entry.shown).__name__})"
        + ("  recurrent" if entry.is_recurrent else "")
        for entry in found
    ]
    return "\n".join(["Layers of this model (index, path, class):", *lines])


def _raise_not_found(model: Any, found: list[Found], reason: str) -> NoReturn:
    closed = [
        f"{entry.path} {_CLOSED[type(entry.layer).__name__]}"
        for entry in found
        if type(entry.layer).__name__ in _CLOSED
    ]
    raise LayerNotFoundError("\n".join([f"{reason}.", *closed, listing(model, found)]))
