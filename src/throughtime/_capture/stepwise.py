"""Solves a layer or cell that a loop calls repeatedly: each call is a pass from state to state.

The gradients of the framework for the returned states include all operations between the calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from throughtime import _vocabulary, cells
from throughtime.adapters.records import Array, DirectionRecord, LayerRecord, SolvedRecord

_CARRYING = frozenset({"hidden_gradient", "cell_gradient", "gate_activation"})
# Fields of a pass with steps, and fields without.
_EACH_STEP = ("inputs", "hidden", "output_gradient")
_ONCE = ("initial_hidden", "initial_cell", "final_hidden_gradient", "final_cell_gradient")


def solve(
    layer: cells.Layer, passed: cells.Pass, needed: frozenset[str], windows: Sequence[int]
) -> dict[str, Array]:
    """Solve separate calls as `cells.solve` solves one.

    Parameters
    ----------
    layer : cells.Layer
    passed : cells.Pass
        Initial states and final gradients have an axis of calls, (sample, call, unit).
    needed : frozenset of str
    windows : sequence of int
        Steps of each call; empty for a single call, for which this is `cells.solve`.

    Returns
    -------
    dict of ndarray
        As `cells.solve` returns it; initial states are those of the first call.
    """
    if not windows:
        return cells.solve(layer, passed, needed)
    lengths = np.asarray(windows)
    ends = np.cumsum(lengths)
    found: dict[str, Array] = {}
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        steps = ((ends[chosen] - length)[:, None] + np.arange(length)).ravel()
        solved = cells.solve(layer, _apart(passed, chosen, steps), needed)
        for name, array in solved.items():
            _put(found, name, array, chosen, steps, passed.hidden.shape[:2])
    return found


def carrying(leaf: LayerRecord, direction: DirectionRecord) -> frozenset[str]:
    """List the quantities that `carried` needs; none if no call has a second step."""
    has_calls = "carried_by_state" in leaf.arrays and max(direction.windows, default=1) > 1
    return _CARRYING if has_calls else frozenset()


def carried(leaf: LayerRecord, direction: DirectionRecord, solved: Mapping[str, Array]) -> dict[str, Array]:
    """Add the gradient from step to step within each call, if a call has a second step.

    Parameters
    ----------
    leaf : LayerRecord
        `carried_by_state` (sample, time, state) is the gradient from call to call.
    direction : DirectionRecord
    solved : mapping of str to ndarray
        The quantities of `carrying`.
    """
    if not carrying(leaf, direction):
        return {}
    across = leaf.arrays["carried_by_state"]
    back = solved["hidden_gradient"].copy()
    if direction.output_gradient is not None:
        back -= direction.output_gradient
    sizes = [np.linalg.norm(back, axis=-1)]
    if "cell_gradient" in solved:
        forget = solved["gate_activation"][:, :, _vocabulary.GATES["lstm"].index("forget")]
        later = np.linalg.norm(solved["cell_gradient"] * forget, axis=-1)
        sizes.append(np.concatenate([later[:, 1:], later[:, :1]], 1))
    found = np.stack(sizes, -1).astype(across.dtype)
    ends = np.cumsum(direction.windows) - 1
    found[:, ends] = across[:, ends]
    return {"carried_by_state": found, "carried_gradient": np.sqrt(np.square(found).sum(-1))}


def initial(direction: DirectionRecord | SolvedRecord) -> tuple[Array | None, ...]:
    """Return the states before the first step."""
    if isinstance(direction, DirectionRecord) and direction.windows:
        return tuple(None if state is None else state[:, 0] for state in direction.initial)
    return direction.initial


def _apart(passed: cells.Pass, chosen: Array, steps: Array) -> cells.Pass:
    """Convert each of several calls of each sample to a separate sample."""
    changed: dict[str, Any] = {}
    for name in (*_EACH_STEP, *_ONCE):
        array = getattr(passed, name)
        if array is None:
            continue
        taken = array[:, chosen if name in _ONCE else steps]
        of_call = () if name in _ONCE else (len(steps) // len(chosen),)
        changed[name] = taken.reshape(-1, *of_call, array.shape[-1])
    return replace(passed, **changed)


def _put(
    found: dict[str, Array], name: str, array: Array, chosen: Array, steps: Array, sizes: tuple[int, ...]
) -> None:
    """Restore the steps of each sample; sums over both are added."""
    samples, time = sizes
    if name.removesuffix("_gradient") in _vocabulary.WEIGHTS:
        found[name] = array + found[name] if name in found else array
    elif name.startswith("initial_"):
        if chosen[0] == 0:
            found[name] = array.reshape(samples, -1, array.shape[-1])[:, 0]
    else:
        of_samples = array.reshape(samples, -1, *array.shape[2:])
        whole = found.setdefault(name, np.empty((samples, time, *array.shape[2:]), array.dtype))
        whole[:, steps] = of_samples
