"""Recurrent layers of Keras 3 and their cells; dropout masks are drawn once for all steps of a sequence."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.contracts import INPUT, RECURRENT, Call, Layer, Masks, Tensor
from throughtime.adapters.keras.library import every_layer
from throughtime.adapters.keras.loop import Loop

JOINS_OUTER_STEPS = False
SEVERAL: type = tuple
_CACHES = {INPUT: "_dropout_mask", RECURRENT: "_recurrent_dropout_mask"}


@contextmanager
def with_dropout_masks(cell: Layer, masks: Masks, steps: int) -> Iterator[None]:
    """Let a cell that takes all steps at once use these masks, of any one step, in place of new ones."""
    is_one_a_gate = getattr(cell, "dropout_mask_count", None) is not None
    with ExitStack() as stack:
        for what, each in masks.items():
            tiled = [keras.ops.tile(mask, (steps, *(1,) * (len(mask.shape) - 1))) for mask in each]
            stack.enter_context(replaced(cell, _CACHES[what], tiled if is_one_a_gate else tiled[0]))
        yield


def _drawn(cell: Layer) -> Masks:
    """Read the masks that a cell has drawn for all steps; Keras keeps several in a tracked list."""
    found = {what: getattr(cell, name, None) for what, name in _CACHES.items()}
    masks = {what: mask for what, mask in found.items() if mask is not None}
    return {what: list(mask) if isinstance(mask, list) else [mask] for what, mask in masks.items()}


def run_in_loop(
    loop: Loop, original: Call, arguments: Mapping[str, object], *, compares: bool
) -> tuple[Tensor, list[Tensor], list[Masks]]:
    """Run a layer's cells in the engine's loop; return its output, its states and its cells' masks."""
    layer: Any = loop.layer
    masks: list[Masks] = []
    reset = layer._maybe_reset_dropout_masks
    loop.own = layer.inner_loop if compares else None

    def keep(cell: Layer) -> None:
        """Note the masks that a layer's cells draw, before it throws them away."""
        if loop.training and cell is layer.cell:
            masks[:] = map(_drawn, inner_cells(cell))
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


def activation_name(cell: Layer, function: object) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = getattr(function, "__name__", type(function).__name__)
    known = getattr(keras.activations, name, None)
    return str(name) if function is known else f"custom {name}"


def draws_at_each_step(cell: Layer) -> bool:
    """Whether a cell holds random generators besides those of Keras' cells, which draw once a sequence."""
    layers = [] if not isinstance(cell, keras.layers.Layer) else every_layer(cell)
    return any(layer._seed_generators for layer in layers if not isinstance(layer, DropoutRNNCell))
