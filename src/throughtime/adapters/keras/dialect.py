"""What the engine asks of a Keras: operations, structures, cells, and a loop over time.

`keras2.dialect` and `keras3.dialect` are modules that have all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from throughtime.adapters.records import Array, Attribute


class Dialect(Protocol):
    """One Keras.

    Attributes
    ----------
    ops : module
        Functions on tensors, named as in `keras.ops`.
    tree : module
        `flatten`, `map_structure`, `pack_sequence_as` and `is_nested` for structures.
    NO_DROPOUT : structure
        Dropout masks of a cell that drops nothing.
    """

    ops: Any
    tree: Any
    NO_DROPOUT: Any

    def is_float(self, tensor: Any, /) -> bool:
        """Whether a gradient with respect to this tensor or variable can exist."""

    def dtype_of(self, tensor: Any, /) -> str:
        """Name a tensor's dtype."""

    def shape_of(self, tensor: Any, /) -> tuple[Any, ...]:
        """Return a tensor's shape, None where it is open."""

    def numpy(self, tensor: Any, /, *, copy: bool = False) -> Array:
        """Bring a tensor to NumPy; bfloat16 as float32."""

    def tensor(self, array: Array, /) -> Any:
        """Bring an array to what a pass is given."""

    def path_of(self, variable: Any, /) -> str:
        """Name a variable with its scopes, parted by slashes."""

    def numbers_of(self, model: Any, /) -> dict[int, int]:
        """Give each variable of a model a number, by its identity."""

    def scan(
        self, layer: Any, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, sequences: Any, /
    ) -> tuple[Any, Any]:
        """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis."""

    def zeroes_masked_output(self, layer: Any, /) -> bool:
        """Whether a masked step of a recurrent layer emits 0."""

    def repeats_first_state(self, layer: Any, /) -> bool:
        """Whether a masked step emits the first state, and not the output before it."""

    def every_layer(self, model: Any, /) -> list[Any]:
        """Return the model and all layers and cells inside it."""

    def halves(self, layer: Any, /) -> tuple[Any, ...]:
        """Return both layers of a Bidirectional, else the layer itself."""

    def why_not(self, layer: Any, training: bool, /) -> str:
        """Return the reason for which a layer cannot be looked into, empty if it can."""

    def is_closed(self, layer: Any, training: bool, activations: frozenset[str], /) -> bool:
        """Whether the layer keeps its kernel and `cells` solves it."""

    def backend_name(self) -> str:
        """Name the framework that computes."""

    def sizes_of_states(self, cell: Any, /) -> list[Any]:
        """Return the size of each state, a number or a shape."""

    def compute_dtype(self, layer: Any, /) -> str:
        """Name the precision a layer computes in."""

    def evaluated(self, function: Any, array: Array, /) -> Array:
        """Apply a regulariser to an array."""

    def of_framework(self, model: Any, /) -> dict[str, Attribute]:
        """Name the Keras of a model, its version and its backend."""

    def of_training(self, model: Any, /, *, with_loss: bool) -> dict[str, Attribute]:
        """Name what the pass does otherwise than a training step."""

    def regularised(self, model: Any, /) -> list[str]:
        """Name what is regularised in a model."""

    def loss_scale_of(self, model: Any, /) -> float:
        """Return the factor by which the model's optimizer scales its loss, 1 without."""

    def activation_name(self, cell: Any, function: Any, /) -> str:
        """Name an activation as Keras does."""

    def called(self, cell: Any, x: Any, states: Sequence[Any], training: bool, /) -> tuple[Any, list[Any]]:
        """Call a cell as Keras' loop does; return its output and its states."""

    def recurrent_masks(self, masks: Any, /) -> list[Any]:
        """Take those that the state is multiplied with, one or one a gate, out of a cell's masks."""

    def with_dropout_masks(self, cell: Any, masks: Any, steps: Any, /) -> AbstractContextManager[None]:
        """Let a cell that takes all steps at once use these masks in place of new ones."""
