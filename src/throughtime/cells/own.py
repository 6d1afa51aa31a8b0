"""A cell of one's own over time: what `solve` gives for the standard kinds, from the functions of a `Cell`.

In float64, one step at a time, as `textbook` does it; `scan` alone knows time order and masks, and
`own_step` holds what the functions return against the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from throughtime._cell import HIDDEN, Arrays, Cell, Given, StepAdjoint
from throughtime._errors import warn

from . import own_step
from .layer import Floats, Mask, Pass, working_dtype
from .scan import (
    Steps,
    arrange,
    final_gradients,
    forward_scan,
    further_states,
    in_input_time,
    output_gradient,
    reverse_scan,
    states_in_processing_order,
    where_valid,
)

# Relative difference of the replayed hidden state from the emitted one that no precision explains.
_OTHER_MATHEMATICS = 0.05


@dataclass(frozen=True)
class _Trajectory:
    """A pass in processing order: the states before each step and after the last, and the gates."""

    cell: Cell
    weights: Given
    steps: Steps
    states: Sequence[Arrays]
    gates: Sequence[Arrays]


def solve_own(cell: Cell, weights: Given, passed: Pass, wanted: frozenset[str]) -> dict[str, Floats]:
    """Solve what happens inside a layer made of a cell of one's own.

    Parameters
    ----------
    cell : Cell
    weights : mapping
        Weights by the layer's own names, and the cell's settings.
    passed : Pass
        `hidden` is what the layer emitted; further states are replayed from `further_initial`.
    wanted : frozenset of str
        `quantities.DEFINITIONS` has the names, with those of the cell's states and weights in place of
        the standard ones; `initial_hidden_gradient` and its like among them.

    Returns
    -------
    dict of ndarray
        Sample-major in input time, in the precision of the pass: gates stacked on an axis before the units.
        What the cell does not have is left out.

    Raises
    ------
    CellError
        What a function of the cell returns does not fit.

    Warns
    -----
    ThroughTimeWarning
        The replay gives another hidden state than the layer emitted.
    """
    ran = _forward(cell, own_step.given(cell, weights), passed)
    found = {name: _over_time([states[name] for states in ran.states[1:]], passed) for name in cell.states}
    if cell.gates:
        activated = [np.stack([gates[gate] for gate in cell.gates], axis=1) for gates in ran.gates]
        found["gate_activation"] = _over_time(activated, passed)
    if wanted - found.keys():
        found |= _backward(ran, passed, wanted)
    dtype = working_dtype(passed)
    return {name: values.astype(dtype) for name, values in found.items() if name in wanted}


def own_jacobians(cell: Cell, weights: Given, passed: Pass, further: Mapping[str, Floats]) -> Floats:
    """Differentiate the states after each step by those before it, as `step_jacobians` does.

    Parameters
    ----------
    cell, weights, passed
        As for `solve_own`; the pass's gradients are not used.
    further : mapping of str to ndarray (sample, time, width)
        States beyond `hidden` after each step, in input time, as `solve_own` returns them.

    Returns
    -------
    ndarray (sample, time, state, state)
        Rows new, columns old, the states one after another; the identity at masked steps.

    Raises
    ------
    CellError
        The cell has no Jacobian, or it returns what does not fit.
    """
    known, steps = own_step.given(cell, weights), arrange(passed, np.float64)
    along = {HIDDEN: steps.hidden}
    for name, first in zip(
        cell.states[1:], [*passed.further_initial, *(None,) * len(cell.states)], strict=False
    ):
        initial = np.zeros_like(further[name][:, 0], np.float64) if first is None else first
        along[name] = states_in_processing_order(further[name], initial, passed)
    found = []
    for t in range(steps.count):
        before = {name: values[t] for name, values in along.items()}
        one = own_step.jacobian(cell, known, steps.inputs[t], before)
        found.append(where_valid(one, np.eye(one.shape[-1]), steps.valid_at(t)))
    return in_input_time(np.stack(found), passed)


def _forward(cell: Cell, weights: Given, passed: Pass) -> _Trajectory:
    """Replay each step from the hidden state that the layer emitted before it."""
    steps = arrange(passed, np.float64)
    gates: list[Arrays] = []
    replayed: list[Floats] = []

    def named(t: int, further: Sequence[Floats]) -> Arrays:
        return dict(zip(cell.states, (steps.hidden[t], *further), strict=True))

    def step(t: int, further: Sequence[Floats]) -> Sequence[Floats]:
        after, activated = own_step.replay(cell, weights, steps.inputs[t], named(t, further))
        gates.append(activated)
        replayed.append(where_valid(after[HIDDEN], steps.hidden[t + 1], steps.valid_at(t)))
        return [after[name] for name in cell.states[1:]]

    initial = further_states(passed, passed.further_initial, len(cell.states) - 1, np.float64)
    scanned = forward_scan(steps, initial, step)
    _compare(cell, np.stack(replayed), steps.hidden[1:])
    return _Trajectory(cell, weights, steps, [named(t, each) for t, each in enumerate(scanned)], gates)


def _compare(cell: Cell, replayed: Floats, emitted: Floats) -> None:
    """Warn of mathematics that is not the layer's: the certificate would say so, but not what is wrong."""
    finite = np.isfinite(replayed) & np.isfinite(emitted)
    difference = float(np.linalg.norm((replayed - emitted)[finite]))
    size = float(np.linalg.norm(emitted[finite]))
    if difference > _OTHER_MATHEMATICS * size:
        warn(
            f"The replay of cell {cell.name!r} gives another hidden state than the layer emitted, off by "
            f"{difference / (size or 1.0):.0%}. Do weights, settings and states mean the same in both, and "
            f"is {HIDDEN!r} what the layer emits?"
        )


