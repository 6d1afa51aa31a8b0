"""The protocol between the engine and a Keras: tensors, cells, models, losses, differentiated passes.

`keras2.dialect` and `keras3.dialect` are modules that have all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from throughtime.adapters.records import Attribute

from .contracts import Call, Data, Layer, LoopStep, Masks, Model, Scanned, T, Tensor, Variable

if TYPE_CHECKING:
    from throughtime._inputs.restoring import Restored

    from .loop import Loop
    from .reductions import Labels


class Result(NamedTuple):
    """Tensors of one pass and the gradients that exist, by what they are of."""

    tensors: dict[str, Tensor]
    gradients: dict[str, Tensor]


Mark = Callable[[str, Tensor], Tensor]  # key, tensor -> a copy to differentiate with respect to
# -> a scalar to differentiate, None for nothing; what it keeps
Step = Callable[[Mark], tuple[Tensor | None, T]]
Traced = Callable[[Any], Result]  # inputs -> Result
Computation = Callable[[Data], Result]  # what can be traced
Run = Callable[[Sequence[Tensor], Data], Result]  # the same, of values of all variables as well


class Dialect(Protocol):
    """One Keras."""

    # Tensors of the pass, and arrays of the batch.

    ops: ModuleType  # functions on tensors, named as in `keras.ops`
    tree: ModuleType  # `flatten`, `map_structure`, `pack_sequence_as` and `is_nested` for structures

    def batch(self, model: Model, /, *structures: object) -> tuple[object, ...]:
        """Bring x, y and sample weights to what a pass is given, or refuse them."""

    def beside(self, tensor: Tensor, name: str, /) -> Tensor | None:
        """Return what Keras keeps beside a tensor by this name, None for nothing."""

    def set_beside(self, tensor: Tensor, name: str, value: Tensor | None, /) -> None:
        """Keep something beside a tensor, None for nothing."""

    # Recurrent layers and their cells.

    JOINS_OUTER_STEPS: bool  # a TimeDistributed calls its layer once, with all outer steps as samples
    SEVERAL: type  # of what a layer returns that returns states beside its output

    def as_keras_calls(self, layer: Layer, original: Call, /) -> Call:
        """Return a layer's call as Keras makes it."""

    def loop_detector(self) -> Callable[[], bool]:
        """Return a function that checks later whether the pass is in a loop or branch of the user's."""

    def run_in_loop(
        self, loop: Loop, original: Call, arguments: Mapping[str, object], /, *, compares: bool
    ) -> tuple[Tensor, list[Tensor], Sequence[Masks]]:
        """Run a layer's cells in the engine's loop; return output, states, and dropout masks by inner cell.

        With `compares` the loop is compared with the layer's own.
        """

    def with_weights(
        self, layer: Layer, copied: Callable[[int, Tensor], Tensor], /
    ) -> AbstractContextManager[None]:
        """Let a layer compute with what `copied` (position, value) makes of its weights."""

    def scan(self, step: LoopStep, carry: object, sequences: object, /) -> Scanned:
        """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis."""

    def draws_at_each_step(self, cell: Layer, /) -> bool:
        """Whether a cell draws random numbers at each step besides the dropout masks that are known."""

    def with_dropout_masks(self, cell: Layer, masks: Masks, steps: int, /) -> AbstractContextManager[None]:
        """Let a cell that takes all steps at once use these masks in place of new ones."""

    def activation_name(self, cell: Layer, function: object, /) -> str:
        """Name an activation as Keras does."""

    # Operations on a whole model, its layers and its variables.

    def check_model(self, model: Model, /) -> None:
        """Refuse what cannot be captured."""

    def automatic_name_count(self, layer: Layer, prefix: str, /) -> int:
        """How many names Keras has given out for this prefix, where it has given out most."""

    def compute_dtype(self, layer: Layer, /) -> str:
        """Name the precision a layer computes in."""

    def weight_values(self, model: Model, variables: Sequence[Variable], /) -> dict[int, object]:
        """Read variables as they are now, by their identity."""

    def untouched(self, model: Model, /) -> Restored:
        """Take back every attribute written inside the block, also when it raises or is interrupted."""

    def of_framework(self, model: Model, /) -> dict[str, Attribute]:
        """Name the Keras of a model, its version and its backend."""

    def regularised(self, model: Model, /) -> list[str]:
        """Name what is regularised in a model, once for each regulariser."""

    # Losses that a model was compiled with, or that were passed.

    AVERAGES_OVER_VALID_STEPS: bool  # a mean over samples and steps leaves masked steps out

    def loss_function(self, passed: object, /) -> object:
        """Return what the name of a loss stands for, where that can be called by itself."""

    def losses_to_call(self, model: Model, name: str | None, /) -> Call:
        """Make what is called with labels, predictions and weights: of the model's losses, or of one name."""

    def single_losses(self, losses: object, /) -> list[object]:
        """List each output's loss, known after `losses` has been called."""

    def computed_loss(
        self, model: Model, losses: object, labels: Labels, predictions: object, training: bool, /
    ) -> Tensor:
        """Evaluate the model's own `compute_loss`, which adds what layers add."""

    def added_losses(self, model: Model, /) -> list[Tensor]:
        """List what layers and regularisers have added to the loss in this pass, a scalar each."""

    # Running a model in its framework.

    BACKEND: str  # the framework that computes
    RUNS_WITHOUT_XLA: bool  # whatever a model was compiled for

    def traced(self, model: Model, computation: Computation, inputs: Data, /) -> Traced:
        """Trace a computation with a model, which it holds weakly, for inputs of these shapes."""

    def differentiated(
        self, model: Model, step: Step[T], variables: Mapping[str, Variable], /
    ) -> tuple[T, dict[str, Tensor]]:
        """Run a step; return what it keeps, and the gradients that exist, of its marks and of variables."""

    def evaluated_once(self, model: Model, function: Call, inputs: object, /) -> float:
        """Evaluate a function of a batch, with the model's variables as they are."""
