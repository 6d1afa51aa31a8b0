"""The fast adjoint: one matrix product for all gates, blocks of time that stay in cache, one dot per step.

It computes in the precision of the capture. The module of each cell defines its coefficients, and `scan` the
effect of masks and directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from throughtime._errors import SchemaError

from . import lstm
from .contribution import step_contributions
from .directions import along_directions, directions
from .kinds import cell_of
from .layer import Floats, Layer, Mask, Pass, with_gate_axis, working_dtype
from .parallel import one_thread, over_rows, product
from .quantities import FORWARD, GATED, QUANTITIES, WEIGHT_GRADIENTS
from .scan import (
    Steps,
    accumulate_cell,
    arrange,
    blocks,
    drop_vanished,
    final_gradients,
    hold,
    in_input_time,
    move_to_valid,
    output_gradient,
    raising,
)
from .steps import Block, Carry

ACTIVATION = 100  # least operations of a product and an activation for each gate of each step
STEPS_BETWEEN_DROPS = 4  # between removals of vanished numbers; more often costs more than it saves


class Replay(NamedTuple):
    """All steps of a pass in processing order, from the captured hidden states.

    `joined` is [h_{t-1}, x_t, 1] and `weights` [U; W; b]: their product gives every pre-activation, and
    its transpose every weight gradient.
    """

    joined: Floats
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
    steps, prepared = arrange(passed, dtype), with_gate_axis(layer, dtype)
    found: dict[str, Floats] = {}
    if "hidden" in wanted:
        found["hidden"] = in_input_time(steps.hidden[1:], passed)
    if wanted - {"hidden"}:
        replayed = replay(prepared, steps)
        found |= _forward(prepared, passed, replayed, wanted)
        if wanted - FORWARD:
            found |= _backward(prepared, passed, steps, replayed, wanted)
    return _shaped(layer, {name: values for name, values in found.items() if name in wanted})


def replay(layer: Layer, steps: Steps) -> Replay:
    """Compute every gate from the captured states; only an LSTM's c is scanned over time."""
    cell, (count, samples, features) = cell_of(layer), steps.inputs.shape
    width, units, dtype = steps.hidden.shape[-1], layer.recurrent_kernel.shape[-1], steps.hidden.dtype
    joined = np.ones((count, samples, width + features + 1), dtype)
    joined[:, :, :width] = steps.hidden_before
    joined[:, :, width:-1] = steps.inputs
    weights = cell.joint_weights(layer)
    states = np.empty((count + 1, samples, units) if layer.kind == "lstm" else (0, 0, 0), dtype)
    cell_before, cell_after = states[:-1].copy() if steps.windowed else states[:-1], states[1:]
    is_lstm, keeps_reset = layer.kind == "lstm", layer.kind == "gru" and not layer.reset_after
    block = Block(
        np.empty((count, samples, cell.COLUMNS, units), dtype),
        joined[:, :, :width],
        # Uᵀ is copied: dot is twice as fast for it.
        np.ascontiguousarray(layer.recurrent_kernel[:, cell.RECURRENT_GATES].reshape(width, -1).T),
        cell_before if is_lstm else None,
        cell_after if is_lstm else None,
        np.empty((count, samples, units), dtype) if keeps_reset else None,
    )
    replayed = Replay(joined, weights, block)
    over_rows(partial(_activate, layer, replayed), count, ACTIVATION * block.columns.size)
    if is_lstm:
        accumulate_cell(cell_before, cell_after, block.columns[:, :, 1], steps)
    return replayed


def _activate(layer: Layer, replayed: Replay, share: slice) -> None:
    """Compute gates, and an LSTM's i·g, from the captured states, block by block in the cache."""
    width = len(replayed.weights)
    weights = replayed.weights.reshape(width, -1)
    for run in _blocks(replayed, share):
        block = replayed.block.at(run)
        columns = block.columns.reshape(-1, weights.shape[1])
        np.dot(replayed.joined[run].reshape(-1, width), weights, out=columns)
        cell_of(layer).activate(layer, block)
        if block.cell is not None:
            np.multiply(block.columns[:, :, 0], block.columns[:, :, 2], out=block.cell)


