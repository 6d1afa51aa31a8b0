"""Reads what a Keras cell is made of, and runs one step of it with zero taps wherever a gradient is wanted.

States are tapped from outside the cell, gates as `adapters/gates` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras import gates

from .internals import conv_lstm_cell

STANDARD = {
    keras.layers.LSTMCell: "lstm",
    keras.layers.GRUCell: "gru",
    keras.layers.SimpleRNNCell: "simple_rnn",
    conv_lstm_cell(): "conv_lstm",
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
    """Name the states, as `gates.state_names` does."""
    # Keras' own cells, with a `call` of somebody else's, emit their first state.
    count = _number_of_states(cell)
    return gates.state_names(
        standard_kind(cell),
        getattr(cell, "state_names", ()),
        count,
        emits_first=count == 1 or isinstance(cell, tuple(STANDARD)),
        words={weight.name for weight in getattr(cell, "weights", ())},
    )


def _number_of_states(cell: Any) -> int:
    size = cell.state_size
    if standard_kind(cell):  # a ConvLSTM's state_size is -1
        return len(gates.STATES[standard_kind(cell)])
    return len(keras.tree.flatten(size)) if isinstance(size, (list, tuple)) else 1


def gates_of(cell: Any) -> dict[str, tuple[str, ...]]:
    """Gates by the attribute that holds their activation; empty where the cell is not one of Keras'."""
    return gates.gates_of(standard_kind(cell))


def gate_names(cell: Any) -> tuple[str, ...]:
    """Gates in the schema's order; empty where the cell is not one of Keras'."""
    return gates.gate_names(standard_kind(cell))


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


def step(
    cell: Any, x: Any, states: Sequence[Any], taps: Mapping[str, Any], *, training: bool
) -> gates.Stepped:
    """Run a cell once, gates and the cell state's way to the output tapped."""
    return gates.step(cell, standard_kind(cell), taps, lambda: _called(cell, x, states, training))


def plain_step(cell: Any, x: Any, states: Sequence[Any], *, training: bool) -> gates.Stepped:
    """Run a cell once, as it is."""
    return gates.stepped(*_called(cell, x, states, training), [])


def _called(cell: Any, x: Any, states: Sequence[Any], training: bool) -> tuple[Any, list[Any]]:
    """Call a cell as Keras' loop does."""
    nested = isinstance(cell.state_size, (list, tuple))
    given = keras.tree.pack_sequence_as(list(cell.state_size), list(states)) if nested else list(states)
    takes_training = isinstance(cell, keras.layers.Layer) and cell._call_has_training_arg
    keywords = {"training": training} if takes_training else {}
    output, after = cell(x, given, **keywords)
    return output, keras.tree.flatten(after)


# What the gradients of gates are needed for.
OF_GATES = frozenset({"gate_gradient", "step_contribution", "certificate"})


def lies_within_steps(cell: Any, quantities: frozenset[str]) -> bool:
    """Whether a quantity that was asked for lies within the steps of a cell, and not in the loop alone."""
    parts = inner_cells(cell)
    if quantities & {"gate_activation", *OF_GATES}:
        return True
    if "cell_gradient" in quantities and any(gates.CELL in state_names(part) for part in parts):
        return True
    return len(parts) > 1 and bool(quantities & {"input_gradient", "output_gradient"})
