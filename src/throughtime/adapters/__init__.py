"""Chooses the adapter of a model by the modules its class comes from, for each object anew.

An adapter is a module, or any object, with what `Adapter` has.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import partial
from importlib.util import find_spec
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from throughtime._errors import UnsupportedModelError

if TYPE_CHECKING:
    from throughtime._common.memory.budget import Budget
    from throughtime.adapters.records import Array, ModelRecord, Request

Batch = TypeVar("Batch")
_SUPPORTED = (
    "Keras 3 models on the TensorFlow, JAX and torch backends, models of tf_keras and of TensorFlow's own "
    "Keras 2, native PyTorch modules, and JAX programs: Flax NNX and Equinox modules, and functions of x"
)
_JAX = frozenset({"flax", "equinox", "jax", "jaxlib"})
# Where the base classes of Keras 2 live, and none of Keras 3.
_KERAS_2 = ("tf_keras.", "keras.src.engine.", "keras.engine.", "tensorflow.python.keras.")


class AdapterProbe(Protocol):
    """Captures the same layers of one model on batch after batch."""

    def __call__(self, x: object, y: object, sample_weight: object, budget: Budget, /) -> ModelRecord:
        """Capture one batch; y is None for a capture without gradients."""

    def samples(self, x: object, /) -> int:
        """Count the samples of a batch."""

    def part(self, data: Batch, rows: slice, /) -> Batch:
        """Take some of the samples of x, y and sample weights."""

    def why_whole(self, data: tuple[object, ...], /) -> str:
        """Return why parts of a batch would not add up to it; empty where no reason is known yet."""

    def expect_one_layer(self) -> None:
        """Raise AmbiguousLayerError where several layers answer to what was asked for."""


class Adapter(Protocol):
    """The code that captures the models of one library."""

    def Probe(  # noqa: N802 - a class or what makes its instances
        self, model: Any, *, loss: Any, layers: object, request: Request
    ) -> AdapterProbe:
        """Choose layers of a model, see `selection.Selection.select`, and prepare their captures."""

    def describe(self, model: Any, layers: object, /) -> ModelRecord:
        """Read weights and flags of layers as they are now, and run nothing."""

    def losses(
        self, model: Any, x: object, y: object, sample_weight: object, /, *, loss: Any, training: bool
    ) -> Array:
        """Evaluate what each sample loses alone, in float64."""

    def weights_of(self, model: Any, /) -> object:
        """Copy all weights of a model, for `load_weights`."""

    def load_weights(self, model: Any, source: Any, /) -> object:
        """Put weights, or those in a file, into a model; return it, or the model that has them."""


def choose(model: object) -> Adapter:
    """Return the adapter for `model`."""
    # Each loads the library of its models, and is imported when there is one.
    if any(f"{cls.__module__}.".startswith(_KERAS_2) for cls in type(model).__mro__) and _is_layer(model):
        from throughtime.adapters.keras import keras2  # noqa: PLC0415

        return keras2
    roots = [cls.__module__.partition(".")[0] for cls in type(model).__mro__]
    # A Keras model on the torch backend is a torch.nn.Module too: Keras is asked first.
    if "keras" in roots and _is_layer(model):
        from throughtime.adapters.keras import keras3  # noqa: PLC0415

        return keras3
    if "torch" in roots and _is_module(model):
        from throughtime.adapters import torch  # noqa: PLC0415

        return torch
    if _is_program(model, roots) and find_spec("jax") is not None:
        from throughtime.adapters import jax  # noqa: PLC0415

        return jax
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    found = {"torch": "not a torch.nn.Module", "tf_keras": "not a layer of tf_keras"}
    library = next((text for root, text in found.items() if root in roots), None)
    what = f"a {name}" if library is None else f"a {name}, which is {library}"
    if isinstance(model, type):
        what = f"the class {model.__qualname__}, not an instance of it"
    raise UnsupportedModelError(
        f"Got {what}. throughtime captures {_SUPPORTED}. "
        "Pass the built model itself, or pass adapter= for another library."
    )


def _is_layer(model: object) -> bool:
    return any(cls.__name__ == "Layer" for cls in type(model).__mro__)


def _is_module(model: object) -> bool:
    return any(
        (cls.__module__, cls.__name__) == ("torch.nn.modules.module", "Module") for cls in type(model).__mro__
    )


def _is_program(model: object, roots: Collection[str]) -> bool:
    """Whether JAX may trace a model: a module of Flax or Equinox, a function, a pytree that can be called."""
    if isinstance(model, type) or not callable(model):
        return False
    if isinstance(model, (FunctionType, MethodType, partial)) or _JAX & {*roots}:
        return True
    tree_util = getattr(sys.modules.get("jax"), "tree_util", None)
    return tree_util is not None and not tree_util.all_leaves([model])
