"""Keeps what was traced for a model: it is freed with the model, and the latest few are kept."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from .batches import shapes
from .dialect import Dialect
from .library import plain_settings
from .loss import Loss

Trace = TypeVar("Trace")
_MOST = 8  # per model; a loop over many batch shapes must not pile up compiled programs


class Traces(Generic[Trace]):
    """Traces of any model, each for a loss, shapes of a batch and settings; they must not hold the model."""

    def __init__(self) -> None:
        self._kept: weakref.WeakKeyDictionary[Any, OrderedDict[Hashable, tuple[Callable[[], Any], Trace]]] = (
            weakref.WeakKeyDictionary()
        )

    def get(self, keras: Dialect, loss: Loss, data: Any, asked: Hashable, make: Callable[[], Trace]) -> Trace:
        """Return the trace for a loss, with its model, and a batch; make it where there is none yet.

        Parameters
        ----------
        asked
            What else a trace depends on.
        """
        identity, model = loss.identity, loss.model
        name = identity if isinstance(identity, str) else id(identity)
        key = name, shapes(keras, data), keras.execution(model), plain_settings(model), asked
        kept = self._kept.setdefault(model, OrderedDict())
        # An identity may become another object's.
        if key not in kept or kept[key][0]() is not identity:
            kept[key] = weakly(identity), make()
        kept.move_to_end(key)
        while len(kept) > _MOST:
            kept.popitem(last=False)
        return kept[key][1]


def weakly(thing: Any) -> Callable[[], Any]:
    """Refer to something that may hold the model: a trace must not keep the model alive through it."""
    try:
        return weakref.ref(thing)
    except TypeError:  # None, a string, or an object that cannot be referred to weakly
        return lambda: thing
