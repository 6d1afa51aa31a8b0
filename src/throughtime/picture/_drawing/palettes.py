"""Colour maps by name, as lists of colours: perceptually uniform, also for colour-blind readers."""

from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex

from throughtime._errors import PictureError
from throughtime.picture._drawing.colors import COLORS
from throughtime.picture._drawing.theme import DISTINCT

# Crameri, Shephard & Heron 2020, The misuse of colour in science communication.
DIVERGING = "vik"
SEQUENTIAL = "batlow_r"  # from light to dark: dark is large
COUNTS = "lajolla_r"


@lru_cache(maxsize=32)
def palette(name: str) -> tuple[str, ...]:
    """Return 256 colours of a map of cmcrameri or matplotlib, from low to high.

    >>> palette("bwr")[0], palette("bwr")[-1]
    ('#0000ff', '#ff0000')
    """
    return tuple(to_hex(color) for color in _table(str(name).removeprefix("cmc.")))


def hues(count: int) -> list[str]:
    """Return a colour for each of several curves: distinct ones, or the order of a map if there are many."""
    if count <= len(DISTINCT):
        return list(DISTINCT[:count])
    return [palette("batlow")[int(place)] for place in np.linspace(0, 200, count)]


def _table(name: str) -> npt.NDArray[np.float64]:
    base = name.removesuffix("_r")
    # Importing cmcrameri would load pyplot and register its maps.
    path = Path(str(distribution("cmcrameri").locate_file(f"cmcrameri/cmaps/{base}.txt")))
    if base.isalnum() and path.is_file():
        table = np.loadtxt(path)
        return table[::-1] if name.endswith("_r") else table
    if name in mpl.colormaps:
        return np.asarray(mpl.colormaps[name](np.linspace(0, 1, COLORS)))
    raise PictureError(
        f"There is no colour map {name!r}. Try 'vik', 'batlow', 'lajolla', 'bwr', 'RdBu_r' or 'viridis'."
    )
