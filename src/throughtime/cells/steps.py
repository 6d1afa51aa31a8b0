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
class Step:
    """One step or many: leading axes (…, sample), `hidden_before` is h_{t-1}, `cell` is c_t."""

    inputs: Floats
    hidden_before: Floats
    cell_before: Floats | None = None
    cell: Floats | None = None


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


@dataclass(frozen=True)
class Factors:
    """The coefficients of the adjoint, which is linear, along a trajectory.

    Attributes
    ----------
    columns : ndarray (time, sample, column, unit)
        A of dz = A · dL/dh (LSTM: · dL/dc, but for the output gate).
    recurrent : ndarray (column · unit, unit)
        Uᵀ.
    leak : ndarray (time, sample, unit or 1) or None
        Coefficient of the path from h_{t-1} to h_t that bypasses the gates.
    hidden_to_cell, forget : ndarray (time, sample, unit) or None
        LSTM: o(1 − tanh² c) and f.
    reset, reset_slope : ndarray (time, sample, unit) or None
        GRU with the reset before the product: r and h_{t-1} r'.
    projected : ndarray (unit, cell_unit) or None
        Pᵀ of an LSTM with a projection.
    """

    columns: Floats
    recurrent: Floats
    leak: Floats | None = None
    hidden_to_cell: Floats | None = None
    forget: Floats | None = None
    reset: Floats | None = None
    reset_slope: Floats | None = None
    projected: Floats | None = None


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

    The first group takes one step, for any leading axes; the second group works in place on blocks.
    Layers are converted by `layer.with_gate_axis`.
    """

    COLUMNS: int  # of the fast path, at least one per gate
    INPUT_SIDE: slice  # places of the gates among the columns, in the order of the schema

    def gates(self, layer: Layer, step: Step) -> Floats:
        """Return the activated gates (…, gate, unit)."""

    def jacobian(self, layer: Layer, step: Step) -> Floats:
        """Return ds_t/ds_{t-1} (…, state, state), rows new, columns old."""

    def transposed(self, layer: Layer) -> Floats:
        """Return Uᵀ (column · unit, unit) for the columns on the recurrent side."""

    def joint_weights(self, layer: Layer) -> Floats:
        """Return [U; W; b] (unit_from + feature + 1, column, unit)."""

    def activate(self, layer: Layer, block: Block) -> None:
        """Turn the matrix product in `block.columns` into activated gates, in place."""

    def factors(self, layer: Layer, block: Block) -> Factors:
        """Linearise a block; no result is a view of `block.columns`."""

    def pull(self, factors: Factors, step: Places, hidden: Floats, columns: Floats, carry: Carry) -> None:
        """One step of the adjoint, or several that stand apart: read dL/dh_t, write dz and η."""

    def split(self, layer: Layer, block: Block, totals: Floats, columns: Floats) -> Mapping[str, Floats]:
        """Return the named parts of the gradient of `joint_weights`."""

    def contribution(self, block: Block, columns: Floats) -> Floats:
        """‖dL/dU_(t)‖ per step and sample (time, sample), in float64."""


def squared_norm(vectors: Floats) -> Floats:
    """Sum of squares over the last axis, in float64: the square of 1e-25 underflows in float32."""
    squares: Floats = np.einsum("...u,...u->...", vectors, vectors, dtype=np.float64)
    return squares


def transposed_kernel(recurrent_kernel: Floats) -> Floats:
    """Copy (unit_from, column, unit) to (column · unit, unit_from), for which dot is twice as fast."""
    return np.ascontiguousarray(recurrent_kernel.reshape(len(recurrent_kernel), -1).T)


def norm_product(first: Floats, second: Floats) -> Floats:
    """‖first‖·‖second‖ from squared norms: the Frobenius norm of an outer product."""
    product: Floats = np.sqrt(first * second)
    return product


def stacked_weights(layer: Layer) -> Floats:
    """[U; W; b] of a cell whose columns are its gates."""
    bias = np.zeros(layer.kernel.shape[1:], layer.kernel.dtype)
    for added in (layer.bias, layer.recurrent_bias):
        bias = bias if added is None else bias + added
    return np.concatenate([layer.recurrent_kernel, layer.kernel, bias[None]])


def pre_activation(layer: Layer, step: Step) -> Floats:
    """Compute z = x W + h U + b, (…, gate, unit)."""
    z: Floats = np.tensordot(step.inputs, layer.kernel, 1)
    z = z + np.tensordot(step.hidden_before, layer.recurrent_kernel, 1)
    for added in (layer.bias, layer.recurrent_bias):
        z = z if added is None else z + added
    return z


def scaled_rows(scale: Floats, matrix: Floats) -> Floats:
    """D(scale) · matrix, (…, unit) and (…, unit, unit_from)."""
    return scale[..., :, None] * matrix


def diagonal(values: Floats) -> Floats:
    """D(values), (…, unit, unit)."""
    return scaled_rows(values, np.eye(values.shape[-1], dtype=values.dtype))


def split_totals(layer: Layer, totals: Floats) -> dict[str, Floats]:
    """Return the named parts of the gradient of `stacked_weights`."""
    units = layer.recurrent_kernel.shape[0]
    return {
        "recurrent_kernel_gradient": totals[:units],
        "kernel_gradient": totals[units:-1],
        "bias_gradient": totals[-1],
        "recurrent_bias_gradient": totals[-1],
    }
