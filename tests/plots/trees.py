"""Synthetic captures of every kind that a picture has to cope with."""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime import testing
from throughtime._capture.label import label_axes
from throughtime.picture import Picture


def heading(picture: Picture) -> str:
    """All that stands above a picture."""
    return f"{picture.title} · {picture.subtitle}"


def with_steps() -> xr.DataTree:
    """Build a stored run: three training steps, irregularly spaced."""
    rates = {0: 0.3, 10: 0.6, 200: 0.9}
    leaves = [
        testing.bidirectional((rate, 0.5), samples=2, steps=20)["rnn"].to_dataset() for rate in rates.values()
    ]
    steps = xr.DataArray(list(rates), dims="step", name="step")
    return xr.DataTree.from_dict({"/rnn": xr.concat(leaves, dim=steps, data_vars="all")})


def all_zero() -> xr.DataTree:
    leaf = testing.constant_gates(samples=2)["rnn"].to_dataset().copy(deep=True)
    for name in leaf.data_vars:
        if str(name).endswith("_gradient") or name == "step_contribution":
            leaf[name] = xr.zeros_like(leaf[name])
    return xr.DataTree.from_dict({"/rnn": leaf})


def nothing_finite(value: float = np.nan) -> xr.DataTree:
    """Build a capture in which every number is NaN, except its certificate."""
    leaf = testing.constant_gates(samples=2)["rnn"].to_dataset().copy(deep=True)
    for name, values in leaf.data_vars.items():
        if values.dtype.kind == "f" and "certificate" not in str(name):
            leaf[name] = xr.full_like(values, value)
    return xr.DataTree.from_dict({"/rnn": leaf})


def odd_labels() -> xr.DataTree:
    """Build a capture with dates that have gaps, and with long, equal and pictorial names of samples."""
    tree = testing.saturated_gates(left=0.25, right=0.5, steps=5, samples=3)
    days = np.array(["2024-02-27", "2024-02-28", "2024-03-04", "2024-03-05", "2024-03-06"], "datetime64[ns]")
    label_axes(tree, {"time": days, "sample": ["a" * 200, "a" * 200, "🙂" * 40]})
    return tree


TREES = {
    "one direction": lambda: testing.constant_gates(samples=3),
    "two directions": lambda: testing.bidirectional(samples=6),
    "masked": testing.with_masks,
    "masked before": lambda: testing.with_masks(padding="before"),
    "NaN": lambda: testing.nonfinite("cell"),
    "infinite": lambda: testing.nonfinite("cell_gradient", value=np.inf),
    "one sample": lambda: testing.constant_gates(kind="gru"),
    "one unit": lambda: testing.constant_gates(units=1, samples=5),
    "2,000 units": lambda: testing.decaying(units=2000),
    "one step": lambda: testing.constant_gates(steps=1, samples=2),
    "10,000 steps": lambda: testing.decaying(rate=0.999, steps=10_000),
    "training steps": with_steps,
    "exploding": lambda: testing.exploding(rate=3.0, samples=2, steps=300),
    "all zero": all_zero,
    "all NaN": nothing_finite,
    "all infinite": lambda: nothing_finite(np.inf),
    "odd labels": odd_labels,
    "lag matrix": lambda: testing.lag_matrix_of(samples=2, steps=12),
    "lag matrix, backward": lambda: testing.lag_matrix_of(samples=2, steps=12, direction="backward"),
}
