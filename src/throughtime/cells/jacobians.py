"""The Jacobians ds_t/ds_{t-1} along a captured trajectory, for spectra and Lyapunov exponents.

The adjoint never forms them, but they follow from its coefficients.
"""

import numpy as np

from .kinds import cell_of
from .layer import Floats, Layer, Pass, with_gate_axis, working_dtype
from .replay import replay
from .scan import arrange, hold, in_input_time, processing_order
from .steps import Factors


def step_jacobians(layer: Layer, passed: Pass, cell: Floats | None = None) -> Floats:
    """Differentiate the state after each step by the state before it: (sample, time, state, state).

    Rows new, columns old, so that η_{t-1} = η_t J; the identity at masked steps. The state is h, for an LSTM
    h and c after one another, with c as `solve` returns it in `cell`. For a layer that runs backward,
    "before" step t is t + 1 in input time. Gradients of the pass are not used.
    """
    dtype = working_dtype(passed)
    prepared, steps = with_gate_axis(layer, dtype), arrange(passed, dtype)
    block = replay(prepared, steps).block
    if block.cell is not None and cell is not None:
        block.cell[...] = processing_order(cell, passed)  # c before the next step is a view of it
    factors = hold(cell_of(layer).factors(prepared, block), steps.valid)
    return in_input_time(_jacobians(factors), passed)


def _jacobians(factors: Factors) -> Floats:
    units = factors.recurrent.shape[-1]
    kernel = factors.recurrent.reshape(-1, units, units)
    columns = factors.columns[:, :, : len(kernel)]
    hidden: Floats
    if factors.reset is not None and factors.reset_slope is not None:
        reset = _diagonal(factors.reset) + factors.reset_slope[..., None] * kernel[1]
        hidden = columns[:, :, 0, :, None] * kernel[0] + columns[:, :, 2, :, None] * (kernel[2] @ reset)
    elif factors.hidden_to_cell is not None:
        hidden = columns[:, :, 3, :, None] * kernel[3]
    else:
        hidden = _through(columns, kernel)
    if factors.leak is not None:
        hidden += factors.leak[..., None] * np.eye(units, dtype=hidden.dtype)
    if factors.hidden_to_cell is None or factors.forget is None:
        return hidden
    # With e = do φ(c)/dc and M = dc_t/dh_{t-1}: [[J + D(e)M, D(e f)], [M, D(f)]].
    cell = _through(columns[:, :, :3], kernel[:3])
    hidden += factors.hidden_to_cell[..., None] * cell
    rows = [hidden, _diagonal(factors.hidden_to_cell * factors.forget)], [cell, _diagonal(factors.forget)]
    return np.concatenate([np.concatenate(row, -1) for row in rows], -2)


def _through(columns: Floats, kernel: Floats) -> Floats:
    product: Floats = np.einsum("tscu,cuv->tsuv", columns, kernel)
    return product


def _diagonal(values: Floats) -> Floats:
    return values[..., None] * np.eye(values.shape[-1], dtype=values.dtype)
