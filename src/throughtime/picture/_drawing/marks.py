"""The marks of a plot: arrays in the coordinates of their panel.

Each mark checks its arguments, so that renderers need not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from throughtime._common.text.printable import Printable
from throughtime._errors import PictureError
from throughtime._inputs import takes
from throughtime._inputs.rules import Rule, array, choice, instance, number, optional, require, several, text
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import Array

ANCHORS = tuple(
    f"{along}{across}" for along in ("bottom", "top", "middle") for across in ("", " left", " right")
)
DOTS = ("o", "X", "^", "v", "x")
SHARE, SIZE, POINTS, FRAMES = number(0, 1), number(0), array(1), array(1, 2)


def _details(value: Any) -> Any:
    return tuple((text.take(name), np.asarray(values)) for name, values in value)


def _labels(value: Any) -> Array:
    found = np.asarray(value)
    require(found.ndim == 1)
    return found


DETAILS = Rule(_details, "pairs of a name and an array, one number or word a point")
LABELS = optional(Rule(_labels, "labels, as an array with one axis"))


class Pointwise(Printable):
    """A mark whose arrays named in `_points` have the same number of points."""

    _points: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {name: np.shape(getattr(self, name))[-1] for name in self._points}
        sizes |= {f"{name} of details": np.shape(values)[-1] for name, values in getattr(self, "details", ())}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise PictureError(
                f"A {type(self).__name__} needs the same number of points in each array, got {found}."
            )


@takes(
    PictureError,
    values=array(2, 3, least=1),
    valid=optional(array(2, 3, kinds="b")),
    colors=instance("Colors"),
    rows=LABELS,
    columns=LABELS,
)
@dataclass(frozen=True, eq=False)
class Image(Printable):
    """Values as colours: `values` ([frame,] row, column) over the box from `x[0], y[0]` to `x[1], y[1]`.

    `valid` is False for masked steps. `name` is the sample or gate, if a panel has several images; `rows` and
    `columns` are labels of the rows and columns.
    """

    values: Array
    x: tuple[float, float]
    y: tuple[float, float]
    colors: Colors
    valid: Array | None = None
    name: str = ""
    rows: Array | None = None
    columns: Array | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.values.shape[-2:]
        if self.x[0] == self.x[1] or self.y[0] == self.y[1]:
            raise PictureError(f"An Image needs a box with an area, got x={self.x}, y={self.y}.")
        sizes = () if self.valid is None else self.valid.shape[::-1]
        if any(size not in (1, wanted) for size, wanted in zip(sizes, self.values.shape[::-1], strict=False)):
            raise PictureError(f"valid has shape {sizes[::-1]}, and values have {self.values.shape}.")
        for name, labels, size in (("rows", self.rows, shape[0]), ("columns", self.columns, shape[1])):
            if labels is not None and len(labels) != size:
                raise PictureError(f"An Image has {size} {name} and {len(labels)} labels for them.")

    @property
    def frames(self) -> int:
        """Number of frames, 1 without a slider."""
        return len(self.values) if self.values.ndim == 3 else 1

    def frame(self, number: int) -> tuple[Array, Array | None]:
        """Return values and validity of one frame, (row, column)."""
        if self.values.ndim == 2:
            return self.values, self.valid
        valid = self.valid
        return self.values[number], valid[number] if valid is not None and valid.ndim == 3 else valid


@takes(PictureError, x=POINTS, y=FRAMES, width=SIZE, alpha=SHARE, details=DETAILS)
@dataclass(frozen=True, eq=False)
class Line(Pointwise):
    """A line through (x, y); NaN breaks it. `y` is (point) or (frame, point).

    `details` are values that a hover shows for each point, by name.
    """

    x: Array
    y: Array
    color: str = "#0072B2"
    width: float = 1.5
    alpha: float = 1.0
    dashed: bool = False
    label: str = ""
    details: tuple[tuple[str, Array], ...] = ()
    _points = ("x", "y")


@takes(PictureError, x=POINTS, low=POINTS, high=POINTS, alpha=SHARE)
@dataclass(frozen=True, eq=False)
class Band(Pointwise):
    """The area between `low` and `high` over `x`; NaN interrupts it."""

    x: Array
    low: Array
    high: Array
    color: str = "#0072B2"
    alpha: float = 0.25
    label: str = ""
    _points = ("x", "low", "high")


@takes(PictureError, boxes=array(2), alpha=SHARE)
@dataclass(frozen=True, eq=False)
class Rectangles(Printable):
    """Boxes (n, 4): left, bottom, right, top."""

    boxes: Array
    fill: str | None = None
    edge: str | None = None
    hatched: bool = False
    alpha: float = 1.0
    label: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.boxes.shape[1] != 4:
            raise PictureError(f"boxes={self.boxes.shape}: expected (n, 4), left, bottom, right and top.")


@takes(PictureError, x=POINTS, y=POINTS, size=SIZE, marker=choice(*DOTS), alpha=SHARE, details=DETAILS)
@dataclass(frozen=True, eq=False)
class Dots(Pointwise):
    """Points; `details` are values that a hover shows for each, by name."""

    x: Array
    y: Array
    color: str = "#0072B2"
    size: float = 5.0
    marker: str = "o"
    alpha: float = 0.8
    label: str = ""
    details: tuple[tuple[str, Array], ...] = ()
    _points = ("x", "y")


@takes(PictureError, x=POINTS, y=POINTS, words=several(text), size=SIZE, anchor=choice(*ANCHORS))
@dataclass(frozen=True, eq=False)
class Text(Pointwise):
    """Short words at points; `anchor` is the part of the words at the point, such as "bottom left"."""

    x: Array
    y: Array
    words: tuple[str, ...]
    size: float = 0.8  # of the theme's
    color: str | None = None
    anchor: str = "bottom left"
    _points = ("x", "y", "words")
