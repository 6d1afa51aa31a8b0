"""Cells of a grid inside one Axes: each is a square of side 1, so that a thousand panels need few artists.

Positions are fractions of a cell (0 left or bottom, 1 right or top).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from throughtime.compat._classic.frame import Canvas
from throughtime.compat._classic.look import QUIET, dress

Positions = NDArray[np.float64]

PADDING = 0.04
MOST_TICKS = 10


def cell_x(canvas: Canvas, fractions: Positions, padding: float = PADDING) -> Positions:
    """Place fractions (point,) in every cell: (cell, point)."""
    columns = np.arange(canvas.count) % canvas.columns
    return np.asarray(columns[:, None] + padding + (1 - 2 * padding) * fractions)


def cell_y(canvas: Canvas, fractions: Positions, padding: float = PADDING) -> Positions:
    """Place fractions (…, cell, point) in their cells; the first row is on top."""
    rows = canvas.rows - 1 - np.arange(canvas.count) // canvas.columns
    return np.asarray(rows[:, None] + padding + (1 - 2 * padding) * fractions)


def join_cells(cells: Positions) -> Positions:
    """Join (cell, point) into one row, with a NaN after each cell to interrupt the line."""
    return np.pad(cells, ((0, 0), (0, 1)), constant_values=np.nan).ravel()


def dress_cells(canvas: Canvas, names: Sequence[str]) -> None:
    """Label each row with its first panel, and each column with the number to add to it."""
    ax = canvas.panels[0]
    dress(ax, canvas.frame, size=8, edges=False)
    if canvas.frame.show_borders:
        x, y = (
            cell_x(canvas, np.array([0.0, 1, 1, 0, 0]), 0),
            cell_y(canvas, np.array([0.0, 0, 1, 1, 0]), 0),
        )
        ax.plot(join_cells(x), join_cells(y), color=QUIET, linewidth=0.6, label="borders")
    row_step, column_step = (-(-count // MOST_TICKS) for count in (canvas.rows, canvas.columns))
    rows, columns = np.arange(0, canvas.rows, row_step), np.arange(0, canvas.columns, column_step)
    labels = [names[int(row) * canvas.columns] if names else "" for row in rows]
    ax.set_yticks(canvas.rows - rows - 0.5, labels)
    ax.set_xticks(columns + 0.5, [f"+{column}" if names else "" for column in columns])
    ax.tick_params(axis="both", length=0)
    ax.set(xlim=(-0.02, canvas.columns + 0.02), ylim=(-0.02, canvas.rows + 0.02))
