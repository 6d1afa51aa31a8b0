"""R(k) of each direction of each layer at many lags: what a plot of all layers draws."""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._errors import ThroughTimeError
from throughtime._tree import at_place, evenly, recorded_steps

from . import integrity, measure
from .layers import by_direction, recurrent
from .recorded import SUMMARY, as_captured, level

_MOST_LAGS = 128


def profiles(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Measure R(k) by layer, as the verdict does: of error that enters at one step, the last record of a run.

    Returns
    -------
    dict of str to Dataset (lag)
        `ratio`, the median over samples, with `low` and `high`; without the layers that cannot be measured.

    Examples
    --------
    >>> from throughtime import testing
    >>> profiles(testing.decaying(rate=0.5))["rnn"]["ratio"].values[:3]
    array([1.  , 0.5 , 0.25])
    """
    steps = recorded_steps(tree)
    last = at_place(tree, len(steps) - 1) if steps else tree
    leaves = {path: leaf.compute() for path, leaf in recurrent(last).items()}
    if not any(level(leaf) == SUMMARY for leaf in leaves.values()):
        leaves = integrity.rounded({path: as_captured(leaf) for path, leaf in leaves.items()})[0]
    found = {}
    for path, leaf in by_direction(leaves).items():
        try:
            profile = _of_summary(leaf) if "lag_ratio" in leaf else _of_samples(leaf)
        except ThroughTimeError:  # a failed certificate, or a layer without gradients
            continue
        if profile["ratio"].notnull().sum() > 1:
            found[path] = profile
    return found


def _of_samples(leaf: xr.Dataset) -> xr.Dataset:
    alone, _ = measure.at_one_step(leaf)
    longest = measure.signal(alone).longest
    return measure.reach_curve(alone, [int(lag) for lag in evenly(longest + 1, _MOST_LAGS)])


def _of_summary(leaf: xr.Dataset) -> xr.Dataset:
    ratio = leaf["lag_ratio"]
    ends = {end: leaf.get(f"lag_ratio_{end}", xr.full_like(ratio, np.nan)) for end in ("low", "high")}
    return xr.Dataset({"ratio": ratio, **ends}).assign_coords(lag=np.arange(ratio.sizes["lag"]))
