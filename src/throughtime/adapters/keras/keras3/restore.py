"""Leaves a model as it was found: whatever a forward pass writes on Python objects is taken back.

Variables need no restoring, the probe runs in a `StatelessScope` that swallows every assignment; what is
left are attributes (dropout masks, collected losses, a compiled loss that builds itself) and the
process's random states.
"""

from __future__ import annotations

from typing import Any

from throughtime._data.random_states import random_state_restorers
from throughtime._data.restoring import Restored
from throughtime.adapters.attributes import attributes_restorer
from throughtime.adapters.keras.layers import every_layer

from .internals import global_state_of_this_thread
from .loss import compiled_losses


def untouched(model: Any) -> Restored:
    """Take back every attribute written inside the block, also when it raises or is interrupted.

    Keras' own global state is put back as well: name counters, and scopes that an interrupt leaves open.
    """
    holders = [global_state_of_this_thread(), *_holders(model)]
    return Restored([*random_state_restorers(), *map(attributes_restorer, holders)])


def _holders(model: Any) -> list[Any]:
    """Objects on which a forward pass and its loss may write."""
    loss = compiled_losses(model)
    tracked = [loss, getattr(loss, "_tracker", None)] if loss is not None else []
    return [*every_layer(model), *(holder for holder in tracked if holder is not None)]
