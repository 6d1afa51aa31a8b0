"""Reads what a Keras cell is made of, and runs one step of it with zero taps wherever a gradient is wanted.

States are tapped from outside the cell, gates as `gates` says.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from . import gates
from .dialect import Dialect
from .library import is_a, package_of_object

_KINDS = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "simple_rnn", "ConvLSTMCell": "conv_lstm"}
# What a cell's step is made of; a class that has one of its own is no standard cell.
_METHODS = (
    "call",
    "_compute_carry_and_output",
    "_compute_carry_and_output_fused",
    "input_conv",
    "recurrent_conv",
)


def standard_kind(cell: Any) -> str:
    """Name a cell whose step is Keras' own; empty for every other."""
    owners = {_owner(cell, name) for name in _METHODS if hasattr(type(cell), name)}
    return _KINDS.get(owners.pop(), "") if len(owners) == 1 else ""


def _owner(cell: Any, method: str) -> str:
    """Name the class of Keras that a cell's method is defined in; empty for a user's."""
    function = inspect.unwrap(getattr(type(cell), method))
    module = f"{function.__module__}."
    if not module.startswith(f"{package_of_object(cell)}.") or "legacy" in module:
        return ""
    return str(function.__qualname__).partition(".")[0]


def inner_cells(cell: Any) -> tuple[Any, ...]:
    """Return the cells that Keras' `StackedRNNCells` runs one after another, else the cell itself."""
    if is_a(cell, "StackedRNNCells") and _owner(cell, "call") == "StackedRNNCells":
        return tuple(cell.cells)
    return (cell,)


def state_names(keras: Dialect, cell: Any) -> tuple[str, ...]:
    """Name the states, as `gates.state_names` does."""
    kind = standard_kind(cell)
    # A ConvLSTM's state_size is −1.
    count = len(gates.STATES[kind]) if kind else len(sizes_of_states(keras, cell))
    return gates.state_names(
        kind,
        getattr(cell, "state_names", ()),
        count,
        # Keras' own cells, with a `call` of somebody else's, emit their first state.
        emits_first=count == 1 or is_a(cell, *_KINDS),
        words={keras.path_of(weight).rpartition("/")[2] for weight in getattr(cell, "weights", ())},
    )


def gate_names(cell: Any) -> tuple[str, ...]:
    """Gates in the schema's order; empty where the cell is not one of Keras'."""
    return gates.gate_names(standard_kind(cell))


def step(
    keras: Dialect, cell: Any, x: Any, states: Sequence[Any], taps: Mapping[str, Any], *, training: bool
) -> gates.Stepped:
    """Run a cell once, gates and the cell state's way to the output tapped."""
    return gates.step(cell, standard_kind(cell), taps, lambda: called(keras, cell, x, states, training))


def plain_step(keras: Dialect, cell: Any, x: Any, states: Sequence[Any], *, training: bool) -> gates.Stepped:
    """Run a cell once, as it is."""
    return gates.stepped(*called(keras, cell, x, states, training), [])


def sizes_of_states(keras: Dialect, cell: Any) -> list[Any]:
    """Return the size of each state, a number or a shape."""
    size = cell.state_size
    sizes: list[Any] = keras.tree.flatten(size) if isinstance(size, (list, tuple)) else [size]
    return sizes


def called(keras: Dialect, cell: Any, x: Any, states: Sequence[Any], training: bool) -> tuple[Any, list[Any]]:
    """Call a cell as Keras' loop does; return its output and its states."""
    given: Any = list(states)
    if isinstance(cell.state_size, (list, tuple)):
        given = keras.tree.pack_sequence_as([_places(keras, size) for size in cell.state_size], given)
    takes_training = getattr(cell, "_call_has_training_arg", None)  # known to Keras 3
    if takes_training is None:
        takes_training = hasattr(cell, "call") and "training" in inspect.signature(cell.call).parameters
    keywords = {"training": training} if takes_training else {}
    output, after = (cell if callable(cell) else cell.call)(x, given, **keywords)
    return output, keras.tree.flatten(after)


def _places(keras: Dialect, size: Any) -> Any:
    """Put a number in the place of each state, whose size may be a shape."""
    return keras.tree.map_structure(lambda _: 0, size) if isinstance(size, (list, tuple, dict)) else 0
