"""Layers by the old `_id`: an index, a name or a unique part of one, a list of those, or "*" for all."""

from __future__ import annotations

from typing import Any

from throughtime import adapters
from throughtime._errors import (
    AmbiguousLayerError,
    ArgumentError,
    LayerNotFoundError,
    UnsupportedModelError,
    did_you_mean,
)

EVERY = "*"


def get_layer(model: Any, _id: Any = None, layer: Any = None) -> Any:
    """Return the layer with an index, a name, or a unique part of one. New code: `model.get_layer`."""
    found = layers_of(model, _id, layer)
    if len(found) != 1:
        raise AmbiguousLayerError(f"_id={_id!r} names {len(found)} layers: expected one.")
    return found[0]


def get_full_name(model: Any, _id: Any) -> Any:
    """Return a layer's name, or a list of names. New code: `capture` and `weights` take parts of names."""
    names = [str(layer.name) for layer in layers_of(model, _id)]
    return names if is_several(_id) else names[0]


def is_several(_id: Any) -> bool:
    """Whether results are lists."""
    return isinstance(_id, (list, tuple)) or _id == EVERY


def layers_of(model: Any, _id: Any = None, layer: Any = None) -> list[Any]:
    """Return the layers that `_id` or `layer` names; "*" leaves inputs out."""
    if "keras" not in getattr(adapters.choose(model), "__name__", ""):
        raise UnsupportedModelError(
            f"throughtime.compat.see_rnn reads Keras models, got a {type(model).__name__}. "
            "Use tt.capture(model, x, y, loss=…), which reads PyTorch modules as well."
        )
    if (_id is None) == (layer is None):
        raise ArgumentError("Pass either _id or layer=: an index, a name, or a layer of the model.")
    if layer is not None:
        return list(layer) if isinstance(layer, (list, tuple)) else [layer]
    if _id == EVERY:
        return [each for each in model.layers if type(each).__name__ != "InputLayer"]
    return [_one(model, each) for each in (_id if isinstance(_id, (list, tuple)) else [_id])]


def _one(model: Any, _id: Any) -> Any:
    layers = {str(each.name): each for each in model.layers}
    listed = ", ".join(f"{place} {name}" for place, name in enumerate(layers))
    if isinstance(_id, int) and not isinstance(_id, bool):
        if not -len(layers) <= _id < len(layers):
            raise LayerNotFoundError(f"_id={_id}: the model has {len(layers)} layers: {listed}.")
        return model.layers[_id]
    if not isinstance(_id, str):
        raise ArgumentError(f"_id={_id!r}: expected an index, a name, a list of those, or '*'.")
    found = [_id] if _id in layers else [name for name in layers if _id in name]
    if not found:
        hint = did_you_mean(_id, layers)
        raise LayerNotFoundError(f"_id={_id!r}: no name of a layer has this part. There are {listed}.{hint}")
    if len(found) > 1:
        raise AmbiguousLayerError(f"_id={_id!r} is a part of {', '.join(found)}: give the whole name.")
    return layers[found[0]]
