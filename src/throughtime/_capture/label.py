"""Converts records to the tree, with dims, coordinates and attributes from the vocabulary.

Labels of axes from the caller (tokens, dates, names of features) are coordinates, such as `time_label`, and
not an index: arithmetic uses positions, and labels may repeat. Plots write them beside their axes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from throughtime._common.memory.free import trees
from throughtime._common.text.printable import printable
from throughtime._errors import SchemaError
from throughtime._tree import Tree
from throughtime._vocabulary import DIRECTIONS, GATES, STANDARD_KINDS, WEIGHTS, label_of, words
from throughtime.adapters.records import Array, LayerRecord, ModelRecord

_NOTHING = xr.Dataset()
_MOST_LAYOUTS = 64  # of leaves; there are more if each batch has another size


def label(record: ModelRecord) -> xr.DataTree:
    """Turn an adapter's records into the tree: one leaf per layer call, attributes at the root.

    >>> leaf = LayerRecord("lstm", "lstm", {"output": np.zeros((2, 5, 3))})
    >>> dict(label(ModelRecord((leaf,)))["lstm"].sizes)
    {'sample': 2, 'time': 5, 'output_unit': 3}
    """
    return Labeller().beside(record).tree()


class Labeller:
    """Labels one record after another; their common layout is made once."""

    def __init__(self) -> None:
        self._layouts: dict[Hashable, xr.Dataset] = {}

    def beside(self, record: ModelRecord) -> Captured:
        """Return arrays and labels separately: joining them takes longer than using one array."""
        leaves = {}
        for leaf in record.layers:
            arrays = _variables(leaf, record)
            leaves[f"/{leaf.path}"] = Leaf.of(self._laid_out(leaf, arrays), arrays)
        return Captured(leaves, dict(record.attributes))

    def _laid_out(self, leaf: LayerRecord, variables: Mapping[str, Array]) -> xr.Dataset:
        key = _layout(leaf, variables)
        if key not in self._layouts:
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = _empty(leaf, variables)
        return self._layouts[key]


class NamedArray(NamedTuple):
    """An array and the names of its axes: like `xarray.Variable`, without its checks.

    A record has about fifty arrays of a few kilobytes. Labelling each of them would cost more than all the
    rest of a monitor's reductions.
    """

    dims: tuple[str, ...]
    values: Array

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def ordered(self, *first: str) -> NamedArray:
        """Move some dims to the front; the others follow in their order."""
        dims = (*first, *(dim for dim in self.dims if dim not in first))
        if dims == self.dims:
            return self
        return NamedArray(dims, self.values.transpose([self.dims.index(dim) for dim in dims]))


@dataclass(frozen=True)
class Leaf:
    """One layer's arrays beside a Dataset that has their coordinates and attributes."""

    layout: xr.Dataset
    arrays: Mapping[str, NamedArray]

    @classmethod
    def of(cls, layout: xr.Dataset, arrays: Mapping[str, Array]) -> Leaf:
        dims = {name: tuple(map(str, layout.variables[name].dims)) for name in arrays}
        return cls(layout, {name: NamedArray(dims[name], values) for name, values in arrays.items()})


@dataclass(frozen=True)
class Captured:
    """A capture, leaf by leaf, before it is labelled."""

    leaves: Mapping[str, Leaf]
    attributes: dict[str, Any]

    def tree(self) -> xr.DataTree:
        tree = _node({path.strip("/"): leaf for path, leaf in self.leaves.items()})
        tree.attrs.update(self.attributes)
        arrays = (each.values for leaf in self.leaves.values() for each in leaf.arrays.values())
        trees.add(tree, sum(array.nbytes for array in arrays))
        return tree

    @classmethod
    def of(cls, tree: xr.DataTree) -> Captured:
        leaves = {}
        for node in tree.leaves:
            layout = node.to_dataset()
            arrays = {str(name): layout.variables[name].values for name in layout.data_vars}
            leaves[node.path] = Leaf.of(layout, arrays)
        return cls(leaves, {str(name): value for name, value in tree.attrs.items()})


