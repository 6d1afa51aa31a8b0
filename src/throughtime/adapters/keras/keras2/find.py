"""Names every layer inside a Keras 2 model by a path; touches no tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from throughtime.adapters.keras.library import is_a, is_layer, is_recurrent, package_of_object
from throughtime.adapters.keras.names import (
    attribute_names,
    class_name,
    is_automatic,
    names_of,
    without_clashes,
)
from throughtime.adapters.records import escape
from throughtime.adapters.selection import Selection

from .internals import automatic_name_count, every_layer, sublayers


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


def selection(model: Any) -> Selection:
    """List the layers of a model, to choose from."""
    layer_class = _layer_class(model)
    return Selection(walk(model), sublayers(model) or [model], layer_class)


def select(model: Any, wanted: Any) -> list[Found]:
    """Find the layers a caller means, see `Selection.select`."""
    chosen = selection(model)
    shown = {id(entry.watched): entry.layer for entry in chosen.entries}
    if isinstance(wanted, (list, tuple, set)):
        wanted = [shown.get(id(each), each) for each in wanted]
    found: list[Found] = chosen.select(shown.get(id(wanted), wanted))
    return found


def _layer_class(model: Any) -> type:
    package = package_of_object(model)
    return next(
        cls
        for cls in type(model).__mro__
        if cls.__name__ == "Layer" and f"{cls.__module__}.".startswith(f"{package}.")
    )


def walk(model: Any) -> list[Found]:
    """List every layer of the model with its path, containers before their content.

    A Bidirectional and a recurrent layer are one entry each: what they hold is theirs. A TimeDistributed
    around a recurrent layer stands for that layer.
    """
    if not _is_container(model):
        name = class_name(model) if _is_automatic(model) else escape(model.name)
        return [_entry(name, model, None)]
    return without_clashes(list(_walk(model, "", {id(model)}, None)))


def _entry(path: str, layer: Any, outer: Any) -> Found:
    if is_a(layer, "TimeDistributed") and is_recurrent(layer.layer):
        return Found(path, layer, layer.layer, outer=layer if outer is None else outer)
    return Found(path, layer, layer, _is_container(layer), outer)


def _walk(container: Any, prefix: str, seen: set[int], outer: Any) -> Iterator[Found]:
    children = [child for child in sublayers(container) if _is_shown(child)]
    for child, name in zip(children, _names(container, children), strict=True):
        if id(child) in seen:
            continue
        seen.add(id(child))
        if _hides_recurrence(child):
            yield Found(prefix + name, child, child, True, outer)
            outermost = child if outer is None else outer
            yield from _walk(child.layer, f"{prefix}{name}/", seen, outermost)
            continue
        entry = _entry(prefix + name, child, outer)
        yield entry
        if entry.is_container:
            yield from _walk(child, f"{prefix}{name}/", seen, outer)


def _hides_recurrence(layer: Any) -> bool:
    if not is_a(layer, "TimeDistributed") or is_recurrent(layer.layer):
        return False
    return any(is_recurrent(inner) for inner in every_layer(layer.layer))


def _is_shown(layer: Any) -> bool:
    # A compiled model tracks its metrics as layers; an input computes nothing.
    return not is_a(layer, "InputLayer", "Metric")


def _is_container(layer: Any) -> bool:
    return bool(sublayers(layer)) and not is_a(layer, "RNN", "Wrapper", "Bidirectional")


def _names(container: Any, children: list[Any]) -> list[str]:
    attributes = {} if _is_graph(container) else attribute_names(container, is_layer)
    return names_of(children, attributes, _is_automatic)


def _is_graph(layer: Any) -> bool:
    """Sequential and functional models hold their layers in a graph, not in attributes."""
    return is_a(layer, "Sequential") or bool(getattr(layer, "_is_graph_network", False))


def _is_automatic(layer: Any) -> bool:
    return is_automatic(layer, lambda prefix: automatic_name_count(layer, prefix))
