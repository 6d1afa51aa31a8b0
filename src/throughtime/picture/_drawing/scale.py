"""`Scale`: the position of a value between the low and the high end of a colour map or an axis.

Values are transformed here, so that all renderers agree; a renderer gets positions from 0 to 1 and words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from throughtime._errors import PictureError

Array = npt.NDArray[Any]
Ticks = tuple[tuple[float, str], ...]

SCALES = ("log10", "signed_log", "linear")
FLOOR = 2.0**-24  # of the largest: below it a float32 sum does not change
_TINY = 1e-300  # a scale of smaller values alone would have no room below them
_SMALLEST = 0.01  # share of the values that may lie below a logarithmic scale
_MOST_TICKS = 7
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """The positions of values.

    `log10` shows magnitudes from `low` to `high`; `signed_log` shows both signs, with 0 in the middle and
    magnitudes from `low` to `high` on either side; `linear` goes from `low` to `high`.
    """

    kind: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.kind not in SCALES:
            raise PictureError(f"There is no scale {self.kind!r}. Choose one of: {', '.join(SCALES)}.")
        ordered = np.isfinite([self.low, self.high]).all() and self.low < self.high
        if not ordered or (self.kind != "linear" and self.low <= 0):
            positive = "" if self.kind == "linear" else "positive "
            raise PictureError(
                f"limits=({self.low}, {self.high}) on a {self.kind} scale: expected two finite {positive}"
                "numbers, the smaller one first."
            )

    @property
    def decades(self) -> float:
        """Number of powers of ten between `low` and `high` of a logarithmic scale."""
        return float(np.log10(self.high) - np.log10(self.low))

    def label(self, words: str) -> str:
        """Add the kind of the scale to the label of its axis."""
        kind = {"log10": "log scale", "signed_log": "signed log scale"}.get(self.kind, "")
        return ", ".join(filter(None, (words, kind)))

    def position(self, values: Array) -> Array:
        """Return positions: 0 at the low end, 1 at the high end, outside for values outside; NaN remains."""
        values = np.asarray(values, dtype=np.float64)
        if self.kind == "linear":
            return np.asarray((values - self.low) / (self.high - self.low))
        with np.errstate(divide="ignore"):
            share = (np.log10(np.abs(values)) - np.log10(self.low)) / self.decades
        if self.kind == "log10":
            return np.asarray(share)
        return np.asarray(0.5 + 0.5 * np.sign(values) * np.maximum(share, 0.0))

    def clipped(self, values: Array) -> Array:
        """Return positions on an axis, clipped to its ends; NaN for values that are not finite."""
        values = np.asarray(values, dtype=np.float64)
        position = np.clip(np.nan_to_num(self.position(values)), 0.0, 1.0)
        return np.where(np.isfinite(values), position, np.nan)

    def curve(self, values: Array) -> Array:
        """Return positions of a curve along the last axis; it ends at the first value below the scale."""
        position = self.clipped(values)
        if self.kind != "log10":
            return position
        near = above = np.abs(values) >= self.low
        near = near | np.isnan(position)
        near[..., 1:] |= above[..., :-1]
        near[..., :-1] |= above[..., 1:]
        position[~near] = np.nan
        return position

    def ticks(self) -> Ticks:
        """Return positions with their words."""
        if self.kind == "linear":
            return tuple(self._linear_ticks())
        powers = tuple(self._powers())
        if self.kind == "log10":
            return ((0.0, f"≤ {number(self.low)}"), *powers)
        up = tuple((0.5 + 0.5 * at, word) for at, word in powers)
        down = tuple((0.5 - 0.5 * at, f"−{word}") for at, word in reversed(powers))
        return (*down, (0.5, f"±{number(self.low)}"), *up)

    def _powers(self) -> Iterator[tuple[float, str]]:
        """Yield powers of ten, over few decades with 2 and 5 times them, none at the low end."""
        most, few = (_MOST_TICKS, 2.2) if self.kind == "log10" else (4, 1)
        low, high = np.log10([self.low, self.high])
        first, last = int(np.ceil(low)), int(np.floor(high + 1e-9))
        every = max(1, -(-(last - first + 1) // most))
        factors = (5, 2, 1) if self.decades < few else (1,)
        ticks = [
            (exponent + np.log10(each), number(each * 10.0**exponent) if factors[1:] else power(exponent))
            for exponent in range(last, first - 2, -every)
            for each in factors
        ]
        places = [(float((at - low) / self.decades), word) for at, word in ticks]
        shown = [(at, word) for at, word in places if 0.08 < at < 1 + 1e-9]
        yield from shown or [(1.0, number(self.high))]

    def _linear_ticks(self) -> Iterator[tuple[float, str]]:
        span = self.high - self.low
        step = 10.0 ** np.floor(np.log10(span / 4))
        step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (factor * step) <= 5)
        for count in range(int(np.ceil(self.low / step - 1e-9)), int(np.floor(self.high / step + 1e-9)) + 1):
            yield (count * step - self.low) / span, number(count * step)


def scale_for(values: Array, kind: str, limits: tuple[float, float] | None = None) -> Scale:
    """Fit a scale to finite values, or to given limits.

    Logarithmic scales end at the largest magnitude and begin at the power of ten below 99 % of the others, no
    lower than 2⁻²⁴ of the largest; a linear one has 0 in its middle.

    >>> scale_for(np.array([-4.0, 1.0, np.nan]), "linear")
    Scale(kind='linear', low=-4.0, high=4.0)
    """
    if limits is not None:
        return Scale(kind, *limits)
    largest = largest_magnitude(values) or 1.0
    if kind == "linear":
        return Scale(kind, -largest, largest)
    largest = max(largest, _TINY)
    return Scale(kind, _lowest(np.asarray(values), largest), largest)


def _lowest(values: Array, largest: float) -> float:
    sizes = np.abs(values[np.isfinite(values) & (values != 0)]).astype(np.float64)
    place = int(_SMALLEST * sizes.size)
    first = float(np.partition(sizes, place)[place]) if sizes.size else largest
    exponent = np.floor(np.log10(first) + 1e-9)
    decade = float(10.0 ** (exponent if 10.0**exponent < largest else exponent - 1))
    return max(decade, largest * FLOOR)


def largest_magnitude(values: Array) -> float:
    """Return the largest finite magnitude; 0 if there is none."""
    values = np.asarray(values)
    sizes = np.abs(values.astype(np.float64, copy=False))
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))


def power(exponent: int) -> str:
    """Format a power of ten.

    >>> power(-3)
    '10⁻³'
    """
    return f"10{str(exponent).translate(_SUPERSCRIPT)}"


def number(value: float) -> str:
    """Format a number with two or three digits.

    >>> number(2.0**-24), number(0.25), number(-1500.0), number(1e-5)
    ('6.0·10⁻⁸', '0.25', '−1.5·10³', '10⁻⁵')
    """
    if value == 0 or 1e-3 <= abs(value) < 999.5:
        return f"{value:.3g}".replace("-", "−")
    if not np.isfinite(value):
        return {np.inf: "∞", -np.inf: "−∞"}.get(value, "NaN")
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}·{power(int(exponent))}".removeprefix("1.0·").replace("-1.0·", "−").replace("-", "−")
