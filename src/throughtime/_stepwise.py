"""Solves calls of a cell in a user's own loop: each is a pass of one step, from state to state.

What the loop does between the calls is in the gradients that the framework gave for the states handed out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from throughtime import _schema, cells
from throughtime._record import Array, DirectionRecord, SolvedRecord

# What a pass has for each step, and once for each sample.
_EACH_STEP = ("inputs", "hidden", "output_gradient")
_ONCE = ("initial_hidden", "initial_cell", "final_hidden_gradient", "final_cell_gradient")


def solve(layer: cells.Layer, passed: cells.Pass, needed: frozenset[str]) -> dict[str, Array]:
    """Do what `cells.solve` does for steps that stand apart.

    Parameters
    ----------
    layer : cells.Layer
    passed : cells.Pass
        Initial states and final gradients have a time axis, (sample, time, unit).
    needed : frozenset of str

    Returns
    -------
    dict of ndarray
        As `cells.solve` returns it; initial states are those of the first step.
    """
    solved = cells.solve(layer, _apart(passed), needed)
    samples = len(passed.hidden)
    return {name: _together(name, array, samples) for name, array in solved.items()}


def initial(direction: DirectionRecord | SolvedRecord) -> tuple[Array | None, ...]:
    """Take the states before the first step."""
    if isinstance(direction, DirectionRecord) and direction.is_stepwise:
        return tuple(None if state is None else state[:, 0] for state in direction.initial)
    return direction.initial


def _apart(passed: cells.Pass) -> cells.Pass:
    """Make each step of each sample a sample of its own, of one step."""
    changed: dict[str, Any] = {}
    for name in (*_EACH_STEP, *_ONCE):
        array = getattr(passed, name)
        steps = (1,) if name in _EACH_STEP else ()
        changed[name] = None if array is None else array.reshape(-1, *steps, array.shape[-1])
    return replace(passed, **changed)


def _together(name: str, array: Array, samples: int) -> Array:
    """Give samples all their steps again; what is summed over both stays as it is."""
    if name.removesuffix("_gradient") in _schema.WEIGHTS:
        return array
    if name.startswith("initial_"):
        first: Array = array.reshape(samples, -1, array.shape[-1])[:, 0]
        return first
    return array.reshape(samples, -1, *array.shape[2:])
