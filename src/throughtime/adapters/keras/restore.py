"""Leaves a model as it was found: whatever a forward pass writes on Python objects is taken back.

Variables need no restoring, the probe runs in a `StatelessScope` that swallows every assignment; what is
left are attributes (dropout masks, collected losses, a compiled loss that builds itself) and the
process's random states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from throughtime._random_states import random_states_restored

from .internals import compiled_loss, every_layer, global_names_restored


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Take back every attribute written inside the block, also when it raises or is interrupted."""
    with ExitStack() as stack:
        stack.enter_context(global_names_restored())
        stack.enter_context(random_states_restored())
        for holder in _holders(model):
            stack.enter_context(_attributes_restored(holder))
        yield


def _holders(model: Any) -> list[Any]:
    """Objects on which a forward pass and its loss may write."""
    loss = compiled_loss(model)
    tracked = [loss, getattr(loss, "_tracker", None)] if loss is not None else []
    return [*every_layer(model), *(holder for holder in tracked if holder is not None)]


@contextmanager
def _attributes_restored(holder: Any) -> Iterator[None]:
    attributes = vars(holder)
    before = dict(attributes)
    contents = {name: _copy(value) for name, value in before.items() if _is_builtin_container(value)}
    try:
        yield
    finally:
        # Straight into the dictionary: setting attributes would pass through Keras' tracking.
        if attributes.keys() != before.keys() or any(attributes[name] is not before[name] for name in before):
            attributes.clear()
            attributes.update(before)
        for name, content in contents.items():
            _refill(before[name], content)


def _is_builtin_container(value: Any) -> bool:
    return isinstance(value, (list, dict, set))


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else list(value)


def _refill(container: Any, content: Any) -> None:
    """Put a container's content back, in place: others may hold the same container."""
    if _same_content(container, content):
        return
    # The builtin's own methods, since Keras' tracked containers refuse to change once a layer is built.
    if isinstance(container, dict):
        dict.clear(container)
        dict.update(container, content)
    elif isinstance(container, set):
        set.clear(container)
        set.update(container, content)
    else:
        list.__setitem__(container, slice(None), content)


def _same_content(container: Any, content: Any) -> bool:
    if len(container) != len(content):
        return False
    if isinstance(container, dict):
        return all(container.get(key, _same_content) is value for key, value in content.items())
    if isinstance(container, set):
        return container == set(content)
    return all(now is before for now, before in zip(container, content, strict=True))


@contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Set an instance's attribute for the duration of the block, past any tracking of attributes."""
    attributes = vars(holder)
    existed, before = name in attributes, attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        if existed:
            attributes[name] = before
        else:
            attributes.pop(name, None)
