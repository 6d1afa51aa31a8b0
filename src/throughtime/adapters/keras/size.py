"""What one call of a recurrent layer takes in memory, told from shapes and settings before it runs.

`meter` adds the calls of a pass up; what the backends hold while they run was measured and stands in `held`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import keras

from throughtime._budget import NOTHING, Amount, Need
from throughtime.adapters import needs
from throughtime.adapters.gates import GATED
from throughtime.adapters.needs import COLUMNS, Direction, bytes_of

from .cell import inner_cells
from .held import HELD, OTHER
from .inside import halves, is_closed, why_not
from .own_cells import own_cell
from .weights import kind_of_cell

OWN = "own"  # a cell of one's own that is registered
_WITH_CELL = ("lstm", "conv_lstm")
_COLUMNS = {**GATED, **COLUMNS}


@dataclass(frozen=True)
class Asked:
    """What is asked of a call.

    Attributes
    ----------
    quantities : frozenset of str
        The schema's names; empty for a layer that only runs along.
    inside : frozenset of str
        Those among them that are found inside a layer.
    flows_back : bool
        A gradient flows back through the layer.
    activations : frozenset of str
        Those with a derivative in closed form.
    training : bool
    reaches_weights : bool
        Gradients of weights are found on the way.
    is_repeated : bool
        The pass runs once more, beside what it gave the first time.
    """

    quantities: frozenset[str]
    inside: frozenset[str]
    flows_back: bool
    activations: frozenset[str]
    training: bool
    reaches_weights: bool = True
    is_repeated: bool = False


def need(layer: Any, shape: tuple[int, ...], samples: int, asked: Asked) -> Need:
    """Tell what one call takes.

    Parameters
    ----------
    layer : RNN or Bidirectional
    shape : tuple of int
        Of the input, samples first, then time.
    samples : int
        Of the batch; a layer inside another one may see more.
    asked : Asked
    """
    directions = [_direction(half, shape, samples) for half in halves(layer)]
    is_merged = getattr(layer, "merge_mode", None) in ("sum", "mul", "ave")
    total = Need(needs.outside(directions, asked.quantities, is_merged=is_merged))
    for half, direction in zip(halves(layer), directions, strict=True):
        is_known = is_closed(half, asked.training, asked.activations)
        repeated = needs.handed_out(direction) if asked.is_repeated else NOTHING
        passing = _passing(direction, asked, is_known=is_known)
        total += Need(passing=passing, left=_staying(direction, asked), repeated=repeated)
        if asked.inside and not why_not(layer, asked.training):
            total += _inside(half, direction, asked, is_known=is_known)
    return total


def _direction(layer: Any, shape: tuple[int, ...], samples: int) -> Direction:
    own = own_cell(layer)
    cells = [(kind_of_cell(cell), _units(cell, layer, shape)) for cell in inner_cells(layer.cell)]
    units = [sum(sizes) for _, sizes in cells]
    if own is None:
        kind, output, hidden = cells[0][0], cells[-1][1][0], sum(units)
        further = sum(size for (kind, _), size in zip(cells, units, strict=True) if kind in _WITH_CELL)
        columns = sum(_COLUMNS.get(kind, 0) * size for (kind, _), size in zip(cells, units, strict=True))
    else:
        kind, output = OWN, cells[0][1][0]
        hidden, further, columns = output, units[0] - output, len(own.gates) * output
    return Direction(
        kind="lstm" if kind == "conv_lstm" else kind,
        rows=shape[0] / samples,
        steps=shape[1],
        output_steps=shape[1] if layer.return_sequences else 1,
        features=prod(shape[2:]),
        output=output,
        hidden=hidden,
        cell=further,
        columns=columns,
        item=bytes_of(layer.compute_dtype),
        weights=sum(prod(weight.shape) for weight in layer.weights) * bytes_of(layer.variable_dtype),
    )


def _units(cell: Any, layer: Any, shape: tuple[int, ...]) -> list[int]:
    """Sizes of a cell's states, all but the LSTM's c, which is as large as h."""
    kind = kind_of_cell(cell)
    if kind == "conv_lstm":
        returned = layer.compute_output_shape(shape)
        output = returned[0] if layer.return_state else returned
        return [prod(output[2 if layer.return_sequences else 1 :])]
    if kind in GATED:
        return [int(cell.units)]
    sizes = cell.state_size if isinstance(cell.state_size, (list, tuple)) else [cell.state_size]
    return [_elements(size) for size in sizes]


def _elements(size: Any) -> int:
    """Count the elements of a state, of whose shape parts may not be known."""
    lengths = size if isinstance(size, (list, tuple)) else [size]
    return prod(length for length in lengths if isinstance(length, int) and length > 0)


def _passing(direction: Direction, asked: Asked, *, is_known: bool) -> Amount:
    """Count what the backend holds while the pass runs."""
    held = HELD[keras.backend.backend()]
    by_kind = held.back if asked.flows_back else held.forward
    share = held.without_weights if asked.flows_back and not asked.reaches_weights else 1.0
    width = direction.hidden + (direction.cell if direction.kind == OWN else 0)
    states = by_kind.get(direction.kind, by_kind[OTHER]) * width
    elements = share * states + held.inputs * direction.features
    if asked.inside and not is_known:
        elements += held.unrolled * (direction.hidden + direction.cell + direction.columns)
    copies = held.weights + _pending(direction, asked)
    return Amount(direction.at_every_step(elements), copies * direction.weights + _of_steps(direction))


def _of_steps(direction: Direction) -> int:
    return HELD[keras.backend.backend()].each_step * direction.steps


def _pending(direction: Direction, asked: Asked) -> int:
    pending = HELD[keras.backend.backend()].pending
    return min(pending, direction.steps) if asked.flows_back else 0


def _staying(direction: Direction, asked: Asked) -> Amount:
    """Count what the backend's allocator does not give back."""
    held = HELD[keras.backend.backend()]
    states = held.stays if asked.flows_back else min(held.stays, held.forward[OTHER])
    pending = _pending(direction, asked) if held.stays else 0
    once = pending * direction.weights + _of_steps(direction) / 4
    return Amount(direction.at_every_step(states * direction.output), once)


def _inside(layer: Any, direction: Direction, asked: Asked, *, is_known: bool) -> Need:
    if not is_known:
        return _unrolled(direction, asked)
    if own_cell(layer) is not None:
        return needs.own_solved(direction, asked.quantities)
    return needs.solved(direction, asked.quantities)


def _unrolled(direction: Direction, asked: Asked) -> Need:
    """Count what the framework returns for a cell that is unrolled: everything, whatever is asked for."""
    kept = direction.kept(asked.quantities)
    elements = 2 * (direction.hidden + direction.cell + direction.columns + direction.features)
    left = direction.at_every_step(elements + direction.hidden)
    returned = sum(amount.each for amount in kept.values())
    return Need(kept, left=Amount(max(0.0, left - returned), 2 * direction.weights))
