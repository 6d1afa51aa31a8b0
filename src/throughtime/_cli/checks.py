"""What is wrong with a run: arrays that cannot be read, certificates, numbers that are not finite."""

from __future__ import annotations

from collections.abc import Iterator

import xarray as xr

import throughtime as tt
from throughtime.diagnostics.checks import why_refused

from .runs import arrays


def complaints(tree: xr.DataTree) -> Iterator[str]:
    """Yield what is wrong: arrays that cannot be read, certificates above their bars, the first NaN."""
    for key, array in arrays(tree):
        try:
            array.load()
        except Exception as error:  # zarr, its codecs and the file system each have their own
            yield f"{key} cannot be read: {type(error).__name__}: {error}"
            return
    for leaf in tree.leaves:
        if leaf.data_vars and (reason := why_refused(leaf.to_dataset())):
            yield reason
    if (broken := tt.diagnostics.first_nonfinite(tree)) is not None:
        yield str(broken)
