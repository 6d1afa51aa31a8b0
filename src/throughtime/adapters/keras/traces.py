"""Keeps what was traced of each model: the few traces used last, until the model is freed."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Trace = TypeVar("Trace")
_MOST = 8  # per model; a loop over many batch shapes must not pile up compiled programs


class Traces(Generic[Trace]):
    """Traces by model and key; what they hold must not hold the model."""

    def __init__(self) -> None:
        self._kept: weakref.WeakKeyDictionary[Any, OrderedDict[Any, Trace]] = weakref.WeakKeyDictionary()

    def get(
        self,
        model: Any,
        key: Any,
        make: Callable[[], Trace],
        is_current: Callable[[Trace], bool] = lambda _: True,
    ) -> Trace:
        """Return the trace of a key; make it where there is none yet, or one that is current no longer."""
        kept = self._kept.setdefault(model, OrderedDict())
        if key not in kept or not is_current(kept[key]):
            kept[key] = make()
        kept.move_to_end(key)
        while len(kept) > _MOST:
            kept.popitem(last=False)
        return kept[key]

    def set(self, model: Any, key: Any, trace: Trace) -> None:
        """Put a trace in the place of the one that `get` returned."""
        self._kept[model][key] = trace


def weakly(thing: Any) -> Callable[[], Any]:
    """Refer to something that may hold the model: a trace must not keep the model alive through it."""
    try:
        return weakref.ref(thing)
    except TypeError:  # None, a string, or an object that cannot be referred to weakly
        return lambda: thing
