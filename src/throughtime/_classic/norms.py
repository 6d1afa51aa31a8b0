"""The `norm` argument of `show_features_2D`: how values become colours, in one range or several."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import Normalize

from throughtime._arguments.rules import Rule, rising
from throughtime._classic.data import Features, Values
from throughtime._classic.look import short
from throughtime._drawing.scale import largest_magnitude


def _norm(value: Any) -> Any:
    is_ready = value is None or isinstance(value, Normalize) or (isinstance(value, str) and value == "auto")
    return value if is_ready else rising.take(value)


NORM = Rule(
    _norm,
    "'auto' (a range for each panel), None (one range for all panels), (low, high) with low < high, or a "
    "matplotlib norm such as SymLogNorm(1e-6)",
)


@dataclass(frozen=True)
class PanelNorms:
    """The norm of all panels, or None if each panel has a separate symmetric range."""

    shared: Normalize | None
    words: str
    limited: bool = False  # values may lie outside

    def of(self, values: Values) -> Normalize:
        return self.shared or symmetric(values)


def norms(norm: Any, values: Values) -> PanelNorms:
    if norm is None:
        return PanelNorms(symmetric(values), range_of(values))
    if isinstance(norm, str):
        return PanelNorms(None, "each panel its own range")
    if isinstance(norm, Normalize):
        shared = copy.deepcopy(norm)  # scaling would change the caller's norm
        shared.autoscale_None(values[np.isfinite(values)])
        return PanelNorms(shared, f"{type(norm).__name__} {_span(shared)}", limited=True)
    shared = Normalize(*norm)
    return PanelNorms(shared, f"range {_span(shared)}", limited=True)


def symmetric(values: Values) -> Normalize:
    """Return a norm with zero in the middle; ±1 if all values are 0."""
    largest = largest_magnitude(values) or 1.0
    return Normalize(-largest, largest)


def range_of(values: Values) -> str:
    """Format a symmetric range, such as "range ±2.5"."""
    largest = largest_magnitude(values)
    return f"range ±{short(largest)}" if largest else "range 0"


def _span(norm: Normalize) -> str:
    return "" if norm.vmin is None or norm.vmax is None else f"{short(norm.vmin)} to {short(norm.vmax)}"


def clipped_note(features: Features, chosen: PanelNorms) -> str:
    """Count the finite values outside the range."""
    norm, values = chosen.shared, features.values
    if not chosen.limited or norm is None or norm.vmin is None or norm.vmax is None:
        return ""
    outside = int((np.isfinite(values) & ((values < norm.vmin) | (values > norm.vmax))).sum())
    return f"{outside} outside" if outside else ""
