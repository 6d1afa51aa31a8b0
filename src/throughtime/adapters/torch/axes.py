"""Axes of what layers that are not recurrent return: torch's images and signals have their channels first."""

from __future__ import annotations

from typing import Any

from torch import nn

from throughtime.adapters.records import Array

_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._LPPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)
_SPACE = {1: ("time",), 2: ("row", "column"), 3: ("depth", "row", "column")}


def samples_first(output: Array, time_major: tuple[int, ...]) -> Array:
    """Bring an output (time, sample, …) of a model that has its steps first into the order of records."""
    return output.swapaxes(0, 1) if output.ndim > 2 and output.shape[:2] == time_major else output


def of_output(module: Any, rank: int) -> dict[str, tuple[str, ...]]:
    """Name the axes of a layer's output where they are not (sample, time, …, unit).

    Examples
    --------
    >>> of_output(nn.Conv1d(2, 3, 3), 3)["output"]
    ('sample', 'output_unit', 'time')
    >>> of_output(nn.Linear(2, 3), 3)
    {}
    """
    if not isinstance(module, _CHANNELS_FIRST) or rank - 2 not in _SPACE:
        return {}
    axes = ("sample", "output_unit", *_SPACE[rank - 2])
    return {"output": axes, "output_gradient": axes}
