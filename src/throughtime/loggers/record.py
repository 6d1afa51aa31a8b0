"""`Record`, which loggers receive at each recorded step: numbers, the capture, histograms and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import xarray as xr

from throughtime.loggers.histograms import Histogram, histograms
from throughtime.loggers.images import images


@dataclass(frozen=True)
class Record:
    """One recorded step for loggers, in two groups.

    `throughtime/<layer>/<direction>/…` has `horizon`, `reach_at_lag_<k>`, `saturation` and `gradient_norm`;
    `detail/<layer>/<direction>/<quantity>` has all else. Without directions that part is absent.

    Histograms are counted and images drawn when a logger first reads them, once for all loggers.

    Parameters
    ----------
    step : int
        Training step.
    numbers : mapping of str to float
        A key without a layer, such as `throughtime/gradient_norm` and `detail/clip_ratio`, holds a value that
        the training loop reported. It may first appear in a later record, or never.
    capture : DataTree
        The whole capture, whatever level the run stores. Loggers share it: copy what you change.

    Attributes
    ----------
    histograms : mapping of str to Histogram
        For each weight, its gradient and the activations, separately for each gate: `counts` (bins) and
        `edges` (bins + 1). Masked steps and values that are not finite are not counted.
    images : mapping of str to bytes
        For each layer and direction a PNG: norm of the state's gradient against time. About 0.1 s each.

    Examples
    --------
    >>> from throughtime import testing
    >>> record = Record(10, {"detail/rnn/loss": 0.5}, testing.decaying(samples=4))
    >>> list(record.images)
    ['detail/rnn/gradient_norm_through_time']
    """

    step: int
    numbers: Mapping[str, float]
    capture: xr.DataTree = field(default_factory=xr.DataTree, repr=False)

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """Counts of weights, gradients and activations, by key."""
        return histograms(self.capture)

    @cached_property
    def images(self) -> Mapping[str, bytes]:
        """Plots as PNG, by key."""
        return images(self.capture)
