"""The fast adjoint: one matrix product for all gates, blocks of time that stay in cache, one dot per step.

It computes in the precision of the capture. The module of each cell defines its coefficients, and `scan` the
effect of masks and directions.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from throughtime._errors import SchemaError

from . import lstm, scan
from .contribution import step_contributions
from .directions import along_directions, directions
from .kinds import cell_of
from .layer import Floats, Layer, Mask, Pass, with_gate_axis, working_dtype
from .parallel import one_thread, over_rows, product
from .quantities import FORWARD, GATED, QUANTITIES, WEIGHT_GRADIENTS
from .steps import Block, Carry, Factors, by_column

ACTIVATION = 100  # least operations of a product and an activation for each gate of each step
STEPS_BETWEEN_DROPS = 4  # between removals of vanished numbers; more often costs more than it saves


class Replay(NamedTuple):
    """All steps of a pass in processing order, from the captured hidden states.

    `weights` (column, unit_from + feature + 1, unit) are [U; W; b]; with [h_{t-1}, x_t, 1] their product is
    every pre-activation.
    """

    steps: scan.Steps
    weights: Floats
    block: Block


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
            replayed = replay(prepared, steps)
            found |= _forward(prepared, passed, replayed, wanted)
            if wanted - FORWARD:
                found |= _backward(prepared, passed, replayed, wanted)
    return _shaped(layer, {name: values for name, values in found.items() if name in wanted})


def replay(layer: Layer, steps: scan.Steps) -> Replay:
    """Compute every gate from the captured states; only an LSTM's c is scanned over time."""
    cell, (count, samples, _), dtype = cell_of(layer), steps.inputs.shape, steps.hidden.dtype
    units, keeps_reset = layer.recurrent_kernel.shape[-1], layer.kind == "gru" and not layer.reset_after
    cell_before, cell_after = scan.room_for_cell(steps) if layer.kind == "lstm" else (None, None)
    shape = (cell.COLUMNS, count, samples, units)
    # Small ones lie together: from 4 MB on NumPy asks for huge pages, which are quicker to get.
    is_small = dtype.itemsize * math.prod(shape) < 2**22
    rooms = np.empty((2, *shape), dtype) if is_small else [np.empty(shape, dtype) for _ in range(2)]
    columns, gradients = (room.transpose(1, 2, 0, 3) for room in rooms)
    block = Block(
        columns,
        gradients,
        steps.hidden_before,
        np.ascontiguousarray(layer.recurrent_kernel[:, cell.RECURRENT_GATES].transpose(1, 2, 0)),
        cell_before,
        cell_after,
        np.empty((count, samples, units), dtype) if keeps_reset else None,
    )
    weights = np.ascontiguousarray(cell.joint_weights(layer).swapaxes(0, 1))
    replayed = Replay(steps, weights, block)
    over_rows(partial(_activate, layer, replayed), count, ACTIVATION * columns.size)
    if cell_before is not None and cell_after is not None and not steps.stand_apart:
        scan.accumulate_cell(cell_before, cell_after, columns[:, :, 1], steps)
    return replayed


def _activate(layer: Layer, replayed: Replay, share: slice) -> None:
    """Compute gates, and an LSTM's i·g, from the captured states, block by block in the cache."""
    steps, weights = replayed.steps, replayed.weights
    joined, width = np.empty((0, 0, 0)), steps.hidden_before.shape[-1]
    for run in _blocks(replayed, share):
        block = replayed.block.at(run)
        if len(joined) != len(block.columns):
            joined = np.ones((*block.columns.shape[:2], weights.shape[1]), weights.dtype)
        joined[:, :, :width] = block.hidden_before
        joined[:, :, width:-1] = steps.inputs[run]
        np.matmul(joined.reshape(-1, weights.shape[1]), weights, out=by_column(block.columns))
        cell_of(layer).activate(layer, block)
        if block.cell is not None and block.cell_before is not None:
            np.multiply(block.columns[:, :, 0], block.columns[:, :, 2], out=block.cell)
            if steps.stand_apart:
                np.add(block.cell, block.columns[:, :, 1] * block.cell_before, out=block.cell)


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


