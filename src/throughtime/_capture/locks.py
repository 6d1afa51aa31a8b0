"""One lock a model: a pass changes the model's layers until it ends, which a second one must not see."""

from __future__ import annotations

import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_locks: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def lock_of(model: Any) -> AbstractContextManager[object]:
    """Return the lock of a model, which the thread that has it may take again."""
    try:
        with _guard:
            lock: AbstractContextManager[object] = _locks.setdefault(model, threading.RLock())
            return lock
    except TypeError:  # an object of another library that nothing can be remembered by
        return nullcontext()
