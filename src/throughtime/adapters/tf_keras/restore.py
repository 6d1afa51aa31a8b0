"""Leaves a model as it was found: whatever a forward pass writes on Python objects is taken back.

`variables.values_restored` does so for variables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from throughtime._random_states import random_states_restored
from throughtime.adapters.attributes import attributes_restored

from .internals import (
    compiled_loss,
    every_layer,
    process_generators,
    random_generators,
    tracked_containers,
)


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Take back every attribute written inside the block, also when it raises or is interrupted."""
    with ExitStack() as stack:
        stack.enter_context(random_states_restored())
        for generator in process_generators(model):
            stack.callback(generator.setstate, generator.getstate())
        for holder in _holders(model):
            stack.enter_context(attributes_restored(holder))
        # Left last and so restored first: what the layers' attributes then hold is as it was.
        for container in tracked_containers(model):
            stack.enter_context(_container_restored(container))
        yield


@contextmanager
def _container_restored(container: Any) -> Iterator[None]:
    """Put back what a tracked list or dict holds, and what it remembers of that for checkpoints."""
    if isinstance(container, list):
        with attributes_restored(container):
            yield
        return
    remembered, wrapped = container._self_last_wrapped_dict_snapshot, container.__wrapped__
    content = dict(wrapped)
    try:
        yield
    finally:
        wrapped.clear()
        wrapped.update(content)
        container._self_last_wrapped_dict_snapshot = remembered


def _holders(model: Any) -> list[Any]:
    """Objects on which a forward pass and its loss may write."""
    layers = every_layer(model)
    held = [*layers, *(layer._thread_local for layer in layers), *random_generators(model)]
    held += [compiled_loss(model), *getattr(model, "metrics", ())]
    return [holder for holder in held if hasattr(holder, "__dict__")]
