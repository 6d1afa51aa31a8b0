"""Norms of the weights of each gate and unit."""

from __future__ import annotations

import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer
from throughtime._tree import layer as layer_of

_COLUMNS = {"kernel": "feature", "recurrent_kernel": "unit_from", "projection": "cell_unit"}


@takes(DiagnosticError)
def weight_norms(layer: Layer, *, gradients: bool = False) -> xr.Dataset:
    """Norms of each kernel's columns: the incoming weights of one unit of one gate.

    Parameters
    ----------
    layer : one layer of a capture, or a result of `throughtime.weights`
    gradients : bool
        Measure the gradients of the weights instead of the weights.

    Returns
    -------
    Dataset (weight, [direction,] [gate])
        `column_norm` (unit), ‖W[:, unit]‖₂ over the incoming dim; `max` and `mean` of these over units; `l2`,
        the Frobenius norm of the whole gate. Biases have no columns and are excluded.

    Raises
    ------
    DiagnosticError
        The layer has no kernel.

    Examples
    --------
    >>> from throughtime import testing
    >>> weight_norms(testing.decaying(rate=0.5, units=4))["l2"].sel(weight="recurrent_kernel").item()
    1.0
    """
    dataset = layer_of(layer)
    suffix = "_gradient" if gradients else ""
    kernels = {name: axis for name, axis in _COLUMNS.items() if axis in _dims(dataset, name + suffix)}
    if not kernels:
        have = ", ".join(map(str, dataset.data_vars))
        raise DiagnosticError(f"There is no kernel{suffix} to measure: the layer has {have}.")
    norms = [_norms(dataset[name + suffix], axis) for name, axis in kernels.items()]
    return xr.concat(norms, xr.DataArray(list(kernels), dims="weight", name="weight"))


def _dims(dataset: xr.Dataset, name: str) -> tuple[str, ...]:
    return tuple(map(str, dataset[name].dims)) if name in dataset else ()


def _norms(kernel: xr.DataArray, axis: str) -> xr.Dataset:
    columns = (kernel.astype("float64") ** 2).sum(axis) ** 0.5
    unit = str(columns.dims[-1])
    columns = columns.rename({unit: "unit"})
    return xr.Dataset(
        {
            "column_norm": columns,
            "max": columns.max("unit"),
            "mean": columns.mean("unit"),
            "l2": (columns**2).sum("unit") ** 0.5,
        }
    ).drop_attrs()