def _forward(layer: Layer, passed: Pass, replayed: Replay, wanted: frozenset[str]) -> dict[str, Floats]:
    gates, cell = replayed.block.columns[:, :, cell_of(layer).INPUT_SIDE], replayed.block.cell
    found = {"gate_activation": in_input_time(gates, passed)}
    if cell is not None and "cell" in wanted:
        found["cell"] = in_input_time(cell, passed)
    return found


def _backward(
    layer: Layer, passed: Pass, steps: Steps, replayed: Replay, wanted: frozenset[str]
) -> dict[str, Floats]:
    """Run the adjoint on scaled gradients, so that vanishing ones remain normal numbers.

    If that overflows, as in an explosion, it is repeated with unscaled gradients.
    """
    dtype = steps.hidden.dtype
    entering = _entering(passed, steps)
    scale = raising(*entering)
    if scale != 1.0:
        for values in entering:  # in place: a sequence of states may be large
            np.multiply(values, dtype.type(scale), out=values)
        with np.errstate(over="ignore", invalid="ignore"):
            found = _pulled_back(layer, passed, steps, replayed, entering, wanted)
        if np.isfinite(found["initial_hidden_gradient"]).all():
            return _lowered(found, dtype.type(1.0 / scale))
        # The input gradients are scaled, and the gates may be overwritten.
        entering, replayed = _entering(passed, steps), replay(layer, steps)
    return _pulled_back(layer, passed, steps, replayed, entering, wanted)


def _entering(passed: Pass, steps: Steps) -> tuple[Floats, ...]:
    return output_gradient(passed, steps.hidden.dtype), *final_gradients(passed, steps)


def _lowered(found: dict[str, Floats], factor: np.floating) -> dict[str, Floats]:
    """Scale in place; the two biases may be views of the same memory."""
    for name in found.keys() - WEIGHT_GRADIENTS:
        np.multiply(found[name], factor, out=found[name])
    return found | {name: found[name] * factor for name in found.keys() & WEIGHT_GRADIENTS}


def _pulled_back(
    layer: Layer,
    passed: Pass,
    steps: Steps,
    replayed: Replay,
    entering: Sequence[Floats],
    wanted: frozenset[str],
) -> dict[str, Floats]:
    """Run the adjoint over the blocks, last to first, and select the wanted quantities.

    `entering` is dL/d(output), overwritten, and dL/d(final states), in processing order.
    """
    hidden_gradient = move_to_valid(entering[0], steps.valid, zero_output=passed.zero_output)
    columns, cell_gradient = _room(replayed.block, wanted)
    squashed = None if layer.projection is None else lstm.squashed(layer, replayed.block)
    cell, carry = cell_of(layer), Carry.of(*(values[-1] for values in entering[1:]))
    with one_thread():
        for run in reversed(list(_blocks(replayed))):
            valid = None if steps.valid is None else steps.valid[run]
            factors = hold(cell.factors(layer, replayed.block.at(run)), valid)
            drop_vanished(hidden_gradient[run])
            for here, in_block, call in _backwards(steps, run):
                if call is not None:
                    carry = Carry.of(*(values[call] for values in entering[1:]))
                if call is not None or in_block % STEPS_BETWEEN_DROPS == 0:
                    drop_vanished(carry.hidden, carry.cell)
                np.add(hidden_gradient[here], carry.hidden, out=hidden_gradient[here])
                cell.pull(factors, in_block, hidden_gradient[here], columns[here], carry)
                if not steps.stand_apart or run.start == 0:
                    cell.hand_back(factors, in_block, hidden_gradient[here], columns[here], carry)
                if cell_gradient is not None:
                    cell_gradient[here] = carry.total_cell
    found = {
        "hidden_gradient": in_input_time(hidden_gradient, passed),
        "initial_hidden_gradient": _first(carry.hidden),
    }
    if squashed is not None:
        found["projection_gradient"] = _over_valid(squashed, hidden_gradient, steps.valid)
    if replayed.block.cell is not None:
        found["initial_cell_gradient"] = _first(carry.cell)
    if cell_gradient is not None:
        found["cell_gradient"] = in_input_time(cell_gradient, passed)
    return found | _from_columns(layer, passed, replayed, columns, wanted)