def _pulled_back(
    layer: Layer, passed: Pass, replayed: Replay, wanted: frozenset[str], scale: float
) -> dict[str, Floats]:
    """Run the adjoint over the blocks, last to first, and select the wanted quantities."""
    steps, cell, factor = replayed.steps, cell_of(layer), replayed.weights.dtype.type(scale)
    arriving = scan.output_gradient(passed, factor.dtype, scale)
    hidden_gradient = scan.move_to_valid(arriving, steps.valid, zero_output=passed.zero_output)
    final = scan.final_gradients(passed, steps)
    cell_gradient = np.empty_like(hidden_gradient if replayed.block.cell is None else replayed.block.cell)
    squashed = None if layer.projection is None else lstm.squashed(layer, replayed.block)
    carry = Carry.of(final[0][-1], final[1][-1], factor)
    for run in reversed(list(_blocks(replayed))):
        valid = None if steps.valid is None else steps.valid[run]
        factors = scan.hold(cell.factors(layer, replayed.block.at(run)), valid)
        scan.drop_vanished(hidden_gradient[run])
        for each, gradient, of_cell, call, drops in _backwards(
            steps, run, factors, hidden_gradient[run], cell_gradient[run]
        ):
            if call is not None:
                carry = Carry.of(final[0][call], final[1][call], factor)
            if drops:
                scan.drop_vanished(carry.both)
            np.add(gradient, carry.hidden, out=gradient)
            cell.pull(each, gradient, of_cell, carry)
            if not steps.stand_apart:
                cell.hand_back(each, gradient, carry)
    if steps.stand_apart:  # the first step alone hands back to a state that nothing has made
        *_, first = factors.backwards()
        carry = carry._replace(hidden=carry.hidden[0], scratch=carry.scratch[0], cell=carry.cell[0])
        cell.hand_back(first, hidden_gradient[0], carry)
    found = {
        "hidden_gradient": scan.in_input_time(hidden_gradient, passed),
        "initial_hidden_gradient": carry.hidden,
    }
    if squashed is not None:
        found["projection_gradient"] = _over_valid(squashed, hidden_gradient, steps.valid)
    if replayed.block.cell is not None:
        found["initial_cell_gradient"] = carry.cell
        found["cell_gradient"] = scan.in_input_time(cell_gradient, passed)
    return found | _from_columns(layer, passed, replayed, wanted)


def _backwards(
    steps: scan.Steps, run: slice, factors: Factors, hidden: Floats, cell: Floats
) -> Iterator[tuple[Factors, Floats, Floats, Any, bool]]:
    """Go back through a block: views of a step, the call whose last step it is or None, whether to drop.

    Steps that stand apart come all at once.
    """
    if steps.stand_apart:
        yield factors, hidden, cell, run, True
        return
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


def _from_columns(layer: Layer, passed: Pass, replayed: Replay, wanted: frozenset[str]) -> dict[str, Floats]:
    """Derive dx, contributions and weight gradients from dz, over all steps at once."""
    cell, columns = cell_of(layer), replayed.block.gradients
    width, each = replayed.block.hidden_before.shape[-1], by_column(columns)
    found = {"gate_gradient": scan.in_input_time(columns[:, :, cell.INPUT_SIDE], passed)}
    if "input_gradient" in wanted:
        kernel = replayed.weights[:, width:-1]
        kernel = along_directions(kernel, 1) if passed.along_directions else kernel
        input_gradient = np.empty((*columns.shape[:2], kernel.shape[1]), columns.dtype)
        entering, back = input_gradient.reshape(each.shape[1], -1), kernel[cell.INPUT_SIDE].swapaxes(1, 2)

        def enter(run: slice) -> None:
            np.add.reduce(np.matmul(each[cell.INPUT_SIDE, run], back), 0, out=entering[run])

        over_rows(enter, len(entering), back.size * len(entering))
        found["input_gradient"] = scan.in_input_time(input_gradient, passed)
    if "step_contribution" in wanted:
        contribution = np.empty(columns.shape[:2], columns.dtype)

        def contribute(run: slice) -> None:
            contribution[run] = step_contributions(replayed.block.at(run), columns[run])

        over_rows(contribute, len(columns), columns.size)
        found["step_contribution"] = scan.in_input_time(contribution, passed)
    if wanted & WEIGHT_GRADIENTS:
        joined, drawn = _joined(replayed.steps, along=passed.along_directions)
        totals = np.empty((len(each), joined.shape[1], each.shape[2]), columns.dtype)
        for right, total in zip(each, totals, strict=True):
            product(joined.T, right, out=total)
        named = cell.split(replayed.block, totals.swapaxes(0, 1), columns, drawn)
        absent = {f"{name}_gradient" for name in ("bias", "recurrent_bias") if getattr(layer, name) is None}
        found |= {name: values for name, values in named.items() if name not in absent}
    return found


def _joined(steps: scan.Steps, *, along: bool) -> tuple[Floats, Floats | None]:
    """Join [h_{t-1}, x_t, 1] of all steps, or h and x summed along directions; also returns those of h."""
    parts, drawn = [steps.hidden_before, steps.inputs], None
    if along:
        both = [directions(part.shape[-1]).astype(part.dtype) for part in parts]
        parts, drawn = [part @ one for part, one in zip(parts, both, strict=True)], both[0]
    joined = np.concatenate([*parts, np.ones_like(parts[0][..., :1])], -1)
    return joined.reshape(-1, joined.shape[-1]), drawn


def _blocks(replayed: Replay, share: slice = slice(None)) -> Iterator[slice]:
    start, stop, _ = share.indices(len(replayed.block.columns))
    for run in scan.blocks(stop - start, replayed.block.columns[:1].nbytes):
        yield slice(start + run.start, start + run.stop)


def _shaped(layer: Layer, found: dict[str, Floats]) -> dict[str, Floats]:
    if layer.kind != "simple_rnn":
        return found
    return {name: values[..., 0, :] if name in GATED else values for name, values in found.items()}
