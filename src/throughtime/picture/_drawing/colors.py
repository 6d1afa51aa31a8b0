"""`Colors`: values as codes into one list of colours; special values have separate colours.

NaN, infinities, exact zeros, masked steps, and values below or above the scale are colours like others, so
that no renderer can confuse two of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from throughtime._common.text.printable import Printable
from throughtime.picture._drawing.scale import Array, Scale, number

COLORS = 256  # of a map
WIDTH = 125  # codes per colour: a hover reads values to 1/32,000 of the scale
TOP = COLORS * WIDTH - 1
ROUNDING = 1e-9  # a value at the end of the scale is inside

# Default colours of special values, in the order of their codes.
SPECIALS: Mapping[str, str] = {
    "zero": "#ffffff",
    "below": "#e3e3e8",
    "clipped_low": "#4a4a55",
    "above": "#ff2fb3",
    "nan": "#e8e200",
    "positive_infinity": "#ff6a00",
    "negative_infinity": "#00c2e0",
    "masked": "#eeeeee",
}
ON_DARK = {"zero": "#16181d", "below": "#2a2d33", "clipped_low": "#2a2d33", "masked": "#1d1f24"}
_DARKEST = 26  # shades of a map that are lost on dark paper
CODE = {name: -WIDTH * place - WIDTH // 2 - 1 for place, name in enumerate(SPECIALS)}


@dataclass(frozen=True)
class Colors(Printable):
    """The colours of values: 256 from the low end of the scale to the high one, and those of `SPECIALS`.

    >>> grey = tuple(f"#{shade:02x}{shade:02x}{shade:02x}" for shade in range(256))
    >>> Colors(grey, Scale("linear", 0.0, 1.0)).codes(np.array([0.0, 0.5, 1.0, np.nan]))
    array([  -63, 16000, 31999,  -563], dtype=int16)
    """

    palette: tuple[str, ...]
    scale: Scale
    label: str = ""  # of the colour bar
    limited: bool = False  # by the caller: values outside are clipped, not below a numerical floor
    specials: Mapping[str, str] = field(default_factory=dict)
    unlisted: tuple[str, ...] = ()  # specials that are not in the legend
    is_magnitude: bool = False  # begins with the colour of the paper, and is reversed on dark paper

    def codes(self, values: Array, valid: Array | None = None) -> Array:
        """Return the code of each value: 0 to 31,999 on the scale, below 0 for special values."""
        values = np.asarray(values, dtype=np.float64)
        position = self.scale.position(values)
        with np.errstate(invalid="ignore"):
            codes = np.rint(np.clip(np.nan_to_num(position, nan=0.0), 0.0, 1.0) * TOP).astype(np.int16)
        for name, places in self._places(values, position).items():
            codes[places] = CODE[name]
        if valid is not None:
            codes[~np.broadcast_to(valid, codes.shape)] = CODE["masked"]
        return np.asarray(codes)

    def _places(self, values: Array, position: Array) -> dict[str, Array]:
        """Return the places of each special value; later ones replace earlier ones."""
        under = position < -ROUNDING
        magnitudes = {"log10": under, "signed_log": np.abs(values) < self.scale.low * (1 - ROUNDING)}
        small = magnitudes.get(self.scale.kind, np.zeros_like(under))
        clipped = small if self.limited and self.scale.kind == "log10" else under & ~small
        return {
            "below": small,
            "clipped_low": clipped,
            "above": position > 1 + ROUNDING,
            "zero": values == 0,
            "nan": np.isnan(values),
            "positive_infinity": np.isposinf(values),
            "negative_infinity": np.isneginf(values),
        }

    def color_of(self, special: str) -> str:
        """Return the colour of a special value."""
        return self.specials.get(special, SPECIALS[special])

    def on_dark(self) -> Self:
        """Return the colours for dark paper, on which light colours are large."""
        if not self.is_magnitude:
            return self
        places = np.linspace(COLORS - 1 - _DARKEST, 0, COLORS).round().astype(int)
        shades = tuple(self.palette[place] for place in places)
        return replace(self, palette=shades, specials={**self.specials, **ON_DARK})

    def listed(self) -> tuple[str, ...]:
        """List all colours in the order of their codes, the last special first."""
        return (*(self.color_of(name) for name in reversed([*SPECIALS])), *self.palette)

    def word(self, special: str) -> str:
        """Return the meaning of a special colour, for a legend."""
        low, high, kind = self.scale.low, self.scale.high, self.scale.kind
        edge = number(low)
        words = {
            "zero": "exactly 0",
            "below": f"not 0, below {edge}",
            "clipped_low": f"below {number(-high) if kind == 'signed_log' else edge}, clipped",
            "above": f"above {number(high)}, clipped",
            "nan": "NaN",
            "positive_infinity": "+∞",
            "negative_infinity": "−∞",
            "masked": "masked",
        }
        return words[special]


def lowest_code() -> int:
    """Return the lowest code of a colour; lower codes are not drawn."""
    return -WIDTH * len(SPECIALS)


def counted(codes: Array) -> dict[str, int]:
    """Count the special values among codes, by name.

    >>> counted(np.array([12, CODE["nan"], CODE["nan"]], dtype=np.int16))
    {'nan': 2}
    """
    special = codes[codes < 0]
    found = {name: int(np.count_nonzero(special == CODE[name])) for name in SPECIALS}
    return {name: count for name, count in found.items() if count}
