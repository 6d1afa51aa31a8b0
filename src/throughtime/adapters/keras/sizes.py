"""What one call of a recurrent layer of any Keras takes in memory, told before it runs.

`meter` adds the calls of a pass up; what the backends hold while they run was measured and stands in `held`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from throughtime._memory.budget import NOTHING, Amount, Need
from throughtime.adapters import needs
from throughtime.adapters.needs import COLUMNS, Direction

from .gates import GATED
from .held import OTHER, Held

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


def need(
    directions: Sequence[tuple[Direction, bool]],
    asked: Asked,
    held: Held,
    *,
    is_merged: bool,
    looks_inside: bool,
) -> Need:
    """Tell what one call takes.

    Parameters
    ----------
    directions : sequence of (Direction, bool)
        Each half, and whether its adjoint is known in closed form.
    asked : Asked
    held : Held
        Of the backend.
    is_merged : bool
        The outputs of both halves are one.
    looks_inside : bool
        The layer can be looked into.
    """
    sizes = [direction for direction, _ in directions]
    total = Need(needs.outside(sizes, asked.quantities, is_merged=is_merged))
    for direction, is_known in directions:
        repeated = needs.handed_out(direction) if asked.is_repeated else NOTHING
        passing = _passing(direction, asked, held, is_known=is_known)
        total += Need(passing=passing, left=_staying(direction, asked, held), repeated=repeated)
        if asked.inside and looks_inside:
            total += _inside(direction, asked, is_known=is_known)
    return total


def direction_of(
    layer: Any,
    shape: Sequence[float],
    cells: Sequence[tuple[str, list[int]]],
    *,
    item: int,
    weights: int,
) -> Direction:
    """Read the sizes of one direction of a call.

    Parameters
    ----------
    layer : a recurrent layer
    shape : sequence of numbers
        Of the input: sequences for each sample of the batch, then steps and features.
    cells : sequence of (str, list of int)
        The kind of each of its cells, and the sizes of its states; an LSTM's c is as large as its h.
    item, weights : int
        Bytes of one element, and of all weights.
    """
    units = [sum(sizes) for _, sizes in cells]
    kind, output, hidden = cells[0][0], cells[-1][1][0], sum(units)
    further = sum(size for (kind, _), size in zip(cells, units, strict=True) if kind in _WITH_CELL)
    columns = sum(_COLUMNS.get(kind, 0) * size for (kind, _), size in zip(cells, units, strict=True))
    return Direction(
        kind="lstm" if kind == "conv_lstm" else kind,
        rows=shape[0],
        steps=int(shape[1]),
        output_steps=int(shape[1]) if layer.return_sequences else 1,
        features=int(prod(shape[2:])),
        output=output,
        hidden=hidden,
        cell=further,
        columns=columns,
        item=item,
        weights=weights,
    )


def _passing(direction: Direction, asked: Asked, held: Held, *, is_known: bool) -> Amount:
    """Count what the backend holds while the pass runs."""
    by_kind = held.back if asked.flows_back else held.forward
    share = held.without_weights if asked.flows_back and not asked.reaches_weights else 1.0
    states = by_kind.get(direction.kind, by_kind[OTHER]) * direction.hidden
    elements = share * states + held.inputs * direction.features
    if asked.inside and not is_known:
        elements += held.unrolled * (direction.hidden + direction.cell + direction.columns)
    copies = held.weights + _pending(direction, asked, held)
    of_steps = held.each_step * direction.steps
    return Amount(direction.at_every_step(elements), copies * direction.weights + of_steps)


def _pending(direction: Direction, asked: Asked, held: Held) -> int:
    return min(held.pending, direction.steps) if asked.flows_back else 0


def _staying(direction: Direction, asked: Asked, held: Held) -> Amount:
    """Count what the backend's allocator does not give back."""
    states = held.stays if asked.flows_back else min(held.stays, held.forward[OTHER])
    pending = _pending(direction, asked, held) if held.stays else 0
    once = pending * direction.weights + held.each_step * direction.steps / 4
    return Amount(direction.at_every_step(states * direction.output), once)


def _inside(direction: Direction, asked: Asked, *, is_known: bool) -> Need:
    if not is_known:
        return _unrolled(direction, asked)
    return needs.solved(direction, asked.quantities)


def _unrolled(direction: Direction, asked: Asked) -> Need:
    """Count what the framework returns for a cell that is unrolled: everything, whatever is asked for."""
    kept = direction.kept(asked.quantities)
    elements = 2 * (direction.hidden + direction.cell + direction.columns + direction.features)
    left = direction.at_every_step(elements + direction.hidden)
    returned = sum(amount.each for amount in kept.values())
    return Need(kept, left=Amount(max(0.0, left - returned), 2 * direction.weights))
