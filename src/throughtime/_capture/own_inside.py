"""Completes a layer made of a cell of one's own: which quantities it has, and what they are solved from.

`_inside` calls these in place of what it does for the standard kinds.
"""

from __future__ import annotations

from dataclasses import replace

from throughtime import cells
from throughtime._cell import Cell
from throughtime.adapters.records import Array, DirectionRecord, LayerRecord, SolvedRecord

# The schema's words for a state beyond `hidden`, in whose place a cell puts the names of its own.
_FURTHER = frozenset({"cell", "cell_gradient", "initial_cell_gradient"})
_GATED = frozenset({"gate_activation", "gate_gradient"})


def absent(cell: Cell) -> dict[str, str]:
    """Name the quantities that a cell does not have, each with the reason."""
    names = (frozenset() if cell.states[1:] else _FURTHER) | (frozenset() if cell.gates else _GATED)
    reasons = dict.fromkeys(sorted(names), f"the cell {cell.name} names none")
    if cell.recurrent_weight is None:
        reasons["step_contribution"] = f"the cell {cell.name} names no recurrent_weight"
    return reasons


def in_own_words(cell: Cell, quantities: frozenset[str]) -> frozenset[str]:
    """Put the names of a cell's further states in the place of `cell`.

    Examples
    --------
    >>> cell = Cell(name="own", states=("hidden", "memory"), replay=print, adjoint=print)
    >>> sorted(in_own_words(cell, frozenset({"hidden", "cell_gradient"})))
    ['hidden', 'memory_gradient']
    """
    own = {name.replace("cell", state) for name in quantities & _FURTHER for state in cell.states[1:]}
    return (quantities - _FURTHER) | own


def without_samples(direction: DirectionRecord | SolvedRecord) -> DirectionRecord | SolvedRecord:
    """Keep the names of weights and the widths of a direction, and none of its large arrays."""
    if isinstance(direction, SolvedRecord):
        return SolvedRecord({}, {}, None)
    return replace(
        direction,
        weight_gradients={},
        inputs=direction.inputs[:0].copy(),
        hidden=direction.hidden[:0].copy(),
        output_gradient=None,
        input_gradient=None,
        valid=None,
        initial=(),
        final_gradients=(),
    )


def solve(
    cell: Cell, leaf: LayerRecord, direction: DirectionRecord, wanted: frozenset[str]
) -> dict[str, Array]:
    """Solve one direction, see `cells.solve_own`."""
    settings = {name: leaf.flags[name] for name in cell.settings}
    passed = cells.Pass(
        inputs=direction.inputs,
        hidden=direction.hidden,
        output_gradient=direction.output_gradient,
        valid=direction.valid,
        zero_output=direction.zero_output,
        runs_backward=direction.runs_backward,
        initial_hidden=direction.initial[0],
        final_hidden_gradient=direction.final_gradients[0],
        further_initial=direction.initial[1:],
        further_final_gradients=direction.final_gradients[1:],
    )
    return cells.solve_own(cell, {**direction.weights, **settings}, passed, wanted)
