"""Names every layer inside a Keras model by a path, and finds those a caller means; touches no tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from throughtime.adapters.records import escape
from throughtime.adapters.selection import Selection

from .dialect import Dialect
from .layers import every_layer, sublayers
from .library import is_a, is_layer, is_recurrent, package_of_object
from .names import attribute_names, class_name, is_automatic, names_of, without_clashes

# Layers that compute with something that has no Keras layers inside.
_CLOSED = {
    "TFSMLayer": "holds a finished graph without layers: keras.saving.load_model brings them back from a "
    ".keras file.",
    "TorchModuleWrapper": "holds a torch module: capture that module itself.",
    "JaxLayer": "holds a JAX function, which has no layers.",
    "FlaxLayer": "holds a Flax module, whose layers are not captured.",
}


@dataclass(frozen=True)
class Found:
    """A layer and the path that names it within the model.

    `layer` is what a caller sees, `watched` what is captured: another one where a TimeDistributed holds
    nothing but a recurrent layer. `outer` is the TimeDistributed around it, None for most.
    """

    path: str
    layer: Any
    watched: Any
    is_container: bool = False
    outer: Any = None

    @property
    def name(self) -> str:
        """Its name in Keras."""
        return str(self.layer.name)

    @property
    def class_name(self) -> str:
        """Its class."""
        return type(self.layer).__name__

    @property
    def is_recurrent(self) -> bool:
        """Whether its leaf shows something that flows through time."""
        return is_recurrent(self.watched)

    @property
    def is_part(self) -> bool:
        """No entry is a part of another."""
        return False


def selection(keras: Dialect, model: Any) -> Selection:
    """List the layers of a model, to choose from; an int counts `model.layers`."""
    entries = walk(keras, model)
    closed = [(entry.path, _CLOSED.get(entry.class_name)) for entry in entries]
    hint = "".join(f"\n{path} {what}" for path, what in closed if what)
    return Selection(entries, sublayers(model) or [model], _layer_class(model), hint)


def select(keras: Dialect, model: Any, wanted: Any) -> list[Found]:
    """Find the layers a caller means, see `Selection.select`; a predicate is asked about what is captured."""
    chosen = selection(keras, model)
    shown = {id(entry.watched): entry.layer for entry in chosen.entries}
    watched = {id(entry.layer): entry.watched for entry in chosen.entries}

    def as_shown(each: Any) -> Any:
        if callable(each) and not isinstance(each, (chosen.layer_class, type)):
            return lambda layer: each(watched[id(layer)])
        return shown.get(id(each), each)

    is_several = isinstance(wanted, (list, tuple, set))
    found: list[Found] = chosen.select([*map(as_shown, wanted)] if is_several else as_shown(wanted))
    return found


def _layer_class(model: Any) -> type:
    package = package_of_object(model)
    return next(
        cls
        for cls in type(model).__mro__
        if cls.__name__ == "Layer" and f"{cls.__module__}.".startswith(f"{package}.")
    )


def walk(keras: Dialect, model: Any) -> list[Found]:
    """List every layer of the model with its path, containers before their content.

    A Bidirectional and a recurrent layer are one entry each: what they hold is theirs. A TimeDistributed
    around a recurrent layer stands for that layer.
    """
    is_named_by_keras = _namer(keras)
    if not _is_container(model):
        name = class_name(model) if is_named_by_keras(model) else escape(model.name)
        return [_entry(name, model, None)]
    return without_clashes(list(_walk(is_named_by_keras, model, "", {id(model)}, None)))


def _namer(keras: Dialect) -> Callable[[Any], bool]:
    return lambda layer: is_automatic(layer, lambda prefix: keras.automatic_name_count(layer, prefix))


def _entry(path: str, layer: Any, outer: Any) -> Found:
    if is_a(layer, "TimeDistributed") and is_recurrent(layer.layer):
        return Found(path, layer, layer.layer, outer=layer if outer is None else outer)
    return Found(path, layer, layer, _is_container(layer), outer)


def _walk(
    is_named_by_keras: Callable[[Any], bool], container: Any, prefix: str, seen: set[int], outer: Any
) -> Iterator[Found]:
    # A compiled model tracks its metrics as layers; an input computes nothing.
    children = [child for child in sublayers(container) if not is_a(child, "InputLayer", "Metric")]
    attributes = {} if _is_graph(container) else attribute_names(container, is_layer)
    for child, name in zip(children, names_of(children, attributes, is_named_by_keras), strict=True):
        if id(child) in seen:
            continue
        seen.add(id(child))
        path = prefix + name
        if _hides_recurrence(child):
            yield Found(path, child, child, True, outer)
            yield from _walk(is_named_by_keras, child.layer, f"{path}/", seen, outer or child)
            continue
        entry = _entry(path, child, outer)
        yield entry
        if entry.is_container:
            yield from _walk(is_named_by_keras, child, f"{path}/", seen, outer)


def _hides_recurrence(layer: Any) -> bool:
    if not is_a(layer, "TimeDistributed") or is_recurrent(layer.layer):
        return False
    return any(is_recurrent(inner) for inner in every_layer(layer.layer))


def _is_container(layer: Any) -> bool:
    return bool(sublayers(layer)) and not is_a(layer, "RNN", "Wrapper", "Bidirectional")


def _is_graph(layer: Any) -> bool:
    """Sequential and functional models hold their layers in a graph, not in attributes."""
    is_functional = bool(getattr(layer, "_is_graph_network", False)) or hasattr(layer, "operations")
    return is_a(layer, "Sequential") or (is_a(layer, "Model") and is_functional)
