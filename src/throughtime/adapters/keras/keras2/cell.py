"""Reads what a Keras 2 cell is made of, and runs one step of it with zero taps wherever a gradient is wanted.

States are tapped from outside the cell, gates as `adapters/gates` says.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from throughtime.adapters.keras import gates

from .library import is_a, is_layer, package_of_object

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


def is_stack(cell: Any) -> bool:
    """Whether a cell is Keras' stack of other cells."""
    return inner_cells(cell)[0] is not cell


def state_names(cell: Any) -> tuple[str, ...]:
    """Name the states, as `gates.state_names` does."""
    count = len(tf.nest.flatten(_sizes(cell)))
    return gates.state_names(
        standard_kind(cell),
        getattr(cell, "state_names", ()),
        count,
        emits_first=count == 1 or is_a(cell, *_KINDS),
        words={weight_name(weight) for weight in getattr(cell, "weights", ())},
    )


def weight_name(variable: Any) -> str:
    """Name a variable without its scopes: `kernel` for `lstm/lstm_cell/kernel:0`."""
    return re.sub(r"\W", "_", str(variable.name).rpartition("/")[2].partition(":")[0])


def _sizes(cell: Any) -> Any:
    """Return the sizes of a cell's states as a structure without shapes in it."""
    size = cell.state_size
    if isinstance(size, tf.TensorShape):
        return 0
    if isinstance(size, (list, tuple)):
        return [_sizes_of(each) for each in size]
    return 0


def _sizes_of(size: Any) -> Any:
    return 0 if isinstance(size, (int, tf.TensorShape)) else tf.nest.map_structure(lambda _: 0, size)


def gates_of(cell: Any) -> dict[str, tuple[str, ...]]:
    """Gates by the attribute that holds their activation; empty where the cell is not one of Keras'."""
    return gates.gates_of(standard_kind(cell))


def gate_names(cell: Any) -> tuple[str, ...]:
    """Gates in the schema's order; empty where the cell is not one of Keras'."""
    return gates.gate_names(standard_kind(cell))


def step(
    cell: Any, x: Any, states: Sequence[Any], taps: Mapping[str, Any], *, training: bool
) -> gates.Stepped:
    """Run a cell once, gates and the cell state's way to the output tapped."""
    return gates.step(cell, standard_kind(cell), taps, lambda: _called(cell, x, states, training))


def _called(cell: Any, x: Any, states: Sequence[Any], training: bool) -> tuple[Any, list[Any]]:
    """Call a cell as Keras' loop does."""
    given: Any = list(states)
    if isinstance(cell.state_size, (list, tuple)):
        given = tf.nest.pack_sequence_as(_sizes(cell), given)
    takes_training = "training" in inspect.signature(cell.call).parameters
    keywords = {"training": training} if takes_training else {}
    output, after = (cell if callable(cell) else cell.call)(x, given, **keywords)
    return output, tf.nest.flatten(after)


def is_built(cell: Any) -> bool:
    """Whether a cell has its weights; what is no layer has them from the start."""
    return not is_layer(cell) or bool(cell.built)
