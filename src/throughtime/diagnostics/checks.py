"""The checks with which every measure begins: the certificate of the capture, its precision, thresholds.

The measures of this folder take every layer through `certified`.
"""

import xarray as xr

from throughtime import cells
from throughtime._errors import DiagnosticError, warn
from throughtime._tree import Layer
from throughtime._tree import layer as one_layer
from throughtime._vocabulary import CERTIFICATES, STANDARD_KINDS
from throughtime.cells import PRECISIONS, Precision
from throughtime.diagnostics.labelled import once

_DESCRIPTIONS = ("long_name", "description")
_DTYPE_OF = ("hidden_gradient", "lag_matrix", "hidden", "gate_activation", "recurrent_kernel")


def precision(layer: xr.Dataset) -> Precision:
    """Precision in which a layer computed."""
    return PRECISIONS[dtype_of(layer)]


def dtype_of(layer: xr.Dataset) -> str:
    """Name of the layer's precision: its attribute `dtype`, else that of its arrays."""
    dtypes = [str(layer[name].dtype) for name in _DTYPE_OF if name in layer]
    name = str(layer.attrs.get("dtype", dtypes[0] if dtypes else "float32"))
    if name not in PRECISIONS:
        raise DiagnosticError(f"dtype is {name!r}; diagnostics support {', '.join(PRECISIONS)}.")
    return name


def certified(captured: Layer) -> xr.Dataset:
    """Return the one layer, or refuse it if its gradients disagree with the framework's own gradients.

    This reads only the few numbers of the certificate; the rest of a lazily loaded layer stays unread. A
    layer passes if it has no certificate, or if its certificate is undefined (NaN: nothing to compare). One
    that is above its bar, but within the limit, is a warning.

    >>> from throughtime import testing
    >>> certified(testing.decaying(rate=0.5)).sizes["time"]
    50
    """
    return once(_certified, captured)


def _certified(captured: Layer) -> xr.Dataset:
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
    """Remove the description of each variable, which xarray would copy to the measures."""
    bare = layer.copy(deep=False)
    for variable in bare.variables.values():
        variable.attrs = {name: each for name, each in variable.attrs.items() if name not in _DESCRIPTIONS}
    return bare


def certificate_error(layer: xr.Dataset) -> float:
    """Largest error of a layer's certificates; 0 if none is defined."""
    return max((_worst(layer, name) for name in CERTIFICATES if name in layer), default=0.0)


def why_refused(layer: xr.Dataset) -> str:
    """Return a message about a certificate beyond the limit of the layer's dtype; empty if all are within."""
    dtype = dtype_of(layer)
    for name in CERTIFICATES:
        if name in layer and not (worst := _worst(layer, name)) <= cells.limit(dtype):
            of = layer.attrs.get("layer", "this layer")
            if worst == float("inf"):
                return (
                    f"{name} of {of} is infinite. tt.diagnostics.first_nonfinite names the first value that "
                    "is not finite; if there is none, please report the model as a bug."
                )
            return (
                f"The gradients of {of} do not agree with the "
                f"framework's own: {name} is {worst:.3g}, {dtype} allows {cells.bar(dtype):.0e}, and beyond "
                f"{cells.limit(dtype):.0e} an answer could change. No diagnosis is made from them. Capture "
                "again, in float32 or float64 if this was mixed precision; if the error persists, please "
                "report the model as a bug."
            )
    return ""


def agreement(layer: xr.Dataset) -> str:
    """Write whether a layer's gradients agree with the framework's own."""
    known = [layer[name] for name in CERTIFICATES if name in layer]
    if not any(each.notnull().any() for each in known):
        return "no second computation to compare"
    error, dtype = certificate_error(layer), dtype_of(layer)
    if error > cells.limit(dtype):
        return "does not agree: no measure is made from it"
    return "agrees" if error <= cells.bar(dtype) else "agrees, with more rounding than usual"


def _worst(layer: xr.Dataset, name: str) -> float:
    return float(layer[name].fillna(0.0).max(keep_attrs=False))


def require_vectors(captured: Layer) -> xr.Dataset:
    """Return one layer as `certified` does, if its state is one vector per sample and has one matrix.

    An image, several vectors, or a state that is changed between the cell's calls raise DiagnosticError.
    """
    layer = require_unprojected(require_unchanged(certified(captured)))
    if layer.attrs.get("kind") in (*STANDARD_KINDS, None):
        return layer
    state = ", ".join(str(layer.attrs.get("states", "hidden")).split(", "))
    raise DiagnosticError(
        f"{layer.attrs.get('layer', 'This layer')} is a {layer.attrs['kind']} with the state {state}: this "
        f"measure needs the gates and the recurrent matrix of {', '.join(STANDARD_KINDS)}. lag_profile, "
        "memory_horizon and decay_rate work for any cell."
    )


def require_unprojected(layer: xr.Dataset) -> xr.Dataset:
    """Return the layer; refuse an LSTM whose hidden state is projected, and thus not as wide as its gates."""
    if "projection" in layer or (layer.attrs.get("kind") == "lstm" and "cell_unit" in layer.sizes):
        raise DiagnosticError(
            f"{layer.attrs.get('layer', 'This layer')} has a projection from its cell to its hidden state: "
            "this measure needs a square recurrent matrix. lag_profile, memory_horizon, decay_rate and "
            "timescale support it."
        )
    return layer


def require_unchanged(layer: xr.Dataset) -> xr.Dataset:
    """Return the layer; refuse a cell in a loop that changes its state between the calls."""
    if layer.attrs.get("states_changed"):
        raise DiagnosticError(
            f"{layer.attrs.get('layer', 'This cell')} is called in a loop that changes its state between the "
            "calls, so the cell alone does not define the step from state to state. lag_profile, "
            "memory_horizon and decay_rate support it."
        )
    return layer
