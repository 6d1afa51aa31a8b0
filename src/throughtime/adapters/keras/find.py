"""Names every layer inside a Keras model by a path, and finds those a caller means; touches no tensor.

A layer's name is the user's, else the attribute's, else the class's.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from throughtime.adapters.records import escape, to_snake_case
from throughtime.adapters.selection import Entry, Selection

from .contracts import Layer, Model, T
from .dialect import Dialect
from .library import every_layer, is_a, is_layer, is_recurrent, package_of_object, sublayers

# Layers that compute with something that has no Keras layers inside.
_CLOSED = {
    "TFSMLayer": "holds a finished graph without layers: keras.saving.load_model brings them back from a "
    ".keras file.",
    "TorchModuleWrapper": "holds a torch module: capture that module itself.",
    "JaxLayer": "holds a JAX function, which has no layers.",
    "FlaxLayer": "holds a Flax module, whose layers are not captured.",
}

_UNSEEN = (
    " A cell counts as recurrent in keras.layers.RNN(cell), not where another layer calls it in a loop. "
    "tt.mark(h, 'memory') in that loop shows h and its gradient, with layers='all' or the layer's name."
)


@dataclass(frozen=True)
class Found(Entry):
    """A Keras layer; for a TimeDistributed (`outer`) that only holds a recurrent layer, that inner layer.

    `around` has each TimeDistributed within which the model uses the layer, on any path.
    """

    layer: Layer
    outer: Layer | None = None
    around: tuple[Layer, ...] = ()

    def leaf(self, number: int) -> str:
        """Name the leaf of a call; a container's stands beside its path, below which its content is."""
        return f"{self.path}@{number}" if self.is_container or number > 1 else self.path


def selection(keras: Dialect, model: Model) -> Selection[Found]:
    """List the layers of a model, to choose from; an int counts `model.layers`."""
    entries = walk(keras, model)
    closed = [(entry.path, _CLOSED.get(entry.class_name)) for entry in entries]
    hint = "" if any(entry.is_recurrent for entry in entries) else _UNSEEN
    hint += "".join(f"\n{path} {what}" for path, what in closed if what)
    return Selection(entries, sublayers(model) or [model], _layer_class(model), hint)


def _captured(layer: T) -> T:
    """Return what stands for a layer: of a TimeDistributed around a recurrent layer, that layer."""
    inner: Any = getattr(layer, "layer", None)
    return inner if is_a(layer, "TimeDistributed") and is_recurrent(inner) else layer


def _layer_class(model: Model) -> type:
    package = package_of_object(model)
    return next(
        cls
        for cls in type(model).__mro__
        if cls.__name__ == "Layer" and f"{cls.__module__}.".startswith(f"{package}.")
    )


def walk(keras: Dialect, model: Model) -> list[Found]:
    """List every layer of the model with its path, containers before their content.

    A Bidirectional and a recurrent layer are one entry each: what they hold is theirs. A TimeDistributed
    around a recurrent layer stands for that layer.
    """
    if not _is_container(model) or is_a(model, "TimeDistributed"):
        return [_entry(_names_of(keras, [model], {})[0], model, None)]
    found = _without_clashes(list(_walk(keras, model, "", {id(model)}, None)))
    outers: dict[int, list[Layer]] = {}
    for entry in found:
        outers.setdefault(id(entry.layer), []).extend([] if entry.outer is None else [entry.outer])
    return [replace(entry, around=tuple(outers[id(entry.layer)])) for entry in found]


def _entry(path: str, layer: Layer, outer: Layer | None) -> Found:
    own = _captured(layer)
    if own is not layer and outer is None:
        outer = layer
    kind, is_container = type(layer).__name__, _is_container(layer)
    return Found(
        path, str(layer.name), own, kind, is_container, is_recurrent(own), stands_for=layer, outer=outer
    )


def _walk(
    keras: Dialect, container: Layer, prefix: str, seen: set[int], outer: Layer | None
) -> Iterator[Found]:
    # A compiled model tracks its metrics as layers; an input computes nothing.
    children = [child for child in sublayers(container) if not is_a(child, "InputLayer", "Metric")]
    attributes = {} if _is_graph(container) else _attribute_names(container)
    for child, name in zip(children, _names_of(keras, children, attributes), strict=True):
        if id(child) in seen:
            continue
        seen.add(id(child))
        entry = _entry(prefix + name, child, outer)
        yield entry
        if entry.is_container:
            is_outer = is_a(child, "TimeDistributed")
            inner, around = (child.layer, outer or child) if is_outer else (child, outer)
            yield from _walk(keras, inner, f"{entry.path}/", seen, around)


def _is_container(layer: Layer) -> bool:
    if is_a(layer, "TimeDistributed"):
        return not is_recurrent(layer.layer) and any(map(is_recurrent, every_layer(layer.layer)))
    return bool(sublayers(layer)) and not is_a(layer, "RNN", "Wrapper", "Bidirectional")


def _is_graph(layer: Layer) -> bool:
    """Sequential and functional models hold their layers in a graph, not in attributes."""
    is_functional = bool(getattr(layer, "_is_graph_network", False)) or hasattr(layer, "operations")
    return is_a(layer, "Sequential") or (is_a(layer, "Model") and is_functional)


def _names_of(keras: Dialect, children: Sequence[Layer], attributes: dict[int, str]) -> list[str]:
    """Choose the user's name; else the attribute it is stored under; else the class name, renumbered."""
    counts: dict[str, int] = {}
    names = []
    for child in children:
        if not _is_automatic(keras, child):
            names.append(escape(child.name))
        elif id(child) in attributes:
            names.append(attributes[id(child)])
        else:
            base = _class_name(child)
            count = counts.get(base, 0)
            counts[base] = count + 1
            names.append(f"{base}_{count}" if count else base)
    return names


def _attribute_names(container: Layer) -> dict[int, str]:
    """Name the layers that an object holds in its attributes, in lists and dicts among them."""
    names: dict[int, str] = {}
    # The torch backend keeps modules apart from other attributes.
    for attribute, value in {**vars(container), **vars(container).get("_modules", {})}.items():
        if attribute.startswith("_"):
            continue
        if is_layer(value):
            names.setdefault(id(value), attribute)
            continue
        items: Iterable[tuple[object, object]] = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, (list, tuple)):
            items = enumerate(value)
        for key, item in items:
            if is_layer(item):
                names.setdefault(id(item), f"{attribute}/{escape(str(key))}")
    return names


def _is_automatic(keras: Dialect, layer: Layer) -> bool:
    """Whether Keras numbered the layer: `lstm_3`, and it has counted that far.

    A name that a user wrote in Keras' style is kept unless Keras could have given it as well.
    """
    match = re.fullmatch(rf"{re.escape(_class_name(layer))}(?:_(\d+))?", layer.name)
    if match is None:
        return False
    return keras.automatic_name_count(layer, _class_name(layer)) > int(match[1] or 0)


def _class_name(layer: Layer) -> str:
    """Write the name of a layer's class as Keras does in its automatic names."""
    return to_snake_case(type(layer).__name__)


def _without_clashes(found: list[Found]) -> list[Found]:
    """Give the second layer of one path `~2`, the third `~3`."""
    seen: dict[str, int] = {}
    result = []
    for entry in found:
        seen[entry.path] = count = seen.get(entry.path, 0) + 1
        path = entry.path if count == 1 else f"{entry.path}~{count}"
        result.append(replace(entry, path=path))
    return result