@dataclass(frozen=True)
class _Collected:
    """What the steps gave back, the last one first; weights are summed at once, they are large."""

    by_step: list[dict[str, Floats]] = field(default_factory=list)
    totals: list[Arrays] = field(default_factory=list)
    weights: dict[str, Floats] = field(default_factory=dict)

    def add(self, cell: Cell, back: StepAdjoint, valid: Mask | None, wanted: frozenset[str]) -> None:
        """Take one step's share, nothing of what is masked."""
        found = {"input_gradient": back.inputs}
        if cell.gates:
            found["gate_gradient"] = np.stack([back.gates[gate] for gate in cell.gates], axis=1)
        if cell.recurrent_weight is not None:
            found["step_contribution"] = own_step.size_of(back.weights[cell.recurrent_weight])
        self.by_step.append({name: where_valid(values, 0, valid) for name, values in found.items()})
        self.totals.append(back.totals)
        for name, gradient in back.weights.items():
            key = f"{name}_gradient"
            if key in wanted:
                self.weights[key] = self.weights.get(key, 0) + own_step.over_samples(gradient, valid)


def _backward(ran: _Trajectory, passed: Pass, wanted: frozenset[str]) -> dict[str, Floats]:
    """Pull the gradient back through every step, and put together what the steps give."""
    cell, steps, collected = ran.cell, ran.steps, _Collected()

    def pull(t: int, arriving: Sequence[Floats]) -> Sequence[Floats]:
        gradients = dict(zip(cell.states, arriving, strict=True))
        back = own_step.adjoint(cell, ran.weights, steps.inputs[t], ran.states[t], gradients)
        collected.add(cell, back, steps.valid_at(t), wanted)
        return [back.states[name] for name in cell.states]

    arrived, initial = reverse_scan(
        steps, output_gradient(passed, np.float64), _final(ran, passed), pull, zero_output=passed.zero_output
    )
    by_step = {
        name: _over_time([each[name] for each in reversed(collected.by_step)], passed)
        for name in collected.by_step[0]
    }
    return {
        **_state_gradients(ran, passed, collected.totals[::-1], arrived),
        **{f"initial_{name}_gradient": values for name, values in zip(cell.states, initial, strict=True)},
        **by_step,
        **collected.weights,
    }


def _final(ran: _Trajectory, passed: Pass) -> list[Floats]:
    """dL/d(each state after the last step), as wide as the state."""
    last = [ran.states[-1][name] for name in ran.cell.states[1:]]
    given = [*passed.further_final_gradients, *(None,) * len(last)]
    further = [
        np.zeros_like(state) if values is None else np.asarray(values, np.float64)
        for state, values in zip(last, given, strict=False)
    ]
    return [final_gradients(passed, np.float64)[0], *further]


def _state_gradients(
    ran: _Trajectory, passed: Pass, totals: Sequence[Arrays], arrived: Sequence[Sequence[Floats]]
) -> dict[str, Floats]:
    """Total derivatives by state: what arrived, or what the cell says where it names a total."""
    found = {}
    for position, name in enumerate(ran.cell.states):
        by_step = [
            where_valid(total.get(name, states[position]), states[position], ran.steps.valid_at(t))
            for t, (total, states) in enumerate(zip(totals, arrived, strict=True))
        ]
        found[f"{name}_gradient"] = _over_time(by_step, passed)
    return found


def _over_time(by_step: Sequence[Floats], passed: Pass) -> Floats:
    """(sample, …) of each step as (sample, time, …) in input time."""
    return in_input_time(np.stack(by_step), passed)
