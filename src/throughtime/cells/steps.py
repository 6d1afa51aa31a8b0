"""The interface of cells: one step, and blocks of steps for speed.

`simple_rnn`, `lstm`, `gru` and `gru_reset_before` implement `Cell`, independent of time order and masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np

from .layer import Floats, Layer

SAFE_SQUARE = 2.0**-110  # a thousand squares too small for float32 do not change a larger sum


class Block(NamedTuple):
    """A run of steps in the fast path, (time, sample, …) in processing order; views, never copies.

    `columns` (time, sample, column, unit) are the cell's gates and whatever else its matrix product
    gives, `gradients` room for dz. In memory columns come first: NumPy is several times faster on long runs.
    `cell` is c_t, `reset_hidden` r · h_{t-1}, `recurrent` (column, unit, unit) Uᵀ.
    """

    columns: Floats
    gradients: Floats
    hidden_before: Floats
    recurrent: Floats
    cell_before: Floats | None = None
    cell: Floats | None = None
    reset_hidden: Floats | None = None

    def at(self, run: slice) -> Block:
        """Return a view of several steps."""
        each = {name: values for name, values in self._asdict().items() if values is not None}
        return self._replace(**{name: values[run] for name, values in each.items() if name != "recurrent"})


class Factors(NamedTuple):
    """The coefficients of the linear adjoint along a trajectory: (time, sample, unit) but for `columns`.

    Those of one step, as `backwards` gives them, have no axis of time.
    """

    columns: Floats  # (time, sample, column, unit), A of dz = A · dL/dh, then dz; LSTM: · dL/dc, but for o
    recurrent: Floats  # (column, unit, unit), Uᵀ
    leak: Floats | None = None  # of the path from h_{t-1} to h_t that bypasses the gates
    hidden_to_cell: Floats | None = None  # LSTM: o(1 − tanh² c)
    forget: Floats | None = None  # LSTM: f
    reset: Floats | None = None  # GRU with the reset before the product: r
    reset_slope: Floats | None = None  # the same: h_{t-1} r'
    projected: Floats | None = None  # (unit, cell_unit), Pᵀ of an LSTM with a projection

    def backwards(self) -> Iterator[Factors]:
        """Give views of each step, the last one first."""
        shared = self.recurrent, self.projected
        sides = (
            repeat(one) if one is None or any(one is each for each in shared) else one[::-1] for one in self
        )
        return map(Factors._make, zip(*sides, strict=False))

    def first(self) -> Factors:
        """Give a view of the first step."""
        names = {*self._fields} - {"recurrent", "projected"}
        each = {name: values[0] for name in names if (values := getattr(self, name)) is not None}
        return self._replace(**each)


class Carry(NamedTuple):
    """Buffers of the fast adjoint, (…, sample, unit), overwritten at each step.

    `hidden` and `cell` are the state adjoint η that crosses from one step to the step before it.
    """

    hidden: Floats
    cell: Floats
    scratch: Floats
    both: Floats  # hidden and cell, flat

    @classmethod
    def of(cls, hidden: Floats, cell: Floats, scale: np.floating) -> Carry:
        """Make the carry that the adjoint begins with."""
        both = np.empty(hidden.size + cell.size, hidden.dtype)
        own, other = both[: hidden.size].reshape(hidden.shape), both[hidden.size :].reshape(cell.shape)
        return cls(own, other, np.empty_like(own), both).fill(hidden, cell, scale)

    def fill(self, hidden: Floats, cell: Floats, scale: np.floating) -> Carry:
        """Write dL/d(final states), scaled."""
        np.multiply(hidden, scale, out=self.hidden)
        np.multiply(cell, scale, out=self.cell)
        return self


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
        """Linearise a block, with `block.gradients` as the room for `columns`."""

    def pull(self, factors: Factors, hidden: Floats, cell: Floats, carry: Carry) -> None:
        """One step of the adjoint, or several that stand apart: read dL/dh, write dL/dc, dz and η of c."""

    def hand_back(self, factors: Factors, hidden: Floats, carry: Carry) -> None:
        """Write η of h, after `pull`."""

    def split(
        self, block: Block, totals: Floats, columns: Floats, drawn: Floats | None
    ) -> Mapping[str, Floats]:
        """Return the named parts of the gradient of `joint_weights`, of rows summed along `drawn`."""


def squared_norm(vectors: Floats) -> Floats:
    """Sum of squares over the last axis, as float64; float32 computes it where no underflow matters."""
    dtype = np.result_type(vectors, np.float32)
    with np.errstate(over="ignore"):
        squares: Floats = np.einsum("...u,...u->...", vectors, vectors, dtype=dtype).astype(np.float64)
    unsafe = ~((squares > SAFE_SQUARE) & (squares < np.inf))
    if unsafe.any():
        rows = vectors[unsafe]
        squares[unsafe] = np.einsum("ru,ru->r", rows, rows, dtype=np.float64)
    return squares


def joint_weights(layer: Layer) -> Floats:
    """[U; W; b] of a cell whose columns are its gates."""
    bias = np.zeros(layer.kernel.shape[1:], layer.kernel.dtype)
    for added in (layer.bias, layer.recurrent_bias):
        bias = bias if added is None else bias + added
    return np.concatenate([layer.recurrent_kernel, layer.kernel, bias[None]])


def by_column(values: Floats) -> Floats:
    """Return a view (column, time · sample, unit) of `Block.columns` or `Block.gradients`."""
    return values.transpose(2, 0, 1, 3).reshape(values.shape[2], -1, values.shape[3])


def through_recurrent(columns: Floats, recurrent: Floats, out: Floats) -> None:
    """Σ of the columns · Uᵀ at one step; a GRU has more columns than those on the recurrent side."""
    side = columns[:, : len(recurrent)]
    np.dot(side.reshape(len(side), -1), recurrent.reshape(-1, recurrent.shape[-1]), out=out)


def hand_back(factors: Factors, hidden: Floats, carry: Carry) -> None:
    """One product, and two ufuncs if h leaks."""
    through_recurrent(factors.columns, factors.recurrent, carry.hidden)
    if factors.leak is not None:
        np.multiply(hidden, factors.leak, out=carry.scratch)
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
