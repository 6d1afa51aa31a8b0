"""Recurrent layers of Keras 3 and their cells; dropout masks are drawn once for all steps of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.contracts import Call, Layer, LoopStep, Scanned, Tensor
from throughtime.adapters.keras.library import every_layer
from throughtime.adapters.keras.loop import Loop

from .backend import module

JOINS_OUTER_STEPS = False
SEVERAL: type = tuple
_MASKS = ("_dropout_mask", "_recurrent_dropout_mask")
NO_DROPOUT = (None, None)


def recurrent_masks(masks: Sequence[Tensor]) -> list[Any]:
    """Take those that the state is multiplied with, one or one a gate, out of a cell's masks."""
    return [mask for mask in keras.tree.flatten(masks[1]) if mask is not None]


@contextmanager
def with_dropout_masks(cell: Layer, masks: Sequence[Tensor], steps: int) -> Iterator[None]:
    """Let a cell that takes all steps at once use these masks, of any one step, in place of new ones."""

    def tiled(mask: Tensor | None) -> Tensor | None:
        return mask if mask is None else keras.ops.tile(mask, (steps, *(1,) * (len(mask.shape) - 1)))

    with ExitStack() as stack:
        for name, mask in zip(_MASKS, masks, strict=True):
            if mask is not None:
                stack.enter_context(replaced(cell, name, keras.tree.map_structure(tiled, mask)))
        yield


def run_in_loop(
    loop: Loop, original: Call, arguments: Mapping[str, object], *, compares: bool
) -> tuple[Tensor, list[Tensor], list[object]]:
    """Run a layer's cells in the engine's loop; return its output, its states and its cells' masks."""
    layer: Any = loop.layer
    masks: list[object] = []
    reset = layer._maybe_reset_dropout_masks
    loop.own = layer.inner_loop if compares else None

    def keep(cell: Layer) -> None:
        """Note the masks that a layer's cells draw, before it throws them away."""
        if loop.training and cell is layer.cell:
            drawn = [[getattr(part, name, None) for name in _MASKS] for part in inner_cells(cell)]
            # Keras tracks its lists in a special type, which no framework can trace.
            masks[:] = [[list(one) if isinstance(one, list) else one for one in each] for each in drawn]
        reset(cell)

    with replaced(layer, "inner_loop", loop), replaced(layer, "_maybe_reset_dropout_masks", keep):
        result = original(**arguments)
    output, *states = result if layer.return_state else (result,)
    return output, states, masks


def as_keras_calls(layer: Layer, original: Call) -> Call:
    """Return a layer's call as it is."""
    return original


def loop_detector() -> Callable[[], bool]:
    """Return a function that checks whether the pass is in a user's loop: unknown on these backends."""
    return lambda: False


def scan(layer: Layer, step: LoopStep, carry: object, sequences: object) -> Scanned:
    """Run a step over time in the backend's loop."""
    return module().scan(step, carry, sequences)


def activation_name(cell: Layer, function: object) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = getattr(function, "__name__", type(function).__name__)
    known = getattr(keras.activations, name, None)
    return str(name) if function is known else f"custom {name}"


def draws_at_each_step(cell: Layer) -> bool:
    """Whether a cell holds random generators besides those of Keras' cells, which draw once a sequence."""
    layers = [] if not isinstance(cell, keras.layers.Layer) else every_layer(cell)
    return any(layer._seed_generators for layer in layers if not isinstance(layer, DropoutRNNCell))
