"""What every measure checks first: the certificate of the capture, its precision, thresholds.

`certified` is the one entrance through which the measures of this folder take a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from throughtime import cells
from throughtime._errors import DiagnosticError, warn
from throughtime._tree import Layer
from throughtime._tree import layer as one_layer
from throughtime._vocabulary import CERTIFICATES, STANDARD_KINDS

_DESCRIPTIONS = ("long_name", "description")
_DTYPE_OF = ("hidden_gradient", "lag_matrix", "hidden", "gate_activation", "recurrent_kernel")


@dataclass(frozen=True)
class Precision:
    """What a floating-point format can hold."""

    epsilon: float
    smallest_normal: float


PRECISIONS = {
    "float64": Precision(2.0**-52, 2.0**-1022),
    "float32": Precision(2.0**-23, 2.0**-126),
    "float16": Precision(2.0**-10, 2.0**-14),
    "bfloat16": Precision(2.0**-7, 2.0**-126),
}


def precision(layer: xr.Dataset) -> Precision:
    """Precision in which a layer computed.

    Raises
    ------
    DiagnosticError
        The dtype is no floating-point format known here.
    """
    return PRECISIONS[dtype_of(layer)]


def dtype_of(layer: xr.Dataset) -> str:
    """Name of the layer's precision: its attribute `dtype`, else that of its arrays."""
    held = [str(layer[name].dtype) for name in _DTYPE_OF if name in layer]
    name = str(layer.attrs.get("dtype", held[0] if held else "float32"))
    if name not in PRECISIONS:
        raise DiagnosticError(f"dtype is {name!r}; diagnostics know {', '.join(PRECISIONS)}.")
    return name


def certified(captured: Layer) -> xr.Dataset:
    """Take one layer, and refuse it where its gradients do not add up to the framework's own.

    The few numbers of the certificate are read here; everything else of a lazily loaded layer stays
    unread. A certificate that is not defined (NaN: nothing to compare) passes, a layer without one too.

    Raises
    ------
    DiagnosticError
        A certificate is beyond the limit of the layer's dtype.
    SchemaError
        There is not exactly one layer.

    Warns
    -----
    ThroughTimeWarning
        A certificate is above the bar of the layer's dtype, and within the limit.

    Examples
    --------
    >>> from throughtime import testing
    >>> certified(testing.decaying(rate=0.5)).sizes["time"]
    50
    """
    layer = one_layer(captured)
    if reason := why_refused(layer):
        raise DiagnosticError(reason)
    error, dtype = certificate_error(layer), dtype_of(layer)
    if error > cells.bar(dtype):
        warn(
            f"The certificate of {layer.attrs.get('layer', 'this layer')} is {error:.1e}, above "
            f"{cells.bar(dtype):.0e}: digits beyond that error are rounding."
        )
    return _without_descriptions(layer)


def _without_descriptions(layer: xr.Dataset) -> xr.Dataset:
    """Leave out what each variable is, which xarray would carry over to the measures of it."""
    bare = layer.copy(deep=False)
    for variable in bare.variables.values():
        variable.attrs = {name: each for name, each in variable.attrs.items() if name not in _DESCRIPTIONS}
    return bare


def certificate_error(layer: xr.Dataset) -> float:
    """Largest error of a layer's certificates; 0 where none is defined."""
    return max((_worst(layer, name) for name in CERTIFICATES if name in layer), default=0.0)


def why_refused(layer: xr.Dataset) -> str:
    """Say which certificate is beyond the limit of the layer's dtype; empty where none is."""
    dtype = dtype_of(layer)
    for name in CERTIFICATES:
        if name in layer and not (worst := _worst(layer, name)) <= cells.limit(dtype):
            return (
                f"The gradients of {layer.attrs.get('layer', 'this layer')} do not agree with the "
                f"framework's own: {name} is {worst:.3g}, {dtype} allows {cells.bar(dtype):.0e}, and beyond "
                f"{cells.limit(dtype):.0e} an answer could change. No diagnosis is made from them; capture "
                "again, in float32 or float64 if this was mixed precision, and report the model if it stays."
            )
    return ""


def _worst(layer: xr.Dataset, name: str) -> float:
    return float(layer[name].fillna(0.0).max(keep_attrs=False))


def certified_vectors(captured: Layer) -> xr.Dataset:
    """Take one layer as `certified` does, if its state is one vector a sample.

    Raises
    ------
    DiagnosticError
        The state is an image, several vectors, or no longer what the cell made of it: the measure is
        defined for one recurrent matrix.
    """
    layer = unprojected(unchanged(certified(captured)))
    if layer.attrs.get("kind") in (*STANDARD_KINDS, None):
        return layer
    state = ", ".join(str(layer.attrs.get("states", "hidden")).split(", "))
    raise DiagnosticError(
        f"{layer.attrs.get('layer', 'This layer')} is a {layer.attrs['kind']} with the state {state}: this "
        f"measure needs the gates and the recurrent matrix of {', '.join(STANDARD_KINDS)}. lag_profile, "
        "memory_horizon and decay_rate work for any cell."
    )


def unprojected(layer: xr.Dataset) -> xr.Dataset:
    """Take a layer whose hidden state is as wide as its gates.

    Raises
    ------
    DiagnosticError
        It is an LSTM with a projection.
    """
    if "projection" in layer or (layer.attrs.get("kind") == "lstm" and "cell_unit" in layer.sizes):
        raise DiagnosticError(
            f"{layer.attrs.get('layer', 'This layer')} has a projection from its cell to its hidden state: "
            "this measure needs a square recurrent matrix. lag_profile, memory_horizon, decay_rate and "
            "timescale work for it."
        )
    return layer


def unchanged(layer: xr.Dataset) -> xr.Dataset:
    """Take a layer whose every step starts from where the step before ended.

    Raises
    ------
    DiagnosticError
        It is a cell in a loop that changes the state between the calls.
    """
    if layer.attrs.get("states_changed"):
        raise DiagnosticError(
            f"{layer.attrs.get('layer', 'This cell')} is called in a loop that changes its state between the "
            "calls: what a step does to the next is not in the cell alone. lag_profile, memory_horizon and "
            "decay_rate work for it."
        )
    return layer
