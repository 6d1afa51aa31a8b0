"""What a run keeps instead of vectors, for pictures: norms of each sample, or quantiles over samples."""

from __future__ import annotations

import numpy as np
import xarray as xr

from throughtime._drawing.scale import Array
from throughtime._tree import states
from throughtime.diagnosis.recorded import SUMMARY, TIMESTEP, as_captured, level
from throughtime.plots.data import last_step
from throughtime.plots.spread import quantiles


def sampled(dataset: xr.Dataset) -> xr.Dataset:
    """Take the last training step; norms of each sample stand for the vectors they are norms of."""
    one = last_step(dataset)
    return as_captured(one) if level(one) == TIMESTEP else one


def is_summary(dataset: xr.Dataset) -> bool:
    """Whether quantiles over samples are all that was kept."""
    return level(dataset) == SUMMARY


def band(norms: xr.DataArray, along: str = "time") -> tuple[Array, Array, Array]:
    """Low end, median and high end over samples: 10 % to 90 %, or the outer quantiles of a summary."""
    if "quantile" in norms.dims:
        low, *_, high = (norms.isel(quantile=place).values for place in (0, -1))
        return low, norms.sel(quantile=0.5).values, high
    low, middle, high = quantiles(norms.transpose("sample", along).values, (0.1, 0.5, 0.9))
    return low, middle, high


def state_norms(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Norms of the states' gradients that a summary keeps, by state."""
    names = {state: f"{state}_gradient_norm" for state in states(dataset)}
    return {state: dataset[name].astype(np.float64) for state, name in names.items() if name in dataset}
