"""Plots of a run that keeps no vectors: norms of each sample, or quantiles over samples."""

import numpy as np
import xarray as xr

from throughtime._tree import states
from throughtime.diagnosis.layers import SUMMARY, TIMESTEP, as_captured, level
from throughtime.diagnostics.statistics import quantiles
from throughtime.picture._drawing.scale import Array
from throughtime.plots.data import last_step


def sampled(dataset: xr.Dataset) -> xr.Dataset:
    """Return the last training step, with norms of each sample in place of vectors."""
    one = last_step(dataset)
    return as_captured(one) if level(one) == TIMESTEP else one


def is_summary(dataset: xr.Dataset) -> bool:
    """Whether a layer keeps only quantiles over samples."""
    return level(dataset) == SUMMARY


def band(norms: xr.DataArray, along: str = "time") -> tuple[Array, Array, Array]:
    """Return low end, median and high end over samples: 10 % to 90 %, or a summary's outer quantiles."""
    if "quantile" in norms.dims:
        low, *_, high = (norms.isel(quantile=place).values for place in (0, -1))
        return low, norms.sel(quantile=0.5).values, high
    low, middle, high = quantiles(norms.transpose("sample", along).values, (0.1, 0.5, 0.9))
    return low, middle, high


def state_norms(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the norms of the states' gradients that a summary keeps, by state."""
    names = {state: f"{state}_gradient_norm" for state in states(dataset)}
    return {state: dataset[name].astype(np.float64) for state, name in names.items() if name in dataset}
