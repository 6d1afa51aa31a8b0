"""`Colors`: values as codes into one list of colours; what is no usual value has a colour of its own.

NaN, infinities, exact zeros, masked steps, and what lies below or above the scale are colours like others, so
that no renderer can show two of them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from throughtime._drawing.scale import Array, Scale, number
from throughtime._text.printable import Printable

COLORS = 256  # of a map
WIDTH = 125  # codes a colour: a hover reads values to a part in 32,000 of the scale
TOP = COLORS * WIDTH - 1
ROUNDING = 1e-9  # a value at the very end of the scale is on it

# What is no usual value -> the colour it has unless `Colors` says otherwise, in the order of their codes.
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
    """How values become colours.

    Parameters
    ----------
    palette : tuple of 256 colours
        From the low end of the scale to the high one.
    scale : Scale
    label : str
        What is shown, beside the colour bar.
    limited : bool
        The limits are the caller's: what lies outside is clipped, not below a numerical floor.
    specials : mapping
        Colours of what is no usual value, by the names of `SPECIALS`.
    untold : tuple of str
        Specials that no legend has to name.
    is_magnitude : bool
        The palette runs from the colour of the paper to its opposite, so that on dark paper it turns round.

    Examples
    --------
    >>> grey = tuple(f"#{shade:02x}{shade:02x}{shade:02x}" for shade in range(256))
    >>> Colors(grey, Scale("linear", 0.0, 1.0)).codes(np.array([0.0, 0.5, 1.0, np.nan]))
    array([  -63, 16000, 31999,  -563], dtype=int16)
    """

    palette: tuple[str, ...]
    scale: Scale
    label: str = ""
    limited: bool = False
    specials: Mapping[str, str] = field(default_factory=dict)
    untold: tuple[str, ...] = ()
    is_magnitude: bool = False

    def codes(self, values: Array, valid: Array | None = None) -> Array:
        """Give each value its code: 0 to 31,999 on the scale, below 0 for the others."""
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
        """Where each special stands, a later one over an earlier."""
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
        """Colour of what is no usual value."""
        return self.specials.get(special, SPECIALS[special])

    def on_dark(self) -> Colors:
        """Give the colours on dark paper, where light is large."""
        if not self.is_magnitude:
            return self
        places = np.linspace(COLORS - 1 - _DARKEST, 0, COLORS).round().astype(int)
        shades = tuple(self.palette[place] for place in places)
        return replace(self, palette=shades, specials={**self.specials, **ON_DARK})

    def listed(self) -> tuple[str, ...]:
        """All colours in the order of their codes, the last special first."""
        return (*(self.color_of(name) for name in reversed([*SPECIALS])), *self.palette)

    def word(self, special: str) -> str:
        """Say what a special colour means, for a legend."""
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
    """First code that is a colour at all; what lies lower is not drawn."""
    return -WIDTH * len(SPECIALS)


def counted(codes: Array) -> dict[str, int]:
    """How many cells are none of the usual values, by what they are.

    Examples
    --------
    >>> counted(np.array([12, CODE["nan"], CODE["nan"]], dtype=np.int16))
    {'nan': 2}
    """
    special = codes[codes < 0]
    found = {name: int(np.count_nonzero(special == CODE[name])) for name in SPECIALS}
    return {name: count for name, count in found.items() if count}
