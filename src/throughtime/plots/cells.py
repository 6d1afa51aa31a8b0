"""Line panels as cells of one large panel: one line through all cells, with gaps between."""

from dataclasses import dataclass

import numpy as np

from throughtime.picture import Line, Mark, Text
from throughtime.picture._drawing.scale import Array, Scale, Ticks, number

FLOOR = "#c0447a"
MOST_TICKS = 8
MOST_NAMES = 64  # panels with their names inside; with more, rows and columns have names
_ROOM = (0.05, 0.84)  # margin below the curve and its height, in parts of a cell


@dataclass(frozen=True)
class Grid:
    """Cells of equal size, numbered row by row; a single cell has timesteps as its axis."""

    count: int
    columns: int
    steps: int

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return -(-self.count // self.columns)

    @property
    def is_one(self) -> bool:
        """Whether there is one cell."""
        return self.count == 1

    def x(self) -> Array:
        """Return x of all cells one after another, with NaN between them."""
        if self.is_one:
            return np.arange(float(self.steps))
        time = np.linspace(0.04, 0.96, self.steps) if self.steps > 1 else np.array([0.5])
        return self._joined((np.arange(self.count) % self.columns)[:, None] + time)

    def y(self, positions: Array) -> Array:
        """Return y of positions (cell, step) between 0 and 1."""
        if self.is_one:
            return np.asarray(positions[0])
        lowest = (self.rows - 1 - np.arange(self.count) // self.columns)[:, None]
        return self._joined(lowest + _ROOM[0] + _ROOM[1] * positions)

    def _joined(self, cells: Array) -> Array:
        return np.concatenate([cells, np.full((self.count, 1), np.nan)], axis=1).ravel()

    def joined(self, values: Array) -> Array:
        """Return values (cell, step) in the order of `x`."""
        return np.asarray(values[0]) if self.is_one else self._joined(values)


def grid_of(panels: int, columns: int | None, steps: int) -> Grid:
    """Choose the cells per row; if possible all rows are full."""
    usual = min(panels, max(1, round((1.5 * panels) ** 0.5)))
    near = sorted(range(max(1, usual - 8), usual + 6), key=lambda each: abs(each - usual))
    if panels > 12:
        usual = next((each for each in near if panels % each == 0), usual)
    return Grid(panels, max(1, min(columns or usual, panels)), steps)


def details(grid: Grid, values: Array, words: list[str]) -> tuple[tuple[str, Array], ...]:
    """Return panel, timestep and value of each point."""
    steps = np.broadcast_to(np.arange(grid.steps, dtype=float), values.shape)
    known = (("timestep", grid.joined(steps)), ("value", grid.joined(values)))
    if grid.is_one:
        return known
    panel = np.repeat(np.array(words, dtype=object), grid.steps + 1)
    return (("panel", panel), *known)


def floor_line(grid: Grid) -> Line:
    """Draw the low end of the scale in every cell."""
    zero = np.zeros((grid.count, grid.steps))
    label = "low end of the scale" if grid.is_one else ""
    return Line(grid.x(), grid.y(zero), color=FLOOR, width=0.6, alpha=0.8, dashed=grid.is_one, label=label)


def borders(grid: Grid) -> list[Mark]:
    """Draw the borders of all cells as two lines with gaps."""
    down, across = np.arange(grid.columns + 1.0), np.arange(grid.rows + 1.0)
    ends = [
        (np.repeat(down, 3), np.tile([0, grid.rows, np.nan], len(down))),
        (np.tile([0, grid.columns, np.nan], len(across)), np.repeat(across, 3)),
    ]
    return [Line(x, y, color="#c4c4c4", width=0.5) for x, y in ends]


def names(grid: Grid, words: list[str], dim: str) -> list[Mark]:
    """Write the name of each panel into its cell if there are few; text is slow to draw."""
    if grid.count > MOST_NAMES:
        return []
    place = np.arange(grid.count)
    prefix = f"{dim} " if grid.columns <= 8 else ""
    detail = tuple(f"{prefix}{word}" for word in words)
    left, top = place % grid.columns + 0.04, grid.rows - place // grid.columns - 0.03
    return [Text(left, top, detail, 0.75, "#666666", anchor="top left")]


def column_ticks(grid: Grid) -> Ticks:
    """Count the panels of a row below it, if the panels have no names."""
    if grid.count <= MOST_NAMES:
        return ()
    every = max(1, -(-grid.columns // MOST_TICKS))
    return tuple((place + 0.5, f"+{place}") for place in range(0, grid.columns, every))


def row_ticks(grid: Grid, scale: Scale, words: list[str]) -> Ticks:
    """Write the ends of the scale beside the first row or, without names, the first panel of each row."""
    top = grid.rows - 1
    if grid.count > MOST_NAMES:
        every = max(1, -(-grid.rows // MOST_TICKS))
        return tuple((top - row + 0.45, words[row * grid.columns]) for row in range(0, grid.rows, every))
    low = number(-scale.high if scale.kind == "signed_log" else scale.low)
    ends = ((0.0, f"≤ {low}" if scale.kind == "log10" else low), (1.0, number(scale.high)))
    return tuple((top + _ROOM[0] + _ROOM[1] * at, word) for at, word in ends)
