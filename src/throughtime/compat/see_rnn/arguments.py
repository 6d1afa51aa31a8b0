"""Arguments by their old names, and layers by the old `_id`.

An old argument is renamed, passed, or refused with the name of its successor. `_id` is an index, a name or a
unique part of one, a list of those, or "*" for all.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from throughtime import adapters
from throughtime._errors import (
    AmbiguousLayerError,
    ArgumentError,
    LayerNotFoundError,
    UnsupportedModelError,
    did_you_mean,
)

_RENAMED = {
    "borders": "show_borders",
    "colorbar": "show_colorbar",
    "h": "scale_height",
    "share_xy": "equate_axes",
    "sharex": "equate_axes",
    "sharey": "equate_axes",
    "title": "show_title",
    "title_mode": "show_title",
    "w": "scale_width",
    "xy_ticks": "show_xy_ticks",
}
EVERY = "*"
_TITLES = {"grads": "Gradients", "outputs": "Outputs"}
_EDIT = "edit the (fig, axes) that it returns, or draw into axes="
_CAPTURE = "tt.capture(model, x, y, layers=…, quantities=…)"
_SUCCESSORS = {
    "annotations": "names of channels come from the coordinates of a DataArray",
    "as_tensors": "layer.weights has the tensors; tt.weights(model, layer) has labelled arrays",
    "axis": "tt.weights(model, layer) has named dims to reduce over",
    "configs": _EDIT,
    "gate_sep_width": "tt.plots.weights separates gates by itself",
    "pad_xticks": _EDIT,
    "params": _CAPTURE,
    "stat_fns": "tt.weights(model, layer) has labelled arrays for any statistic",
    "subplot_samples": "show_features_2D draws one panel a sample",
    "subplots_kw": _EDIT,
}


def rename(name: str, options: Mapping[str, Any], show: Callable[..., Any]) -> dict[str, Any]:
    """Return the options by the names that a `show_features` function takes."""
    found = {_RENAMED.get(option, option): value for option, value in options.items()}
    refuse(name, set(found) - set(inspect.signature(show).parameters), inspect.signature(show).parameters)
    title = found.get("show_title")
    if isinstance(title, str):
        found["show_title"] = _TITLES.get(title, title)
    if "equate_axes" in found:
        shared = found["equate_axes"]
        found["equate_axes"] = any(shared) if isinstance(shared, tuple | list) else bool(shared)
    return found


def refuse(name: str, unknown: Iterable[str], known: Iterable[str] = ()) -> None:
    """Raise for the first argument that a function does not take, with the successor."""
    for option in sorted(unknown):
        successor = _SUCCESSORS.get(option)
        hint = (
            f" Instead: {successor}."
            if successor
            else did_you_mean(option, known) or f" New code: {_CAPTURE}."
        )
        raise ArgumentError(f"see_rnn.{name}() takes no argument {option!r} here.{hint}")


def mode_of(name: str, mode: Any, known: Mapping[str, str]) -> str:
    """Return what a mode stands for."""
    if not isinstance(mode, str) or mode not in known:
        raise ArgumentError(
            f"see_rnn.{name}(mode={mode!r}): expected one of {', '.join(known)}.{did_you_mean(mode, known)} "
            f"New code names quantities: {_CAPTURE}."
        )
    return known[mode]


def get_layer(model: Any, _id: Any = None, layer: Any = None, **options: Any) -> Any:
    """Return the layer with an index, a name, or a unique part of one. New code: `model.get_layer`."""
    refuse("get_layer", options)
    found = layers_of(model, _id, layer)
    if len(found) != 1:
        raise AmbiguousLayerError(f"_id={_id!r} names {len(found)} layers: expected one.")
    return found[0]


def get_full_name(model: Any, _id: Any, **options: Any) -> Any:
    """Return a layer's name, or a list of names. New code: `capture` and `weights` take parts of names."""
    refuse("get_full_name", options)
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
    return [_find_one(model, each) for each in (_id if isinstance(_id, (list, tuple)) else [_id])]


def _find_one(model: Any, _id: Any) -> Any:
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
