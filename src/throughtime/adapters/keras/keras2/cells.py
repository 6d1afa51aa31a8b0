"""Recurrent layers of Keras 2: their loop, and the dropout masks of their cells.

A layer with a kernel for the whole sequence drops from it at once. A cell in Keras 2's loop draws new masks
at each step, in a graph that nothing leaves but what a step hands out: `Drawn` lets the engine's loop hand
out the masks as well. A layer with `unroll=True` draws once for all steps.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import tensorflow as tf

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.contracts import INPUT, RECURRENT, Call, Layer, LoopResult, Masks, Tensor
from throughtime.adapters.keras.library import every_layer, internal, is_a, is_own
from throughtime.adapters.keras.loop import Loop, in_processing_order

from .graph import autograph_enabled

JOINS_OUTER_STEPS = True
SEVERAL: type = list
# The same names in Keras 2 and in Keras 3 for functions with other slopes.
_OTHER_SLOPES = ("hard_sigmoid",)
_GETTERS = {INPUT: "get_dropout_mask_for_cell", RECURRENT: "get_recurrent_dropout_mask_for_cell"}
_CACHES = ("_dropout_mask_cache", "_recurrent_dropout_mask_cache")


def run_in_loop(
    loop: Loop, original: Call, arguments: Mapping[str, object], *, compares: bool
) -> tuple[Tensor, list[Tensor], Sequence[Masks]]:
    """Run a layer's cells in the engine's loop; return its output, its states and its cells' masks."""
    layer: Any = loop.layer
    training = loop.training
    inputs = next(iter(arguments.values()))
    inputs, initial, _ = layer._process_inputs(inputs, arguments.get("initial_state"), None)
    initial = tf.nest.map_structure(tf.convert_to_tensor, initial)
    parts = inner_cells(layer.cell)
    for each in {id(cell): cell for cell in (layer.cell, *parts)}.values():
        layer._maybe_reset_cell_dropout_mask(each)
    drawn = Drawn(layer, parts, training)
    loop.drawn = drawn.of_the_step

    def own(sequence: Tensor, states: Sequence[Tensor], mask: Tensor | None, training: bool) -> LoopResult:
        return _own(layer, original, {**arguments, "training": training}, sequence, states)

    loop.own = own if compares and not drawn.is_active else None
    sequence = drawn.dropped(inputs)
    with drawn.noted():
        last, outputs, states = loop(sequence, initial, arguments.get("mask"), training)
    if layer.stateful:
        pairs = zip(tf.nest.flatten(layer.states), tf.nest.flatten(states), strict=True)
        layer.add_update([tf.compat.v1.assign(old, tf.cast(new, old.dtype)) for old, new in pairs])
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    return outputs if layer.return_sequences else last, states, drawn.of_all_steps(loop)


def _own(
    layer: Layer, original: Call, arguments: Mapping[str, object], sequence: Tensor, states: Sequence[Tensor]
) -> LoopResult:
    """Run the layer as it is, from the same states."""
    first = next(iter(arguments))
    known = {"training", "mask", "initial_state"} & {*inspect.signature(layer.call).parameters}
    given = {name: value for name, value in arguments.items() if name in known}
    given |= {first: sequence, "initial_state": states}
    with (
        replaced(layer, "return_sequences", True),
        replaced(layer, "return_state", True),
        replaced(layer, "stateful", False),
    ):
        outputs, *final = original(**given)
    return outputs[:, -1], outputs, final


def activation_name(cell: Layer, function: Any) -> str:
    """Name an activation as Keras does; another function of the same name is not that activation."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if name in _OTHER_SLOPES:
        return f"{name} of Keras 2"
    is_known = is_own(inspect.unwrap(function), cell) or function in (tf.tanh, tf.sigmoid)
    return name if is_known else f"custom {name}"


def as_keras_calls(layer: Layer, original: Call) -> Call:
    """Return a layer's call as Keras makes it: in a graph, a user's own goes through autograph."""
    converts = getattr(layer, "_should_use_autograph", None)
    converts = converts or partial(internal(layer, "engine.base_layer_utils").is_subclassed, layer)
    if tf.executing_eagerly() or not converts():
        return original
    return tf.__internal__.autograph.tf_convert(original, autograph_enabled())


def loop_detector() -> Callable[[], bool]:
    """Return a function that checks later whether the pass is in a loop or branch of the user's."""
    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def is_in_a_loop() -> bool:
        if tf.executing_eagerly():
            return False
        here: Any = tf.compat.v1.get_default_graph()
        return here is not graph or here._get_control_flow_context() is not None

    return is_in_a_loop


