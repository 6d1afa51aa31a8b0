"""`testing.check_cell`: the adjoint and the Jacobian of a cell of one's own, against finite differences.

Derivatives of the cell's replay are what everything else has to equal; nothing here knows time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from throughtime._arguments import takes
from throughtime._arguments.rules import array, either, instance, mapping, several, whole
from throughtime._cell import HIDDEN, Arrays, Cell, Floats, Given, StepAdjoint
from throughtime._errors import CellError
from throughtime.cells import own_step

# Fourth order: the step leaves 1e-12 of rounding and truncation, and sees a kink within twice its length.
_STEP = 2e-4
_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Comparison:
    """One line of a report: what was compared, its relative error, and what there is to say about it.

    `error` is None where nothing could be compared, which is no mistake.
    """

    what: str
    error: float | None
    note: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the values agree, as far as they were compared."""
        return self.error is None or self.error <= _TOLERANCE


@dataclass(frozen=True)
class CellReport:
    """What `check_cell` found: `lines`, a `Comparison` for each quantity; `str()` makes a table of them."""

    title: str
    lines: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether everything that was compared agrees."""
        return all(line.is_right for line in self.lines)

    def __str__(self) -> str:
        width = max(len(line.what) for line in self.lines)
        rows = [f"  {line.what:<{width}}  {_verdict(line)}" for line in self.lines]
        wrong = [line.what for line in self.lines if not line.is_right]
        last = f"Wrong: {', '.join(wrong)}." if wrong else "All that was compared is right."
        return "\n".join([self.title, *rows, last])


def _verdict(line: Comparison) -> str:
    if line.error is None:
        return f"   –     {line.note}"
    note = f" ({line.note})" if line.note else ""
    return f"{line.error:7.1e}  {'right' if line.is_right else 'WRONG'}{note}"


@takes(CellError, cell=instance("Cell"), weights=mapping(), units=either(whole(1), mapping(whole(1))))
def check_cell(
    cell: Cell,
    weights: Mapping[str, Any],
    features: int,
    units: int | Mapping[str, int],
    *,
    samples: int = 4,
    seed: int = 0,
) -> CellReport:
    """Compare a cell's adjoint and Jacobian with finite differences of its replay, on one random step.

    Parameters
    ----------
    cell : Cell
    weights : mapping of str to a shape or an array
        A tuple of ints is a shape, to be filled with random numbers; settings stand here by their names too.
    features : int
        Width of the input.
    units : int, or one for each state by its name
    samples, seed : int
        Of the random numbers. A kink (relu) within 4e-4 of a number drawn looks like a mistake: take
        another seed then.

    Returns
    -------
    CellReport
        A line for each input, state, weight, gate and block of the Jacobian: ‖a − b‖/‖b‖ in float64, right
        up to 1e-8. Gates are compared with weights that have "bias" in their name, whose gradient dL/dz
        is; `totals` with nothing.

    Raises
    ------
    CellError
        Something is wrong: with the report. Or a function returns what the protocol does not allow.

    Examples
    --------
    >>> def replay(weights, inputs, states):
    ...     return {"hidden": inputs @ weights["kernel"] + weights["decay"] * states["hidden"]}, {}
    >>> def adjoint(weights, inputs, states, gradients):
    ...     dh = gradients["hidden"]
    ...     return StepAdjoint(
    ...         inputs=dh @ weights["kernel"].T,
    ...         states={"hidden": weights["decay"] * dh},
    ...         weights={"kernel": (inputs, dh), "decay": states["hidden"] * dh},
    ...     )
    >>> decay = Cell(name="decay", replay=replay, adjoint=adjoint, recurrent_weight="decay")
    >>> report = check_cell(decay, {"kernel": (3, 5), "decay": (5,)}, features=3, units=5)
    >>> report.passed, [line.what for line in report.lines]
    (True, ['inputs', 'state hidden', 'weight kernel', 'weight decay', 'jacobian'])
    """
    rng = np.random.default_rng(seed)
    widths = dict.fromkeys(cell.states, units) if isinstance(units, int) else dict(units)
    if widths.keys() != {*cell.states}:
        raise CellError(
            f"units names {', '.join(widths)}; cell {cell.name!r} has the states {', '.join(cell.states)}."
        )
    drawn = {name: _drawn(rng, name, value, cell) for name, value in weights.items()}
    step = _Step(
        cell,
        {**own_step.given(cell, drawn)},
        rng.normal(size=(samples, features)),
        {name: rng.normal(0, 0.7, (samples, width)) for name, width in widths.items()},
    )
    gradients = {name: rng.normal(size=state.shape) for name, state in step.states.items()}
    report = CellReport(
        f"Cell {cell.name!r}: {samples} samples, {features} features, {widths[HIDDEN]} units, against finite "
        "differences of its replay",
        (*_of_adjoint(step, gradients), *_of_jacobian(step)),
    )
    if not report.passed:
        raise CellError(str(report))
    return report


def _drawn(rng: np.random.Generator, name: str, value: Any, cell: Cell) -> Any:
    if name in cell.settings:
        return value
    if isinstance(value, tuple):
        return rng.normal(0, 0.5, several(whole(1))(name, value, CellError))
    return array(least=1)(name, value, CellError).astype(np.float64)


@dataclass(frozen=True)
class _Step:
    """One step of a cell, and its derivatives by finite differences."""

    cell: Cell
    weights: Given
    inputs: Floats
    states: Arrays

    def run(self, changed: Mapping[str, Floats], kind: str) -> Floats:
        """States after the step and gates, side by side (sample, …), with some arrays changed."""
        weights = {**self.weights, **changed} if kind == "weight" else self.weights
        inputs = changed["inputs"] if kind == "inputs" else self.inputs
        states = {**self.states, **changed} if kind == "state" else self.states
        known = own_step.given(self.cell, weights)
        after, gates = own_step.replay(self.cell, known, inputs, states)
        return np.concatenate([*after.values(), *gates.values()], axis=1)

    def derivative(self, kind: str, name: str) -> Floats:
        """d(what `run` returns)/d(array), (sample, returned, entry), the array's own entries in a row.

        Samples do not see each other: an entry of inputs or states is moved in all of them at once.
        """
        array = {"weight": self.weights, "inputs": {name: self.inputs}, "state": self.states}[kind][name]
        entries = array.size if kind == "weight" else array.shape[1]

        def moved(entry: int, by: float) -> Floats:
            changed = np.array(array, order="C")
            changed.reshape(1 if kind == "weight" else len(array), -1)[:, entry] += by
            return self.run({name: changed}, kind)

        return np.stack([_difference(partial(moved, entry)) for entry in range(entries)], axis=-1)

    @property
    def after(self) -> int:
        """Where the gates begin in what `run` returns."""
        return sum(state.shape[1] for state in self.states.values())

    def place(self, name: str) -> slice:
        """Where a state or gate stands in what `run` returns."""
        widths = {state: self.states[state].shape[1] for state in self.cell.states}
        widths |= {f"gate {gate}": widths[HIDDEN] for gate in self.cell.gates}
        start = sum(list(widths.values())[: list(widths).index(name)])
        return slice(start, start + widths[name])


def _difference(function: Callable[[float], Floats]) -> Floats:
    near, far = (function(reach) - function(-reach) for reach in (_STEP, 2 * _STEP))
    slope: Floats = (8 * near - far) / (12 * _STEP)
    return slope


def _of_adjoint(step: _Step, gradients: Arrays) -> Iterator[Comparison]:
    """Compare what the adjoint gives for a random dL/d(states after the step)."""
    cell = step.cell
    back = own_step.adjoint(cell, own_step.given(cell, step.weights), step.inputs, step.states, gradients)
    arriving = np.concatenate([gradients[name] for name in cell.states], axis=1)

    def pulled(derivative: Floats) -> Floats:
        product: Floats = np.einsum("so,soe->se", arriving, derivative[:, : arriving.shape[1]])
        return product

    yield Comparison("inputs", _error(back.inputs, pulled(step.derivative("inputs", "inputs"))))
    for name in cell.states:
        yield Comparison(f"state {name}", _error(back.states[name], pulled(step.derivative("state", name))))
    names = [name for name in step.weights if name not in cell.settings]
    derivatives = {name: step.derivative("weight", name) for name in names}
    expected = {name: pulled(derivative) for name, derivative in derivatives.items()}
    for name in names:
        yield _of_weight(name, back, expected[name])
    for gate in cell.gates:
        yield _of_gate(step, gate, back.gates[gate], derivatives, expected)
    for name in back.totals:
        yield Comparison(f"total {name}", None, "not compared: the replay does not show its path")


def _of_weight(name: str, back: StepAdjoint, expected: Floats) -> Comparison:
    if name in back.weights:
        found = own_step.formed(back.weights[name])
        return Comparison(f"weight {name}", _error(found.reshape(expected.shape), expected))
    if not back.weights:
        return Comparison(f"weight {name}", None, "not given: the certificate does without weights")
    return Comparison(f"weight {name}", np.inf, "the adjoint gives gradients of other weights only")


def _of_gate(step: _Step, gate: str, found: Floats, moved: Arrays, gradients: Arrays) -> Comparison:
    """Compare dL/dz with the gradient of a bias: what is added before the activation has that gradient.

    A bias of another gate may move this one through that gate, so those that move the fewest are looked at.
    """
    own = step.place(f"gate {gate}")
    biases = [name for name in moved if "bias" in name]
    what = f"gate {gate}"
    if not biases:
        return Comparison(what, None, "not compared: no weight has 'bias' in its name")
    moves = np.concatenate([(np.abs(moved[name]) > _TOLERANCE).all(axis=0) for name in biases], axis=1)
    gradient = np.concatenate([gradients[name] for name in biases], axis=1)
    reach = moves[step.after :].sum(axis=0)
    errors = []
    for unit, row in enumerate(moves[own]):
        entries = np.flatnonzero(row)
        if not len(entries):
            return Comparison(what, None, "not compared: no bias moves each of its units")
        nearest = entries[reach[entries] == reach[entries].min()]
        errors.append(min(_error(gradient[:, entry], found[:, unit]) for entry in nearest))
    return Comparison(what, max(errors), f"as the gradient of {' and '.join(biases)}")


def _of_jacobian(step: _Step) -> Iterator[Comparison]:
    cell = step.cell
    if cell.jacobian is None:
        yield Comparison("jacobian", None, "not given: Lyapunov exponents need it")
        return
    found = own_step.jacobian(cell, own_step.given(cell, step.weights), step.inputs, step.states)
    for old in cell.states:
        derivative = step.derivative("state", old)
        for new in cell.states:
            block = found[:, step.place(new), step.place(old)]
            yield Comparison(f"jacobian {new} by {old}", _error(block, derivative[:, step.place(new)]))


def _error(found: Floats, expected: Floats) -> float:
    """Give ‖a − b‖/‖b‖, the norm of a itself where b is 0; infinite for what is not finite."""
    size = float(np.linalg.norm(expected))
    difference = float(np.linalg.norm(found - expected))
    if not np.isfinite(difference):
        return np.inf
    return difference / size if size > _TOLERANCE else difference
