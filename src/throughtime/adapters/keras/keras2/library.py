"""Tells which Keras 2 an object comes from, and what it is there, by the modules of its classes.

Several copies may live in one process, beside each other and beside Keras 3: nothing here imports one before
an object of it has been seen.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

PACKAGES = ("tf_keras", "keras", "tensorflow.python.keras")


def package_of(kind: type) -> str:
    """Name the Keras 2 that a class is defined in; empty for a class of anybody else."""
    module = f"{kind.__module__}."
    return next((package for package in PACKAGES if module.startswith(f"{package}.")), "")


def package_of_object(thing: Any) -> str:
    """Name the Keras 2 that an object belongs to, by the first of its classes that is from one."""
    return next(filter(None, map(package_of, type(thing).__mro__)), "")


def is_a(thing: Any, *names: str) -> bool:
    """Whether an object is an instance of one of Keras' classes with these names."""
    return any(cls.__name__ in names and package_of(cls) for cls in type(thing).__mro__)


def is_layer(thing: Any) -> bool:
    """Whether an object is a layer of any Keras 2; models and cells are layers as well."""
    return is_a(thing, "Layer")


def is_recurrent(layer: Any) -> bool:
    """Whether something flows through time in a layer."""
    return is_a(layer, "RNN", "Bidirectional")


def internal(thing: Any, name: str) -> ModuleType:
    """Import what the Keras 2 of an object does not publish, by its path below the sources."""
    package = package_of_object(thing)
    sources = package if package == PACKAGES[2] else f"{package}.src"
    return import_module(f"{sources}.{name}")


def version(thing: Any) -> str:
    """Return the version of an object's Keras."""
    package = import_module(package_of_object(thing))
    return str(getattr(package, "__version__", ""))


def belongs_to_a_graph(model: Any) -> bool:
    """Whether a model was made in TensorFlow 1's graph mode."""
    return any(cls.__module__.endswith(".base_layer_v1") for cls in type(model).__mro__)


def is_own(function: Any, thing: Any) -> bool:
    """Whether a function is defined in the same Keras 2 as an object."""
    return getattr(function, "__module__", "").startswith(f"{package_of_object(thing)}.")
