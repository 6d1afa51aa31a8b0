"""Solves a layer or cell that a loop calls again and again: each call is a pass, from state to state.

What the loop does between the calls is in the gradients that the framework gave for the states handed out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from throughtime import _schema, cells
from throughtime._record import Array, DirectionRecord, SolvedRecord

CARRYING = frozenset({"hidden_gradient", "cell_gradient", "gate_activation"})
# What a pass has for each step, and once for each sample.
_EACH_STEP = ("inputs", "hidden", "output_gradient")
_ONCE = ("initial_hidden", "initial_cell", "final_hidden_gradient", "final_cell_gradient")


def solve(
    layer: cells.Layer, passed: cells.Pass, needed: frozenset[str], windows: Sequence[int]
) -> dict[str, Array]:
    """Do what `cells.solve` does for calls that stand apart.

    Parameters
    ----------
    layer : cells.Layer
    passed : cells.Pass
        Initial states and final gradients have an axis of calls, (sample, call, unit).
    needed : frozenset of str
    windows : sequence of int
        Steps of each call.

    Returns
    -------
    dict of ndarray
        As `cells.solve` returns it; initial states are those of the first call.
    """
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


def carried(
    across: Array, passed: cells.Pass, solved: Mapping[str, Array], windows: Sequence[int]
) -> dict[str, Array]:
    """Add what goes back from step to step within each call.

    Parameters
    ----------
    across : ndarray (sample, time, state)
        What goes back from call to call, at the last step of each.
    passed, solved, windows
        See `solve`; what `CARRYING` names has been solved.
    """
    back = solved["hidden_gradient"].copy()
    if passed.output_gradient is not None:
        back -= passed.output_gradient
    sizes = [np.linalg.norm(back, axis=-1)]
    if "cell_gradient" in solved:
        forget = solved["gate_activation"][:, :, _schema.GATES["lstm"].index("forget")]
        later = np.linalg.norm(solved["cell_gradient"] * forget, axis=-1)
        sizes.append(np.concatenate([later[:, 1:], later[:, :1]], 1))
    found = np.stack(sizes, -1).astype(across.dtype)
    ends = np.cumsum(windows) - 1
    found[:, ends] = across[:, ends]
    return {"carried_by_state": found, "carried_gradient": np.sqrt(np.square(found).sum(-1))}


def initial(direction: DirectionRecord | SolvedRecord) -> tuple[Array | None, ...]:
    """Take the states before the first step."""
    if isinstance(direction, DirectionRecord) and direction.windows:
        return tuple(None if state is None else state[:, 0] for state in direction.initial)
    return direction.initial


def _apart(passed: cells.Pass, chosen: Array, steps: Array) -> cells.Pass:
    """Make each of some calls of each sample a sample of its own."""
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
    """Give samples all their steps again; what is summed over both is added up."""
    samples, time = sizes
    if name.removesuffix("_gradient") in _schema.WEIGHTS:
        found[name] = array + found[name] if name in found else array
    elif name.startswith("initial_"):
        if chosen[0] == 0:
            found[name] = array.reshape(samples, -1, array.shape[-1])[:, 0]
    else:
        of_samples = array.reshape(samples, -1, *array.shape[2:])
        whole = found.setdefault(name, np.empty((samples, time, *array.shape[2:]), array.dtype))
        whole[:, steps] = of_samples
