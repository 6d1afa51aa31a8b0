"""Gives torch's recurrent weights their names and one orientation: input rows, gates apart, units last.

torch keeps weights as (gate · unit, feature), the gates of an LSTM as i, f, g, o and those of a GRU as
r, z, n, where z keeps; the schema has input, forget, candidate, output and update, reset, candidate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from throughtime._vocabulary import RESERVED, WEIGHTS
from throughtime.adapters.axes import GATE_ORDER, with_gates
from throughtime.adapters.records import Array

PROJECTION = "projection"
# Words of the schema that a module's own parameter would take the place of.
_TAKEN = RESERVED - set(WEIGHTS)


def names(count: int) -> tuple[str, ...]:
    """Name so many weights of one direction in torch's order.

    Examples
    --------
    >>> names(4), names(3)
    (('kernel', 'recurrent_kernel', 'bias', 'recurrent_bias'), ('kernel', 'recurrent_kernel', 'projection'))
    """
    biases = ("bias", "recurrent_bias") if count >= 4 else ()
    projection = (PROJECTION,) if count % 2 else ()
    return ("kernel", "recurrent_kernel", *biases, *projection)


def projected_dims(is_bidirectional: bool) -> dict[str, tuple[str, ...]]:
    """Axes of a layer whose cell is wider than its hidden state.

    Examples
    --------
    >>> projected_dims(False)["cell"], projected_dims(True)["projection"]
    (('sample', 'time', 'cell_unit'), ('direction', 'cell_unit', 'unit'))
    """
    direction = ("direction",) if is_bidirectional else ()
    found = {
        "cell": ("sample", "time", *direction, "cell_unit"),
        "gate_activation": ("sample", "time", *direction, "gate", "cell_unit"),
        "initial_cell": ("sample", *direction, "cell_unit"),
        "kernel": (*direction, "feature", "gate", "cell_unit"),
        "recurrent_kernel": (*direction, "unit_from", "gate", "cell_unit"),
        "bias": (*direction, "gate", "cell_unit"),
        "recurrent_bias": (*direction, "gate", "cell_unit"),
        PROJECTION: (*direction, "cell_unit", "unit"),
    }
    found |= {f"{name}_gradient": axes for name, axes in found.items()}
    return {**found, "gate_gradient": found["gate_activation"]}


def oriented(kind: str, arrays: Sequence[Array | None], suffix: str = "") -> dict[str, Array]:
    """Bring one direction's weights, or their gradients, into the schema's orientation.

    They stand in torch's order; what is None is left out. `suffix` is appended to each name.
    """
    pairs = zip(names(len(arrays)), arrays, strict=True)
    return {f"{name}{suffix}": turned(kind, name, array) for name, array in pairs if array is not None}


def turned(kind: str, name: str, array: Array) -> Array:
    """(gate · unit, feature) to (feature, gate, unit); a projection, (unit, cell_unit), is turned alone."""
    if kind not in GATE_ORDER:
        return array
    return array.T if name == PROJECTION else with_gates(kind, array.T)


def kind_of(module: Any) -> str:
    """Name the kind of one of torch's recurrent layers or cells.

    Examples
    --------
    >>> kind_of(nn.GRUCell(2, 3)), kind_of(nn.RNN(2, 3))
    ('gru', 'simple_rnn')
    """
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return "lstm"
    return "gru" if isinstance(module, (nn.GRU, nn.GRUCell)) else "simple_rnn"


def own(module: Any) -> dict[str, Any]:
    """Name the parameters of any layer, those of its parametrizations too."""
    return {_name(name): parameter for name, parameter in module.named_parameters()}


def _name(name: str) -> str:
    name = re.sub(r"\W", "_", name)
    return f"{name}_parameter" if name in _TAKEN else name
