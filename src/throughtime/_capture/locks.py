"""One lock for each model: a pass changes its layers until it ends, which a second pass must not see."""

import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_locks: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def lock_of(model: Any) -> AbstractContextManager[object]:
    """Return the reentrant lock of a model."""
    try:
        with _guard:
            lock: AbstractContextManager[object] = _locks.setdefault(model, threading.RLock())
            return lock
    except TypeError:  # an object of another library that cannot be a key
        return nullcontext()
