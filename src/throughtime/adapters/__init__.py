"""Chooses the adapter of a model by the modules its class comes from, for each object anew."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from throughtime._errors import UnsupportedModelError

_SUPPORTED = (
    "Keras 3 models on the TensorFlow, JAX and torch backends, models of tf_keras and of TensorFlow's own "
    "Keras 2, and native PyTorch modules"
)
# Where the base classes of Keras 2 live, and none of Keras 3.
_KERAS_2 = ("tf_keras.", "keras.src.engine.", "keras.engine.", "tensorflow.python.keras.")


def choose(model: Any) -> ModuleType:
    """Return the adapter for `model`.

    Raises
    ------
    UnsupportedModelError
        The object is no model, or one of a library that has no adapter.
    """
    if any(f"{cls.__module__}.".startswith(_KERAS_2) for cls in type(model).__mro__) and _is_layer(model):
        return import_module("throughtime.adapters.keras.keras2")
    roots = [cls.__module__.partition(".")[0] for cls in type(model).__mro__]
    # A Keras model on the torch backend is a torch.nn.Module too: Keras is asked first.
    if "keras" in roots and _is_layer(model):
        return import_module("throughtime.adapters.keras.keras3")
    if "torch" in roots and _is_module(model):
        return import_module("throughtime.adapters.torch")
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    found = {"torch": "no torch.nn.Module", "tf_keras": "no layer of tf_keras"}
    library = next((text for root, text in found.items() if root in roots), None)
    what = f"a {name}" if library is None else f"a {name}, which is {library}"
    raise UnsupportedModelError(
        f"throughtime looks into {_SUPPORTED}. This is {what}. "
        "Pass the model itself, built and with a loss; another library's adapter goes in adapter=."
    )


def _is_layer(model: Any) -> bool:
    return any(cls.__name__ == "Layer" for cls in type(model).__mro__)


def _is_module(model: Any) -> bool:
    return any(
        (cls.__module__, cls.__name__) == ("torch.nn.modules.module", "Module") for cls in type(model).__mro__
    )
