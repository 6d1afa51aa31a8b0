"""Runs what measures compute: NumPy functions on labelled arrays; work that they share, once per layer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import xarray as xr

Made = TypeVar("Made")
_known: ContextVar[dict[Any, Any] | None] = ContextVar("known", default=None)


def apply(
    function: Callable[..., Any],
    *arrays: xr.DataArray,
    over: Sequence[Sequence[str]] = (),
    returns: Sequence[Sequence[str]] = ((),),
    types: Sequence[Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    vectorize: bool = False,
    **settings: Any,
) -> Any:
    """Apply a function to arrays with labels, chunk by chunk if they are lazy.

    `over` and `returns` list the dims that are the last axes of each array and of each result, `types` the
    dtypes of results, and `sizes` has new dims. With `vectorize` the function takes no other axes.

    >>> values = xr.DataArray([[1.0, 2.0], [3.0, 4.0]], dims=("time", "sample"))
    >>> apply(np.sum, values, over=[("time",)], axis=-1).values
    array([4., 6.])
    """
    return xr.apply_ufunc(
        function,
        *arrays,
        input_core_dims=[*map(list, over), *([] for _ in arrays[len(over) :])],
        output_core_dims=[*map(list, returns)],
        vectorize=vectorize,
        kwargs=settings,
        dask="parallelized",
        output_dtypes=types or [np.float64] * len(returns),
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": dict(sizes or {})},
    )


@contextmanager
def remember() -> Iterator[None]:
    """Check and order each layer only once; meanwhile, layers must not change."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def once(make: Callable[[Any], Made], layer: Any) -> Made:
    """Return `make(layer)`, within `remember` the same object for the same layer."""
    known = _known.get()
    if known is None:
        return make(layer)
    key = make, id(layer)
    if key not in known:
        known[key] = layer, make(layer)  # the layer as well, so that no other gets its id
    made: Made = known[key][1]
    return made
