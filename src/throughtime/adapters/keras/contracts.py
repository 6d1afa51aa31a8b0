"""Objects of any Keras, which has no types, as the engine reads them: tensors, variables, layers, models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from throughtime.adapters.records import Array

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
    """A layer, a cell or a model; what some kinds have alone is used where a layer is of that kind."""

    name: str
    built: bool
    trainable: bool
    weights: Sequence[Variable]
    call: Call
    __call__: Call
    _callable_losses: Sequence[Call]  # of Keras 2
    _seed_generators: Sequence[object]  # of Keras 3
    _flatten_layers: Callable[..., Sequence[Layer]]
    # of a cell
    cells: Sequence[Layer]
    state_size: object
    use_bias: bool
    kernel: Variable
    recurrent_kernel: Variable
    bias: Variable
    # of a recurrent layer
    cell: Layer
    units: int
    reset_after: bool
    states: object
    go_backwards: bool
    return_sequences: bool
    return_state: bool
    stateful: bool
    unroll: bool
    zero_output_for_mask: bool
    compute_output_shape: Callable[[Shape], Any]
    # of a wrapper or a model
    layers: Sequence[Layer]
    layer: Layer
    forward_layer: Layer
    backward_layer: Layer
    merge_mode: str | None


class Model(Layer, Protocol):
    """A model."""

    variables: Sequence[Variable]
    loss: object
    loss_weights: object
    losses: Sequence[Tensor]
    jit_compile: bool
    compute_loss: Call
    get_weights: Callable[[], list[Array]]
    set_weights: Callable[[object], None]
    load_weights: Call
