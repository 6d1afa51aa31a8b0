"""Work on a layer that several measures share, done once within a diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Made = TypeVar("Made")
_known: ContextVar[dict[Any, Any] | None] = ContextVar("known", default=None)


@contextmanager
def remembered() -> Iterator[None]:
    """Check and order each layer only once; meanwhile, layers must not change."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def once(make: Callable[[Any], Made], layer: Any) -> Made:
    """Return `make(layer)`, within `remembered` the same object for the same layer."""
    known = _known.get()
    if known is None:
        return make(layer)
    key = make, id(layer)
    if key not in known:
        known[key] = layer, make(layer)  # the layer as well, so that no other gets its id
    made: Made = known[key][1]
    return made
