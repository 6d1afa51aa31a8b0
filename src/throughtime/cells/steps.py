"""The interface of cells: one step, and blocks of steps for speed.

`simple_rnn`, `lstm`, `gru` and `gru_reset_before` implement `Cell`, independent of time order and masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .layer import Floats, Layer

Places = int | slice  # a step of a block, or several


@dataclass(frozen=True)
class Block:
    """A run of steps in the fast path, (time, sample, …) in processing order; views, never copies.

    `columns` (time, sample, column, unit) are the cell's gates and whatever else its matrix product
    gives; `cell` is c_t. `reset_hidden` is r · h_{t-1}.
    `recurrent` (column · unit, unit) is Uᵀ.
    """

    columns: Floats
    hidden_before: Floats
    recurrent: Floats
    cell_before: Floats | None = None
    cell: Floats | None = None
    reset_hidden: Floats | None = None

    def at(self, run: slice) -> Block:
        """Return a view of several steps."""
        kept = (self.cell_before, self.cell, self.reset_hidden)
        viewed = (None if values is None else values[run] for values in kept)
        return Block(self.columns[run], self.hidden_before[run], self.recurrent, *viewed)


@dataclass(frozen=True)
class Factors:
    """The coefficients of the linear adjoint along a trajectory: (time, sample, unit) but for `columns`."""

    columns: Floats  # (time, sample, column, unit), A of dz = A · dL/dh; LSTM: · dL/dc, but for o
    recurrent: Floats  # (column · unit, unit), Uᵀ
    leak: Floats | None = None  # of the path from h_{t-1} to h_t that bypasses the gates
    hidden_to_cell: Floats | None = None  # LSTM: o(1 − tanh² c)
    forget: Floats | None = None  # LSTM: f
    reset: Floats | None = None  # GRU with the reset before the product: r
    reset_slope: Floats | None = None  # the same: h_{t-1} r'
    projected: Floats | None = None  # (unit, cell_unit), Pᵀ of an LSTM with a projection


@dataclass(frozen=True)
class Carry:
    """Buffers of the fast adjoint, (…, sample, unit), overwritten at each step.

    `hidden` and `cell` are the state adjoint η that crosses from one step to the step before it;
    `total_cell` is the total dL/dc_t of the step just done.
    """

    hidden: Floats
    cell: Floats
    total_cell: Floats
    scratch: Floats

    @classmethod
    def of(cls, hidden: Floats, cell: Floats) -> Carry:
        """Make the carry that the adjoint begins with: dL/d(final states)."""
        return cls(hidden.copy(), cell.copy(), np.zeros_like(cell), np.zeros_like(hidden))


class Cell(Protocol):
    """The mathematics of one kind of cell.

    Functions work in place on blocks. Layers are converted by `layer.with_gate_axis`.
    """

    COLUMNS: int  # of the fast path, at least one per gate; those on the recurrent side come first
    INPUT_SIDE: slice  # places of the gates among the columns, in the order of the schema
    RECURRENT_GATES: slice | list[int]  # the gate of each column on the recurrent side

    def joint_weights(self, layer: Layer) -> Floats:
        """Return [U; W; b] (unit_from + feature + 1, column, unit)."""

    def activate(self, layer: Layer, block: Block) -> None:
        """Turn the matrix product in `block.columns` into activated gates, in place."""

    def factors(self, layer: Layer, block: Block) -> Factors:
        """Linearise a block; no result is a view of `block.columns`."""

    def pull(self, factors: Factors, step: Places, hidden: Floats, columns: Floats, carry: Carry) -> None:
        """One step of the adjoint, or several that stand apart: read dL/dh_t, write dz and η of the cell."""

    def hand_back(
        self, factors: Factors, step: Places, hidden: Floats, columns: Floats, carry: Carry
    ) -> None:
        """Write η of h, after `pull`; of steps that stand apart only the first one needs it."""

    def split(
        self, block: Block, totals: Floats, columns: Floats, drawn: Floats | None
    ) -> Mapping[str, Floats]:
        """Return the named parts of the gradient of `joint_weights`, of rows summed along `drawn`."""


def squared_norm(vectors: Floats) -> Floats:
    """Sum of squares over the last axis, in float64: the square of 1e-25 underflows in float32."""
    squares: Floats = np.einsum("...u,...u->...", vectors, vectors, dtype=np.float64)
    return squares


def joint_weights(layer: Layer) -> Floats:
    """[U; W; b] of a cell whose columns are its gates."""
    bias = np.zeros(layer.kernel.shape[1:], layer.kernel.dtype)
    for added in (layer.bias, layer.recurrent_bias):
        bias = bias if added is None else bias + added
    return np.concatenate([layer.recurrent_kernel, layer.kernel, bias[None]])


def hand_back(factors: Factors, step: Places, hidden: Floats, columns: Floats, carry: Carry) -> None:
    """One product, and two ufuncs if h leaks."""
    units, width = hidden.shape[-1], len(factors.recurrent)
    # A GRU has more columns than those on the recurrent side: BLAS takes the stride, nothing is copied.
    rows = columns.reshape(-1, columns.shape[-2] * columns.shape[-1])[:, :width]
    np.dot(rows, factors.recurrent, out=carry.hidden.reshape(-1, units))
    if factors.leak is not None:
        np.multiply(hidden, factors.leak[step], out=carry.scratch)
        np.add(carry.hidden, carry.scratch, out=carry.hidden)


def split(block: Block, totals: Floats, columns: Floats, drawn: Floats | None) -> dict[str, Floats]:
    """Return the named parts of the gradient of `joint_weights`."""
    rows = block.recurrent.shape[-1] if drawn is None else drawn.shape[-1]
    return {
        "recurrent_kernel_gradient": totals[:rows],
        "kernel_gradient": totals[rows:-1],
        "bias_gradient": totals[-1],
        "recurrent_bias_gradient": totals[-1],
    }
