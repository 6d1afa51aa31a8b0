"""Names for the layers inside a Keras model: the user's, else the attribute's, else the class's.

Shared by the adapters of every Keras.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from throughtime.adapters.records import escape

Entry = TypeVar("Entry", bound=Any)


def names_of(
    children: Sequence[Any], attributes: dict[int, str], is_automatic: Callable[[Any], bool]
) -> list[str]:
    """Choose the user's name; else the attribute it is stored under; else the class name, renumbered.

    Parameters
    ----------
    children : layers
    attributes : names of attributes by the identity of the layer they hold
    is_automatic : callable
        Whether Keras gave a layer its name.
    """
    counts: dict[str, int] = {}
    names = []
    for child in children:
        if not is_automatic(child):
            names.append(escape(child.name))
        elif id(child) in attributes:
            names.append(attributes[id(child)])
        else:
            base = class_name(child)
            count = counts.get(base, 0)
            counts[base] = count + 1
            names.append(f"{base}_{count}" if count else base)
    return names


def attribute_names(container: Any, is_layer: Callable[[Any], bool]) -> dict[int, str]:
    """Name the layers that an object holds in its attributes, in lists and dicts among them."""
    names: dict[int, str] = {}
    # The torch backend keeps modules apart from other attributes.
    for attribute, value in {**vars(container), **vars(container).get("_modules", {})}.items():
        if attribute.startswith("_"):
            continue
        if is_layer(value):
            names.setdefault(id(value), attribute)
            continue
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, (list, tuple)):
            items = enumerate(value)
        for key, item in items:
            if is_layer(item):
                names.setdefault(id(item), f"{attribute}/{escape(str(key))}")
    return names


def is_automatic(layer: Any, count_of: Callable[[str], int]) -> bool:
    """Whether Keras numbered the layer: `lstm_3`, and it has counted that far.

    A name that a user wrote in Keras' style is kept unless Keras could have given it as well.

    Parameters
    ----------
    count_of : callable
        How many names Keras has given out for a prefix.
    """
    match = re.fullmatch(rf"{re.escape(class_name(layer))}(?:_(\d+))?", layer.name)
    if match is None:
        return False
    return count_of(class_name(layer)) > int(match[1] or 0)


def class_name(layer: Any) -> str:
    """Write the name of a layer's class as Keras does in its automatic names."""
    return to_snake_case(type(layer).__name__)


def to_snake_case(name: str) -> str:
    """Write a class name as Keras does in its automatic names.

    Examples
    --------
    >>> to_snake_case("SimpleRNN")
    'simple_rnn'
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def without_clashes(found: list[Entry]) -> list[Entry]:
    """Give the second layer of one path `~2`, the third `~3`."""
    seen: dict[str, int] = {}
    result = []
    for entry in found:
        seen[entry.path] = count = seen.get(entry.path, 0) + 1
        path = entry.path if count == 1 else f"{entry.path}~{count}"
        result.append(replace(entry, path=path))
    return result
