"""Scales and colours fitted to a quantity, and the label of its colour bar."""

from dataclasses import dataclass

import numpy as np

from throughtime.picture._drawing.colors import SPECIALS, Colors
from throughtime.picture._drawing.palettes import DIVERGING, SEQUENTIAL, palette
from throughtime.picture._drawing.scale import Array, Scale, largest_magnitude, scale_for
from throughtime.plots.data import Source
from throughtime.plots.look import Look

OTHER_ZERO = "#d5f2d5"
NEARLY_WHITE = 735  # of 765, the sum of red, green and blue
OWN = " ÷ largest of each"


@dataclass(frozen=True)
class Fitted:
    """A scale with its label."""

    scale: Scale
    label: str
    limited: bool


def fitted(source: Source, values: Array, look: Look) -> Fitted:
    """Fit the scale of a quantity to its values; those of masked steps are NaN."""
    kind = look.get("scale") or ("log10" if source.is_gradient else "linear")
    limits = look.get("limits")
    if limits is None and kind == "linear":
        scale = scale_for(values, kind, _gate_range(source, values))
    else:
        scale = scale_for(values, kind, limits)
    own = OWN if look.get("share") is False else ""
    return Fitted(scale, scale.label(f"{source.symbol_on(scale)}{own}"), limits is not None)


def colors(source: Source, values: Array, look: Look) -> Colors:
    """Fit colours: from light to dark for magnitudes and for gates of 0 to 1, otherwise diverging at 0.

    Magnitudes are in order: white is 0, pale grey is below the scale, then light to dark.
    """
    fit = fitted(source, values, look)
    is_ordered = fit.scale.kind == "log10" or (_gate_range(source, values) or (-1,))[0] == 0
    name = look.get("cmap") or (SEQUENTIAL if is_ordered else DIVERGING)
    shades = palette(name)
    specials = _zero_beside(shades, fit.scale)
    if fit.scale.kind == "log10":
        specials["clipped_low"] = SPECIALS["below"]
    is_magnitude = name == SEQUENTIAL
    return Colors(shades, fit.scale, fit.label, fit.limited, specials, is_magnitude=is_magnitude)


def _zero_beside(shades: tuple[str, ...], scale: Scale) -> dict[str, str]:
    """Give exact zeros another colour if the map is white around 0, as `bwr` is."""
    nearest = shades[int(np.clip(float(scale.position(np.zeros(1))[0]), 0.0, 1.0) * (len(shades) - 1))]
    lightness = sum(int(nearest[place : place + 2], 16) for place in (1, 3, 5))
    return {"zero": OTHER_ZERO} if lightness > NEARLY_WHITE else {}


def _gate_range(source: Source, values: Array) -> tuple[float, float] | None:
    """Return the range of gates: 0 to 1, or −1 to 1 if some are negative."""
    if source.name != "gate_activation" or not largest_magnitude(values) <= 1:
        return None
    return (-1.0, 1.0) if (values < 0).any() else (0.0, 1.0)


def own_scale(values: Array, axes: tuple[int, ...]) -> Array:
    """Divide by the largest finite magnitude along some axes; if all are 0, they remain 0."""
    sizes = np.abs(np.where(np.isfinite(values), values, 0.0)).astype(np.float64)
    largest = sizes.max(axis=axes, keepdims=True)
    return np.asarray(values / np.where(largest > 0, largest, 1.0))
