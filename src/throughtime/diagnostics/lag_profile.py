"""The share of the error signal that remains k steps back: the curve R(k), with an interval over samples.

Reads the ratios of `lags.signals`, which `memory_horizon` and `decay_rate` summarise.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes, tree
from throughtime._inputs.rules import number, several, whole
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Floats, exclusions, signals
from throughtime.diagnostics.statistics import median_interval


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
    parts = apply(
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


@takes(DiagnosticError, profile=tree)
def ratio_text(profile: xr.Dataset, lag: int) -> str:
    """Format one lag of a profile: its ratio and interval, or why there is none.

    Parameters
    ----------
    profile : result of `lag_profile` for one direction and step
    lag : int, in timesteps

    Returns
    -------
    str

    Raises
    ------
    DiagnosticError
        The profile has directions or training steps, or does not contain this lag.

    Examples
    --------
    >>> from throughtime import testing
    >>> profile = lag_profile(testing.decaying(rate=0.5, samples=4))
    >>> ratio_text(profile, 2), ratio_text(profile, 80)
    ('0.25 [0.25, 0.25] of lag 0, 4 samples', 'censored at 49: no sample is longer')
    """
    if missing := {"ratio", "low", "high", "lag", "samples", "censored"} - set(profile.variables):
        raise DiagnosticError(
            f"The profile has no {min(missing)!r}. Pass the unchanged result of lag_profile."
        )
    others = [str(dim) for dim in profile["ratio"].dims if dim != "lag"]
    if others:
        raise DiagnosticError(f"The profile has {others}. Select one with .sel or .isel first.")
    if lag not in profile["lag"].values or bool(profile["censored"].sel(lag=lag)):
        reached = profile["lag"].values[~profile["censored"].values]
        if lag < profile.attrs.get("window", 0) and lag not in profile["lag"].values:
            raise DiagnosticError(f"The profile has no lag {lag}. Compute it: lag_profile(lags=[{lag}]).")
        return f"censored at {max(reached, default=0)}: no sample is longer"
    at = profile.sel(lag=lag)
    if int(at["samples"]) == 0:
        return "not measured: no sample has a signal at lag 0"
    interval = f" [{float(at['low']):.3g}, {float(at['high']):.3g}]" if np.isfinite(at["low"]) else ""
    return f"{float(at['ratio']):.3g}{interval} of lag 0, {int(at['samples'])} samples"