def _node(leaves: Mapping[str, Leaf]) -> Tree:
    """Join the leaves below a node, by their paths from it; assigning them by path would copy each twice."""
    own, below = leaves.get(""), dict[str, dict[str, Leaf]]()
    node = Tree(_NOTHING if own is None else own.layout)
    variables = node.variables
    for name, array in ({} if own is None else own.arrays).items():
        variables[name].data = array.values
    for path, leaf in leaves.items():
        name, _, rest = path.partition("/")
        if name:
            below.setdefault(name, {})[rest] = leaf
    node.children = {name: _node(each) for name, each in below.items()}
    return node


def _variables(leaf: LayerRecord, record: ModelRecord) -> dict[str, Array]:
    """Return the arrays of a leaf and of the model, in the order of the vocabulary."""
    order = {name: position for position, name in enumerate(words(leaf.states, leaf.marks))}
    known = sorted(leaf.arrays.items(), key=lambda item: order.get(item[0], len(order)))
    # Arrays of some frameworks are read-only, but a caller may change a capture.
    known = [(name, array if array.flags.writeable else array.copy(order="K")) for name, array in known]
    whole = {"loss": record.loss, "reduction_factor": record.reduction_factor}
    return dict(known) | {name: np.asarray(value) for name, value in whole.items() if value is not None}


def _layout(leaf: LayerRecord, variables: Mapping[str, Array]) -> Hashable:
    """Return everything from which dims, coordinates and attributes of a leaf are made."""
    shapes = tuple((name, array.shape, array.dtype) for name, array in variables.items())
    mappings = tuple(tuple(each.items()) for each in (leaf.flags, leaf.missing, leaf.dims))
    fields = (leaf.path, leaf.kind, leaf.directions, leaf.states, leaf.outer_steps, leaf.windows)
    return fields, _gates(leaf), shapes, mappings


def _empty(leaf: LayerRecord, variables: Mapping[str, Array]) -> xr.Dataset:
    """Label a leaf with arrays of the same shapes that take no memory."""
    empty = {
        name: xr.Variable(
            _dims(name, array, leaf),
            np.broadcast_to(np.zeros((), array.dtype), array.shape),
            _variable_attributes(name, leaf),
        )
        for name, array in variables.items()
    }
    sizes = {str(dim): size for variable in empty.values() for dim, size in variable.sizes.items()}
    return xr.Dataset(empty, coords=_coordinates(sizes, leaf), attrs=_node_attributes(leaf))


def _gates(leaf: LayerRecord) -> tuple[str, ...]:
    return GATES.get(leaf.kind, leaf.gates)


def _dims(name: str, array: Array, leaf: LayerRecord) -> tuple[str, ...]:
    """Return the dims of an array: those of the schema that apply to this layer."""
    weight, known = name.removesuffix("_gradient"), words(leaf.states, leaf.marks)
    if array.ndim == 0:
        return ()
    if name in leaf.dims:
        return leaf.dims[name]
    is_solved = weight not in WEIGHTS and name in known and "direction" in known[name].dims
    if is_solved or (weight in WEIGHTS and leaf.kind in STANDARD_KINDS):
        absent = {"direction": not leaf.directions, "gate": not _gates(leaf)}
        dims = known[name if is_solved else weight].dims
        return tuple(dim for dim in dims if not absent.get(dim))
    if name in known and weight not in WEIGHTS:
        return _activation_dims(name, array, leaf)
    own = tuple(f"{weight}_axis_{axis}" for axis in range(array.ndim - bool(leaf.directions)))
    return ("direction", *own) if leaf.directions else own


def _activation_dims(name: str, array: Array, leaf: LayerRecord) -> tuple[str, ...]:
    first, *middle, last = dims = words(leaf.states, leaf.marks)[name].dims
    if leaf.flags.get("merge_mode") == "None" and name.startswith("output"):
        middle, last = [*middle, "direction"][3 - array.ndim + 1 :], "unit"
        return (first, *middle, last)
    if array.ndim <= 2:  # one step only, or a layer on flat vectors
        return dims if len(dims) == array.ndim else (first, last)[: array.ndim]
    return (first, *middle, *("row", "column", "depth")[: array.ndim - 3], last)


