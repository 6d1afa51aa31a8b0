"""Describes the known cells of a model without running it; other loops show themselves in a capture alone."""

from __future__ import annotations

from typing import Any

from throughtime._data.structures import to_numpy
from throughtime.adapters.records import Attribute, LayerRecord, ModelRecord
from throughtime.adapters.selection import Selection

from . import find, models, settings, weights

_HINT = (
    " with a cell that can be known without running it: a JAX program's loops are found when it runs, and "
    "tt.capture(model, x, y, loss=…) shows them"
)


def describe(model: Any, layers: Any) -> ModelRecord:
    """Read chosen cells as they are now.

    Parameters
    ----------
    model : Flax NNX or Equinox module, or function of x
    layers : see `selection.Selection.select`
    """
    taken = models.taken_apart(model, training=False)
    arrays = dict(zip(taken.paths, taken.parameters, strict=True))
    found = []
    for place in dict.fromkeys(path[:k] for path in arrays for k in range(len(path))):
        own = {path[len(place) :]: array for path, array in arrays.items() if path[: len(place)] == place}
        named = {".".join(path): to_numpy(array) for path, array in own.items()}
        if kind := weights.kind_of(named):
            path = find.path_of(place) or kind
            found.append(find.Found(path, path.replace("/", "."), named, kind, (), (), {}))
    chosen = Selection(found, [one.layer for one in found], dict, _HINT).select(layers)
    return ModelRecord(tuple(map(_leaf, chosen)), settings.of_framework())


def _leaf(entry: Any) -> LayerRecord:
    arrays = weights.oriented(entry.class_name, entry.layer) or {}
    kernel = arrays["recurrent_kernel"]
    flags: dict[str, Attribute] = {
        "layer_name": entry.name,
        "cell_class": entry.class_name,
        "units": kernel.shape[0],
        "dtype": str(kernel.dtype),
        "trainable": 1,
    }
    return LayerRecord(
        entry.path, entry.class_name, {n: array.copy() for n, array in arrays.items()}, flags=flags
    )
