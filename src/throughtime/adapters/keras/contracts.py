"""Objects of any Keras, which has no types, as the engine reads them: tensors, variables, layers, models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Call = Callable[..., Any]  # a layer, a cell, a loss or an activation, called as Keras calls it
Scanned = tuple[Any, Any]  # the last carry, and the outputs of each step
LoopStep = Callable[[Any, Any], Scanned]  # (carry, values of one step) -> (carry, outputs)
Held = Callable[[], Any]  # refers to an object weakly
Data = tuple[object, ...]  # x, y and sample weights of a batch
Shape = tuple[Any, ...]  # lengths; an open one is None, or a scalar tensor
INPUT, RECURRENT = "input", "recurrent"  # what a cell's dropout applies to


class Tensor(Protocol):
    """A tensor of a backend, or an array of a batch."""

    @property
    def shape(self) -> Any:
        """Lengths, None for open ones."""

    @property
    def dtype(self) -> Any:
        """Kind of its numbers."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...


LoopResult = tuple[Tensor, Tensor, Any]  # last output, all outputs, final states
Masks = Mapping[str, Sequence[Tensor]]  # of a cell's dropout by what it applies to: one, or one a gate


class Variable(Tensor, Protocol):
    """A weight, or a state that a layer keeps."""

    name: str
    path: str
    _value: Any  # as Keras 3 stores it


class Layer(Protocol):
    """A layer, a cell or a model; what is not named here is as its Keras has it."""

    name: str
    built: bool
    weights: Sequence[Variable]
    layers: Sequence[Layer]  # of a model
    layer: Layer  # of a wrapper
    cell: Layer  # of a recurrent layer
    call: Call
    __call__: Call

    def __getattr__(self, name: str, /) -> Any: ...


class Model(Layer, Protocol):
    """A model."""