def _coordinates(sizes: Mapping[str, int], leaf: LayerRecord) -> dict[str, Any]:
    """Return the labels of axes that have names, the call of each step, and the place in an outer layer."""
    states = leaf.states or ("hidden", "cell")
    labels = {"gate": _gates(leaf), "direction": leaf.directions or DIRECTIONS, "state": states}
    # Object dtype: fixed-width strings make a later, longer label raise in a stored run.
    found: dict[str, Any] = {
        dim: np.array(names[: sizes[dim]], dtype=object) for dim, names in labels.items() if dim in sizes
    }
    if leaf.outer_steps and "sample" in sizes:
        sample, step = np.divmod(np.arange(sizes["sample"]), leaf.outer_steps)
        found |= {"outer_sample": ("sample", sample), "outer_step": ("sample", step)}
    if leaf.windows and "time" in sizes:
        found["call"] = ("time", np.repeat(np.arange(len(leaf.windows)), leaf.windows))
    return found


def _variable_attributes(name: str, leaf: LayerRecord) -> dict[str, str]:
    """Return symbol, meaning and layer, which plots write into their titles."""
    weight, known = name.removesuffix("_gradient"), words(leaf.states, leaf.marks)
    if name == "gate_gradient" and leaf.gates:
        named = {"long_name": "dL/dgate_t", "description": "total derivative after the gate's activation"}
    elif name in known:
        named = {"long_name": known[name].symbol, "description": known[name].meaning}
    elif weight == name:
        named = {"long_name": name}
    else:
        symbol = known[weight].symbol if weight in known else weight
        named = {"long_name": f"dL/d{symbol}", "description": "dL/d weight, batch mean included"}
    return {**named, "layer": f"/{leaf.path}"}


def _node_attributes(leaf: LayerRecord) -> dict[str, Any]:
    reasons = {f"missing_{name}": reason for name, reason in leaf.missing.items()}
    states = {"states": ", ".join(leaf.states)} if leaf.states else {}
    return {"kind": leaf.kind, "layer": leaf.path, **leaf.flags, **states, **reasons}


def label_axes(tree: xr.DataTree, labels: Mapping[str, Any], name: str = "") -> None:
    """Add labels to the layers of a tree whose dims have the same length; the tree is changed.

    Labels of `time` may be (sample, time). `name` is that of the coordinate, by default that of the labels of
    the dim. Labels that are no sequence, or fit no layer, raise SchemaError.
    """
    for dim, given in labels.items():
        values = _array(dim, given)
        dims = (dim,) if values.ndim == 1 else ("sample", dim)
        fitting = [leaf for leaf in tree.leaves if tuple(map(leaf.sizes.get, dims)) == values.shape]
        if not fitting:
            have = sorted({leaf.sizes[dim] for leaf in tree.leaves if dim in leaf.sizes})
            sizes = " or ".join(map(str, have)) or "no such axis"
            raise SchemaError(f"{dim}: {values.shape[-1]} labels were passed, and the layers have {sizes}.")
        for leaf in fitting:
            leaf.dataset = leaf.to_dataset().assign_coords({name or label_of(dim): (dims, values)})


def _array(dim: str, given: Any) -> np.ndarray[Any, Any]:
    """Return labels as an array: dates and numbers unchanged, all others as text."""
    try:
        values = np.asarray(given)
    except (TypeError, ValueError):
        values = np.empty(())
    if isinstance(given, str | bytes) or values.ndim not in ((1, 2) if dim == "time" else (1,)):
        raise SchemaError(f"{dim}: expected a label for each place along it, such as a list of names.")
    if values.dtype.kind in "iufM":
        return values
    # Object dtype: fixed-width strings make a later, longer label raise in a stored run.
    flat = [printable(str(each)) for each in values.ravel()]
    return np.array(flat, dtype=object).reshape(values.shape)
