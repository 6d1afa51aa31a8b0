"""The step Jacobian ds_t/ds_{t−1} along a captured trajectory: how a step changes a small difference.

Closed forms of `throughtime.cells` for LSTM, GRU and SimpleRNN; for every other cell what its framework has
found, which a capture keeps on request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime import cells
from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer, require
from throughtime._vocabulary import STANDARD_KINDS
from throughtime.diagnostics.checks import certified, require_unchanged, require_unprojected
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import runs_backward, valid_steps

STATES = ("state_unit", "state_unit_from")
NEEDED = ("kernel", "recurrent_kernel", "input", "hidden")
OPTIONAL = ("bias", "recurrent_bias", "cell", "initial_hidden", "initial_cell")
_SINGLE = ("direction", "step")  # dims that are solved separately

Values = Mapping[str, npt.NDArray[Any]]


@takes(DiagnosticError)
def state_jacobian(layer: Layer) -> xr.DataArray:
    """Differentiate the state after each step by the state before it.

    The state is h, for an LSTM h and c concatenated, for any other cell all its states in their order. It is
    as large as the square of the state at every step of every sample: select samples with .isel.

    Parameters
    ----------
    layer : one layer of a capture
        LSTM, GRU and SimpleRNN: with `input`, `hidden`, `kernel`, `recurrent_kernel`; `bias`, `cell` and
        initial states are used if present, and a missing initial state is 0. Any other cell: captured with
        `quantities=["all", "state_jacobian"]`.

    Returns
    -------
    DataArray (sample, time, [direction,] state_unit, state_unit_from)
        The identity at masked steps. Along `time` in the order of the input; for a direction that runs
        backward, the state before step t is that of t + 1.

    Raises
    ------
    DiagnosticError
        The certificate of the layer exceeds its limit, the loop changes the state between the steps, or the
        cell has no closed form and was captured without `state_jacobian`.

    Examples
    --------
    >>> from throughtime import testing
    >>> found = state_jacobian(testing.decaying(rate=0.5, units=2))
    >>> found.isel(sample=0, time=3).values
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    captured = require_unprojected(require_unchanged(certified(layer)))
    if "state_jacobian" in captured:
        found, valid = captured["state_jacobian"], valid_steps(captured)
        same = xr.DataArray(np.eye(found.sizes[STATES[0]], dtype=found.dtype), dims=STATES)
        return found if bool(valid.all()) else found.where(valid, same).transpose(*found.dims)
    if not has_closed_form(captured.attrs):
        name, kind = str(captured.attrs.get("layer", "This layer")).strip("/"), captured.attrs["kind"]
        raise DiagnosticError(
            f"{name} ({kind}) has no closed form, and its capture has no state_jacobian. Capture it with "
            "quantities=['all', 'state_jacobian']. lag_profile, memory_horizon and decay_rate need none."
        )
    return _compute(captured)


def has_closed_form(attributes: Mapping[Any, Any]) -> bool:
    """Whether `throughtime.cells` knows the Jacobian of a layer with these attributes.

    >>> has_closed_form({"kind": "lstm"}), has_closed_form({"kind": "lstm", "activation": "gelu"})
    (True, False)
    """
    activations = {str(attributes.get(name, "tanh")) for name in ("activation", "recurrent_activation")}
    return attributes.get("kind", STANDARD_KINDS[0]) in STANDARD_KINDS and activations <= {*cells.ACTIVATIONS}


def _compute(captured: xr.Dataset) -> xr.DataArray:
    arrays = {name: require(captured, name) for name in NEEDED}
    arrays |= {name: captured[name] for name in OPTIONAL if name in captured}
    arrays["valid"] = valid_steps(captured)
    size = int(captured["hidden"].sizes["unit"]) * (2 if captured.attrs.get("kind") == "lstm" else 1)
    found: xr.DataArray = apply(
        _along_trajectory,
        *arrays.values(),
        runs_backward(captured),
        over=[[str(dim) for dim in each.dims if dim not in _SINGLE] for each in arrays.values()],
        returns=[("sample", "time", *STATES)],
        types=[np.result_type(captured["hidden"].dtype, np.float32)],
        sizes=dict.fromkeys(STATES, size),
        vectorize=True,
        names=tuple(arrays),
        attributes=captured.attrs,
    )
    order = (dim for dim in ("sample", "time", *_SINGLE, *STATES) if dim in found.dims)
    return found.transpose(*order).rename("state_jacobian")


def _along_trajectory(
    *values: Any, names: tuple[str, ...], attributes: dict[str, Any]
) -> npt.NDArray[np.floating[Any]]:
    *arrays, backward = values
    of = dict(zip(names, arrays, strict=True))
    passed = cell_pass(of, backward=bool(backward))
    return cells.step_jacobians(cells.Layer.of(of, attributes), passed, of.get("cell"))


def cell_pass(of: Values, *, backward: bool) -> cells.Pass:
    """Return the forward pass of one direction, without gradients."""
    return cells.Pass(
        inputs=of["input"],
        hidden=of["hidden"],
        valid=None if of.get("valid") is None else np.asarray(of["valid"], dtype=bool),
        runs_backward=backward,
        initial=(of.get("initial_hidden"), of.get("initial_cell")),
    )
