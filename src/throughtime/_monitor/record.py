"""What a sink is given at each recorded step: numbers, and the capture with its histograms and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import xarray as xr

from .histograms import Histogram, histograms
from .images import images


@dataclass(frozen=True)
class Record:
    """One recorded step, as sinks see it. Keys are grouped `throughtime/<layer>/<direction>/<quantity>`.

    Histograms are counted and images drawn when a sink asks for them, and once for all sinks.

    Parameters
    ----------
    step : int
        Training step.
    numbers : mapping of str to float
        What has no layer in its key, `throughtime/<quantity>`, was told by the training loop: it may come
        later than the rest, and be absent.
    capture : DataTree
        The whole capture, whatever the run stores of it. It is shared: copy what you change.

    Attributes
    ----------
    histograms : mapping of str to Histogram
        Of each weight, its gradient and each gate's activations, a gate at a time: `counts` (bins) and
        `edges` (bins + 1). Masked steps and what is not finite do not count.
    images : mapping of str to bytes
        A PNG of each layer and direction: norm of the state's gradient against time. About 0.1 s each.

    Examples
    --------
    >>> from throughtime import testing
    >>> record = Record(10, {"throughtime/rnn/loss": 0.5}, testing.decaying(samples=4))
    >>> list(record.images)
    ['throughtime/rnn/gradient_norm_through_time']
    """

    step: int
    numbers: Mapping[str, float]
    capture: xr.DataTree = field(default_factory=xr.DataTree, repr=False)

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        return histograms(self.capture)

    @cached_property
    def images(self) -> Mapping[str, bytes]:
        return images(self.capture)
