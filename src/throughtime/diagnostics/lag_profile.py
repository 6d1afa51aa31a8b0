"""The share of the error signal that remains k steps back: the curve R(k), with an interval over samples.

Reads the ratios of `lags.signals`, which `memory_horizon` and `decay_rate` summarise.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from throughtime._arguments import takes
from throughtime._arguments.rules import number, several, whole
from throughtime._errors import DiagnosticError
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.labelled import applied
from throughtime.diagnostics.lags import Floats, exclusions, signals
from throughtime.diagnostics.median_interval import median_interval


@takes(DiagnosticError, lags=several(whole(0)), confidence=number(0, 1, inside=True))
def lag_profile(layer: Layer, *, lags: Iterable[int] | None = None, confidence: float = 0.95) -> xr.Dataset:
    """Error signal k steps back as a fraction of lag 0: R(k), the median over samples.

    A sample's ratio is ‖dL/ds_{T−k}‖ / ‖dL/ds_T‖ on the joint state, hidden and cell. If the model reads
    several steps of the layer, its gradients are sums over all later steps and look flat even when memory is
    short: pass a layer with `lag_matrix`, or `from_last_step(layer)`. Compare layers and models by ratios,
    not by norms.

    Parameters
    ----------
    layer : one layer of a capture, with `hidden_gradient` (an LSTM: `cell_gradient` too) or `lag_matrix`
    lags : iterable of int, optional
        The default is all lags of the window. A lag beyond the window is NaN and `censored`.
    confidence : float in (0, 1)
        Level of the interval `low`, `high` over samples, see `median_interval`; NaN for a single sample.

    Returns
    -------
    Dataset (lag, [direction])
        `ratio`, `low`, `high`; `samples`: number measured at the lag; `censored`: the lag is beyond the
        longest sample; `no_steps`, `no_signal`, `non_finite`: samples excluded for that reason. See
        `ratio_text`.

    Raises
    ------
    DiagnosticError
        The certificate of the layer exceeds its limit, or an argument is not as described above.
    SchemaError
        The layer lacks a required variable, or its layout differs from that of a capture.

    References
    ----------
    Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, §2.

    Examples
    --------
    >>> from throughtime import testing
    >>> lag_profile(testing.decaying(rate=0.5), lags=[0, 1, 2, 99])["ratio"].values
    array([1.  , 0.5 , 0.25,  nan])
    """
    found = signals(certified(layer))
    ratios = found["log_ratio"] if lags is None else found["log_ratio"].reindex(lag=list(lags))
    over, returns = [("sample", "lag")], [("lag",)] * 3
    parts = applied(
        _median_with_interval, ratios, over=over, returns=returns, vectorize=True, confidence=confidence
    )
    profile = xr.Dataset(dict(zip(("ratio", "low", "high"), parts, strict=True)))
    profile["samples"] = ratios.notnull().sum("sample")
    profile["censored"] = profile["lag"] >= found["length"].max("sample")
    window = int(found.sizes["lag"])
    return profile.assign(exclusions(found)).assign_attrs(basis=found.attrs["basis"], window=window)


def _median_with_interval(ratios: Floats, *, confidence: float) -> tuple[Floats, ...]:
    with np.errstate(over="ignore", under="ignore"):
        middle, low, high = (np.exp(each) for each in median_interval(ratios, confidence=confidence))
    return middle, low, high
