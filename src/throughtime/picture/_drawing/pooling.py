"""Shrinks an image to the available pixels without losing a spike."""

import numpy as np

from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import Array


def pooled(image: Array, rows: int, columns: int) -> Array:
    """Shrink to at most one cell per pixel, each with the value of largest magnitude; NaN comes first.

    Skipping cells instead would lose single spikes.

    >>> pooled(np.array([[0.0, 0.1, -3.0, 0.2]]), rows=10, columns=2)
    array([[ 0.1, -3. ]])
    """
    for axis, most in ((0, rows), (1, columns)):
        starts = _starts(image.shape[axis], most)
        if starts is not None:
            high = np.maximum.reduceat(image, starts, axis=axis)
            low = np.minimum.reduceat(image, starts, axis=axis)
            image = np.where(np.abs(low) > np.abs(high), low, high)
    return image


def pooled_flags(flags: Array, rows: int, columns: int) -> Array:
    """Shrink flags like `pooled`: a cell has the flag if all its values have it."""
    for axis, most in ((0, rows), (1, columns)):
        starts = _starts(flags.shape[axis], most)
        if starts is not None:
            flags = np.logical_and.reduceat(flags, starts, axis=axis)
    return flags


def pooled_codes(colors: Colors, values: Array, valid: Array | None, rows: int, columns: int) -> Array:
    """Return the code of each pixel; masked values do not count unless all values of the pixel are masked."""
    if valid is None:
        return colors.codes(pooled(values, rows, columns))
    valid = np.broadcast_to(valid, values.shape)
    shown = pooled(np.where(valid, values, 0.0), rows, columns)
    return colors.codes(shown, ~pooled_flags(~valid, rows, columns))


def _starts(length: int, most: int) -> Array | None:
    """Return the first cell of each pixel, or None if there are enough pixels."""
    most = max(1, most)
    if length <= most:
        return None
    return np.asarray((np.arange(most) * length) // most)
