"""Leaves a model as it was found: whatever a forward pass writes on Python objects is taken back.

`variables.values_restored` does so for variables.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from throughtime._data.random_states import random_state_restorers
from throughtime._data.restoring import Restored, Restorer
from throughtime.adapters.attributes import attributes_restorer
from throughtime.adapters.keras.layers import every_layer

from .internals import (
    compiled_loss,
    process_generators,
    random_generators,
    tracked_containers,
)


def untouched(model: Any) -> Restored:
    """Take back every attribute written inside the block, also when it raises or is interrupted."""
    return Restored(
        [
            *random_state_restorers(),
            *(partial(each.setstate, each.getstate()) for each in process_generators(model)),
            *map(attributes_restorer, _holders(model)),
            # Listed last and so restored first: what the layers' attributes then hold is as it was.
            *map(_container_restorer, tracked_containers(model)),
        ]
    )


def _container_restorer(container: Any) -> Restorer:
    """Remember what a tracked list or dict holds, and what it remembers of that for checkpoints."""
    if isinstance(container, list):
        return attributes_restorer(container)
    remembered, wrapped = container._self_last_wrapped_dict_snapshot, container.__wrapped__
    content = dict(wrapped)

    def restore() -> None:
        wrapped.clear()
        wrapped.update(content)
        container._self_last_wrapped_dict_snapshot = remembered

    return restore


def _holders(model: Any) -> list[Any]:
    """Objects on which a forward pass and its loss may write."""
    layers = every_layer(model)
    held = [*layers, *(layer._thread_local for layer in layers), *random_generators(model)]
    held += [compiled_loss(model), *getattr(model, "metrics", ())]
    return [holder for holder in held if hasattr(holder, "__dict__")]