def _room(block: Block, wanted: frozenset[str]) -> tuple[Floats, Floats | None]:
    """Find room for dz, which overwrites gates that nobody wants, and for dL/dc."""
    columns = np.empty_like(block.columns) if "gate_activation" in wanted else block.columns
    return columns, None if "cell_gradient" not in wanted or block.cell is None else np.empty_like(block.cell)


def _first(carried: Floats) -> Floats:
    """Take what goes back to the state before the first step, (sample, unit)."""
    return carried if carried.ndim == 2 else carried[0]


def _backwards(steps: Steps, run: slice) -> Iterator[tuple[Any, Any, Any]]:
    """Go back through a block: a step, its place in the block, and the call whose last step it is or None.

    Steps that stand apart come all at once.
    """
    if steps.stand_apart:
        yield run, slice(None), run
        return
    ends = {int(end) - 1: call for call, end in enumerate([*steps.starts[1:], steps.count])}
    for step in range(run.stop - 1, run.start - 1, -1):
        yield step, step - run.start, ends.get(step)


def _over_valid(squashed: Floats, hidden_gradient: Floats, valid: Mask | None) -> Floats:
    made = slice(None) if valid is None else valid
    left, right = (values[made].reshape(-1, values.shape[-1]) for values in (squashed, hidden_gradient))
    total: Floats = left.T @ right
    return total


def _from_columns(
    layer: Layer, passed: Pass, replayed: Replay, columns: Floats, wanted: frozenset[str]
) -> dict[str, Floats]:
    """Derive dx, contributions and weight gradients from dz, over all steps at once."""
    cell, width = cell_of(layer), len(replayed.weights)
    found = {"gate_gradient": in_input_time(columns[:, :, cell.INPUT_SIDE], passed)}
    flat = columns.reshape(-1, cell.COLUMNS * columns.shape[-1])
    if "input_gradient" in wanted:
        kernel = replayed.weights[replayed.block.recurrent.shape[-1] : -1].reshape(-1, flat.shape[1])
        kernel = along_directions(kernel) if passed.along_directions else kernel
        input_gradient = np.empty((*columns.shape[:2], len(kernel)), columns.dtype)
        product(flat, kernel.T, out=input_gradient.reshape(len(flat), -1))
        found["input_gradient"] = in_input_time(input_gradient, passed)
    if "step_contribution" in wanted:
        contribution = np.empty(columns.shape[:2], columns.dtype)

        def contribute(run: slice) -> None:
            contribution[run] = step_contributions(replayed.block.at(run), columns[run])

        over_rows(contribute, len(columns), columns.size)
        found["step_contribution"] = in_input_time(contribution, passed)
    if wanted & WEIGHT_GRADIENTS:
        joined, drawn = replayed.joined.reshape(-1, width), None
        if passed.along_directions:
            joined, drawn = _thinned(joined, replayed.block.recurrent.shape[-1])
        totals = np.empty((joined.shape[1], *replayed.weights.shape[1:]), columns.dtype)
        product(joined.T, flat, out=totals.reshape(len(totals), -1))
        named = cell.split(replayed.block, totals, columns, drawn)
        absent = {f"{name}_gradient" for name in ("bias", "recurrent_bias") if getattr(layer, name) is None}
        found |= {name: values for name, values in named.items() if name not in absent}
    return found


def _thinned(joined: Floats, units: int) -> tuple[Floats, Floats]:
    """Sum h_{t-1} and x_t in [h_{t-1}, x_t, 1] along directions; also returns those of h."""
    of_hidden, of_inputs = (directions(count) for count in (units, joined.shape[1] - units - 1))
    count = of_hidden.shape[1]
    both = np.zeros((joined.shape[1], 2 * count + 1), joined.dtype)
    both[:units, :count], both[units:-1, count:-1], both[-1, -1] = of_hidden, of_inputs, 1
    return joined @ both, both[:units, :count]


def _blocks(replayed: Replay, share: slice = slice(None)) -> Iterator[slice]:
    start, stop, _ = share.indices(len(replayed.block.columns))
    for run in blocks(stop - start, replayed.block.columns[:1].nbytes):
        yield slice(start + run.start, start + run.stop)


def _shaped(layer: Layer, found: dict[str, Floats]) -> dict[str, Floats]:
    if layer.kind != "simple_rnn":
        return found
    return {name: values[..., 0, :] if name in GATED else values for name, values in found.items()}
