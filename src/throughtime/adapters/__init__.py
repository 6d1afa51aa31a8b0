"""Chooses the adapter of a model by the modules its class comes from, for each object anew."""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType, MethodType, ModuleType
from typing import Any

from throughtime._errors import UnsupportedModelError

_SUPPORTED = (
    "Keras 3 models on the TensorFlow, JAX and torch backends, models of tf_keras and of TensorFlow's own "
    "Keras 2, native PyTorch modules, and JAX programs: Flax NNX and Equinox modules, and functions of x"
)
_JAX = frozenset({"flax", "equinox", "jax", "jaxlib"})
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
    if _is_program(model, roots) and find_spec("jax") is not None:
        return import_module("throughtime.adapters.jax")
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


def _is_program(model: Any, roots: Collection[str]) -> bool:
    """Whether JAX may trace a model: a module of Flax or Equinox, a function, a pytree that can be called."""
    if isinstance(model, type) or not callable(model):
        return False
    if isinstance(model, (FunctionType, MethodType, partial)) or _JAX & {*roots}:
        return True
    tree_util = getattr(sys.modules.get("jax"), "tree_util", None)
    return tree_util is not None and not tree_util.all_leaves([model])
