"""The vocabulary: dimensions, variables, gate names and their order, and how records become a tree.

Everything after the adapters speaks these words only; a reader looking for the meaning of a name in a
tree finds it in `VARIABLES`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from throughtime._errors import SchemaError
from throughtime._record import Array, LayerRecord, ModelRecord

Layer = xr.DataTree | xr.Dataset

GATES: Mapping[str, tuple[str, ...]] = {
    "lstm": ("input", "forget", "candidate", "output"),
    "gru": ("update", "reset", "candidate"),
}
DIRECTIONS = ("forward", "backward")
STANDARD_KINDS = ("lstm", "gru", "simple_rnn")


@dataclass(frozen=True)
class Variable:
    """One word of the vocabulary: the dims it has where they apply, its symbol and its meaning."""

    dims: tuple[str, ...]
    symbol: str
    meaning: str


_SEQUENCE_OUTPUT = ("sample", "time", "output_unit")
_SEQUENCE_INPUT = ("sample", "time", "feature")

VARIABLES: Mapping[str, Variable] = {
    "input": Variable(_SEQUENCE_INPUT, "x_t", "the layer's input"),
    "input_gradient": Variable(
        _SEQUENCE_INPUT, "dL/dx_t", "sensitivity to the input, through this layer alone"
    ),
    "output": Variable(_SEQUENCE_OUTPUT, "out_t", "the tensor other layers see"),
    "output_gradient": Variable(_SEQUENCE_OUTPUT, "∂L/∂out_t", "what the layers above ask of step t"),
    "kernel": Variable(("direction", "feature", "gate", "unit"), "W", "input to gates"),
    "recurrent_kernel": Variable(("direction", "unit_from", "gate", "unit"), "U", "previous state to gates"),
    "bias": Variable(("direction", "gate", "unit"), "b", "added on the input side"),
    "recurrent_bias": Variable(("direction", "gate", "unit"), "b_r", "added on the recurrent side"),
    "valid": Variable(("sample", "time"), "valid", "False where the step was masked or padded"),
    "loss": Variable((), "L", "training loss of the batch"),
    "reduction_factor": Variable((), "factor", "what the loss puts on each sample's gradient"),
}
WEIGHTS = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
# What `quantities=` takes: "weights" and "weight_gradients" stand for every weight of a layer, since
# layers outside the recurrent ones name theirs as they like.
QUANTITIES = (
    "input",
    "input_gradient",
    "output",
    "output_gradient",
    "valid",
    "weights",
    "weight_gradients",
)
# Gradients of a sample's own loss: the mean over the batch is undone.
PER_SAMPLE = ("input_gradient", "output_gradient")
GRADIENT_QUANTITIES = frozenset({"input_gradient", "output_gradient", "weight_gradients"})


def quantities(requested: str | Iterable[str]) -> frozenset[str]:
    """Resolve what a caller asked for to names of `QUANTITIES`.

    Parameters
    ----------
    requested : "all", a name, or an iterable of names
        A weight's own name (`kernel`, `bias_gradient`) stands for all weights, or all their gradients.

    Raises
    ------
    SchemaError
        A name is none of the schema's.

    Examples
    --------
    >>> sorted(quantities(["output", "kernel_gradient"]))
    ['output', 'weight_gradients']
    """
    if isinstance(requested, str):
        requested = QUANTITIES if requested == "all" else (requested,)
    return frozenset(_quantity(name) for name in requested)


def _quantity(name: str) -> str:
    if name in QUANTITIES:
        return name
    if name in WEIGHTS:
        return "weights"
    if name.removesuffix("_gradient") in WEIGHTS:
        return "weight_gradients"
    raise SchemaError(
        f"There is no quantity {name!r}. quantities= takes 'all' or names of: "
        f"{', '.join((*QUANTITIES, *WEIGHTS))}, and each weight's '…_gradient'."
    )


def label(record: ModelRecord) -> xr.DataTree:
    """Turn an adapter's records into the tree: one leaf per layer call, attributes at the root.

    Examples
    --------
    >>> import numpy as np
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
    for name, array in leaf.arrays.items():
        values = _per_sample(array, record) if name in PER_SAMPLE else array
        variables[name] = xr.Variable(_dims(name, array, leaf), values, _variable_attributes(name))
    for name in ("loss", "reduction_factor"):
        value = getattr(record, name)
        if value is not None:
            variables[name] = xr.Variable((), value, _variable_attributes(name))
    dims = {str(dim) for variable in variables.values() for dim in variable.dims}
    return xr.Dataset(variables, coords=_coordinates(dims, leaf), attrs=_node_attributes(leaf))


def _per_sample(array: Array, record: ModelRecord) -> Array:
    """Undo what the loss put on each sample: 1/B for a mean."""
    factor = record.reduction_factor
    if factor is None or factor == 1.0:
        return array
    return np.multiply(array, array.dtype.type(1.0 / factor))


def _dims(name: str, array: Array, leaf: LayerRecord) -> tuple[str, ...]:
    """Dims of one array: the schema's, less those that do not apply to this layer."""
    weight = name.removesuffix("_gradient")
    if weight in WEIGHTS and leaf.kind in STANDARD_KINDS:
        absent = {"direction": not leaf.directions, "gate": leaf.kind not in GATES}
        return tuple(dim for dim in VARIABLES[weight].dims if not absent.get(dim))
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


def _variable_attributes(name: str) -> dict[str, str]:
    weight = name.removesuffix("_gradient")
    if name in VARIABLES:
        return {"long_name": VARIABLES[name].symbol, "description": VARIABLES[name].meaning}
    if weight == name:
        return {"long_name": name}
    symbol = VARIABLES[weight].symbol if weight in VARIABLES else weight
    return {"long_name": f"dL/d{symbol}", "description": "dL/d weight, batch mean included"}


def _node_attributes(leaf: LayerRecord) -> dict[str, Any]:
    reasons = {f"missing_{name}": reason for name, reason in leaf.missing.items()}
    return {"kind": leaf.kind, "layer": leaf.path, **leaf.flags, **reasons}


def layer(captured: Layer) -> xr.Dataset:
    """Take one layer's variables from whatever holds exactly one layer.

    Parameters
    ----------
    captured : DataTree with one leaf, a leaf, or Dataset

    Returns
    -------
    Dataset

    Raises
    ------
    SchemaError
        The tree has several leaves, or none; they are listed.
    """
    if isinstance(captured, xr.Dataset):
        return captured
    if not isinstance(captured, xr.DataTree):
        raise SchemaError(
            f"Expected a capture, one of its layers or a Dataset, got {type(captured).__name__}. "
            "Make one with tt.capture(model, x, y)."
        )
    if captured.data_vars:
        return captured.to_dataset()
    leaves = [node for node in captured.subtree if node.data_vars]
    if len(leaves) != 1:
        names = ", ".join(node.path for node in leaves) or "none"
        raise SchemaError(
            f"Expected one layer, this capture has {len(leaves)}: {names}. Choose one: tree['lstm']."
        )
    return leaves[0].to_dataset()


def require(captured: Layer, name: str) -> xr.DataArray:
    """Take one variable of one layer, or say what the layer has instead.

    Raises
    ------
    SchemaError
        The layer has no such variable; the reason, if the capture knows one, and what it has.
    """
    dataset = layer(captured)
    if name in dataset.data_vars:
        return dataset[name]
    reason = dataset.attrs.get(f"missing_{name}", "it was not captured")
    have = ", ".join(str(variable) for variable in dataset.data_vars)
    where = dataset.attrs.get("layer", "this layer")
    raise SchemaError(f"No {name!r} for {where}: {reason}. It has: {have}.")
