"""How records become the tree: each array gets its dims, coordinates and attributes from the vocabulary."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import xarray as xr

from throughtime._record import Array, LayerRecord, ModelRecord
from throughtime._schema import (
    DIRECTIONS,
    GATES,
    STANDARD_KINDS,
    VARIABLES,
    WEIGHTS,
    WITH_DIRECTION,
)


def label(record: ModelRecord) -> xr.DataTree:
    """Turn an adapter's records into the tree: one leaf per layer call, attributes at the root.

    Examples
    --------
    >>> leaf = LayerRecord("lstm", "lstm", {"output": np.zeros((2, 5, 3))})
    >>> dict(label(ModelRecord((leaf,)))["lstm"].sizes)
    {'sample': 2, 'time': 5, 'output_unit': 3}
    """
    leaves = {leaf.path: _dataset(leaf, record) for leaf in record.layers}
    tree = xr.DataTree.from_dict({f"/{path}": leaf for path, leaf in leaves.items()})
    tree.attrs.update(record.attributes)
    return tree


def _dataset(leaf: LayerRecord, record: ModelRecord) -> xr.Dataset:
    variables = {}
    order = {name: position for position, name in enumerate(VARIABLES)}
    for name, array in sorted(leaf.arrays.items(), key=lambda item: order.get(item[0], len(order))):
        variables[name] = xr.Variable(_dims(name, array, leaf), array, _variable_attributes(name, leaf))
    for name in ("loss", "reduction_factor"):
        value = getattr(record, name)
        if value is not None:
            variables[name] = xr.Variable((), value, _variable_attributes(name, leaf))
    dims = {str(dim) for variable in variables.values() for dim in variable.dims}
    return xr.Dataset(variables, coords=_coordinates(dims, leaf), attrs=_node_attributes(leaf))


def _dims(name: str, array: Array, leaf: LayerRecord) -> tuple[str, ...]:
    """Dims of one array: the schema's, less those that do not apply to this layer."""
    weight = name.removesuffix("_gradient")
    if array.ndim == 0:
        return ()
    if (weight in WEIGHTS and leaf.kind in STANDARD_KINDS) or name in WITH_DIRECTION:
        absent = {"direction": not leaf.directions, "gate": leaf.kind not in GATES}
        dims = VARIABLES[name if name in WITH_DIRECTION else weight].dims
        return tuple(dim for dim in dims if not absent.get(dim))
    if name in VARIABLES and weight not in WEIGHTS:
        return _activation_dims(name, array, leaf)
    return tuple(f"{weight}_axis_{axis}" for axis in range(array.ndim))


def _activation_dims(name: str, array: Array, leaf: LayerRecord) -> tuple[str, ...]:
    first, *middle, last = VARIABLES[name].dims
    if leaf.flags.get("merge_mode") == "None" and name.startswith("output"):
        middle, last = [*middle, "direction"][3 - array.ndim + 1 :], "unit"
        return (first, *middle, last)
    if array.ndim <= 2:  # one step only, or a layer on flat vectors
        return (
            VARIABLES[name].dims if len(VARIABLES[name].dims) == array.ndim else (first, last)[: array.ndim]
        )
    return (first, *middle, *("row", "column", "depth")[: array.ndim - 3], last)


def _coordinates(dims: Collection[str], leaf: LayerRecord) -> dict[str, Array]:
    """Labels of the axes that have names; the others are counted from 0 without."""
    labels = {"gate": GATES.get(leaf.kind, ()), "direction": leaf.directions or DIRECTIONS}
    # Object dtype: fixed-width strings make a later, longer label raise in a stored run.
    return {dim: np.array(names, dtype=object) for dim, names in labels.items() if dim in dims}


def _variable_attributes(name: str, leaf: LayerRecord) -> dict[str, str]:
    """Symbol, meaning and layer, which pictures write into their titles."""
    weight = name.removesuffix("_gradient")
    if name in VARIABLES:
        told = {"long_name": VARIABLES[name].symbol, "description": VARIABLES[name].meaning}
    elif weight == name:
        told = {"long_name": name}
    else:
        symbol = VARIABLES[weight].symbol if weight in VARIABLES else weight
        told = {"long_name": f"dL/d{symbol}", "description": "dL/d weight, batch mean included"}
    return {**told, "layer": f"/{leaf.path}"}


def _node_attributes(leaf: LayerRecord) -> dict[str, Any]:
    reasons = {f"missing_{name}": reason for name, reason in leaf.missing.items()}
    return {"kind": leaf.kind, "layer": leaf.path, **leaf.flags, **reasons}
