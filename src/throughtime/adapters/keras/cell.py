"""Reads what a Keras cell is made of, and runs one step of it with zero taps wherever a gradient is wanted.

The gradient of a loss with respect to a tap is the total derivative at that place. States are tapped from
outside the cell; gates, and the way from an LSTM's c_t to its h_t, through the activations that Keras' own
cells apply in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from .internals import conv_lstm_cell
from .restore import replaced

STANDARD = {
    keras.layers.LSTMCell: "lstm",
    keras.layers.GRUCell: "gru",
    keras.layers.SimpleRNNCell: "simple_rnn",
    conv_lstm_cell(): "conv_lstm",
}
CELL = "cell"
# Words of the tree that no state of a user's cell can have.
_TAKEN = frozenset({"input", "output", "valid", "loss", "reduction_factor", "gate", "gate_activation"})
_STATES = {
    "lstm": ("hidden", CELL),
    "conv_lstm": ("hidden", CELL),
    "gru": ("hidden",),
    "simple_rnn": ("hidden",),
}


@dataclass(frozen=True)
class Order:
    """What a cell's activations are applied to, in the order in which its `call` applies them."""

    recurrent: tuple[str, ...]
    plain: tuple[str, ...]
    gates: tuple[str, ...]  # in the order of the schema


_LSTM = Order(("input", "forget", "output"), ("candidate", CELL), ("input", "forget", "candidate", "output"))
_ORDERS = {
    "lstm": _LSTM,
    "conv_lstm": _LSTM,
    "gru": Order(("update", "reset"), ("candidate",), ("update", "reset", "candidate")),
    "simple_rnn": Order((), ("gate",), ("gate",)),
}


def standard_kind(cell: Any) -> str:
    """Name a cell whose step is Keras' own; empty for every other."""
    for known, name in STANDARD.items():
        if isinstance(cell, known) and type(cell).call is known.call:
            return name
    return ""


def inner_cells(cell: Any) -> tuple[Any, ...]:
    """Return the cells that Keras' `StackedRNNCells` runs one after another, else the cell itself."""
    stacked = keras.layers.StackedRNNCells
    if isinstance(cell, stacked) and type(cell).call is stacked.call:
        return tuple(cell.cells)
    return (cell,)


def is_stack(cell: Any) -> bool:
    """Whether a cell is Keras' stack of other cells."""
    return inner_cells(cell)[0] is not cell


def state_names(cell: Any) -> tuple[str, ...]:
    """Name the states: as known, or as the cell's attribute `state_names` says, else by their number.

    Names that a tree cannot hold beside its own words and the cell's weights are not taken.
    """
    count = _number_of_states(cell)
    own = getattr(cell, "state_names", ())
    known = _STATES.get(standard_kind(cell)) or ((own,) if isinstance(own, str) else tuple(own))
    if len(known) == count == len({*known} - _words(cell)) and all(map(str.isidentifier, known)):
        return known
    numbered = tuple(f"state_{k}" for k in range(count))
    # Keras' own cells, with a `call` of somebody else's, emit their first state.
    emits_first = count == 1 or isinstance(cell, tuple(STANDARD))
    return ("hidden", *numbered[1:]) if emits_first else numbered


def _words(cell: Any) -> frozenset[str]:
    return _TAKEN | {weight.name for weight in getattr(cell, "weights", ())}


def _number_of_states(cell: Any) -> int:
    size = cell.state_size
    if standard_kind(cell):  # a ConvLSTM's state_size is -1
        return len(_STATES[standard_kind(cell)])
    return len(keras.tree.flatten(size)) if isinstance(size, (list, tuple)) else 1


def gates_of(cell: Any) -> dict[str, tuple[str, ...]]:
    """Gates by the attribute that holds their activation; empty where the cell is not one of Keras'."""
    order = _ORDERS.get(standard_kind(cell))
    if order is None:
        return {}
    plain = tuple(place for place in order.plain if place != CELL)
    by_attribute = {"activation": plain, "recurrent_activation": order.recurrent}
    return {attribute: gates for attribute, gates in by_attribute.items() if gates}


def gate_names(cell: Any) -> tuple[str, ...]:
    """Gates in the schema's order; empty where the cell is not one of Keras'."""
    kind = standard_kind(cell)
    return _ORDERS[kind].gates if kind else ()


def dropout_masks(cell: Any) -> list[Any]:
    """Return what the cell multiplies its input and its state with while it trains, as flat lists."""
    masks = [getattr(cell, name, None) for name in _MASKS]
    # Keras tracks its lists in a type of its own, which no framework can trace.
    return [list(mask) if isinstance(mask, list) else mask for mask in masks]


_MASKS = ("_dropout_mask", "_recurrent_dropout_mask")


@contextmanager
def with_dropout_masks(cell: Any, masks: Sequence[Any]) -> Iterator[None]:
    """Let a cell use these masks in place of new ones."""
    with ExitStack() as stack:
        for name, mask in zip(_MASKS, masks, strict=True):
            if mask is not None:
                stack.enter_context(replaced(cell, name, mask))
        yield


@dataclass(frozen=True)
class Stepped:
    """What one step of one cell gave; `output_state` is the position of the state that it hands out."""

    output: Any
    states: list[Any]
    gates: list[Any]
    output_state: int | None


def step(cell: Any, x: Any, states: Sequence[Any], taps: Mapping[str, Any], *, training: bool) -> Stepped:
    """Run a cell once, gates and the cell state's way to the output tapped."""
    kind = standard_kind(cell)
    order = _ORDERS.get(kind)
    if order is None:
        output, after = _called(cell, x, states, training)
        return _stepped(output, after, [])
    seen: dict[str, Any] = {}
    with ExitStack() as stack:
        for attribute, places in (("activation", order.plain), ("recurrent_activation", order.recurrent)):
            if places:
                tapped = _tapped(getattr(cell, attribute), places, taps, seen)
                stack.enter_context(replaced(cell, attribute, tapped))
        output, after = _called(cell, x, states, training)
    return _stepped(output, after, [seen[name] for name in order.gates])


def _tapped(activation: Any, places: Sequence[str], taps: Mapping[str, Any], seen: dict[str, Any]) -> Any:
    """Wrap an activation: each application gets the tap of its place and leaves its value there."""
    coming = iter(places)

    def call(value: Any, *args: Any, **kwargs: Any) -> Any:
        place = next(coming)
        seen[place] = activation(value + taps[place] if place in taps else value, *args, **kwargs)
        return seen[place]

    return call


def _called(cell: Any, x: Any, states: Sequence[Any], training: bool) -> tuple[Any, list[Any]]:
    """Call a cell as Keras' loop does."""
    nested = isinstance(cell.state_size, (list, tuple))
    given = keras.tree.pack_sequence_as(list(cell.state_size), list(states)) if nested else list(states)
    takes_training = isinstance(cell, keras.layers.Layer) and cell._call_has_training_arg
    keywords = {"training": training} if takes_training else {}
    output, after = cell(x, given, **keywords)
    return output, keras.tree.flatten(after)


def _stepped(output: Any, after: list[Any], gates: list[Any]) -> Stepped:
    same = (position for position, state in enumerate(after) if state is output)
    return Stepped(output, after, gates, next(same, None))
