"""Many samples as a median and a band of quantiles."""

from __future__ import annotations

import numpy as np

from throughtime._drawing.scale import Array


def quantiles(values: Array, shares: tuple[float, ...], axis: int = 0) -> list[Array]:
    """Quantiles along an axis of what is no NaN; NaN where nothing is.

    Examples
    --------
    >>> low, middle = quantiles(np.array([[1.0, np.nan], [3.0, np.nan]]), (0.0, 0.5))
    >>> low, middle
    (array([ 1., nan]), array([ 2., nan]))
    """
    # One sort for all of them: np.nanquantile goes column by column.
    ordered = np.sort(np.moveaxis(np.asarray(values, dtype=np.float64), axis, 0), axis=0)
    count = np.sum(~np.isnan(ordered), axis=0)
    found = []
    for share in shares:
        place = share * np.maximum(count - 1, 0)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.take_along_axis(ordered, each[None], axis=0)[0] for each in (below, above))
        with np.errstate(invalid="ignore"):
            found.append(np.where(low == high, low, low + (place - below) * (high - low)))
    return found
