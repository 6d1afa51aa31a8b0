"""The fast adjoint: one matrix product for all gates, blocks of time that stay in cache, one dot per step.

It computes in the precision of the capture. The module of each cell defines its coefficients, and `scan` the
effect of masks and directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from throughtime._errors import SchemaError

from .kinds import cell_of
from .layer import Floats, Layer, Pass, with_gate_axis, working_dtype
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


@dataclass(frozen=True)
class Replay:
    """All gates of a pass, (time, sample, …) in processing order, from the captured hidden states.

    `joined` is [h_{t-1}, x_t, 1] and `weights` [U; W; b]: their product gives every pre-activation, and
    its transpose every weight gradient; `recurrent` is Uᵀ.
    """

    joined: Floats
    weights: Floats
    recurrent: Floats
    columns: Floats
    cell: Floats | None
    reset_hidden: Floats | None

    @property
    def hidden_before(self) -> Floats:
        """h_{t-1}."""
        return self.joined[:, :, : self.columns.shape[-1]]

    def block(self, run: slice = slice(None)) -> Block:
        """Return a view of several steps."""
        cell = self.cell
        if cell is not None and run != slice(None):
            cell = cell[run.start : run.stop + 1]
        reset_hidden = None if self.reset_hidden is None else self.reset_hidden[run]
        return Block(self.columns[run], self.hidden_before[run], self.recurrent, cell, reset_hidden)


def solve(layer: Layer, passed: Pass, wanted: frozenset[str]) -> dict[str, Floats]:
    """Compute the wanted quantities of a recurrent layer.

    Parameters
    ----------
    layer : Layer
    passed : Pass
        Its dtype, float32 or float64, is that of the computation and the results.
    wanted : frozenset of str
        Names of `QUANTITIES`; those that this kind of layer lacks are left out of the result.

    Returns
    -------
    dict of ndarray
        As defined in `quantities.DEFINITIONS`, sample-major in input time; views if possible.

    Raises
    ------
    SchemaError
        A name is none of `QUANTITIES`.
    UnsupportedModelError
        There is no closed form for the layer's kind or activation.
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
    units, dtype = steps.hidden.shape[-1], steps.hidden.dtype
    joined = np.ones((count, samples, units + features + 1), dtype)
    joined[:, :, :units] = steps.hidden[:-1]
    joined[:, :, units:-1] = steps.inputs
    weights = cell.joint_weights(layer)
    replayed = Replay(
        joined,
        weights,
        cell.transposed(layer),
        np.empty((count, samples, cell.COLUMNS, units), dtype),
        np.empty_like(steps.hidden) if layer.kind == "lstm" else None,
        np.empty((count, samples, units), dtype) if layer.kind == "gru" and not layer.reset_after else None,
    )
    if replayed.cell is not None:
        replayed.cell[0] = steps.initial_cell
    over_rows(partial(_activate, layer, replayed), count, ACTIVATION * replayed.columns.size)
    if replayed.cell is not None:
        accumulate_cell(replayed.cell, replayed.columns[:, :, 1], steps.valid)
    return replayed


def _activate(layer: Layer, replayed: Replay, share: slice) -> None:
    """Compute gates, and an LSTM's i·g, from the captured states, block by block in the cache."""
    width = len(replayed.weights)
    weights = replayed.weights.reshape(width, -1)
    for run in _blocks(replayed, share):
        block = replayed.block(run)
        columns = block.columns.reshape(-1, weights.shape[1])
        np.dot(replayed.joined[run].reshape(-1, width), weights, out=columns)
        cell_of(layer).activate(layer, block)
        if block.cell is not None:
            np.multiply(block.columns[:, :, 0], block.columns[:, :, 2], out=block.cell[1:])


def _forward(layer: Layer, passed: Pass, replayed: Replay, wanted: frozenset[str]) -> dict[str, Floats]:
    found = {"gate_activation": in_input_time(replayed.columns[:, :, cell_of(layer).INPUT_SIDE], passed)}
    if replayed.cell is not None and "cell" in wanted:
        found["cell"] = in_input_time(replayed.cell[1:], passed)
    return found


def _backward(
    layer: Layer, passed: Pass, steps: Steps, replayed: Replay, wanted: frozenset[str]
) -> dict[str, Floats]:
    """Run the adjoint on scaled gradients, so that vanishing ones remain normal numbers.

    If that overflows, as in an explosion, it is repeated with unscaled gradients.
    """
    dtype = steps.hidden.dtype
    entering = _entering(passed, dtype)
    scale = raising(*entering)
    if scale != 1.0:
        for values in entering:  # in place: a sequence of states may be large
            np.multiply(values, dtype.type(scale), out=values)
        with np.errstate(over="ignore", invalid="ignore"):
            found = _pulled_back(layer, passed, steps, replayed, entering, wanted)
        if np.isfinite(found["initial_hidden_gradient"]).all():
            return _lowered(found, dtype.type(1.0 / scale))
        # The input gradients are scaled, and the gates may be overwritten.
        entering, replayed = _entering(passed, dtype), replay(layer, steps)
    return _pulled_back(layer, passed, steps, replayed, entering, wanted)


