"""What happens to a layer's states between two steps: resets, masks, and what goes back. (time, sample)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from .changes import Change
from .loop import Loop
from .scan import State
from .taps import Seen


def transitions(loop: Loop, seen: Seen, lengths: Any) -> dict[str, Any]:
    """Find where a state enters that the step before did not hand out, and where a step counts.

    Parameters
    ----------
    lengths : array (sample) or None
        Of the sequences.
    """
    never = jnp.zeros(seen.values[loop.shown[0].key].shape[0], bool)
    replaced, masked = never[:, None], [*_masked(loop, seen)]
    for state in loop.shown:
        if (change := state.changes.on_entry) is not None:
            replaced |= _none(loop, state, kept(change, seen))
        if (change := state.changes.on_exit) is not None:
            replaced |= _later(loop, _none(loop, state, kept(change, seen)))
    first = jnp.arange(loop.length) == (loop.length - 1 if loop.reverse else 0)
    valid = ~jnp.stack(masked).all(0) if len(masked) == len(loop.shown) else ~never[:, None]
    if lengths is not None:
        valid &= jnp.arange(loop.length)[:, None] < lengths
    return {"reset": replaced & ~first[:, None], "valid": valid}


def _masked(loop: Loop, seen: Seen) -> Iterator[Any]:
    for state in loop.shown:
        if state.changes.mask is not None:
            yield _none(loop, state, kept(state.changes.mask, seen))


def carried(loop: Loop, seen: Seen, state: State, gradient: Any) -> Any:
    """Norm of what each step is handed back for its state by the next, from what the next hands back."""
    back = handed_back(loop, seen, state, gradient)
    kept_axes = (0,) if state.axis is None else (0, state.axis + 1)
    axes = tuple(axis for axis in range(back.ndim) if axis not in kept_axes)
    norms = jnp.sqrt(jnp.sum(jnp.square(back), axes))
    return norms[:, None] if state.axis is None else norms


def handed_back(loop: Loop, seen: Seen, state: State, gradient: Any) -> Any:
    """Move a gradient with respect to what entered a step to the step that handed it out."""
    nothing = jnp.zeros_like(gradient[:1])
    parts = [nothing, gradient[:-1]] if loop.reverse else [gradient[1:], nothing]
    return jnp.concatenate(parts) * on_exit(seen, state)


def on_exit(seen: Seen, state: State) -> Any:
    """Give what a state is multiplied by between the step that made it and the next; 1 without a reset."""
    change = state.changes.on_exit
    if change is None:
        return 1
    factor = kept(change, seen).astype(seen.values[state.key].dtype)
    return factor.reshape(-1, *(1,) * (seen.values[state.key].ndim - 1)) if factor.ndim == 1 else factor


def kept(change: Change, seen: Seen) -> Any:
    """Give where a state stays, or what it is multiplied by, (time, …)."""
    return change.keeps(seen.values[change.key])


def _none(loop: Loop, state: State, factor: Any) -> Any:
    """Whether nothing of a sample's state stays."""
    gone = factor == 0
    if gone.ndim == 1 or state.axis is None:
        return gone.reshape(loop.length, -1).all(1)[:, None]
    return gone.all(tuple(axis for axis in range(1, gone.ndim) if axis != state.axis + 1))


def _later(loop: Loop, values: Any) -> Any:
    """Move what is known of a step to the next one."""
    parts = [values[1:], values[:1]] if loop.reverse else [values[-1:], values[:-1]]
    return jnp.concatenate(parts)
