"""Recorded training steps of a tree with a `step` dim: which there are, and one of them, read alone.

Knows nothing of where a run is stored; a run larger than memory is read one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import xarray as xr

from throughtime._errors import SchemaError

STEP = "step"


def recorded_steps(tree: xr.DataTree) -> list[int]:
    """List the training steps of a run; empty for a capture.

    Examples
    --------
    >>> from throughtime import testing
    >>> leaf = testing.decaying()["rnn"].to_dataset()
    >>> run = xr.DataTree.from_dict({"/rnn": xr.concat([leaf, leaf], xr.DataArray([0, 50], dims="step"))})
    >>> recorded_steps(run), recorded_steps(testing.decaying())
    ([0, 50], [])
    """
    for node in tree.subtree:
        leaf = node.to_dataset()
        if STEP in leaf.coords and leaf[STEP].ndim:
            return [int(step) for step in leaf[STEP].values]
    return []


def place_of(steps: list[int], step: int | None) -> int:
    """Find where a training step stands; the last one where none is asked for.

    Raises
    ------
    SchemaError
        It was not recorded; the nearest one is named.
    """
    if not steps:
        raise SchemaError("The run holds no step yet.")
    if step is not None and step not in steps:
        nearest = min(steps, key=lambda each: abs(each - step))
        raise SchemaError(f"Step {step} was not recorded; the nearest is {nearest}, of {len(steps)}.")
    return len(steps) - 1 if step is None else steps.index(step)


def at_place(
    tree: xr.DataTree, place: int, wanted: Callable[[xr.Dataset], Iterable[str]] | None = None
) -> xr.DataTree:
    """Read one record of a run: a capture, or what of one was stored.

    Parameters
    ----------
    place : int
        Among the recorded steps.
    wanted : callable (Dataset) -> names, optional
        Which variables of a layer are read; all of them unless given.
    """
    leaves = {}
    for leaf in tree.leaves:
        dataset = leaf.to_dataset()
        dataset = dataset if wanted is None else dataset[list(wanted(dataset))]
        one = dataset.isel({STEP: place}) if STEP in dataset.dims else dataset
        leaves[leaf.path] = one.drop_vars(STEP, errors="ignore").load()
    found = xr.DataTree.from_dict(leaves)
    found.attrs.update(tree.attrs)
    return found


def evenly(count: int, most: int) -> list[int]:
    """Choose places evenly, the first and the last among them.

    Examples
    --------
    >>> evenly(100, 4), evenly(3, 4)
    ([0, 33, 66, 99], [0, 1, 2])
    """
    return [int(place) for place in np.linspace(0, count - 1, min(count, most)).round()]