def _entering(passed: Pass, dtype: np.dtype[np.floating]) -> tuple[Floats, ...]:
    """Make dL/d(output) and dL/d(final states), in processing order."""
    return output_gradient(passed, dtype), *final_gradients(passed, dtype)


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
    dtype = hidden_gradient.dtype
    # The gates are not needed after their block has been linearised: dz overwrites them.
    columns = np.empty_like(replayed.columns) if "gate_activation" in wanted else replayed.columns
    keeps_cell = replayed.cell is not None and "cell_gradient" in wanted
    cell_gradient = np.empty_like(hidden_gradient) if keeps_cell else None
    carry = Carry.zeros(hidden_gradient.shape[1:], dtype)
    carry.hidden[...], carry.cell[...] = entering[1:]
    cell = cell_of(layer)
    with one_thread():
        for run in reversed(list(_blocks(replayed))):
            valid = None if steps.valid is None else steps.valid[run]
            factors = hold(cell.factors(layer, replayed.block(run)), valid)
            drop_vanished(hidden_gradient[run])
            for t in range(run.stop - 1, run.start - 1, -1):
                if t % STEPS_BETWEEN_DROPS == 0:
                    drop_vanished(carry.hidden)
                    drop_vanished(carry.cell)
                np.add(hidden_gradient[t], carry.hidden, out=hidden_gradient[t])
                cell.pull(factors, t - run.start, hidden_gradient[t], columns[t], carry)
                if cell_gradient is not None:
                    cell_gradient[t] = carry.total_cell
    found = {
        "hidden_gradient": in_input_time(hidden_gradient, passed),
        "initial_hidden_gradient": carry.hidden,
    }
    if replayed.cell is not None:
        found["initial_cell_gradient"] = carry.cell
    if cell_gradient is not None:
        found["cell_gradient"] = in_input_time(cell_gradient, passed)
    return found | _from_columns(layer, passed, replayed, columns, wanted)


def _from_columns(
    layer: Layer, passed: Pass, replayed: Replay, columns: Floats, wanted: frozenset[str]
) -> dict[str, Floats]:
    """Derive dx, contributions and weight gradients from dz, over all steps at once."""
    cell, width = cell_of(layer), len(replayed.weights)
    found = {"gate_gradient": in_input_time(columns[:, :, cell.INPUT_SIDE], passed)}
    flat = columns.reshape(-1, cell.COLUMNS * columns.shape[-1])
    if "input_gradient" in wanted:
        kernel = replayed.weights[columns.shape[-1] : -1].reshape(-1, flat.shape[1])
        input_gradient = np.empty((*columns.shape[:2], len(kernel)), columns.dtype)
        product(flat, kernel.T, out=input_gradient.reshape(len(flat), -1))
        found["input_gradient"] = in_input_time(input_gradient, passed)
    if "step_contribution" in wanted:
        contribution = np.empty(columns.shape[:2], columns.dtype)

        def contribute(run: slice) -> None:
            contribution[run] = cell.contribution(replayed.block(run), columns[run])

        over_rows(contribute, len(columns), columns.size)
        found["step_contribution"] = in_input_time(contribution, passed)
    if wanted & WEIGHT_GRADIENTS:
        totals = np.empty(replayed.weights.shape, columns.dtype)
        product(replayed.joined.reshape(-1, width).T, flat, out=totals.reshape(width, -1))
        named = cell.split(layer, replayed.block(), totals, columns)
        absent = {f"{name}_gradient" for name in ("bias", "recurrent_bias") if getattr(layer, name) is None}
        found |= {name: values for name, values in named.items() if name not in absent}
    return found


def _blocks(replayed: Replay, share: slice = slice(None)) -> Iterator[slice]:
    start, stop, _ = share.indices(len(replayed.columns))
    for run in blocks(stop - start, replayed.columns[:1].nbytes):
        yield slice(start + run.start, start + run.stop)


def _shaped(layer: Layer, found: dict[str, Floats]) -> dict[str, Floats]:
    """Remove the gate axis of length 1 from the results of a SimpleRNN."""
    if layer.kind != "simple_rnn":
        return found
    return {name: values[..., 0, :] if name in GATED else values for name, values in found.items()}
