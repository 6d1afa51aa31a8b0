"""What happens to a layer's states between two steps: resets, masks, and what goes back. (time, sample)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .changes import Change
from .loop import Loop
from .scan import State
from .taps import Seen


def transitions(loop: Loop, seen: Seen, lengths: Any) -> dict[str, Any]:
    """Find where a state enters that the step before did not hand out, and where a step counts."""

    def gone(state: State, change: Change) -> Any:
        """Whether nothing of a sample's state stays."""
        factor = change.keeps(seen.values[change.key]) == 0
        if factor.ndim == 1 or state.axis is None:
            return factor.reshape(loop.length, -1).all(1)[:, None]
        return factor.all(tuple(axis for axis in range(1, factor.ndim) if axis != state.axis + 1))

    first = jnp.arange(loop.length)[:, None] == (loop.length - 1) * loop.reverse
    never = replaced = first & False
    for state in loop.shown:
        if state.changes.on_entry is not None:
            replaced |= gone(state, state.changes.on_entry) & ~first
        if state.changes.on_exit is not None:
            replaced |= _moved(loop, gone(state, state.changes.on_exit), 1)
    valid = [gone(state, state.changes.mask) for state in loop.shown if state.changes.mask is not None]
    masked = jnp.stack(valid).all(0) if len(valid) == len(loop.shown) else never
    late = never if lengths is None else jnp.arange(loop.length)[:, None] >= lengths
    return {"reset": replaced, "valid": ~(masked | late)}


def carried(loop: Loop, seen: Seen, state: State, gradient: Any) -> Any:
    """Norm of what each step is handed back for its state, from what the next one hands back."""
    back = _moved(loop, gradient, -1) * on_exit(seen, state)
    kept = (0,) if state.axis is None else (0, state.axis + 1)
    norms = jnp.sqrt(jnp.sum(jnp.square(back), tuple(axis for axis in range(back.ndim) if axis not in kept)))
    return norms[:, None] if state.axis is None else norms


def on_exit(seen: Seen, state: State) -> Any:
    """Give what a state is multiplied by between the step that made it and the next; 1 without a reset."""
    change, values = state.changes.on_exit, seen.values[state.key]
    if change is None:
        return jnp.ones((len(values), *(1,) * (values.ndim - 1)), values.dtype)
    factor = change.keeps(seen.values[change.key]).astype(values.dtype)
    return factor.reshape(*factor.shape, *(1,) * (values.ndim - factor.ndim))


def _moved(loop: Loop, values: Any, steps: int) -> Any:
    """Move values by one step, in the loop's own order; nothing at the end that is left over."""
    nothing = jnp.zeros_like(values[:1])
    is_later = (steps > 0) != loop.reverse
    return jnp.concatenate([nothing, values[:-1]] if is_later else [values[1:], nothing])
