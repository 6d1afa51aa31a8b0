"""`weights`: the weights of a model's layers as they are now, labelled as in a capture, without a pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import xarray as xr

from throughtime import adapters
from throughtime._capture.label import label
from throughtime._errors import AmbiguousLayerError, SchemaError
from throughtime._inputs import layers, rules, takes
from throughtime._vocabulary import WEIGHTS

PENALTY = "_penalty"


@takes(layer=layers, omit=rules.names)
def weights(model: Any, layer: Any = None, *, omit: str | Collection[str] | None = None) -> xr.Dataset:
    """Return the weights of one layer, with the same orientation and gate order for all frameworks.

    The model is only read: nothing is run or changed.

    Parameters
    ----------
    model : a model of Keras 3 or tf_keras, or a torch.nn.Module
    layer : name, path, index or layer object, optional
        By default the only recurrent layer.
    omit : str or collection of str, optional
        Parts of names to omit: "bias" omits `bias` and `recurrent_bias`.

    Returns
    -------
    Dataset
        `kernel` ([direction,] feature, gate, unit), `recurrent_kernel` ([direction,] unit_from, gate, unit),
        `bias` and `recurrent_bias` ([direction,] gate, unit); other layers have the names of their
        framework. In Keras `kernel_penalty` and others ([direction]), the penalty of a regulariser in the
        loss. Attributes as in a capture.

    Raises
    ------
    LayerNotFoundError, AmbiguousLayerError
        With the indexed list of layers.
    UnbuiltModelError
        The model has no weights yet.
    SchemaError
        A capture has no such layer.

    Examples
    --------
    >>> import keras
    >>> from throughtime import weights
    >>> model = keras.Sequential([keras.Input((5, 2)), keras.layers.GRU(3), keras.layers.Dense(1)])
    >>> {name: array.shape for name, array in weights(model, omit="bias").items()}
    {'kernel': (2, 3, 3), 'recurrent_kernel': (3, 3, 3)}
    """
    tree = described(model, "recurrent" if layer is None else layer)
    leaves = list(in_order(tree))
    if len(leaves) > 1:
        names = ", ".join(leaf.path.strip("/") for leaf in leaves)
        raise AmbiguousLayerError(f"There are several layers, {names}: choose one with layer=.")
    found = leaves[0].to_dataset()
    omitted = (omit,) if isinstance(omit, str) else tuple(omit or ())
    kept = [name for name in found.data_vars if not any(part in str(name) for part in omitted)]
    if not kept:
        has = ", ".join(map(str, found.data_vars)) or "no weights"
        raise SchemaError(f"Nothing is left: {leaves[0].path.strip('/')} has {has}, and omit= is {omit!r}.")
    return found[kept]


def described(model: Any, layers: Any) -> xr.DataTree:
    """Return a tree of layers with only their weights and attributes."""
    return label(adapters.choose(model).describe(model, layers))


def in_order(node: xr.DataTree) -> Iterator[xr.DataTree]:
    """Yield a tree's layers in the order of the model."""
    if node.data_vars:
        yield node
    for child in node.children.values():
        yield from in_order(child)


def weight_names(dataset: xr.Dataset) -> list[str]:
    """List the weights of a captured layer, first those of the schema, then in the order of the layer."""
    own = [str(name) for name, array in dataset.data_vars.items() if _is_weight(str(name), array)]
    return [name for name in WEIGHTS if name in dataset] + [name for name in own if name not in WEIGHTS]


def _is_weight(name: str, array: xr.DataArray) -> bool:
    """Whether a variable is a weight: without samples and not a gradient; other axes are allowed."""
    if name.endswith(("_gradient", PENALTY)) or "sample" in array.dims:
        return False
    return name in (*WEIGHTS, "projection") or any("_axis_" in str(dim) for dim in array.dims)
