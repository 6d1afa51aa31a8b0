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
from throughtime.adapters.attributes import attributes_restored

from .internals import compiled_loss, every_layer, global_names_restored


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Take back every attribute written inside the block, also when it raises or is interrupted."""
    with ExitStack() as stack:
        stack.enter_context(global_names_restored())
        stack.enter_context(random_states_restored())
        for holder in _holders(model):
            stack.enter_context(attributes_restored(holder))
        yield


def _holders(model: Any) -> list[Any]:
    """Objects on which a forward pass and its loss may write."""
    loss = compiled_loss(model)
    tracked = [loss, getattr(loss, "_tracker", None)] if loss is not None else []
    return [*every_layer(model), *(holder for holder in tracked if holder is not None)]