def draws_at_each_step(cell: Layer) -> bool:
    """Whether a cell holds layers that draw, besides those of Keras' cells, whose masks are known."""
    names = ("BaseRandomLayer", "Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout")
    return any(is_a(each, *names) and not is_a(each, "DropoutRNNCellMixin") for each in every_layer(cell))


class Drawn:
    """The masks that the cells of one layer draw while they run in the engine's loop."""

    def __init__(self, layer: Any, parts: Sequence[Layer], training: bool) -> None:
        rates = [getattr(part, name, 0) for part in parts for name in ("dropout", "recurrent_dropout")]
        self.is_active = training and any(rates)
        self._layer, self._parts = layer, parts if self.is_active else ()
        self._whole: Any = None  # what was dropped from the whole sequence drops from no step
        self._by_place: list[dict[str, list[Tensor]]] = [{} for _ in self._parts]

    def dropped(self, sequence: Tensor) -> Tensor:
        """Drop from the whole sequence where the layer has a kernel for it."""
        is_whole = self.is_active and getattr(self._layer, "_could_use_gpu_kernel", False)
        if not is_whole or not self._layer.dropout:
            return sequence
        self._layer.reset_dropout_mask()
        self._whole = self._layer.get_dropout_mask_for_cell(sequence, True, count=1)
        return sequence * self._whole

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what the cells draw inside the block."""
        with ExitStack() as stack:
            for part, noted in zip(self._parts, self._by_place, strict=True):
                for what, name in _GETTERS.items():
                    if hasattr(part, name):
                        get = self._noting(getattr(part, name), what, noted)
                        stack.enter_context(
                            replaced(part, name, get if self._whole is None else _giving([1.0]))
                        )
                stack.enter_context(_without_cache(part))
            yield

    def _noting(self, original: Call, what: str, noted: dict[str, list[Tensor]]) -> Call:
        def get(*args: object, **kwargs: object) -> object:
            if self._layer.unroll and what in noted:
                return _giving(noted[what])(*args, **kwargs)
            mask = original(*args, **kwargs)
            if mask is not None:
                noted[what] = list(mask) if isinstance(mask, (list, tuple)) else [mask]
            return mask

        return get

    def of_the_step(self) -> dict[str, Tensor]:
        """Give each mask that was drawn last a name, for the loop to hand it out."""
        return {
            f"{place}.{what}.{k}": mask
            for place, noted in enumerate(self._by_place)
            for what, masks in noted.items()
            for k, mask in enumerate(masks)
        }

    def of_all_steps(self, loop: Loop) -> list[Masks]:
        """Arrange masks (time, sample, …) that a loop has handed out by inner cell, in processing order."""
        if self._whole is not None:
            return [{INPUT: [in_processing_order(loop.keras, self._layer, self._whole)]}]
        return [
            {
                what: [loop.masks[f"{place}.{what}.{k}"] for k in range(len(each))]
                for what, each in noted.items()
            }
            for place, noted in enumerate(self._by_place)
        ]


@contextmanager
def _without_cache(cell: Layer) -> Iterator[None]:
    """Let a cell keep what it draws apart from what it has drawn before."""
    with ExitStack() as stack:
        for name in _CACHES:
            if hasattr(cell, name):
                cache = getattr(cell, name)
                stack.enter_context(replaced(cell, name, type(cache)(cache.default_factory)))
        yield


@contextmanager
def with_dropout_masks(cell: Layer, masks: Masks, steps: int) -> Iterator[None]:
    """Let a cell that takes all steps at once use these masks (time, sample, …) in place of new ones."""
    with ExitStack() as stack:
        stack.enter_context(_without_cache(cell))
        for what, name in _GETTERS.items():
            if what in masks and hasattr(cell, name):
                # All steps may be taken several times.
                tiles = [(steps // tf.shape(mask)[0], *(1,) * (len(mask.shape) - 1)) for mask in masks[what]]
                copies = map(tf.tile, masks[what], tiles)
                flat = [tf.reshape(mask, (-1, *mask.shape[2:])) for mask in copies]
                stack.enter_context(replaced(cell, name, _giving(flat)))
        yield


def _giving(masks: Sequence[Tensor | float]) -> Call:
    """Make what hands out these masks in place of new ones; 1 drops nothing."""

    def get(*args: object, count: int = 1, **kwargs: object) -> object:
        if count == 1:
            return masks[0]
        return masks if len(masks) == count else [masks[0]] * count

    return get
