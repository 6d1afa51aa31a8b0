"""Takes back whatever is written on Python objects: attributes, and what the containers among them hold."""

from collections import OrderedDict
from operator import is_
from typing import Any

from throughtime._inputs.restoring import Restorer

_ABSENT = object()
_PLAIN = frozenset({bool, float, int, str, tuple, type(None)})  # which hold nothing that could change


def attributes_restorer(holder: object) -> Restorer:
    """Remember an object's attributes, and what the containers among them hold; the result puts them back."""
    attributes = vars(holder)
    before = dict(attributes)
    kept = [inside(value) for value in before.values() if type(value) not in _PLAIN]
    contents = [(held, _copy(held)) for held in kept if isinstance(held, (list, dict, set))]

    def restore() -> None:
        # Straight into the dictionary: setting attributes would pass through a framework's tracking.
        if not _same_content(attributes, before):
            attributes.clear()
            attributes.update(before)
        for held, content in contents:
            _refill(held, content)

    return restore


class replaced:  # noqa: N801 - a context, called like a function
    """Set an instance's attribute for the duration of the block, past any tracking of attributes."""

    def __init__(self, holder: object, name: str, value: object) -> None:
        self._attributes, self._name, self._value = vars(holder), name, value
        self._before = self._attributes.get(name, _ABSENT)

    def __enter__(self) -> None:
        self._attributes[self._name] = self._value

    def __exit__(self, *_: object) -> None:
        if self._attributes.get(self._name) is not self._value:
            return  # already restored, together with all others
        if self._before is _ABSENT:
            self._attributes.pop(self._name, None)
        else:
            self._attributes[self._name] = self._before


def inside(value: object) -> object:
    """Give the attributes of a dataclass: its tensors are swapped and restored like those in a dict."""
    if not hasattr(type(value), "__dataclass_fields__"):
        return value
    attributes = getattr(value, "__dict__", None)
    return attributes if type(attributes) is dict else value


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else list(value)


def _refill(container: Any, content: Any) -> None:
    """Put a container's content back, in place: others may hold the same container."""
    if _same_content(container, content):
        return
    # The builtin's own methods: a framework's tracked containers may refuse to change.
    if isinstance(container, dict):
        # An OrderedDict keeps its order beside the dict that it is.
        builtin = OrderedDict if isinstance(container, OrderedDict) else dict
        builtin.clear(container)
        builtin.update(container, content)
    elif isinstance(container, set):
        set.clear(container)
        set.update(container, content)
    else:
        list.__setitem__(container, slice(None), content)


def _same_content(container: Any, content: Any) -> bool:
    if len(container) != len(content):
        return False
    if isinstance(container, dict):
        is_alike = [*container] == [*content]
        return is_alike and all(map(is_, container.values(), content.values()))
    if isinstance(container, set):
        return container == set(content)
    return all(map(is_, container, content))
