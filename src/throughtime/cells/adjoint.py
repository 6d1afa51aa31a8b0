"""The fast adjoint: one matrix product for all gates, blocks of time that stay in cache, one dot per step.

It computes in the precision of the capture. The module of each cell defines its coefficients, and `scan` the
effect of masks and directions.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from throughtime._errors import SchemaError

from . import lstm, scan
from .contribution import step_contributions
from .directions import along_directions, directions
from .kinds import cell_of
from .layer import Floats, Layer, Mask, Pass, with_gate_axis, working_dtype
from .parallel import one_thread, over_rows
from .quantities import FORWARD, GATED, QUANTITIES, WEIGHT_GRADIENTS
from .replay import ACTIVATION, Replay, activate, blocks, replay, room
from .steps import Carry, Factors, by_column

STEPS_BETWEEN_DROPS = 4  # between removals of vanished numbers; more often costs more than it saves


def solve(layer: Layer, passed: Pass, wanted: frozenset[str]) -> dict[str, Floats]:
    """Compute the wanted quantities of a recurrent layer, as `quantities` defines them, in input time.

    Those that this kind of layer lacks are left out; the precision is that of the pass. SchemaError: a name
    is none of `QUANTITIES`. UnsupportedModelError: the kind or activation has no closed form.
    """
    if unknown := wanted - QUANTITIES:
        raise SchemaError(f"No quantities {sorted(unknown)}. solve() knows: {', '.join(sorted(QUANTITIES))}.")
    dtype = working_dtype(passed)
    steps, prepared = scan.arrange(passed, dtype), with_gate_axis(layer, dtype)
    found: dict[str, Floats] = {}
    if "hidden" in wanted:
        found["hidden"] = scan.in_input_time(steps.hidden[1:], passed)
    if wanted - {"hidden"}:
        with one_thread():
            is_at_once = steps.stand_apart and bool(wanted - FORWARD)
            replayed = (room if is_at_once else replay)(prepared, steps)
            if wanted - FORWARD:
                found |= _backward(prepared, passed, replayed, wanted)
            found |= _forward(prepared, passed, replayed, wanted)
    return _shaped(layer, {name: values for name, values in found.items() if name in wanted})


def _forward(layer: Layer, passed: Pass, replayed: Replay, wanted: frozenset[str]) -> dict[str, Floats]:
    gates, cell = replayed.block.columns[:, :, cell_of(layer).INPUT_SIDE], replayed.block.cell
    found = {"gate_activation": scan.in_input_time(gates, passed)}
    if cell is not None and "cell" in wanted:
        found["cell"] = scan.in_input_time(cell, passed)
    return found


def _backward(layer: Layer, passed: Pass, replayed: Replay, wanted: frozenset[str]) -> dict[str, Floats]:
    """Run the adjoint on scaled gradients, so that vanishing ones remain normal numbers.

    If that overflows, as in an explosion, it is repeated with unscaled gradients.
    """
    scale = scan.raising(passed.output_gradient, *passed.final_gradients)
    if scale != 1.0:
        with np.errstate(over="ignore", invalid="ignore"):
            found = _pulled_back(layer, passed, replayed, wanted, scale)
        if np.isfinite(found["initial_hidden_gradient"]).all():
            return _lowered(found, replayed.weights.dtype.type(1.0 / scale))
    return _pulled_back(layer, passed, replayed, wanted, 1.0)


def _lowered(found: dict[str, Floats], factor: np.floating) -> dict[str, Floats]:
    """Scale in place; the two biases may be views of the same memory."""
    for name in found.keys() - WEIGHT_GRADIENTS:
        np.multiply(found[name], factor, out=found[name])
    return found | {name: found[name] * factor for name in found.keys() & WEIGHT_GRADIENTS}


class Sweep(NamedTuple):
    """The way back through a pass: gradients that arrive, scaled by `factor`, and arrays for the results."""

    layer: Layer
    replayed: Replay
    factor: np.floating
    final: tuple[Floats, Floats]
    hidden_gradient: Floats
    cell_gradient: Floats
    carry: Carry  # at the end, that of the initial states
    entering: Floats  # (gate, unit, feature), Wᵀ
    joined: Floats | None  # [h_{t-1}, x_t, 1] along directions, (time, sample, row)
    totals: dict[int, Floats]  # of weights along directions, by the first step of a block
    input_gradient: Floats | None
    contribution: Floats | None

    @classmethod
    def of(cls, layer: Layer, passed: Pass, replayed: Replay, wanted: frozenset[str], scale: float) -> Self:
        """Take the gradients that arrive from outside."""
        steps, block, factor = replayed.steps, replayed.block, replayed.weights.dtype.type(scale)
        arriving = scan.output_gradient(passed, factor.dtype, scale)
        hidden_gradient = scan.move_to_valid(arriving, steps.valid, zero_output=passed.zero_output)
        final, along = scan.final_gradients(passed, steps), passed.along_directions
        kernel = replayed.weights[cell_of(layer).INPUT_SIDE, steps.hidden.shape[-1] : -1]
        kernel = along_directions(kernel, 1) if along else kernel
        shape = hidden_gradient.shape[:2]
        shapes = {"input_gradient": (*shape, kernel.shape[1]), "step_contribution": shape}
        return cls(
            layer,
            replayed,
            factor,
            final,
            hidden_gradient,
            np.empty_like(hidden_gradient if block.cell is None else block.cell),
            Carry.of(final[0][-1], final[1][-1], factor),
            kernel.swapaxes(1, 2),
            _joined(steps, along=True) if along and wanted & WEIGHT_GRADIENTS else None,
            {},
            *(np.empty(shape, factor.dtype) if name in wanted else None for name, shape in shapes.items()),
        )


def _pulled_back(
    layer: Layer, passed: Pass, replayed: Replay, wanted: frozenset[str], scale: float
) -> dict[str, Floats]:
    """Run the adjoint over the blocks, last to first, and select the wanted quantities."""
    steps, block = replayed.steps, replayed.block
    sweep = Sweep.of(layer, passed, replayed, wanted, scale)
    if steps.stand_apart:
        over_rows(partial(_at_once, sweep), steps.count, ACTIVATION * block.columns.size)
    else:
        _through_time(sweep)
        over_rows(partial(_derive, sweep), steps.count, block.columns.size * sweep.entering.shape[-1])
    by_step = {
        "hidden_gradient": sweep.hidden_gradient,
        "cell_gradient": None if block.cell is None else sweep.cell_gradient,
        "gate_gradient": block.gradients[:, :, cell_of(layer).INPUT_SIDE],
        "input_gradient": sweep.input_gradient,
        "step_contribution": sweep.contribution,
    }
    found = {name: scan.in_input_time(one, passed) for name, one in by_step.items() if one is not None}
    found["initial_hidden_gradient"] = sweep.carry.hidden
    if block.cell is not None:
        found["initial_cell_gradient"] = sweep.carry.cell
    if layer.projection is not None:
        squashed = lstm.squashed(layer, block)
        found["projection_gradient"] = _over_valid(squashed, sweep.hidden_gradient, steps.valid)
    return found | (_of_weights(sweep) if wanted & WEIGHT_GRADIENTS else {})


def _at_once(sweep: Sweep, share: slice) -> None:
    """Run forward and back, block by block, over steps that stand apart."""
    cell = cell_of(sweep.layer)
    for run in blocks(sweep.replayed, share):
        activate(sweep.layer, sweep.replayed, run)
        factors = cell.factors(sweep.layer, sweep.replayed.block.at(run))
        hidden = sweep.hidden_gradient[run]
        carry = Carry.of(sweep.final[0][run], sweep.final[1][run], sweep.factor)
        np.add(hidden, carry.hidden, out=hidden)
        scan.drop_vanished(hidden)
        if sweep.replayed.block.cell is not None:
            scan.drop_vanished(carry.cell)
        cell.pull(factors, hidden, sweep.cell_gradient[run], carry)
        _derive(sweep, run)
        if run.start == 0:  # only this one hands back to the initial states
            sweep.carry.scratch[...], sweep.carry.cell[...] = carry.scratch[0], carry.cell[0]
            cell.hand_back(factors.first(), hidden[0], sweep.carry)


def _through_time(sweep: Sweep) -> None:
    steps, cell, carry = sweep.replayed.steps, cell_of(sweep.layer), sweep.carry
    for run in reversed(list(blocks(sweep.replayed, size=1))):
        valid = None if steps.valid is None else steps.valid[run]
        factors = scan.hold(cell.factors(sweep.layer, sweep.replayed.block.at(run)), valid)
        both = sweep.hidden_gradient[run], sweep.cell_gradient[run]
        scan.drop_vanished(both[0])
        for each, gradient, of_cell, call, drops in _backwards(steps, run, factors, *both):
            if call is not None:
                carry.fill(sweep.final[0][call], sweep.final[1][call], sweep.factor)
            if drops:
                scan.drop_vanished(carry.both)
            np.add(gradient, carry.hidden, out=gradient)
            cell.pull(each, gradient, of_cell, carry)
            cell.hand_back(each, gradient, carry)


def _derive(sweep: Sweep, share: slice) -> None:
    """Derive dx, contributions and sums for weights from dz, block by block in the cache."""
    side = cell_of(sweep.layer).INPUT_SIDE
    for run in blocks(sweep.replayed, share):
        block = sweep.replayed.block.at(run)
        each = by_column(block.gradients)
        if sweep.input_gradient is not None:
            back = sweep.input_gradient[run].reshape(-1, sweep.entering.shape[-1])
            np.add.reduce(np.matmul(each[side], sweep.entering), 0, out=back)
        if sweep.contribution is not None:
            sweep.contribution[run] = step_contributions(block, block.gradients)
        if sweep.joined is not None:
            sweep.totals[run.start] = _product(sweep.joined[run], each)


def _backwards(
    steps: scan.Steps, run: slice, factors: Factors, hidden: Floats, cell: Floats
) -> Iterator[tuple[Factors, Floats, Floats, Any, bool]]:
    """Go back through a block: views of a step, the call whose last step it is or None, whether to drop."""
    ends = {int(end) - 1: call for call, end in enumerate([*steps.starts[1:], steps.count])}
    views = zip(factors.backwards(), hidden[::-1], cell[::-1], strict=True)
    for step, each in zip(range(run.stop - 1, run.start - 1, -1), views, strict=True):
        call = ends.get(step)
        yield *each, call, call is not None or (step - run.start) % STEPS_BETWEEN_DROPS == 0


def _over_valid(squashed: Floats, hidden_gradient: Floats, valid: Mask | None) -> Floats:
    made = slice(None) if valid is None else valid
    left, right = (values[made].reshape(-1, values.shape[-1]) for values in (squashed, hidden_gradient))
    total: Floats = left.T @ right
    return total


def _of_weights(sweep: Sweep) -> dict[str, Floats]:
    """Name the sums for weights: those of blocks along directions, or else one over all steps."""
    layer, (steps, _, block), joined = sweep.layer, sweep.replayed, sweep.joined
    if joined is None:
        totals = _product(_joined(steps, along=False), by_column(block.gradients))
    else:
        totals = np.add.reduce([sweep.totals[start] for start in sorted(sweep.totals)])
    drawn = None if joined is None else _drawn(steps.hidden_before)
    named = cell_of(layer).split(block, totals.swapaxes(0, 1), block.gradients, drawn)
    absent = {f"{name}_gradient" for name in ("bias", "recurrent_bias") if getattr(layer, name) is None}
    return {name: values for name, values in named.items() if name not in absent}


def _joined(steps: scan.Steps, *, along: bool) -> Floats:
    """Join [h_{t-1}, x_t, 1], or h and x summed along directions."""
    parts = [part @ _drawn(part) if along else part for part in (steps.hidden_before, steps.inputs)]
    return np.concatenate([*parts, np.ones_like(parts[0][..., :1])], -1)


def _drawn(part: Floats) -> Floats:
    return directions(part.shape[-1]).astype(part.dtype)


def _product(joined: Floats, each: Floats) -> Floats:
    product: Floats = np.matmul(joined.reshape(-1, joined.shape[-1]).T, each)
    return product


def _shaped(layer: Layer, found: dict[str, Floats]) -> dict[str, Floats]:
    if layer.kind != "simple_rnn":
        return found
    return {name: values[..., 0, :] if name in GATED else values for name, values in found.items()}
